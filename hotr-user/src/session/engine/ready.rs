//! The first report: what is watched, and by which channels.

use std::path::Path;

use super::Engine;
use crate::beneath::NamedPath;
use crate::mounts::MountTable;
use hotr_events::Channel;
use hotr_events::{ChannelInfo, ChannelState, Report, Root};

impl Engine {
    pub(super) fn ready(&mut self, off: Vec<(Channel, String)>) {
        let roots = match &self.ebpf {
            Some(ebpf) => ebpf.roots.report(),
            None => self.options.paths.iter().map(|path| plain_root(path)).collect(),
        };
        let mut channels = Vec::new();
        if let Some(ebpf) = &self.ebpf {
            let missing = ebpf.missing();
            let names: Vec<&str> = missing.iter().map(|hook| hook.function).collect();
            let missing = (!names.is_empty()).then(|| format!("not attached: {}", names.join(", ")));
            channels.push(ChannelInfo {
                state: if missing.is_none() { ChannelState::Active } else { ChannelState::Degraded },
                tier: Some(ebpf.tier().into()),
                why: missing,
                ..channel(Channel::Ebpf)
            });
        }
        if let Some(inotify) = &self.inotify {
            let uncovered = inotify.source.uncovered();
            self.told_uncovered = uncovered.count;
            channels.push(ChannelInfo {
                state: if uncovered.count == 0 { ChannelState::Active } else { ChannelState::Degraded },
                watches: Some(inotify.source.watches() as u64),
                uncovered: (uncovered.count > 0).then_some(uncovered.count),
                why: uncovered.examples.first().map(|(path, why)| format!("{}: {why}", path.display())),
                ..channel(Channel::Inotify)
            });
        }
        for (name, why) in off {
            channels.push(ChannelInfo { state: ChannelState::Off, why: Some(why), ..channel(name) });
        }
        self.subscription.report(Report::Ready { roots, channels });
    }
}

fn channel(channel: Channel) -> ChannelInfo {
    ChannelInfo {
        channel,
        state: ChannelState::Active,
        tier: None,
        watches: None,
        uncovered: None,
        interval_ms: None,
        why: None,
        watcher: None,
    }
}

fn plain_root(path: &Path) -> Root {
    let table = MountTable::read().unwrap_or_default();
    let real = NamedPath::follow(path).path;
    let fs = table.mount_of(&real).map(|mount| mount.fs_type.to_string_lossy().into_owned());
    Root { path: path.to_path_buf(), fs: fs.unwrap_or_default(), aliases: Vec::new() }
}
