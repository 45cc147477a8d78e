//! Privileges that come with the program's file, and not with who runs it.
//!
//! In: what the kernel says of this process. Out: whether hotr may read files and run commands for its caller.

/// Under file capabilities, or set-uid, hotr may read what its caller may not. To compare content is to say what it is
/// (one guess a file), to keep it is to copy it, and rules and pid files are read as well.
///
/// # Errors
/// A sentence, when the privileges are not the caller's.
pub(super) fn may_read_content() -> Result<(), String> {
    if are_of_caller() {
        return Ok(());
    }
    Err("watch files with the capabilities of the program's file: content is compared, kept and acted on, which its \
         caller may not be allowed to read; run hotr watch as root, or in a systemd unit with AmbientCapabilities="
        .to_owned())
}

/// A file is opened for writing where another process watches it. Whoever may do that everywhere is root.
///
/// # Errors
/// A sentence, when the privileges are not the caller's, or not enough.
pub(super) fn may_announce() -> Result<(), String> {
    if rustix::process::geteuid().is_root() && are_of_caller() {
        return Ok(());
    }
    Err("relay: permission denied: it opens files that others watch; run it as root".to_owned())
}

/// Whether the privileges come from who runs hotr.
fn are_of_caller() -> bool {
    // SAFETY: no pointer is involved.
    unsafe { libc::getauxval(libc::AT_SECURE) == 0 }
}
