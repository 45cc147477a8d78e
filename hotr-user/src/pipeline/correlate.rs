//! Which changes inotify received: proof by ordering, not by waiting.
//!
//! inotify queues its event inside the system call that makes the change (fs/notify/fsnotify.c `fsnotify`), before
//! the exit of the function that a record comes from. So once a record is in userspace, draining the inotify
//! descriptor to its end *after* the record was read proves presence or absence.
//!
//! In: inotify events with the times between which they were queued and read, then records of one or more changes. Out:
//! whether an event covers a record, and events that no record explains.
//! - An event that was queued after a change was recorded is not of that change. Any other may be: the kernel merges equal
//!   unread events, so one stands for one change or more.
//! - A change queues one event at most. So a record of n changes explains n events, and no more; some calls queue any
//!   number, and explain all. The latest are taken first: the earlier ones may be of more records.
//! - An event read at or after the moment of the record covers it. One read before does if no record explains it yet (the
//!   reader was faster than the function's exit), or if it was read a moment before: two writers' events merge, and both
//!   exits follow the reading.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::deferred_map::DeferredMap;
use hotr_events::Op;

/// What an inotify event says happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// `IN_CREATE`.
    Create,
    /// `IN_MODIFY`.
    Modify,
    /// `IN_ATTRIB`.
    Attrib,
    /// `IN_MOVED_FROM`.
    MovedFrom,
    /// `IN_MOVED_TO`.
    MovedTo,
    /// `IN_DELETE`.
    Delete,
}

impl EventKind {
    /// What inotify reports of an operation, seen from the new name.
    #[must_use]
    pub const fn of(op: Op) -> Self {
        match op {
            Op::Create => Self::Create,
            Op::Write => Self::Modify,
            Op::Attrib => Self::Attrib,
            Op::Rename => Self::MovedTo,
            Op::Remove => Self::Delete,
        }
    }
}

/// How long an event may wait for its record, and keeps covering late ones: the time between an event's queueing
/// and the end of its system call, however busy the machine. After it, an event that no record came for is
/// something eBPF did not see.
pub const HOLD_NS: u64 = 1_500_000_000;

/// How long before the record of a change its event may have been read, though another record has explained that event: as
/// long as the scheduler keeps a writer between its event and the end of its system call.
pub const HELD_UP_NS: u64 = 200_000_000;

/// Most changes of one file and kind that are remembered one by one until their events have come.
const OWED: usize = 64;

/// Events that wait for their records at most. A storm makes more of them within [`HOLD_NS`] than there is memory for; the
/// oldest are then forgotten, and nothing is claimed that they could contradict.
const EVENTS: usize = 1 << 16;

/// Renames of directories that are remembered: each event without a record is compared with them.
const RENAMES: usize = 256;

/// What a record says of its changes.
#[derive(Clone, Copy, Debug)]
pub struct RecordedChanges {
    /// `CLOCK_MONOTONIC` of the last one.
    pub last_ns: u64,
    /// How many events they may have queued at most.
    pub events: u64,
    /// The kernel makes no event for changes of this kind: one that another record explains is not this record's unless
    /// it was read afterwards.
    pub is_silent: bool,
    /// The queue was not read to its end since.
    pub unread: bool,
    /// Recorded before the kernel notifies, which it does within [`HELD_UP_NS`].
    pub is_before: bool,
}

impl RecordedChanges {
    /// When the last of its events may have been queued.
    #[must_use]
    pub const fn until_ns(&self) -> u64 {
        if self.is_before { self.last_ns.saturating_add(HELD_UP_NS) } else { self.last_ns }
    }
}

/// What events that nothing explains say of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// There are none.
    Nothing,
    /// It was made, or changed.
    Changed,
    /// It was renamed; that is reported separately.
    Renamed,
}

/// When an event was queued and read, `CLOCK_MONOTONIC`.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// Before it was queued; 0 when that is not known.
    pub after_ns: u64,
    /// After it was read.
    pub read_ns: u64,
}

#[derive(Debug)]
struct ReceivedEvent<T> {
    reading: Reading,
    /// With its path; none once a record explains it.
    event: Option<Box<(PathBuf, T)>>,
    /// Its name was renamed just before.
    is_moved: bool,
}

/// Whose name is asked about: that of an event was given before the rename, that of a record after it.
#[derive(Clone, Copy)]
enum Side {
    Event,
    Record,
}

/// The events of one key, oldest first.
#[derive(Debug)]
struct Queue<T> {
    heard: VecDeque<ReceivedEvent<T>>,
    unexplained: usize,
}

impl<T> Queue<T> {
    /// Takes as explained the latest event that nothing explains and that was queued after no later moment.
    fn explain(&mut self, until_ns: u64) -> Option<u64> {
        if self.unexplained == 0 {
            return None;
        }
        let may_be =
            |heard: &&mut ReceivedEvent<T>| heard.event.is_some() && heard.reading.after_ns <= until_ns;
        let heard = self.heard.iter_mut().rev().find(may_be)?;
        heard.event = None;
        self.unexplained -= 1;
        Some(heard.reading.after_ns)
    }
}

/// Events that changes may still explain: they were not read when the changes were reported.
#[derive(Debug)]
struct AwaitedEvents {
    /// When the last of them may be queued.
    until_ns: u64,
    left: u64,
    /// [`Reading::after_ns`] of those explained before, in order. They may have been of a record that came later, and then
    /// finds none.
    taken: Vec<u64>,
}

impl AwaitedEvents {
    fn take(&mut self, after_ns: u64) {
        self.left -= 1;
        let at = self.taken.partition_point(|taken| *taken <= after_ns);
        self.taken.insert(at, after_ns);
    }
}

/// A path, and an event of that kind. Of the path there are 128 bits of two hashes whose keys nobody else knows: storms have
/// more paths than there is memory for, and two with the same bits cannot be made on purpose.
type Key = ([u64; 2], EventKind);

/// Remembers inotify events until their records have come. `T` is what is wanted back of an event without one.
#[derive(Debug)]
pub struct Correlator<T> {
    hashes: [RandomState; 2],
    heard: DeferredMap<Key, Queue<T>>,
    order: VecDeque<(u64, Key)>,
    /// Events at most.
    room: usize,
    /// Events without a record that were forgotten because there was no room.
    unmatched: u64,
    /// Changes that were reported before their events were read, by [`AwaitedEvents::until_ns`], and when they are forgotten.
    owed: HashMap<Key, Vec<AwaitedEvents>>,
    debts: VecDeque<(u64, Key)>,
    /// Names found in new directories that are still remembered, at least.
    found: usize,
    /// When directories were renamed.
    moves: VecDeque<u64>,
    /// Directories with records of their renames: when, and both paths.
    renames: VecDeque<(u64, PathBuf, PathBuf)>,
    /// What was received before was discarded then.
    blind_ns: u64,
}

impl<T> Default for Correlator<T> {
    fn default() -> Self {
        Self {
            hashes: [RandomState::new(), RandomState::new()],
            heard: DeferredMap::default(),
            order: VecDeque::new(),
            room: EVENTS,
            unmatched: 0,
            owed: HashMap::new(),
            debts: VecDeque::new(),
            found: 0,
            moves: VecDeque::new(),
            renames: VecDeque::new(),
            blind_ns: 0,
        }
    }
}

impl<T> Correlator<T> {
    /// Takes an event.
    pub fn receive(&mut self, path: impl Into<PathBuf>, told: EventKind, reading: Reading, event: T) {
        let path = path.into();
        let mut key = self.key(&path, told);
        if self.order.len() >= self.room {
            self.forget_oldest();
        }
        self.order.push_back((reading.read_ns, key));
        let is_explained = self.owed.get_mut(&key).is_some_and(|owed| pay(owed, reading));
        let is_moved = self.was_moved(&mut key, reading.read_ns, Side::Event);
        let heard =
            ReceivedEvent { reading, event: (!is_explained).then(|| Box::new((path, event))), is_moved };
        let unexplained = usize::from(!is_explained);
        match self.heard.get_mut(&key) {
            Some(queue) => {
                queue.heard.push_back(heard);
                queue.unexplained += unexplained;
            }
            None => self.heard.insert(key, Queue { heard: VecDeque::from([heard]), unexplained }),
        }
    }

    /// Takes a name that was found in a new directory, for which there was no event.
    pub fn find(&mut self, path: impl Into<PathBuf>, read_ns: u64, event: T) {
        self.found += 1;
        self.receive(path, EventKind::Create, Reading { after_ns: 0, read_ns }, event);
    }

    fn key(&self, path: &Path, told: EventKind) -> Key {
        let bytes = path.as_os_str().as_bytes();
        ([self.hashes[0].hash_one(bytes), self.hashes[1].hash_one(bytes)], told)
    }

    /// Forgets an event before its time. Of the changes that it could be of, nothing is proven any more.
    fn forget_oldest(&mut self) {
        let Some((read_ns, key)) = self.order.pop_front() else { return };
        self.blind_ns = self.blind_ns.max(read_ns);
        let forgotten = self.take_first(&key);
        self.unmatched += u64::from(forgotten.is_some_and(|heard| heard.event.is_some()));
    }

    fn take_first(&mut self, key: &Key) -> Option<ReceivedEvent<T>> {
        let queue = self.heard.get_mut(key)?;
        let first = queue.heard.pop_front()?;
        queue.unexplained -= usize::from(first.event.is_some());
        if queue.heard.is_empty() {
            self.heard.remove(key);
        }
        Some(first)
    }

    /// How many events without a record were forgotten because there was no room for more, since the last call.
    pub fn take_unmatched(&mut self) -> u64 {
        std::mem::take(&mut self.unmatched)
    }

    /// Whether an event covers a record; every event that it explains is taken as explained. Every event that was queued
    /// before must have been given to [`Self::receive`], or the record says that it was not.
    pub fn covers(&mut self, path: &Path, told: EventKind, made: RecordedChanges) -> bool {
        let key = self.key(path, told);
        let mut left = made.events;
        let (mut is_covered, mut taken) = (false, Vec::new());
        let is_owed = made.unread || made.is_before;
        let mut queue = self.heard.get_mut(&key);
        if let Some(queue) = &mut queue {
            for heard in queue.heard.iter_mut().rev() {
                let Reading { after_ns, read_ns } = heard.reading;
                if after_ns > made.until_ns() {
                    continue;
                }
                let is_near = !made.is_silent && read_ns.saturating_add(HELD_UP_NS) >= made.last_ns;
                is_covered |= read_ns >= made.last_ns || is_near || heard.event.is_some();
                if left > 0 && heard.event.take().is_some() {
                    left -= 1;
                    queue.unexplained -= 1;
                    taken.push(after_ns);
                }
                if is_covered && (left == 0 || queue.unexplained == 0) {
                    break;
                }
            }
        }
        if made.is_before && !made.unread && !is_covered {
            // It is needed again.
            return false;
        }
        if is_owed {
            taken.reverse();
            self.owe(key, AwaitedEvents { until_ns: made.until_ns(), left, taken });
        } else if let Some(owed) = self.owed.get_mut(&key) {
            for after_ns in taken.into_iter().rev() {
                swap(owed, made.last_ns, after_ns);
            }
            while left > 0
                && let Some((at, after_ns)) = release(owed, made.last_ns, 0)
            {
                left -= 1;
                swap(owed, made.last_ns, after_ns);
                relieve(queue.as_deref_mut(), owed, at);
            }
        }
        is_covered
    }

    /// The change that was recorded at `made_ns` may queue one event more, after its record.
    pub fn may_come_again(&mut self, path: &Path, told: EventKind, made_ns: u64) {
        let until_ns = made_ns.saturating_add(HELD_UP_NS);
        self.owe(self.key(path, told), AwaitedEvents { until_ns, left: 1, taken: Vec::new() });
    }

    fn owe(&mut self, key: Key, new: AwaitedEvents) {
        self.debts.push_back((new.until_ns.saturating_add(2 * HOLD_NS), key));
        let mut queue = self.heard.get_mut(&key);
        let owed = self.owed.entry(key).or_default();
        let at = owed.partition_point(|one| one.until_ns <= new.until_ns);
        owed.insert(at, new);
        while owed[at].left > 0 && relieve(queue.as_deref_mut(), owed, at) {}
        if owed.len() > OWED {
            // Somebody makes many changes of one file: the oldest two are no longer told apart.
            let first = owed.remove(0);
            owed[0].left = owed[0].left.saturating_add(first.left);
            owed[0].taken.splice(..0, first.taken);
            owed[0].taken.sort_unstable();
        }
    }

    /// Takes a change of a file that was found by looking at it: its events are not reported as well.
    pub fn found(&mut self, path: &Path) -> Known {
        let mut key = self.key(path, EventKind::MovedTo);
        if self.heard.get(&key).is_some_and(|queue| queue.unexplained > 0) {
            return Known::Renamed;
        }
        let mut known = Known::Nothing;
        for told in [EventKind::Create, EventKind::Modify, EventKind::Attrib] {
            key.1 = told;
            let Some(queue) = self.heard.get_mut(&key).filter(|queue| queue.unexplained > 0) else {
                continue;
            };
            queue.heard.iter_mut().for_each(|heard| heard.event = None);
            queue.unexplained = 0;
            known = Known::Changed;
        }
        known
    }

    /// A name appeared by a rename: it explains what was found in a new directory under that name and below it.
    pub fn arrived(&mut self, path: &Path) {
        if self.found == 0 {
            return;
        }
        for (_, key) in &self.order {
            if key.1 != EventKind::Create {
                continue;
            }
            let Some(queue) = self.heard.get_mut(key).filter(|queue| queue.unexplained > 0) else { continue };
            for heard in queue.heard.iter_mut().filter(|heard| heard.reading.after_ns == 0) {
                let explained = heard.event.take_if(|event| event.0.starts_with(path));
                queue.unexplained -= usize::from(explained.is_some());
            }
        }
    }

    /// Forgets events read before `now_ns` less [`HOLD_NS`]; those that no record explains are handed to `orphan` with their path. Returns how
    /// many were left out, because a directory above was renamed about then: the path of such an event may be that of another
    /// moment, and its record have the right one.
    pub fn expire(&mut self, now_ns: u64, mut orphan: impl FnMut(PathBuf, T)) -> u64 {
        let mut unplaced = 0;
        while let Some((_, mut key)) = self.order.pop_front_if(|(read, ..)| *read + HOLD_NS <= now_ns) {
            if let Some(ReceivedEvent { reading, event: Some(event), is_moved: false }) =
                self.take_first(&key)
                && !self.was_moved(&mut key, reading.read_ns, Side::Event)
            {
                let (path, event) = *event;
                if self.is_below_renamed(&path, reading.read_ns) {
                    unplaced += 1;
                } else {
                    orphan(path, event);
                }
            }
        }
        if self.order.is_empty() {
            self.found = 0;
        }
        let is_over = |at: u64| at.saturating_add(HOLD_NS + HELD_UP_NS) <= now_ns;
        while self.moves.pop_front_if(|at| is_over(*at)).is_some() {}
        while self.renames.pop_front_if(|(at, ..)| is_over(*at)).is_some() {}
        while let Some((at, key)) = self.debts.pop_front_if(|(at, ..)| *at <= now_ns) {
            let Some(owed) = self.owed.get_mut(&key) else { continue };
            owed.retain(|owed| owed.until_ns.saturating_add(2 * HOLD_NS) > at);
            if owed.is_empty() {
                self.owed.remove(&key);
            }
        }
        unplaced
    }

    /// When [`Self::expire`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        self.order.front().map(|(read, ..)| read + HOLD_NS)
    }

    /// Does the work on received events that can wait; see [`DeferredMap::put_away`].
    pub fn put_away(&mut self) {
        self.heard.put_away();
    }

    /// Whether what [`Self::covers`] says of a change proves absence: nothing received since was discarded, and its
    /// event cannot have another name.
    ///
    /// Of a change that was recorded before its event, absence is proven when the queue was read at [`RecordedChanges::until_ns`].
    #[must_use]
    pub fn proves(&self, path: &Path, told: EventKind, made: RecordedChanges) -> bool {
        let sees = self.blind_ns == 0 || made.last_ns > self.blind_ns.saturating_add(HELD_UP_NS);
        sees && (made.is_silent || !self.was_moved(&mut self.key(path, told), made.last_ns, Side::Record))
    }

    /// Takes the rename of a directory: what is below has another name since.
    pub fn moved(&mut self, read_ns: u64) {
        self.moves.push_back(read_ns);
    }

    /// Takes the record of a directory's rename.
    pub fn renamed(&mut self, made_ns: u64, old: &Path, new: &Path) {
        if self.renames.len() >= RENAMES {
            self.renames.pop_front();
        }
        self.renames.push_back((made_ns, old.to_path_buf(), new.to_path_buf()));
    }

    fn is_below_renamed(&self, path: &Path, at_ns: u64) -> bool {
        self.renames.iter().any(|(made_ns, old, new)| {
            made_ns.abs_diff(at_ns) <= HELD_UP_NS && (path.starts_with(old) || path.starts_with(new))
        })
    }

    /// Whether the name was renamed about then: the file is open, so the event of a write may have the one name and its
    /// record, or the total it is counted in, the other. So may those of a create, where the record is made at the end of
    /// the open.
    fn was_moved(&self, key: &mut Key, at_ns: u64, of: Side) -> bool {
        let told = key.1;
        let renames: &[EventKind] = match (told, of) {
            (EventKind::Modify | EventKind::Attrib, _) => &[EventKind::MovedFrom, EventKind::MovedTo],
            (EventKind::Create, Side::Event) => &[EventKind::MovedFrom],
            (EventKind::Create, Side::Record) => &[EventKind::MovedTo],
            _ => return false,
        };
        let (from_ns, until_ns) = (at_ns.saturating_sub(HELD_UP_NS), at_ns.saturating_add(HELD_UP_NS));
        let first = self.moves.partition_point(|at| *at < from_ns);
        let mut is_moved =
            told != EventKind::Create && self.moves.get(first).is_some_and(|at| *at <= until_ns);
        for rename in renames {
            key.1 = *rename;
            let Some(Queue { heard, .. }) = self.heard.get(key) else { continue };
            let first = heard.partition_point(|one| one.reading.read_ns < from_ns);
            is_moved |= heard.get(first).is_some_and(|one| one.reading.read_ns <= until_ns);
        }
        key.1 = told;
        is_moved
    }

    /// Forgets everything: the channel lost events, nothing can be proven by what is there.
    pub fn clear(&mut self, now_ns: u64) {
        self.blind_ns = now_ns;
        self.heard.clear();
        self.order.clear();
        self.found = 0;
    }
}

/// Whether changes that were reported before explain an event that no record explains.
fn pay(owed: &mut [AwaitedEvents], reading: Reading) -> bool {
    let free = owed.iter_mut().find(|owed| owed.left > 0 && reading.after_ns <= owed.until_ns);
    free.map(|owed| owed.take(reading.after_ns)).is_some()
}

/// Takes an event that was queued after no later moment than `until_ns` from those changes whose events may be queued last,
/// after `than_ns`.
fn release(owed: &mut [AwaitedEvents], until_ns: u64, than_ns: u64) -> Option<(usize, u64)> {
    for (at, one) in owed.iter_mut().enumerate().rev().take_while(|(_, one)| one.until_ns > than_ns) {
        let before = one.taken.partition_point(|after_ns| *after_ns <= until_ns);
        if before > 0 {
            one.left = one.left.saturating_add(1);
            return Some((at, one.taken.remove(before - 1)));
        }
    }
    None
}

/// Leaves an event to changes that can explain it as well as the later one of theirs that is taken instead, if there is one:
/// what explains it need not be found out again for a record, which is never asked twice.
fn swap(owed: &mut [AwaitedEvents], until_ns: u64, after_ns: u64) {
    let latest = |one: &AwaitedEvents| {
        let before = one.taken.partition_point(|taken| *taken <= until_ns);
        before.checked_sub(1).map(|at| one.taken[at]).filter(|taken| *taken > after_ns)
    };
    let best = owed
        .iter_mut()
        .filter_map(|one| latest(one).map(|taken| (taken, one)))
        .max_by_key(|(taken, _)| *taken);
    if let Some((taken, one)) = best {
        let at = one.taken.partition_point(|other| *other < taken);
        one.taken.remove(at);
        let at = one.taken.partition_point(|other| *other <= after_ns);
        one.taken.insert(at, after_ns);
    }
}

/// Explains one event more by changes that were reported: one that nothing explains, or one of changes that can explain
/// a later one.
fn relieve<T>(mut queue: Option<&mut Queue<T>>, owed: &mut [AwaitedEvents], mut at: usize) -> bool {
    let mut is_of_use = false;
    loop {
        let until_ns = owed[at].until_ns;
        if let Some(after_ns) = queue.as_deref_mut().and_then(|queue| queue.explain(until_ns)) {
            owed[at].take(after_ns);
            return true;
        }
        let Some((other, after_ns)) = release(owed, until_ns, until_ns) else { return is_of_use };
        owed[at].take(after_ns);
        (at, is_of_use) = (other, true);
    }
}

#[cfg(test)]
#[path = "correlate_tests.rs"]
mod tests;
