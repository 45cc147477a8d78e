//! Privileges that come with the program's file, and not with who runs it.
//!
//! In: what the kernel says of this process. Out: whether hotr may read files and run commands for its caller.

/// Under file capabilities, or set-uid, hotr may read what its caller may not. To compare content is to say what it is
/// (one guess a file), to keep it is to copy it, and rules and pid files are read as well.
///
/// # Errors
/// A sentence, when the privileges are not the caller's.
pub(super) fn may_read_content() -> Result<(), String> {
    // SAFETY: no pointer is involved.
    if unsafe { libc::getauxval(libc::AT_SECURE) } == 0 {
        return Ok(());
    }
    Err("watch files with the capabilities of the program's file: content is compared, kept and acted on, which its \
         caller may not be allowed to read; run hotr watch as root, or in a systemd unit with AmbientCapabilities="
        .to_owned())
}
