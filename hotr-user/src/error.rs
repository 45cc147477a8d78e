//! Errors that end a run. A message is lower case and has four parts: operation, object, cause, next step.

use std::io;
use std::path::PathBuf;

/// Why a run could not start or continue.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A path given by the user cannot be watched.
    #[error("watch {}: {cause}; {next}", path.display())]
    Path {
        /// The path as given.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
        /// What the user can do.
        next: String,
    },
    /// A channel that was named explicitly cannot run.
    #[error("start channel {channel}: {cause}; {next}")]
    Channel {
        /// `ebpf`, `inotify`.
        channel: &'static str,
        /// What is missing.
        cause: String,
        /// What the user can do.
        next: String,
    },
    /// A pattern of paths makes no sense.
    #[error("read the pattern {pattern:?}: {cause}; write it as in .gitignore")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        cause: String,
    },
    /// A system call failed.
    #[error("{operation} {object}: {source}; {next}")]
    Os {
        /// What was tried.
        operation: &'static str,
        /// On what.
        object: String,
        /// The system's answer.
        source: io::Error,
        /// What the user can do.
        next: &'static str,
    },
    /// Writing a report failed; a closed pipe is not an error but the end.
    #[error("write report to stdout: {0}; free space or give another output")]
    Output(io::Error),
}
