//! What a reload does: run a command, restart a service, signal a process; and what surrounds it: validation, health
//! checks, backups.
//!
//! In: confirmed changes and the user's choice. Out: processes and signals. Nothing here knows where changes come
//! from.

pub mod backup;
pub mod check;
mod descendants;
pub mod emit;
pub mod group;
pub mod identity;
mod spawn;
pub mod target;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;

pub use emit::Emit;
pub use group::Group;
pub use identity::Identity;
pub use target::Target;

/// How a command is run.
#[derive(Clone, Debug)]
pub struct CommandSpec {
    /// The program and its arguments; never empty.
    pub words: Vec<OsString>,
    /// Working directory; hotr's own when none.
    pub dir: Option<PathBuf>,
    /// Variables added to hotr's own.
    pub env: Vec<(OsString, OsString)>,
    /// Its stdout goes to hotr's stderr, because hotr's stdout is for reports.
    pub stdout_to_stderr: bool,
    /// Who it runs as; as hotr when none.
    pub identity: Option<Identity>,
}

impl CommandSpec {
    /// The same surroundings for other words.
    #[must_use]
    pub fn with_words(&self, words: Vec<OsString>) -> Self {
        Self { words, ..self.clone() }
    }
}

/// How a command is stopped.
#[derive(Clone, Copy, Debug)]
pub struct StopSpec {
    /// Sent to its process group first.
    pub signal: Signal,
    /// How long the group may take before SIGKILL.
    pub timeout: Duration,
}

/// What a reload does.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Action {
    /// Nothing: confirmed changes are reported only.
    Report,
    /// Runs a command to its end.
    Run(CommandSpec),
    /// Keeps a command running, and restarts it.
    Restart(CommandSpec),
    /// Sends a signal.
    Signal(Target, Signal),
}

impl Action {
    /// Who its command runs as, if not as hotr.
    #[must_use]
    pub const fn identity(&self) -> Option<&Identity> {
        match self {
            Self::Run(command) | Self::Restart(command) => command.identity.as_ref(),
            Self::Report | Self::Signal(..) => None,
        }
    }

    /// Whether changes are reported only.
    #[must_use]
    pub const fn is_report(&self) -> bool {
        matches!(self, Self::Report)
    }
}

/// What happens to changes that are confirmed while a command runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Busy {
    /// They are dropped.
    DoNothing,
    /// One more reload follows.
    Queue,
    /// The command is ended and run again.
    Restart,
    /// The command's process group gets the stop signal.
    Signal,
}
