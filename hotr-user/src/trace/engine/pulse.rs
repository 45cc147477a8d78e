//! Heartbeats of a run: a change that hotr makes, and which channels heard it. What a channel cannot hear at all, and a
//! new start of a channel that hears nothing.

use std::sync::Arc;
use std::thread::JoinHandle;

use super::Engine;
use crate::error::Error;
use crate::event::Channel;
use crate::source::ebpf::ChildReader;
use crate::source::heart::Heart;
use crate::source::inotify::Coverage;
use crate::trace::kernel::KernelSide;

/// Turns made to read a queue to its end before a heartbeat is judged; more is a storm.
const TURNS: usize = 64;

/// What came of one heartbeat; nothing for a channel that does not run, or cannot be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pulse {
    /// Whether the kernel programs told it.
    pub ebpf: Option<bool>,
    /// Whether inotify told it.
    pub inotify: Option<bool>,
}

impl Engine {
    /// Lets the channels hear heartbeats; why they cannot, when they cannot.
    pub(in crate::trace) fn take_heart(&mut self) -> Option<String> {
        let heart = match Heart::new() {
            Ok(heart) => heart,
            Err(error) => return Some(format!("no heartbeats: no file for them: {error}")),
        };
        let mut why = None;
        if let Some(ear) = &mut self.ear
            && let Err(error) = ear.source.listen_to_heart(heart.file())
        {
            why = Some(format!("no heartbeats for inotify: {error}"));
        }
        if let Some(kernel) = &mut self.kernel {
            match heart.dir() {
                None => why = Some("no heartbeats for ebpf: CAP_SYS_ADMIN is missing".to_owned()),
                Some(dir) => {
                    if let Err(error) = kernel.listen_to_heart(dir) {
                        why = Some(format!("no heartbeats for ebpf: {error}"));
                    }
                }
            }
        }
        self.heart = Some(heart);
        why
    }

    /// Makes a heartbeat, reads what is queued, and tells who heard. All that the kernel tells of the write is queued
    /// when the write returns: what is not there when everything was read does not come. None when it could not be
    /// made, or a storm did not let the queues be read to their end.
    pub(in crate::trace) fn beat(&mut self) -> Result<Option<Pulse>, Error> {
        let before = self.beats();
        let Some(heart) = &mut self.heart else { return Ok(None) };
        if heart.strike().is_err() {
            return Ok(None);
        }
        for _ in 0..TURNS {
            self.whole_turn()?;
            if !self.more {
                break;
            }
        }
        let after = self.beats();
        let heard = |before: Option<u64>, after: Option<u64>| Some(after? > before?);
        let pulse = Pulse { ebpf: heard(before[0], after[0]), inotify: heard(before[1], after[1]) };
        Ok((!self.more).then_some(pulse))
    }

    /// Heartbeats heard so far, of the channels that can be asked.
    fn beats(&self) -> [Option<u64>; 2] {
        [
            self.kernel.as_ref().and_then(KernelSide::beats),
            self.ear.as_ref().and_then(|ear| ear.source.beats()),
        ]
    }

    /// See [`EbpfSource::child_reader`](crate::source::ebpf::EbpfSource::child_reader).
    pub(in crate::trace) fn child_reader(&mut self) -> Option<Arc<ChildReader>> {
        self.kernel.as_mut()?.source.child_reader()
    }

    /// What a channel cannot hear now, though it runs.
    pub(in crate::trace) fn gap(&self, channel: Channel) -> Option<String> {
        match channel {
            Channel::Ebpf => {
                let roots = &self.kernel.as_ref()?.roots;
                (!roots.complete()).then(|| "a watched path does not exist now".to_owned())
            }
            Channel::Inotify => {
                let source = &self.ear.as_ref()?.source;
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

    /// Begins to start a channel anew; [`Self::revived`] tells the end. Loading the programs takes a tenth of a second and
    /// more: that is done beside the loop.
    pub(in crate::trace) fn revive(&mut self, channel: Channel) {
        self.revival = match (channel, &self.kernel) {
            (Channel::Ebpf, Some(_)) => {
                let options = self.options.clone();
                let load = move || KernelSide::start(&options).map(Box::new);
                match std::thread::Builder::new().name("hotr-load".to_owned()).spawn(load) {
                    Ok(thread) => Some(Revival::Loads(thread)),
                    Err(error) => Some(Revival::Refused(no_thread(error))),
                }
            }
            _ => Some(Revival::Short(channel)),
        }
    }

    /// How the new start of a channel went; none while it goes on.
    pub(in crate::trace) fn revived(&mut self) -> Option<(Channel, Result<(), Error>)> {
        match self.revival.take()? {
            Revival::Loads(thread) if !thread.is_finished() => {
                self.revival = Some(Revival::Loads(thread));
                None
            }
            Revival::Loads(thread) => {
                let loaded = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                Some((Channel::Ebpf, loaded.map(|fresh| self.replace(*fresh))))
            }
            Revival::Refused(error) => Some((Channel::Ebpf, Err(error))),
            Revival::Short(Channel::Inotify) => Some((Channel::Inotify, self.repair())),
            Revival::Short(channel) => Some((channel, Ok(()))),
        }
    }

    fn replace(&mut self, mut fresh: KernelSide) {
        if let Some(ear) = &self.ear {
            fresh.listen_to(ear);
        }
        if let Some(dir) = self.heart.as_ref().and_then(Heart::dir) {
            // Refused, it counts as unheard.
            let _ = fresh.listen_to_heart(dir);
        }
        self.renewed = true;
        let former = self.kernel.replace(fresh);
        // The kernel waits for each program to end that is detached. Without a thread it is done here.
        let _ = std::thread::Builder::new().spawn(move || drop(former));
    }

    fn repair(&mut self) -> Result<(), Error> {
        let Some(ear) = &mut self.ear else { return Ok(()) };
        let repaired = ear.repair()?;
        if let Some(kernel) = &mut self.kernel {
            kernel.listen_to(ear);
        }
        self.report_found(repaired.found);
        self.renewed = true;
        Ok(())
    }
}

/// A new start of a channel.
pub(super) enum Revival {
    Loads(JoinHandle<Result<Box<KernelSide>, Error>>),
    Refused(Error),
    /// Done when it is asked for.
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
