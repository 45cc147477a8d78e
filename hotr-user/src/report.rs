//! Everything hotr tells about a run, before it is printed: one variant a `type` of the output contract.
//!
//! Producers fill these in; only `output/` knows how they look as JSON or on a terminal.

use std::path::PathBuf;
use std::time::SystemTime;

use crate::event::{Change, Channel, Layer};
use crate::pipeline::confirm::Confirmed;

/// Another way into a watched directory that is covered as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alias {
    /// Where that way leads in, in hotr's mount namespace.
    pub path: PathBuf,
    /// What kind of way it is.
    pub layer: Layer,
}

/// A watched root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// The path as the user named it, made absolute.
    pub path: PathBuf,
    /// Filesystem type (`ext4`, `overlay`, …).
    pub fs: String,
    /// Other ways in.
    pub aliases: Vec<Alias>,
}

/// Health of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelState {
    /// It hears everything it can.
    Active,
    /// It runs, and part of what it should hear is lost or uncovered.
    Degraded,
    /// There, and not needed now.
    Idle,
    /// Not running.
    Off,
}

impl ChannelState {
    /// The word used in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Degraded => "degraded",
            Self::Idle => "idle",
            Self::Off => "off",
        }
    }
}

/// A channel as the `ready` line shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelInfo {
    /// Which one.
    pub channel: Channel,
    /// How it is.
    pub state: ChannelState,
    /// eBPF: `fentry`, `kprobe`, `tracepoint`, or `mixed` when hooks differ.
    pub tier: Option<&'static str>,
    /// inotify: number of watches.
    pub watches: Option<u64>,
    /// inotify: directories without a watch because a limit was reached.
    pub uncovered: Option<u64>,
    /// poll: milliseconds between two audits.
    pub interval_ms: Option<u64>,
    /// Why it is not active.
    pub why: Option<String>,
}

/// What a reason of a [`Report::Loss`] means, and what comes of it, in one sentence for people.
#[must_use]
pub fn meaning_of_loss(channel: Channel, reason: &str) -> Option<&'static str> {
    let meaning = match reason {
        "root-gone" => "its path leads nowhere; it is watched again when something is there",
        "root-deleted" => "it was deleted; its path is traced again when something is there",
        "root-moved" if channel == Channel::Ebpf => {
            "it was renamed and is traced on, by its old name; start hotr again to trace what comes to its path"
        }
        "root-moved" => "it was renamed, or its path leads to something else; what is there is watched",
        "unmounted" => "its filesystem was unmounted; what its path leads to now is watched",
        "mounted-over" => "something was mounted over it; that is watched until it is unmounted",
        "ring-full" => "the ring buffer was full; changed files are looked for by their times",
        "oversize" => {
            "a path was too long for a record, or requests were too many or too alike; changed files are looked for by their times"
        }
        "program-skipped" => "the kernel did not run a program; changed files are looked for by their times",
        "unresolved" => "the path of a call led nowhere known; changed files are looked for by their times",
        "queue-overflow" => "the kernel's queue was full; all watches are made anew",
        "own-queue" => "hotr was too slow; all watches are made anew",
        "unknown-watch" | "watch-removed" => "the kernel's watches are not those of hotr; all are made anew",
        _ => return None,
    };
    Some(meaning)
}

/// Totals of the kernel side; `seen == submitted + coalesced + filtered + ring_full + oversize`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelTotals {
    /// Hook calls on a watched superblock.
    pub seen: u64,
    /// Records handed to userspace.
    pub submitted: u64,
    /// Counted in the kernel, and told by a later record's totals.
    pub coalesced: u64,
    /// Outside the watched trees, or an inner operation of a watched overlay.
    pub filtered: u64,
    /// Lost: the ring buffer was full.
    pub ring_full: u64,
    /// Lost: the path was longer than a record can hold.
    pub oversize: u64,
    /// Programs the kernel did not run because one of ours was already running on that CPU.
    pub recursion_misses: u64,
}

impl KernelTotals {
    /// Whether it is known of each hook call what came of it.
    pub(crate) const fn add_up(&self) -> bool {
        let Self { seen, submitted, coalesced, filtered, ring_full, oversize, recursion_misses: _ } = *self;
        seen == submitted + coalesced + filtered + ring_full + oversize
    }
}

/// A raw record, printed with `--raw` only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Raw {
    /// As read from the inotify descriptor.
    Inotify {
        /// When it was read.
        time: SystemTime,
        /// Watched directory joined with the name.
        path: PathBuf,
        /// `inotify_event.mask`.
        mask: u32,
        /// `inotify_event.cookie`.
        cookie: u32,
        /// `inotify_event.wd`.
        wd: i32,
        /// `inotify_event.name`, when there is one.
        name: Option<Vec<u8>>,
    },
    /// As read from the ring buffer.
    Ebpf {
        /// When the kernel made the change.
        time: SystemTime,
        /// Kernel function or tracepoint.
        hook: &'static str,
        /// `fentry`, `kprobe` or `tracepoint`.
        tier: &'static str,
        /// The change by itself: not settled, not merged.
        change: Box<Change>,
    },
}

/// What asked for a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// The start of hotr.
    Start,
    /// Confirmed changes.
    Change,
    /// SIGUSR1 to hotr.
    Request,
    /// The last good content was put back.
    Rollback,
    /// The command had failed and is started again.
    Exit,
}

impl Trigger {
    /// The word used in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Change => "change",
            Self::Request => "request",
            Self::Rollback => "rollback",
            Self::Exit => "exit",
        }
    }
}

/// How far a reload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadState {
    /// It begins.
    Started,
    /// The command ended with status 0, the service was started, or the signal was sent; and it is healthy.
    Done,
    /// The command could not be run, or ended with another status; or the signal could not be sent.
    Failed,
    /// The validation failed: nothing was reloaded.
    Invalid,
    /// Reloaded, and the health check failed.
    Unhealthy,
    /// Ended by hotr before it was done, because newer changes came.
    Replaced,
}

impl ReloadState {
    /// The word used in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Invalid => "invalid",
            Self::Unhealthy => "unhealthy",
            Self::Replaced => "replaced",
        }
    }
}

/// A reload that begins or ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reload {
    /// Number of the reload, from 1; its begin and its end have the same.
    pub seq: u64,
    /// When.
    pub time: SystemTime,
    /// How far it is.
    pub state: ReloadState,
    /// What asked for it.
    pub trigger: Trigger,
    /// At the begin: what changed.
    pub changes: Vec<Confirmed>,
    /// At the end: exit status of the command, or of the validation that failed.
    pub status: Option<i32>,
    /// At the end: milliseconds since the begin.
    pub duration: Option<std::time::Duration>,
    /// What went wrong, for a person.
    pub why: Option<String>,
}

/// One line of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// First line: from now on nothing is missed.
    Ready {
        /// The watched roots.
        roots: Vec<Root>,
        /// The channels.
        channels: Vec<ChannelInfo>,
    },
    /// A change.
    Change(Box<Change>),
    /// A raw record.
    Raw(Raw),
    /// Something was lost, counted and said.
    Loss {
        /// The channel that lost.
        channel: Channel,
        /// `queue-overflow`, `ring-full`, `oversize`, `watch-limit`, `unmounted`, …
        reason: &'static str,
        /// How many records, or 1 when the kernel only says "some".
        count: u64,
        /// The root or directory concerned, when it is one.
        path: Option<PathBuf>,
    },
    /// A channel's health changed.
    Channel {
        /// Which one.
        channel: Channel,
        /// Its new state.
        state: ChannelState,
        /// The reason, for a person.
        why: String,
    },
    /// A reload began or ended.
    Reload(Box<Reload>),
    /// Last line.
    Summary {
        /// Number of `change` lines.
        changes: u64,
        /// Kernel totals, when the eBPF channel ran.
        kernel: Option<KernelTotals>,
        /// Seconds from `ready` to the end.
        duration: std::time::Duration,
    },
}
