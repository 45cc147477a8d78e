//! Whether a thread has nothing to do, asked of the kernel.

/// Whether the text of a thread's `stat` in `/proc` says that it sleeps until something comes.
#[must_use]
pub fn is_asleep(stat: &str) -> bool {
    // The state follows the name in brackets, which may hold anything.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S'))
}
