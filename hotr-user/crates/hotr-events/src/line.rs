//! A line of `hotr trace --json` and `hotr watch --json`, as docs/output.md orders its fields: a field that is not known is
//! absent rather than null, and a list that can be empty is present when it is empty.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::report::{ChannelInfo, ChannelState, Raw, Reload, Report, Root};
use crate::{
    Actor, Change, Channel, Detail, FileId, FileType, KernelTotals, Layer, LossReason, Op, Relay, Written,
    exact, json,
};

/// A line.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
#[non_exhaustive]
pub enum Line<'a> {
    /// The first one: from now on nothing is missed.
    Ready {
        /// hotr's version.
        version: Cow<'a, str>,
        /// The watched roots.
        roots: Cow<'a, [Root]>,
        /// The channels.
        #[serde(with = "channels")]
        channels: Cow<'a, [ChannelInfo]>,
    },
    /// A change.
    Change {
        /// Its number among the changes, from 1.
        seq: u64,
        /// The change.
        #[serde(flatten)]
        change: Cow<'a, Change>,
    },
    /// A raw record.
    Raw(Box<RawLine<'a>>),
    /// Something was lost, counted and said.
    Loss {
        /// The channel that lost.
        channel: Channel,
        /// Why.
        reason: LossReason,
        /// How many records, or 1 when the kernel only says "some".
        count: u64,
        /// The root or directory concerned, when it is one.
        #[serde(flatten, with = "exact::path")]
        path: Option<PathBuf>,
        /// The reason, for humans.
        why: Cow<'a, str>,
    },
    /// A channel's health changed.
    Channel {
        /// Which one.
        name: Channel,
        /// Its new state.
        state: ChannelState,
        /// The reason, for humans.
        why: Cow<'a, str>,
    },
    /// A reload began or ended.
    Reload(Cow<'a, Reload>),
    /// A change that another watcher missed was announced to it, or was not.
    Relay(Cow<'a, Relay>),
    /// The last one.
    Summary {
        /// Number of changes.
        changes: u64,
        /// The kernel side's totals, when the eBPF channel ran.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        kernel: Option<KernelTotals>,
        /// From `ready` to the end.
        #[serde(rename = "duration_ms", with = "json::duration_ms")]
        duration: Duration,
    },
}

impl<'a> Line<'a> {
    /// The line of a report. `seq` is the number of a change among the changes, from 1; `version` is hotr's.
    #[must_use]
    pub fn of(report: &'a Report, seq: u64, version: &'a str) -> Self {
        match report {
            Report::Ready { roots, channels } => {
                Self::Ready { version: version.into(), roots: roots.into(), channels: channels.into() }
            }
            Report::Change(change) => Self::Change { seq, change: Cow::Borrowed(change) },
            Report::Raw(raw) => Self::Raw(Box::new(RawLine::of(raw))),
            Report::Loss { channel, reason, count, path } => Self::Loss {
                channel: *channel,
                reason: *reason,
                count: *count,
                path: path.clone(),
                why: reason.sentence(*channel).into(),
            },
            Report::Channel { channel, state, why } => {
                Self::Channel { name: *channel, state: *state, why: why.into() }
            }
            Report::Reload(reload) => Self::Reload(Cow::Borrowed(reload)),
            Report::Relay(relay) => Self::Relay(Cow::Borrowed(relay)),
            Report::Summary { changes, kernel, duration } => {
                Self::Summary { changes: *changes, kernel: *kernel, duration: *duration }
            }
        }
    }
}

/// A raw record.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "channel", rename_all = "lowercase")]
#[non_exhaustive]
pub enum RawLine<'a> {
    /// As read from the inotify descriptor.
    Inotify {
        /// Watched directory joined with the name.
        #[serde(flatten, with = "exact::path")]
        path: PathBuf,
        /// The names of the bits that are set.
        mask: Vec<Cow<'a, str>>,
        /// `inotify_event.cookie`.
        cookie: u32,
        /// `inotify_event.wd`.
        wd: i32,
        /// When it was read.
        #[serde(with = "json::time")]
        time: SystemTime,
        /// `inotify_event.name`, when there is one.
        #[serde(flatten, with = "exact::name")]
        name: Option<Vec<u8>>,
    },
    /// As read from the ring buffer: a [`Change`] that no channel was asked about.
    Ebpf {
        /// Kernel function or tracepoint.
        hook: Cow<'a, str>,
        /// `fentry`, `kprobe` or `tracepoint`.
        tier: Cow<'a, str>,
        /// What happened.
        op: Op,
        /// The path as the user watches it.
        #[serde(flatten, with = "exact::path")]
        path: PathBuf,
        /// When the kernel made the change.
        #[serde(with = "json::time")]
        time: SystemTime,
        /// By which kernel-level ways.
        detail: Cow<'a, [Detail]>,
        /// The former or the other name.
        #[serde(flatten, with = "exact::old_path")]
        old_path: Option<PathBuf>,
        /// The file's type.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        file_type: Option<FileType>,
        /// The file.
        #[serde(flatten, with = "crate::change::inode")]
        id: Option<FileId>,
        /// Size in bytes after the change.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        size: Option<u64>,
        /// The writes that it stands for.
        #[serde(flatten, with = "crate::change::written")]
        written: Written,
        /// The other way it came in by.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        layer: Option<Layer>,
        /// Who made it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        actor: Option<Cow<'a, Actor>>,
    },
}

impl<'a> RawLine<'a> {
    fn of(raw: &'a Raw) -> Self {
        match raw {
            Raw::Inotify { time, path, mask, cookie, wd, name } => Self::Inotify {
                path: path.clone(),
                mask: crate::mask::names(*mask),
                cookie: *cookie,
                wd: *wd,
                time: *time,
                name: name.clone(),
            },
            Raw::Ebpf { time, hook, tier, change, .. } => Self::Ebpf {
                hook: hook.as_ref().into(),
                tier: tier.as_ref().into(),
                op: change.op,
                path: change.path.clone(),
                time: *time,
                detail: (&change.detail).into(),
                old_path: change.old_path.clone(),
                file_type: change.file_type,
                id: change.id,
                size: change.size,
                written: change.written,
                layer: change.layer,
                actor: change.actor.as_ref().map(Cow::Borrowed),
            },
        }
    }
}

/// Channels as an object, by their names.
mod channels {
    use super::*;

    pub(super) fn serialize<S: Serializer>(all: &[ChannelInfo], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(all.iter().map(|info| (info.channel, info)))
    }

    pub(super) fn deserialize<'de, 'a, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Cow<'a, [ChannelInfo]>, D::Error> {
        struct All<'a>(PhantomData<&'a ()>);

        impl<'de, 'a> Visitor<'de> for All<'a> {
            type Value = Cow<'a, [ChannelInfo]>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("channels by their names")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut all = Vec::new();
                while let Some((channel, info)) = map.next_entry::<Channel, ChannelInfo>()? {
                    all.push(ChannelInfo { channel, ..info });
                }
                Ok(all.into())
            }
        }

        deserializer.deserialize_map(All(PhantomData))
    }
}
