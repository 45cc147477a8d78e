//! Inotify instances of hotr's own that stand in for those of the targets, where no program can be attached to what the
//! kernel queues: with the same watches and masks, they get what the targets are offered.
//!
//! In: watches that a look saw, each with its inode opened. Out: [`ReceivedEvent`] events. Nothing is added to the targets, and
//! nothing of theirs is kept: a watch keeps no file alive, and the descriptors are closed at once.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};

use hotr_common::uapi::inotify::Q_OVERFLOW;
use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};

use crate::diagnose::view::bits;
use crate::source::inotify::half_of_watches;
use crate::source::mono_ns;

/// Most watches, in all; hotr also uses at most half of what its user may have.
const MOST: usize = 65_536;
/// Bits of a mask that mean the same to a stand-in.
const KEPT: u32 = 0xfff | bits::EXCL_UNLINK | bits::ONESHOT;

/// An event of a stand-in.
#[derive(Clone, Debug)]
pub(super) struct ReceivedEvent {
    /// The queue was empty then: the event is of a change after that.
    pub(super) after: u64,
    /// When it was read.
    pub(super) until: u64,
    /// The target's watch.
    pub(super) wd: i32,
    pub(super) mask: u32,
    pub(super) name: Box<[u8]>,
}

struct StandInWatch {
    wd: i32,
    mask: u32,
    /// From then on it is there.
    since: u64,
}

struct StandInInstance {
    own: OwnedFd,
    /// By the target's watch and inode.
    twins: HashMap<(i32, u64), StandInWatch>,
    /// From a watch of its own to the target's.
    names: HashMap<i32, i32>,
    drained: u64,
}

/// All of them, by process and descriptor.
pub(super) struct StandInInstances {
    all: HashMap<(u32, i32), StandInInstance>,
    room: usize,
    /// Watches that have none.
    lacking: HashSet<(u32, i32, i32, u64)>,
    is_full: bool,
    /// Until then events may be missing.
    gap_until: u64,
}

impl StandInInstances {
    pub(super) fn new() -> Self {
        let room = half_of_watches().min(MOST);
        Self { all: HashMap::new(), room, lacking: HashSet::new(), is_full: false, gap_until: 0 }
    }

    /// When the stand-in of a watch began; `None` when it has none.
    pub(super) fn since(&self, at: (u32, i32), wd: i32, ino: u64) -> Option<u64> {
        Some(self.all.get(&at)?.twins.get(&(wd, ino))?.since)
    }

    /// A look sees a watch. `open` opens its inode, when it has to be.
    pub(super) fn keep(
        &mut self,
        at: (u32, i32),
        (wd, ino, mask): (i32, u64, u32),
        open: impl FnOnce() -> Option<OwnedFd>,
    ) {
        let mask = mask & KEPT;
        let known = self.all.get(&at).and_then(|shadow| shadow.twins.get(&(wd, ino)));
        if known.is_some_and(|twin| twin.mask == mask) {
            return;
        }
        let lack = (at.0, at.1, wd, ino);
        if self.lacking.contains(&lack) && known.is_none() {
            return;
        }
        if known.is_none() && self.all.values().map(|shadow| shadow.twins.len()).sum::<usize>() >= self.room {
            self.is_full = true;
            self.lacking.insert(lack);
            return;
        }
        if open().and_then(|file| self.add(at, (wd, ino, mask), &file)).is_none() {
            self.lacking.insert(lack);
        }
    }

    fn add(&mut self, at: (u32, i32), (wd, ino, mask): (i32, u64, u32), file: &OwnedFd) -> Option<()> {
        let shadow = match self.all.entry(at) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => {
                let own = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok()?;
                place.insert(StandInInstance {
                    own,
                    twins: HashMap::new(),
                    names: HashMap::new(),
                    drained: mono_ns(),
                })
            }
        };
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        match inotify::add_watch(&shadow.own, path, WatchFlags::from_bits_retain(mask)) {
            Ok(own) => {
                // The kernel gives the number of an inode's watch again.
                shadow.twins.retain(|_, twin| twin.wd != own);
                shadow.names.insert(own, wd);
                shadow.twins.insert((wd, ino), StandInWatch { wd: own, mask, since: mono_ns() });
                Some(())
            }
            Err(errno) => {
                self.is_full |= errno == rustix::io::Errno::NOSPC;
                None
            }
        }
    }

    /// The watches of an instance are these: others end.
    pub(super) fn only(&mut self, at: (u32, i32), seen: &HashSet<(i32, u64)>) {
        let Some(shadow) = self.all.get_mut(&at) else { return };
        let own = &shadow.own;
        shadow.twins.retain(|key, twin| {
            let is_there = seen.contains(key);
            if !is_there {
                let _ = inotify::remove_watch(own, twin.wd);
            }
            is_there
        });
    }

    /// An instance is closed.
    pub(super) fn close(&mut self, at: (u32, i32)) {
        self.all.remove(&at);
        self.lacking.retain(|lack| (lack.0, lack.1) != at);
    }

    /// How many watches have no stand-in, when there was no room for one.
    pub(super) fn lacking(&self) -> usize {
        self.lacking.len()
    }

    /// Whether the limit is why.
    pub(super) fn is_full(&self) -> bool {
        self.is_full
    }

    /// Until when events may be missing.
    pub(super) fn gap_until(&self) -> u64 {
        self.gap_until
    }

    /// Reads all events that are there.
    pub(super) fn drain(&mut self, mut each: impl FnMut((u32, i32), ReceivedEvent)) {
        let mut overflow = false;
        for (at, shadow) in &mut self.all {
            let (after, began) = (shadow.drained, mono_ns());
            let mut events = Vec::new();
            let mut buffer = [MaybeUninit::uninit(); 32 << 10];
            let mut reader = Reader::new(&shadow.own, &mut buffer);
            while let Ok(event) = reader.next() {
                let mask = event.events().bits();
                overflow |= mask & Q_OVERFLOW != 0;
                let name = event.file_name().map(|name| name.to_bytes().into()).unwrap_or_default();
                events.push((event.wd(), mask, name));
            }
            let until = mono_ns();
            shadow.drained = began;
            for (own, mask, name) in events {
                let Some(&wd) = shadow.names.get(&own) else { continue };
                each(*at, ReceivedEvent { after, until, wd, mask, name });
            }
        }
        if overflow {
            self.gap_until = mono_ns() + super::GAP_NS;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn open(path: &Path) -> Option<OwnedFd> {
        use rustix::fs::{Mode, OFlags};
        rustix::fs::open(path, OFlags::PATH, Mode::empty()).ok()
    }

    #[test]
    fn it_gets_what_the_watch_asks_for_and_no_more_watches_than_there_is_room_for() {
        let dir = std::env::temp_dir().join(format!("hotr-shadow-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let mut shadows = StandInInstances { room: 1, ..StandInInstances::new() };
        shadows.keep((1, 3), (7, 70, bits::CREATE), || open(&dir));
        shadows.keep((1, 3), (8, 80, bits::CREATE), || panic!("there is no room"));
        assert!(shadows.since((1, 3), 7, 70).is_some() && shadows.since((1, 3), 8, 80).is_none());
        assert!(shadows.is_full() && shadows.lacking() == 1);
        std::fs::write(dir.join("f"), "1").unwrap();
        let mut heard = Vec::new();
        shadows.drain(|at, one| heard.push((at, one.wd, one.mask, one.name)));
        assert_eq!(heard, [((1, 3), 7, bits::CREATE, b"f".as_slice().into())]);
        // Another mask of the same watch.
        shadows.keep((1, 3), (7, 70, bits::DELETE), || open(&dir));
        std::fs::remove_file(dir.join("f")).unwrap();
        shadows.drain(|_, one| heard.push(((0, 0), one.wd, one.mask, one.name)));
        assert_eq!(heard.len(), 2);
        assert_eq!(heard[1].2, bits::DELETE);
        // The watch is gone, and the instance.
        shadows.only((1, 3), &HashSet::new());
        assert_eq!(shadows.since((1, 3), 7, 70), None);
        shadows.close((1, 3));
        assert_eq!((shadows.all.len(), shadows.lacking()), (0, 0));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
