//! Which events of the followed queues were read, and when.
//!
//! In: when an event was queued at an address, and when the one at an address was taken; each in any order, because the
//! reader may be faster than the program that tells of the queueing. Out: verdicts that have waited for it. An address has
//! one event at a time: in time, queueing and taking alternate there, and each taking belongs to the last queueing
//! before it.

use std::collections::HashMap;

use super::verdict::Verdict;

/// A queued event: by slot, address and time.
type Key = (u32, u64, u64);
/// Times at an address.
type Times = HashMap<(u32, u64), Vec<u64>>;

/// What became of a queued event.
#[derive(Default)]
struct Fate {
    read: Option<u64>,
    waiting: Vec<Verdict>,
}

/// What is known of a queued event.
pub(super) enum Known {
    /// It was read then.
    Read(u64),
    /// Not yet.
    Unread,
    /// It was not queued while its instance was followed.
    Nothing,
}

/// See the module.
#[derive(Default)]
pub(super) struct Queues {
    queued: Times,
    taken: Times,
    fates: HashMap<Key, Fate>,
}

impl Queues {
    /// An event was queued at this address.
    pub(super) fn queued(&mut self, slot: u32, event: u64, time: u64) {
        let at = (slot, event);
        let mut read = None;
        if let Some(taken) = self.taken.get_mut(&at) {
            let first = (0..taken.len()).filter(|&n| taken[n] >= time).min_by_key(|&n| taken[n]);
            read = first.map(|n| taken.swap_remove(n));
            if taken.is_empty() {
                self.taken.remove(&at);
            }
        }
        if read.is_none() {
            self.queued.entry(at).or_default().push(time);
        }
        self.fates.insert((slot, event, time), Fate { read, waiting: Vec::new() });
    }

    /// The event that was reported as queued was not. The verdicts that waited for it to be read.
    pub(super) fn refused(&mut self, slot: u32, event: u64, time: u64) -> Vec<Verdict> {
        let at = (slot, event);
        if let Some(queued) = self.queued.get_mut(&at) {
            queued.retain(|one| *one != time);
            if queued.is_empty() {
                self.queued.remove(&at);
            }
        }
        self.fates.remove(&(slot, event, time)).map(|fate| fate.waiting).unwrap_or_default()
    }

    /// The event at this address was read. When it was queued, and the verdicts that waited for this.
    pub(super) fn taken(&mut self, slot: u32, event: u64, time: u64) -> Option<(u64, Vec<Verdict>)> {
        let at = (slot, event);
        let queued = self.queued.get_mut(&at).and_then(|queued| {
            let last = (0..queued.len()).filter(|&n| queued[n] <= time).max_by_key(|&n| queued[n])?;
            Some(queued.swap_remove(last))
        });
        let Some(queued) = queued else {
            self.taken.entry(at).or_default().push(time);
            return None;
        };
        if self.queued.get(&at).is_some_and(Vec::is_empty) {
            self.queued.remove(&at);
        }
        let fate = self.fates.get_mut(&(slot, event, queued))?;
        fate.read = Some(time);
        Some((queued, std::mem::take(&mut fate.waiting)))
    }

    /// What is known of an event.
    pub(super) fn known(&self, slot: u32, event: u64, time: u64) -> Known {
        match self.fates.get(&(slot, event, time)) {
            Some(Fate { read: Some(time), .. }) => Known::Read(*time),
            Some(_) => Known::Unread,
            None => Known::Nothing,
        }
    }

    /// Keeps a verdict until an unread event is read.
    pub(super) fn wait(&mut self, slot: u32, event: u64, time: u64, verdict: Verdict) {
        self.fates.entry((slot, event, time)).or_default().waiting.push(verdict);
    }

    /// Forgets what was read before then, and what was taken before it was followed.
    pub(super) fn forget_before(&mut self, time: u64) {
        self.fates.retain(|key, fate| key.2 >= time || fate.read.is_none() || !fate.waiting.is_empty());
        self.taken.retain(|_, taken| {
            taken.retain(|&at| at >= time);
            !taken.is_empty()
        });
    }

    /// The verdicts that still wait and are on changes up to then, by the number of their change.
    pub(super) fn unread(&mut self, until: u64) -> Vec<Verdict> {
        let waiting = self.fates.values_mut().map(|fate| &mut fate.waiting);
        let is_due = |verdict: &mut Verdict| verdict.sent.made_ns <= until;
        let mut waiting: Vec<_> = waiting.flat_map(|waiting| waiting.extract_if(.., is_due)).collect();
        waiting.sort_by_key(|verdict| verdict.change);
        waiting
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_at(queues: &Queues, time: u64) -> Option<u64> {
        match queues.known(1, 0x10, time) {
            Known::Read(at) => Some(at),
            Known::Unread | Known::Nothing => None,
        }
    }

    /// Queued at 1, read at 2, queued at 3, read at 4, in each order in which that can be reported.
    #[test]
    fn each_reading_belongs_to_the_last_queueing_before_it() {
        for order in [[1, 2, 3, 4], [2, 1, 3, 4], [2, 3, 1, 4], [2, 3, 4, 1], [2, 1, 4, 3], [2, 4, 3, 1]] {
            let mut queues = Queues::default();
            for time in order {
                if time % 2 == 1 { queues.queued(1, 0x10, time) } else { drop(queues.taken(1, 0x10, time)) }
            }
            assert_eq!((read_at(&queues, 1), read_at(&queues, 3)), (Some(2), Some(4)), "{order:?}");
        }
    }

    #[test]
    fn the_last_one_stays_unread_although_the_first_was_told_late() {
        let mut queues = Queues::default();
        assert!(queues.taken(1, 0x10, 2).is_none());
        queues.queued(1, 0x10, 3);
        queues.queued(1, 0x10, 1);
        assert_eq!(read_at(&queues, 1), Some(2));
        assert!(matches!(queues.known(1, 0x10, 3), Known::Unread));
    }

    #[test]
    fn what_was_queued_before_it_was_followed_is_nobodys() {
        let mut queues = Queues::default();
        assert!(queues.taken(1, 0x10, 2).is_none());
        queues.queued(1, 0x10, 3);
        assert!(matches!(queues.known(1, 0x10, 3), Known::Unread));
        assert!(matches!(queues.known(1, 0x10, 1), Known::Nothing));
    }
    #[test]
    fn an_event_that_was_refused_is_not_the_one_that_is_read_later() {
        let mut queues = Queues::default();
        queues.queued(1, 0x10, 1);
        assert!(queues.refused(1, 0x10, 1).is_empty());
        assert!(matches!(queues.known(1, 0x10, 1), Known::Nothing));
        queues.queued(1, 0x10, 2);
        assert!(queues.taken(1, 0x10, 3).is_some());
        assert_eq!(read_at(&queues, 2), Some(3));
    }
}
