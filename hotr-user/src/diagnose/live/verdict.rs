//! What is said of a change: the types of a live diagnosis.

use std::path::PathBuf;
use std::time::SystemTime;

use crate::diagnose::finding::{Proof, Target};
use hotr_events::Cause;
use hotr_events::{Change, Op};

/// What became of a change in an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// Queued, and the program read it.
    Delivered,
    /// Equal to the last unread event, which stands for both.
    Merged,
    /// The kernel had it and could not queue it.
    Dropped,
    /// The kernel offered nothing to the instance.
    NeverSent,
    /// Queued, and not read until the end.
    Unread,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Delivered, Self::Merged, Self::Dropped, Self::NeverSent, Self::Unread];

    /// The word of the output contract.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Merged => "merged",
            Self::Dropped => "dropped",
            Self::NeverSent => "never-sent",
            Self::Unread => "unread",
        }
    }
}

/// What became of one change in one instance.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Verdict {
    /// Number of the change.
    pub change: u64,
    /// When it was made.
    pub time: SystemTime,
    /// What it was.
    pub op: Op,
    /// Of what.
    pub path: PathBuf,
    /// Whose instance; without a descriptor, all of the process.
    pub target: Target,
    /// What became of it.
    pub state: State,
    /// The kinds of the event; 0 when there was none.
    pub events: u32,
    /// From the end of the change's kernel function until the kernel began to queue an event, in microseconds: as a rule
    /// negative, because the kernel does that within the function.
    pub queued_us: Option<i64>,
    /// From the queue to the program.
    pub read_us: Option<u64>,
    /// Unread events after it was offered, and how many the queue takes.
    pub queue: Option<(u32, u32)>,
    /// Why it did not arrive, when that is known.
    pub cause: Option<Cause>,
    /// How sure the cause is; without one, how sure the state is.
    pub proof: Proof,
    /// The watch that it should have come by.
    pub watched_ino: Option<u64>,
    /// What that one asks for.
    pub mask: Option<u32>,
    /// The file that changed.
    pub path_ino: Option<u64>,
    /// What it is concluded from, a sentence each.
    pub evidence: Vec<String>,
    /// The file whose content changed, once an event is queued.
    pub(super) sent: Sent,
}

impl Verdict {
    /// One of which nothing else is known yet.
    #[must_use]
    pub fn new(change: u64, time: SystemTime, op: Op, path: PathBuf, target: Target, state: State) -> Self {
        Self {
            change,
            time,
            op,
            path,
            target,
            state,
            events: 0,
            queued_us: None,
            read_us: None,
            queue: None,
            cause: None,
            proof: Proof::Proved,
            watched_ino: None,
            mask: None,
            path_ino: None,
            evidence: Vec::new(),
            sent: Sent { judged: 0, file: None, made_ns: 0, by: None },
        }
    }
}

/// A change: its number among those that were judged, when, by which process, and of which file (device and inode number)
/// once an event of its content is queued.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) judged: u64,
    pub(super) file: Option<(u32, u64)>,
    pub(super) made_ns: u64,
    pub(super) by: Option<u32>,
}

/// A change of the trace.
pub(super) struct ReportedChange {
    pub(super) made_ns: u64,
    pub(super) change: Box<Change>,
}

/// What is said at last of a change in an instance: once of each that a judgement announces.
pub(super) enum Outcome {
    /// This became of it.
    Verdict(Box<Verdict>),
    /// It cannot be known.
    Undecided,
    /// No watch asks for it, and no content changed by it.
    Unasked,
    /// The file was replaced, and the program used the new one once it had set its watch again.
    Reread,
}

/// An outcome, with the number of the change among those that were judged.
pub(super) struct Decided {
    pub(super) judged: u64,
    pub(super) outcome: Outcome,
}

/// What is known of a change at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Judged {
    /// Its number among those that were judged.
    pub(super) number: u64,
    /// It concerns an instance: there is, or will be, a verdict.
    pub(super) is_concerning: bool,
    /// An instance was followed when it was made.
    pub(super) is_followed: bool,
    /// Outcomes that it has, or will have.
    pub(super) outcomes: usize,
}

impl ReportedChange {
    /// The thread that made it, when that is known.
    pub(super) fn tid(&self) -> Option<u32> {
        self.change.actor.as_ref().map(|actor| actor.tid)
    }

    /// Whether the kernel may tell of it in another thread than the one that asked for it, and later.
    pub(super) fn is_asynchronous(&self) -> bool {
        self.change.detail.iter().any(|detail| *detail == "io_uring" || *detail == "aio")
    }
}
