//! What is found: a cause, how bad it is, how sure it is, and what to do.

use std::path::PathBuf;

use super::process::Kind;
use hotr_events::Cause;
pub use hotr_events::Proof;

/// How bad it is, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Severity {
    /// The watch receives nothing of what its program waits for.
    Deaf,
    /// Events were dropped.
    Lost,
    /// It works, and something ordinary ends that.
    AtRisk,
    /// Worth knowing.
    Note,
}

impl Severity {
    /// The word of the output contract.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deaf => "deaf",
            Self::Lost => "lost",
            Self::AtRisk => "at-risk",
            Self::Note => "note",
        }
    }
}

/// Whom a finding is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Target {
    /// Process id; absent for a finding about a user.
    pub pid: Option<u32>,
    /// Its command name.
    pub comm: Vec<u8>,
    /// Of what its instance is.
    pub mechanism: Option<Kind>,
    /// The descriptor of the instance.
    pub fd: Option<i32>,
    /// The watch; absent when it is about more than one.
    pub wd: Option<i32>,
    /// The user, for findings about one.
    pub uid: Option<u32>,
    /// Id of the container it runs in.
    pub container: Option<String>,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// How bad.
    pub severity: Severity,
    /// Why.
    pub cause: Cause,
    /// How sure.
    pub proof: Proof,
    /// Whose.
    pub target: Target,
    /// The path, as this process sees it.
    pub path: Option<PathBuf>,
    /// The path as the target sees it.
    pub path_in_target: Option<PathBuf>,
    /// Inode number of the watch.
    pub watched_ino: Option<u64>,
    /// Inode number of what the path leads to now.
    pub path_ino: Option<u64>,
    /// Mask of the watch.
    pub mask: Option<u32>,
    /// Watches of the instance that this stands for, when more than one.
    pub watches: Option<usize>,
    /// What it is concluded from, a sentence each.
    pub evidence: Vec<String>,
    /// What to do.
    pub remedy: String,
}

impl Finding {
    /// A finding without an object yet.
    pub(crate) fn new(severity: Severity, cause: Cause, proof: Proof, target: Target) -> Self {
        Self {
            severity,
            cause,
            proof,
            target,
            path: None,
            path_in_target: None,
            watched_ino: None,
            path_ino: None,
            mask: None,
            watches: None,
            evidence: Vec::new(),
            remedy: String::new(),
        }
    }

    pub(super) fn evidence(mut self, text: impl Into<String>) -> Self {
        self.evidence.push(text.into());
        self
    }

    pub(super) fn remedy(mut self, text: impl Into<String>) -> Self {
        self.remedy = text.into();
        self
    }
}
