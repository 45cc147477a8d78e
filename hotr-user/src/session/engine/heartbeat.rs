//! Heartbeats of a run: a change that hotr makes, and which channels received it. What a channel cannot receive at all,
//! and the restart of a channel that receives nothing.

use std::sync::Arc;
use std::thread::JoinHandle;

use super::Engine;
use crate::error::Error;
use crate::session::ebpf_channel::EbpfChannel;
use crate::source::ebpf::ChildReader;
use crate::source::heartbeat::Heartbeat;
use crate::source::inotify::Coverage;
use hotr_events::Channel;

/// Turns made to read a queue to its end before a heartbeat is judged; more is a storm.
const TURNS: usize = 64;

/// What came of one heartbeat; nothing for a channel that does not run, or cannot be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeartbeatOutcome {
    /// Whether the kernel programs reported it.
    pub ebpf: Option<bool>,
    /// Whether inotify reported it.
    pub inotify: Option<bool>,
}

impl Engine {
    /// Prepares the channels for heartbeats. Returns the reason if a channel cannot receive them.
    pub(in crate::session) fn make_heartbeat(&mut self) -> Option<String> {
        let heartbeat = match Heartbeat::new() {
            Ok(heartbeat) => heartbeat,
            Err(error) => return Some(format!("no heartbeats: their file cannot be created: {error}")),
        };
        let mut why = None;
        if let Some(inotify) = &mut self.inotify
            && let Err(error) = inotify.source.listen_to_heartbeat(heartbeat.file())
        {
            why = Some(format!("no heartbeats for inotify: {error}"));
        }
        if let Some(ebpf) = &mut self.ebpf {
            match heartbeat.dir() {
                None => why = Some("no heartbeats for ebpf: CAP_SYS_ADMIN is missing".to_owned()),
                Some(dir) => {
                    if let Err(error) = ebpf.listen_to_heartbeat(dir) {
                        why = Some(format!("no heartbeats for ebpf: {error}"));
                    }
                }
            }
        }
        self.heartbeat = Some(heartbeat);
        why
    }

    /// Makes a heartbeat, reads what is queued, and returns which channels received it. All that the kernel reports of
    /// the write is queued when the write returns: what is not there when everything was read does not come. None when
    /// it could not be made, or a storm did not let the queues be read to their end.
    pub(in crate::session) fn beat(&mut self) -> Result<Option<HeartbeatOutcome>, Error> {
        let before = self.beats();
        let Some(heartbeat) = &mut self.heartbeat else { return Ok(None) };
        if heartbeat.beat().is_err() {
            return Ok(None);
        }
        for _ in 0..TURNS {
            self.whole_turn()?;
            if !self.more {
                break;
            }
        }
        let after = self.beats();
        let was_received = |before: Option<u64>, after: Option<u64>| Some(after? > before?);
        let outcome = HeartbeatOutcome {
            ebpf: was_received(before[0], after[0]),
            inotify: was_received(before[1], after[1]),
        };
        Ok((!self.more).then_some(outcome))
    }

    /// Heartbeats received so far, of the channels that can receive them.
    fn beats(&self) -> [Option<u64>; 2] {
        [
            self.ebpf.as_ref().and_then(EbpfChannel::beats),
            self.inotify.as_ref().and_then(|inotify| inotify.source.beats()),
        ]
    }

    /// See [`EbpfSource::child_reader`](crate::source::ebpf::EbpfSource::child_reader).
    pub(in crate::session) fn child_reader(&mut self) -> Option<Arc<ChildReader>> {
        self.ebpf.as_mut()?.source.child_reader()
    }

    /// What a channel cannot receive now, though it runs.
    pub(in crate::session) fn gap(&self, channel: Channel) -> Option<String> {
        match channel {
            Channel::Ebpf => {
                let roots = &self.ebpf.as_ref()?.roots;
                (!roots.complete()).then(|| "a watched path does not exist now".to_owned())
            }
            Channel::Inotify => {
                let source = &self.inotify.as_ref()?.source;
                let bare = self.options.paths.iter().find(|path| {
                    let dir = if path.is_dir() { path } else { path.parent().unwrap_or(path) };
                    !matches!(source.covers(dir), Coverage::Watched { .. })
                });
                let count = source.uncovered().count;
                match (bare, count) {
                    (Some(path), _) => Some(format!("{} has no watch", path.display())),
                    (None, 1..) => Some(format!("{count} directories have no watch")),
                    _ => None,
                }
            }
            Channel::Poll => None,
        }
    }

    /// Begins to restart a channel; [`Self::revived`] reports the end. Loading the programs takes a tenth of a second
    /// and more: that is done beside the loop.
    pub(in crate::session) fn revive(&mut self, channel: Channel) {
        self.revival = match (channel, &self.ebpf) {
            (Channel::Ebpf, Some(_)) => {
                let options = self.options.clone();
                let load = move || EbpfChannel::start(&options).map(Box::new);
                match std::thread::Builder::new().name("hotr-load".to_owned()).spawn(load) {
                    Ok(thread) => Some(ChannelRestart::Loads(thread)),
                    Err(error) => Some(ChannelRestart::Refused(no_thread(error))),
                }
            }
            _ => Some(ChannelRestart::Short(channel)),
        }
    }

    /// The result of a channel's restart; none while it is under way.
    pub(in crate::session) fn revived(&mut self) -> Option<(Channel, Result<(), Error>)> {
        match self.revival.take()? {
            ChannelRestart::Loads(thread) if !thread.is_finished() => {
                self.revival = Some(ChannelRestart::Loads(thread));
                None
            }
            ChannelRestart::Loads(thread) => {
                let loaded = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                Some((Channel::Ebpf, loaded.and_then(|fresh| self.replace(*fresh))))
            }
            ChannelRestart::Refused(error) => Some((Channel::Ebpf, Err(error))),
            ChannelRestart::Short(Channel::Inotify) => Some((Channel::Inotify, self.repair())),
            ChannelRestart::Short(channel) => Some((channel, Ok(()))),
        }
    }

    fn replace(&mut self, mut fresh: EbpfChannel) -> Result<(), Error> {
        if !fresh.roots.are_of(&self.options.paths) {
            // They were changed while it was loaded; it has read nothing yet.
            fresh.set_paths(&self.options.paths, |_| None)?;
        }
        if let Some(inotify) = &self.inotify {
            fresh.listen_to(inotify);
        }
        if let Some(dir) = self.heartbeat.as_ref().and_then(Heartbeat::dir) {
            // If refused, it counts as missed.
            let _ = fresh.listen_to_heartbeat(dir);
        }
        self.renewed = true;
        let former = self.ebpf.replace(fresh);
        // The kernel waits for each program to end that is detached. Without a thread it is done here.
        let _ = std::thread::Builder::new().spawn(move || drop(former));
        Ok(())
    }

    fn repair(&mut self) -> Result<(), Error> {
        let Some(inotify) = &mut self.inotify else { return Ok(()) };
        let repaired = inotify.repair()?;
        if let Some(ebpf) = &mut self.ebpf {
            ebpf.listen_to(inotify);
        }
        self.found.extend(repaired.found);
        self.renewed = true;
        Ok(())
    }
}

/// A new start of a channel.
pub(super) enum ChannelRestart {
    Loads(JoinHandle<Result<Box<EbpfChannel>, Error>>),
    Refused(Error),
    /// Done when it is needed.
    Short(Channel),
}

fn no_thread(source: std::io::Error) -> Error {
    Error::Os {
        operation: "start",
        object: "a thread that loads the programs".to_owned(),
        source,
        next: "raise the limits of threads and memory",
    }
}
