//! Whether an event that hotr makes reaches a watch of another process.
//!
//! In: what is offered to the instance while the event is made, or what its stand-in gets. Out: an [`Arrival`].

use hotr_common::delivery::{OFFERED, Offer, REFUSED};

use super::stand_in_instances::ReceivedEvent;
use hotr_events::Proof;

/// `fsnotify_insert_event` returned that the event equals the last unread one.
const MERGED: i32 = 1;

/// What is known of an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Arrival {
    /// It was queued, or equals the last unread one; `None` when that is not known.
    pub(super) arrived: Option<bool>,
    /// How sure that is.
    pub(super) proof: Option<Proof>,
}

/// The event that is looked for.
pub(super) struct AwaitedEvent {
    slot: u32,
    wd: i32,
    kinds: u32,
    name: Box<[u8]>,
    /// It is not made before then.
    from: u64,
    /// Its address and time, and whether it was queued.
    offered: Option<(u64, u64, bool)>,
    is_received: bool,
}

impl AwaitedEvent {
    /// One of these kinds, with the name it has in a watched directory.
    pub(super) fn new(slot: u32, wd: i32, kinds: u32, name: &[u8], from: u64) -> Self {
        Self { slot, wd, kinds, name: name.into(), from, offered: None, is_received: false }
    }

    /// A record of the kernel programs.
    pub(super) fn take(&mut self, record: &Offer, name: &[u8]) {
        match (record.kind, &mut self.offered) {
            (OFFERED, known @ None) => {
                let is_it = (record.slot, record.wd) == (self.slot, self.wd)
                    && record.mask & self.kinds != 0
                    && *name == *self.name
                    && record.time >= self.from;
                if is_it {
                    // Without memory there is an overflow in its place.
                    *known = Some((record.event, record.time, record.result >= 0));
                }
            }
            (REFUSED, Some((event, time, is_queued))) if (*event, *time) == (record.event, record.time) => {
                *is_queued = record.result == MERGED;
            }
            _ => {}
        }
    }

    /// An event of a stand-in; whether it is this one.
    pub(super) fn receive(&mut self, slot: u32, event: &ReceivedEvent) -> bool {
        let is_it = (slot, event.wd) == (self.slot, self.wd)
            && event.mask & self.kinds != 0
            && *event.name == *self.name;
        self.is_received |= is_it;
        is_it
    }

    /// What the kernel programs say. `is_whole`: no record is missing.
    pub(super) fn by_offers(&self, is_whole: bool) -> Arrival {
        let arrived = match self.offered {
            Some((_, _, is_queued)) => Some(is_queued),
            None => is_whole.then_some(false),
        };
        Arrival { arrived, proof: arrived.map(|_| Proof::Proved) }
    }

    /// What the stand-in says. `is_whole`: it has the watch, and misses nothing. `has_room`: the queue of the instance itself
    /// was not full.
    pub(super) fn by_stand_in(&self, is_whole: bool, has_room: bool) -> Arrival {
        let arrived = if self.is_received { has_room.then_some(true) } else { is_whole.then_some(false) };
        Arrival { arrived, proof: arrived.map(|_| Proof::Inferred) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u32, time: u64, result: i32) -> Offer {
        Offer {
            time,
            event: 9,
            ino: 5,
            kind,
            slot: 2,
            tid: 1,
            dev: 1,
            result,
            queued: 0,
            limit: 10,
            reserved: 0,
            mask: 8,
            wd: 3,
            cookie: 0,
            name_len: 1,
        }
    }

    fn arrived(records: &[(Offer, &[u8])], is_whole: bool) -> Option<bool> {
        let mut awaited = AwaitedEvent::new(2, 3, 8, b"f", 100);
        records.iter().for_each(|(record, name)| awaited.take(record, name));
        awaited.by_offers(is_whole).arrived
    }

    #[test]
    fn an_event_arrives_when_it_is_queued_or_equals_the_last_unread_one() {
        let offered = record(OFFERED, 100, 0);
        assert_eq!(arrived(&[(offered, b"f")], true), Some(true));
        assert_eq!(arrived(&[(offered, b"f"), (record(REFUSED, 100, 1), b"")], true), Some(true));
        assert_eq!(arrived(&[(offered, b"f"), (record(REFUSED, 100, 2), b"")], true), Some(false));
        assert_eq!(arrived(&[(record(OFFERED, 100, -12), b"f")], true), Some(false));
        // The refusal of another event at the same address.
        assert_eq!(arrived(&[(offered, b"f"), (record(REFUSED, 90, 2), b"")], true), Some(true));
    }

    #[test]
    fn an_event_of_another_name_kind_or_time_is_another_one() {
        let offered = record(OFFERED, 100, 0);
        assert_eq!(arrived(&[(offered, b"g")], true), Some(false));
        assert_eq!(arrived(&[(Offer { mask: 2, ..offered }, b"f")], true), Some(false));
        assert_eq!(arrived(&[(Offer { wd: 4, ..offered }, b"f")], true), Some(false));
        assert_eq!(arrived(&[(record(OFFERED, 99, 0), b"f")], true), Some(false));
        assert_eq!(arrived(&[], false), None, "a record may be missing");
    }

    #[test]
    fn what_a_stand_in_got_may_have_found_no_room() {
        let event = |name: &[u8]| ReceivedEvent { after: 1, until: 2, wd: 3, mask: 8, name: name.into() };
        let mut awaited = AwaitedEvent::new(2, 3, 8, b"f", 100);
        assert!(!awaited.receive(2, &event(b"g")));
        assert_eq!(awaited.by_stand_in(true, true).arrived, Some(false));
        assert_eq!(awaited.by_stand_in(false, true), Arrival::default());
        assert!(awaited.receive(2, &event(b"f")));
        assert_eq!(awaited.by_stand_in(true, false).arrived, None);
        let known = Arrival { arrived: Some(true), proof: Some(Proof::Inferred) };
        assert_eq!(awaited.by_stand_in(true, true), known);
    }
}
