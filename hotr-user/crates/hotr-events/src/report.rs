//! Everything hotr reports about a run, before it is printed: one variant per `type` of the output contract.
//!
//! Producers fill these in; [`Line`](crate::Line) is how they look as JSON.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::words::words;
use crate::{
    Actor, Change, Channel, ConfirmedChange, KernelTotals, Layer, LossReason, Relay, WatcherId, exact, json,
};

/// Another way into a watched directory that is covered as well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alias {
    /// Where that way leads in, in hotr's mount namespace.
    #[serde(flatten, with = "exact::path")]
    pub path: PathBuf,
    /// What kind of way it is.
    pub layer: Layer,
}

/// A watched root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// The path as the user named it, made absolute.
    #[serde(flatten, with = "exact::path")]
    pub path: PathBuf,
    /// Filesystem type (`ext4`, `overlay`, …).
    pub fs: String,
    /// Other ways in.
    pub aliases: Vec<Alias>,
}

/// Health of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelState {
    /// It receives everything it can.
    Active,
    /// It runs, but part of what it should receive is lost or uncovered.
    Degraded,
    /// There, and not needed now.
    Idle,
    /// Not running.
    Off,
}

impl ChannelState {
    /// Every value.
    pub const ALL: [Self; 4] = [Self::Active, Self::Degraded, Self::Idle, Self::Off];

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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelInfo {
    /// Which one; the key of its object in the line.
    #[serde(skip, default = "ebpf")]
    pub channel: Channel,
    /// How it is.
    pub state: ChannelState,
    /// eBPF, and inotify of another process: `fentry`, `kprobe`, `tracepoint`, or `mixed` when hooks differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<Cow<'static, str>>,
    /// inotify: number of watches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watches: Option<u64>,
    /// inotify: directories without a watch because a limit was reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uncovered: Option<u64>,
    /// poll: milliseconds between two audits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_ms: Option<u64>,
    /// Why it is not active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// inotify: whose instances it is, when not hotr's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watcher: Option<WatcherId>,
}

impl ChannelInfo {
    /// What it cannot do from the start, where it is degraded or off.
    #[must_use]
    pub fn impairment(&self) -> Option<String> {
        if !matches!(self.state, ChannelState::Degraded | ChannelState::Off) {
            return None;
        }
        let uncovered = self.uncovered.map(|count| format!("{count} directories without a watch"));
        Some([uncovered, self.why.clone()].into_iter().flatten().collect::<Vec<_>>().join(", "))
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
        /// The same by `CLOCK_MONOTONIC`, in nanoseconds.
        made_ns: u64,
        /// Kernel function or tracepoint.
        hook: Cow<'static, str>,
        /// `fentry`, `kprobe` or `tracepoint`.
        tier: Cow<'static, str>,
        /// The change by itself: not settled, not merged.
        change: Box<Change>,
    },
}

words!(ChannelState, Trigger, ReloadState);

const fn ebpf() -> Channel {
    Channel::Ebpf
}

/// What requested a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// The start of hotr.
    Start,
    /// Confirmed changes.
    Change,
    /// SIGUSR1 to hotr.
    Request,
    /// The last good content was restored.
    Rollback,
    /// The command had failed and is started again.
    Exit,
}

impl Trigger {
    /// Every value.
    pub const ALL: [Self; 5] = [Self::Start, Self::Change, Self::Request, Self::Rollback, Self::Exit];

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
    /// Every value.
    pub const ALL: [Self; 6] =
        [Self::Started, Self::Done, Self::Failed, Self::Invalid, Self::Unhealthy, Self::Replaced];

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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reload {
    /// Number of the reload, from 1; its begin and its end have the same.
    pub seq: u64,
    /// When.
    #[serde(with = "json::time")]
    pub time: SystemTime,
    /// How far it is.
    pub state: ReloadState,
    /// What requested it.
    pub trigger: Trigger,
    /// What changed; only at the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<Vec<Arc<ConfirmedChange>>>,
    /// Who made these changes, each once, as far as it is known; only at the start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actors: Vec<Actor>,
    /// At the end: exit status of the command, or of the validation that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<i32>,
    /// At the end: milliseconds since the start.
    #[serde(
        rename = "duration_ms",
        with = "json::maybe_duration_ms",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub duration: Option<std::time::Duration>,
    /// What failed, for humans.
    #[serde(default, skip_serializing_if = "Option::is_none")]
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
        reason: LossReason,
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
        /// The reason, for humans.
        why: String,
    },
    /// A reload began or ended.
    Reload(Box<Reload>),
    /// A change that another watcher missed was announced to it, or was not.
    Relay(Box<Relay>),
    /// Last line.
    Summary {
        /// Number of `change` lines; of `hotr relay`, of `relay` lines.
        changes: u64,
        /// Kernel totals, when the eBPF channel ran.
        kernel: Option<KernelTotals>,
        /// Seconds from `ready` to the end.
        duration: std::time::Duration,
    },
}

/// Where reports go.
pub trait ReportSink {
    /// Takes one report. An error of kind `BrokenPipe` means that the reader has gone.
    ///
    /// # Errors
    /// Any error of the underlying writer.
    fn print(&mut self, report: &Report) -> io::Result<()>;

    /// Hands everything taken so far to the reader; called when the engine is about to wait.
    ///
    /// # Errors
    /// Any error of the underlying writer.
    fn flush(&mut self) -> io::Result<()>;
}
