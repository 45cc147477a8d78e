//! What `hotr relay` did for a watcher that missed a change.

use std::path::PathBuf;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::words::words;
use crate::{Cause, Proof, exact, json};

/// The event that an announcement makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RelayEvent {
    /// The file was opened for writing, and closed.
    CloseWrite,
    /// The modification time of the file was set to what it was.
    Modify,
}

impl RelayEvent {
    /// Every value.
    pub const ALL: [Self; 2] = [Self::CloseWrite, Self::Modify];

    /// The name of its bit in a mask.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CloseWrite => "IN_CLOSE_WRITE",
            Self::Modify => "IN_MODIFY",
        }
    }
}

/// Why a change was not announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// The watch asks for no event that an announcement may make.
    Mask,
    /// The watch, or its process, no longer exists.
    WatchGone,
    /// No path of the watcher's mount namespace leads to the watched inode.
    Unreachable,
    /// There is no file of that name, or another one than the one that changed.
    OtherFile,
    /// It is not a regular file.
    NotRegular,
    /// The file is in a lower layer of an overlay, and would be copied up.
    LowerFile,
    /// It cannot be told in which layer of an overlay the file is.
    UnknownLayer,
    /// Another process holds a lease on the file.
    Leased,
    /// The kernel refused the operation.
    Refused,
}

impl Refusal {
    /// Every value.
    pub const ALL: [Self; 9] = [
        Self::Mask,
        Self::WatchGone,
        Self::Unreachable,
        Self::OtherFile,
        Self::NotRegular,
        Self::LowerFile,
        Self::UnknownLayer,
        Self::Leased,
        Self::Refused,
    ];

    /// The word of the output contract.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mask => "mask",
            Self::WatchGone => "watch-gone",
            Self::Unreachable => "unreachable",
            Self::OtherFile => "other-file",
            Self::NotRegular => "not-regular",
            Self::LowerFile => "lower-file",
            Self::UnknownLayer => "unknown-layer",
            Self::Leased => "leased",
            Self::Refused => "refused",
        }
    }
}

words!(RelayEvent, Refusal);

/// The watch for which a change is announced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayTarget {
    /// Process id.
    pub pid: u32,
    /// Its command name, at most 15 bytes.
    #[serde(flatten, with = "exact::comm")]
    pub comm: Vec<u8>,
    /// The descriptor of its inotify instance.
    pub fd: i32,
    /// The watch in it.
    pub wd: i32,
    /// Id of the container that the process runs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
}

/// A change that a watcher missed, and what was done about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relay {
    /// When the change was made.
    #[serde(with = "json::time")]
    pub time: SystemTime,
    /// The file that changed, as hotr's user watches it.
    #[serde(flatten, with = "exact::path")]
    pub path: PathBuf,
    /// For whom.
    #[serde(rename = "for")]
    pub to: RelayTarget,
    /// Why the watcher missed it.
    pub cause: Cause,
    /// The event that was made; absent when the change was not announced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<RelayEvent>,
    /// From the change to the announcement, in microseconds. Changes that were made before one announcement share it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announced_us: Option<u64>,
    /// Whether the event was queued for the watcher, or equalled the last unread one; absent when that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrived: Option<bool>,
    /// How sure `arrived` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
    /// Why it was not announced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refusal>,
    /// The same as a sentence for humans.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}
