//! Whose inotify instances the marks of a change are about, when they are not hotr's own, and what became of it there.

use serde::{Deserialize, Serialize};

use crate::exact;
use crate::words::words;

/// What became of a change in the inotify instances of a process: what came furthest, of several instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WatcherState {
    /// Queued, and the process read it.
    Delivered,
    /// Equal to the last unread event, which stands for both.
    Merged,
    /// Queued, and not read within two seconds, or until the end.
    Unread,
    /// Not sent, because the file was replaced; the process has set its watch again, and used the file after that.
    Reread,
    /// It is not known what became of it.
    Unknown,
    /// The kernel had it and could not queue it.
    Dropped,
    /// The kernel sent nothing of it.
    NeverSent,
    /// No watch of the process asks for such a change, and no content changed by it.
    Unasked,
}

impl WatcherState {
    /// Every value; of several instances, the first of these counts.
    pub const ALL: [Self; 8] = [
        Self::Delivered,
        Self::Merged,
        Self::Unread,
        Self::Reread,
        Self::Unknown,
        Self::Dropped,
        Self::NeverSent,
        Self::Unasked,
    ];

    /// The word used in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Merged => "merged",
            Self::Unread => "unread",
            Self::Reread => "reread",
            Self::Unknown => "unknown",
            Self::Dropped => "dropped",
            Self::NeverSent => "never-sent",
            Self::Unasked => "unasked",
        }
    }
}

/// How sure something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Proof {
    /// The kernel says so.
    Proved,
    /// A conclusion; the evidence says from what.
    Inferred,
}

impl Proof {
    /// Every value.
    pub const ALL: [Self; 2] = [Self::Proved, Self::Inferred];

    /// The word of the output contract.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Proved => "proved",
            Self::Inferred => "inferred",
        }
    }
}

words!(WatcherState, Proof);

/// A process whose inotify instances are followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatcherId {
    /// Process id.
    pub pid: u32,
    /// Its command name, at most 15 bytes.
    #[serde(flatten, with = "exact::comm")]
    pub comm: Vec<u8>,
}

/// What became of a change in the inotify instances of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watcher {
    /// The process.
    #[serde(flatten)]
    pub id: WatcherId,
    /// What became of it.
    pub state: WatcherState,
    /// The descriptor of the instance, when it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fd: Option<i32>,
    /// The watch, when it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wd: Option<i32>,
    /// How sure it is; absent when nothing is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
}
