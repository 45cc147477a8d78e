//! Why an agent does not run, and why a subscriber has none.

use std::io;
use std::path::PathBuf;

use crate::kernel::load::LoadError;

/// Why an agent could not start or continue.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// It is not run by root.
    #[error(
        "start the agent: it must take on the rights of each subscriber, which only root may; run it as root"
    )]
    NotRoot,
    /// The socket cannot be used.
    #[error("listen on {}: {cause}; {next}", path.display())]
    Socket {
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
        /// What to do.
        next: &'static str,
    },
    /// The socket that was passed at the start cannot be used.
    #[error("listen on the socket that was passed (LISTEN_FDS): {cause}; pass one listening stream socket")]
    Inherited {
        /// What is wrong with it.
        cause: String,
    },
    /// The kernel programs cannot run.
    #[error("start the agent: {0}; `hotr doctor` says what this kernel allows")]
    Kernel(String),
    /// A system call failed.
    #[error("{operation}: {source}; raise the limit of open files (`ulimit -n`)")]
    Os {
        /// What was tried.
        operation: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

impl From<LoadError> for AgentError {
    fn from(error: LoadError) -> Self {
        Self::Kernel(error.to_string())
    }
}

/// Why a subscriber gets nothing, or nothing more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// There is no agent.
    #[error("subscribe at {}: {source}; start `hotr agent`, or name its socket with --socket", path.display())]
    Connect {
        /// The socket's path.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The agent has ended, or was killed: changes from now on are missed.
    #[error(
        "read from the agent: it has ended, and what changes from now on is missed; start it and subscribe again"
    )]
    Gone,
    /// The agent refuses this subscriber.
    #[error("subscribe: the agent says: {0}")]
    Refused(String),
    /// What answers is no agent of this protocol.
    #[error("read from the agent: {0}; use the same version of hotr on both sides")]
    Protocol(String),
    /// A system call failed.
    #[error("talk to the agent: {0}; subscribe again")]
    Os(#[from] io::Error),
}
