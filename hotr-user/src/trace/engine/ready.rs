//! The first report: what is watched, and by which channels.

use std::path::Path;

use super::Engine;
use crate::event::Channel;
use crate::mounts::MountTable;
use crate::report::{ChannelInfo, ChannelState, Report, Root};

impl Engine {
    pub(super) fn ready(&mut self, off: Vec<(Channel, String)>) {
        let roots = match &self.kernel {
            Some(kernel) => kernel.roots.report(),
            None => self.options.paths.iter().map(|path| plain_root(path)).collect(),
        };
        let mut channels = Vec::new();
        if let Some(kernel) = &self.kernel {
            let missing = kernel.missing();
            let names: Vec<&str> = missing.iter().map(|hook| hook.function).collect();
            let missing = (!names.is_empty()).then(|| format!("not attached: {}", names.join(", ")));
            channels.push(ChannelInfo {
                state: if missing.is_none() { ChannelState::Active } else { ChannelState::Degraded },
                tier: Some(kernel.tier()),
                why: missing,
                ..channel(Channel::Ebpf)
            });
        }
        if let Some(ear) = &self.ear {
            let uncovered = ear.source.uncovered();
            channels.push(ChannelInfo {
                state: if uncovered.count == 0 { ChannelState::Active } else { ChannelState::Degraded },
                watches: Some(ear.source.watches() as u64),
                uncovered: (uncovered.count > 0).then_some(uncovered.count),
                why: uncovered.examples.first().map(|(path, why)| format!("{}: {why}", path.display())),
                ..channel(Channel::Inotify)
            });
        }
        for (name, why) in off {
            channels.push(ChannelInfo { state: ChannelState::Off, why: Some(why), ..channel(name) });
        }
        self.reports.push(Report::Ready { roots, channels });
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
    }
}

fn plain_root(path: &Path) -> Root {
    let table = MountTable::read().unwrap_or_default();
    let real = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let fs = table.mount_of(&real).map(|mount| mount.fs_type.to_string_lossy().into_owned());
    Root { path: path.to_path_buf(), fs: fs.unwrap_or_default(), aliases: Vec::new() }
}
