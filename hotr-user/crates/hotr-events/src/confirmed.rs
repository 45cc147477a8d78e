//! A change that changed something: what a reload is for.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::words::words;
use crate::{Channel, exact};

/// What a confirmed change did to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// There was none.
    Created,
    /// There is none any more.
    Removed,
    /// A new name of a file whose old name has gone.
    Renamed,
    /// Other content, or another type.
    Written,
    /// A symbolic link that leads elsewhere.
    Link,
}

impl Kind {
    /// Every value.
    pub const ALL: [Self; 5] = [Self::Created, Self::Removed, Self::Renamed, Self::Written, Self::Link];

    /// The word used in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Removed => "removed",
            Self::Renamed => "renamed",
            Self::Written => "written",
            Self::Link => "link",
        }
    }
}

/// What a confirmed change rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// Digests differ.
    Digest,
    /// Size or modification time differ; the content was too large, or could not be read.
    SizeAndTime,
    /// The name appeared, disappeared, or is of another type.
    Name,
    /// The target of a link differs.
    Target,
    /// The state before is not known.
    Unknown,
}

impl Evidence {
    /// Every value.
    pub const ALL: [Self; 5] = [Self::Digest, Self::SizeAndTime, Self::Name, Self::Target, Self::Unknown];

    /// The word used in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Digest => "digest",
            Self::SizeAndTime => "size-mtime",
            Self::Name => "name",
            Self::Target => "target",
            Self::Unknown => "unknown-before",
        }
    }
}

words!(Kind, Evidence);

/// A change that changed something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfirmedChange {
    /// What happened to the path.
    pub kind: Kind,
    /// The path as the user watches it.
    #[serde(flatten, with = "exact::path")]
    pub path: PathBuf,
    /// What says so.
    pub by: Evidence,
    /// Size now, of a regular file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// The channels that reported it.
    pub seen_by: Vec<Channel>,
}
