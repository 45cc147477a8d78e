//! io_uring requests about names, at the tracepoint tier: what was submitted and what has succeeded are two records; in:
//! both, out: one record of a call, as of its end.

use std::collections::{HashMap, VecDeque};

use hotr_common::record::{FLAG_BEGUN, FLAG_ENDED, Record};

use crate::kernel::uring;

/// A request that was submitted.
struct Begun {
    /// Its place in the order of all submissions.
    turn: u64,
    record: Record,
    path: Vec<u8>,
    old: Vec<u8>,
}

/// Requests that have been submitted and have not succeeded. One that fails is never reported; its number is given to
/// the next request of its ring.
#[derive(Default)]
pub(crate) struct Requests {
    begun: HashMap<u64, Begun>,
    /// Turns and numbers in the order of submission; one whose turn is not that of its number is over.
    order: VecDeque<(u64, u64)>,
    turns: u64,
    /// Requests that have succeeded, but are not known: they were submitted before hotr was ready, or too many were in
    /// flight, or their record was lost.
    pub(crate) unknown: u64,
}

impl Requests {
    /// How many are remembered at most.
    const MAX: usize = 4096;

    /// Takes a record about a request; the call that has ended with it, if one has, goes to `call`. False when it is a record
    /// of something else.
    pub(crate) fn take(
        &mut self,
        record: &Record,
        path: &[u8],
        old: &[u8],
        call: impl FnOnce(&Record, &[u8], &[u8]),
    ) -> bool {
        if record.flags & FLAG_BEGUN != 0 {
            self.begin(record, path, old);
            return true;
        }
        if record.flags & FLAG_ENDED == 0 {
            return false;
        }
        match self.begun.remove(&record.victim) {
            Some(begun) => call(&joined(&begun.record, record), &begun.path, &begun.old),
            None => self.unknown += 1,
        }
        true
    }

    fn begin(&mut self, record: &Record, path: &[u8], old: &[u8]) {
        self.turns += 1;
        let begun = Begun { turn: self.turns, record: *record, path: path.to_vec(), old: old.to_vec() };
        self.begun.insert(record.victim, begun);
        self.order.push_back((self.turns, record.victim));
        let Self { begun, order, .. } = self;
        let waits = |(turn, number): &(u64, u64)| begun.get(number).is_some_and(|begun| begun.turn == *turn);
        if order.len() > 2 * Self::MAX {
            order.retain(waits);
        }
        while begun.len() > Self::MAX
            && let Some((turn, number)) = order.pop_front()
        {
            if begun.get(&number).is_some_and(|begun| begun.turn == turn) {
                begun.remove(&number);
            }
        }
    }
}

/// The record of a system call that did the same.
fn joined(begun: &Record, ended: &Record) -> Record {
    let number = uring::by_opcode(begun.way).and_then(|call| i32::try_from(call.number).ok());
    Record {
        time: ended.time,
        flags: begun.flags & !FLAG_BEGUN,
        sysno: number.unwrap_or(hotr_common::record::NO_SYSCALL),
        aux: [begun.aux[0], ended.aux[1]],
        // Of a file that an open may have made: not before.
        size: begun.time,
        victim: 0,
        way: 0,
        ..*begun
    }
}

#[cfg(test)]
mod tests {
    use hotr_common::record::{ENDED_BORN, FLAG_CALL};

    use super::*;

    fn record(flags: u32, number: u64, time: u64) -> Record {
        // SAFETY: a record is integers and arrays of them, for which zero is a value.
        let mut record: Record = unsafe { std::mem::zeroed() };
        record.flags = flags;
        record.victim = number;
        record.time = time;
        record.way = 18;
        record
    }

    fn submit(requests: &mut Requests, number: u64, path: &[u8]) {
        assert!(
            requests.take(&record(FLAG_CALL | FLAG_BEGUN, number, 1), path, b"", |_, _, _| panic!("ended"))
        );
    }

    fn end(requests: &mut Requests, number: u64) -> Option<(Record, Vec<u8>)> {
        let mut found = None;
        let mut ended = record(FLAG_ENDED, number, 9);
        ended.aux[1] = ENDED_BORN;
        assert!(requests.take(&ended, b"", b"", |record, path, _| found = Some((*record, path.to_vec()))));
        found
    }

    #[test]
    fn a_request_is_told_when_it_has_ended_as_the_call_that_does_the_same() {
        let mut requests = Requests::default();
        submit(&mut requests, 7, b"a\0");
        submit(&mut requests, 8, b"b\0");
        assert!(end(&mut requests, 6).is_none(), "its beginning was lost");
        assert_eq!(requests.unknown, 1);
        let (call, path) = end(&mut requests, 8).expect("it was submitted");
        assert_eq!(path, b"b\0");
        assert_eq!((call.time, call.size, call.flags), (9, 1, FLAG_CALL));
        assert_eq!(i64::from(call.sysno), libc::SYS_openat);
        assert_eq!(call.aux[1], ENDED_BORN);
        assert!(end(&mut requests, 8).is_none(), "it has ended once");
    }

    #[test]
    fn the_number_of_a_failed_request_is_given_to_the_next_one() {
        let mut requests = Requests::default();
        submit(&mut requests, 7, b"failed\0");
        submit(&mut requests, 7, b"next\0");
        assert_eq!(end(&mut requests, 7).expect("it was submitted").1, b"next\0");
        for number in 0..Requests::MAX as u64 + 2 {
            submit(&mut requests, number, b"f\0");
        }
        assert!(requests.begun.len() <= Requests::MAX);
        assert!(end(&mut requests, 0).is_none(), "the oldest is given up");
        assert_eq!(requests.unknown, 1, "and counted when it ends");
    }

    #[test]
    fn one_number_may_be_used_for_ever() {
        let mut requests = Requests::default();
        submit(&mut requests, 6, b"waits\0");
        for _ in 0..5 * Requests::MAX {
            submit(&mut requests, 7, b"f\0");
            assert!(end(&mut requests, 7).is_some());
        }
        assert!(requests.order.len() <= 2 * Requests::MAX, "what is over is not kept");
        assert_eq!(end(&mut requests, 6).expect("it was in flight all along").1, b"waits\0");
        assert_eq!(requests.unknown, 0);
    }

    #[test]
    fn other_records_are_left_alone() {
        assert!(!Requests::default().take(&record(FLAG_CALL, 7, 1), b"a\0", b"", |_, _, _| panic!("ended")));
    }
}
