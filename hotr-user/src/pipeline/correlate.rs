//! Which changes inotify heard: proof by ordering, not by waiting.
//!
//! inotify queues its event inside the system call that makes the change (fs/notify/fsnotify.c `fsnotify`), before
//! the exit of the function that a record comes from. So once a record is in userspace, draining the inotify
//! descriptor to its end *after* the record was read proves presence or absence.
//!
//! In: inotify events with the time they were read, then records. Out: whether an event covers a record:
//! - an event read at R covers every record of its key made at T ≤ R, for the kernel merges equal unread events;
//! - an event read before T (the reader was faster than the function's exit) covers one record, the next of its
//!   key: the one whose system call queued it;
//! - where T lies between the beginning and the end of that reading, either may be: then the next event of the key may be
//!   the record's as well, for some calls queue two (copy_file_range: fs/read_write.c `do_iter_write` and
//!   `vfs_copy_file_range`), and is not called one without a record.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use super::late::LateMap;
use crate::event::Op;

/// What an inotify event says happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Told {
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

impl Told {
    /// What inotify tells of an operation, seen from the new name.
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

#[derive(Debug)]
struct Heard<T> {
    asked_ns: u64,
    read_ns: u64,
    used: bool,
    event: Option<T>,
}

/// Remembers inotify events until their records have come. `T` is what is wanted back of an event without one.
#[derive(Debug)]
pub struct Correlator<T> {
    heard: LateMap<(PathBuf, Told), VecDeque<Heard<T>>>,
    order: VecDeque<(u64, PathBuf, Told)>,
}

impl<T> Default for Correlator<T> {
    fn default() -> Self {
        Self { heard: LateMap::default(), order: VecDeque::new() }
    }
}

impl<T> Correlator<T> {
    /// Takes an event that was read by a call made after `asked_ns` and over at `read_ns` (`CLOCK_MONOTONIC`).
    pub fn hear(&mut self, path: &Path, told: Told, (asked_ns, read_ns): (u64, u64), event: T) {
        let key = (path.to_path_buf(), told);
        self.order.push_back((read_ns, key.0.clone(), told));
        let heard = Heard { asked_ns, read_ns, used: false, event: Some(event) };
        match self.heard.get_mut(&key) {
            Some(queue) => queue.push_back(heard),
            None => self.heard.insert(key, VecDeque::from([heard])),
        }
    }

    /// Whether an event covers the record of a change made at `made_ns`. Every event that was queued before must
    /// have been given to [`Self::hear`].
    pub fn covers(&mut self, path: &Path, told: Told, made_ns: u64) -> bool {
        let Some(queue) = self.heard.get_mut(&(path.to_path_buf(), told)) else { return false };
        let (mut early, mut in_doubt) = (false, false);
        for heard in queue.iter_mut() {
            if in_doubt {
                heard.event = None;
                break;
            }
            if heard.read_ns >= made_ns {
                heard.used = true;
                heard.event = None;
                if heard.asked_ns >= made_ns {
                    return true;
                }
                in_doubt = true;
                continue;
            }
            // Older events of the key belong to this record or to earlier ones that were only counted.
            early |= !heard.used;
            heard.used = true;
            heard.event = None;
        }
        early || in_doubt
    }

    /// Forgets events read before `now_ns` less [`HOLD_NS`]; those that no record came for are handed to `orphan`.
    pub fn expire(&mut self, now_ns: u64, mut orphan: impl FnMut(T)) {
        while let Some((_, path, told)) = self.order.pop_front_if(|(read, ..)| *read + HOLD_NS <= now_ns) {
            let key = (path, told);
            let Some(queue) = self.heard.get_mut(&key) else { continue };
            if let Some(event) = queue.pop_front().and_then(|heard| heard.event) {
                orphan(event);
            }
            if queue.is_empty() {
                self.heard.remove(&key);
            }
        }
    }

    /// When [`Self::expire`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        self.order.front().map(|(read, ..)| read + HOLD_NS)
    }

    /// Does the work on what was heard that can wait; see [`LateMap::put_away`].
    pub fn put_away(&mut self) {
        self.heard.put_away();
    }

    /// Forgets everything: the channel lost events, nothing can be proven by what is there.
    pub fn clear(&mut self) {
        self.heard.clear();
        self.order.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "/srv/a";

    fn file() -> &'static Path {
        Path::new(FILE)
    }

    #[test]
    fn an_event_read_after_the_record_covers_every_earlier_record() {
        let mut correlator = Correlator::default();
        correlator.hear(file(), Told::Modify, (100, 100), ());
        assert!(correlator.covers(file(), Told::Modify, 90));
        assert!(correlator.covers(file(), Told::Modify, 100), "merged with the unread event");
        assert!(!correlator.covers(file(), Told::Modify, 101), "made after the queue was empty");
    }

    #[test]
    fn an_event_read_before_the_functions_exit_covers_one_record() {
        let mut correlator = Correlator::default();
        correlator.hear(file(), Told::Create, (100, 100), ());
        assert!(correlator.covers(file(), Told::Create, 120));
        assert!(!correlator.covers(file(), Told::Create, 130));
    }

    #[test]
    fn a_call_that_queued_two_events_covers_both_when_the_first_was_read_meanwhile() {
        let mut correlator = Correlator::default();
        // Read before the record was made; but the clock was looked at afterwards.
        correlator.hear(file(), Told::Modify, (80, 100), "first");
        correlator.hear(file(), Told::Modify, (110, 120), "second");
        correlator.hear(file(), Told::Modify, (130, 140), "of somebody else");
        assert!(correlator.covers(file(), Told::Modify, 90));
        let mut orphans = Vec::new();
        correlator.expire(140 + HOLD_NS, |event| orphans.push(event));
        assert_eq!(orphans, ["of somebody else"]);
    }

    #[test]
    fn an_event_in_doubt_still_covers_the_record_it_belongs_to() {
        let mut correlator = Correlator::default();
        correlator.hear(file(), Told::Modify, (80, 100), ());
        correlator.hear(file(), Told::Modify, (110, 120), ());
        assert!(correlator.covers(file(), Told::Modify, 90));
        assert!(correlator.covers(file(), Told::Modify, 125), "read before the function's exit");
        assert!(!correlator.covers(file(), Told::Modify, 126));
    }

    #[test]
    fn other_names_and_other_kinds_do_not_cover() {
        let mut correlator = Correlator::default();
        correlator.hear(file(), Told::Modify, (100, 100), ());
        assert!(!correlator.covers(Path::new("/srv/b"), Told::Modify, 90));
        assert!(!correlator.covers(file(), Told::Attrib, 90));
    }

    #[test]
    fn an_event_without_a_record_is_handed_back_once() {
        let mut correlator = Correlator::default();
        correlator.hear(file(), Told::Modify, (100, 100), "heard alone");
        correlator.hear(Path::new("/srv/b"), Told::Modify, (100, 100), "recorded");
        assert!(correlator.covers(Path::new("/srv/b"), Told::Modify, 100));
        let mut orphans = Vec::new();
        correlator.expire(100 + HOLD_NS - 1, |event| orphans.push(event));
        assert!(orphans.is_empty());
        correlator.expire(100 + HOLD_NS, |event| orphans.push(event));
        assert_eq!(orphans, ["heard alone"]);
        assert_eq!(correlator.next_deadline(), None);
    }
}
