//! Totals and their differences, without a kernel: the table is a closure.

use std::cell::Cell;
use std::path::PathBuf;
use std::time::SystemTime;

use hotr_common::config::Storm;
use hotr_common::record::Record;

use super::{Storms, Trailing};
use crate::event::{Change, Channel, Op};
use crate::source::ebpf::{Ended, StormId};

const WINDOW: u64 = 100;
const ID: StormId = StormId { slot: 7, born: 1000 };

fn record(id: StormId, time: u64, writes: u64) -> Record {
    // SAFETY: a record is plain integers, for which zero is a value.
    let record: Record = unsafe { std::mem::zeroed() };
    Record { time, writes, bytes: writes * 10, storm: id.slot, born: id.born, ..record }
}

fn totals(last: u64, writes: u64) -> Storm {
    // SAFETY: as above.
    let storm: Storm = unsafe { std::mem::zeroed() };
    Storm { inode: 99, born: ID.born, last, writes, bytes: writes * 10, ..storm }
}

fn change() -> Change {
    Change {
        time: SystemTime::UNIX_EPOCH,
        op: Op::Write,
        detail: vec![],
        path: PathBuf::from("/r/f"),
        old_path: None,
        file_type: None,
        id: None,
        size: None,
        writes: 1,
        bytes: 10,
        layer: None,
        actor: None,
        seen_by: vec![Channel::Ebpf],
        missed_by: vec![],
    }
}

fn told(more: &[Trailing]) -> Vec<u64> {
    more.iter().map(|more| more.change.writes).collect()
}

#[test]
fn a_record_tells_what_came_since_the_last_one() {
    let mut storms = Storms::new(WINDOW);
    assert_eq!(storms.record(&record(ID, 1000, 1), &change()), Some((1, 10)));
    assert_eq!(storms.record(&record(ID, 1100, 5), &change()), Some((4, 40)));
    assert_eq!(storms.record(&record(ID, 1100, 5), &change()), None, "told already");
    let uncounted = Record { bytes: 3, ..record(ID, 1200, 0) };
    assert_eq!(storms.record(&uncounted, &change()), Some((1, 3)), "by itself");
}

#[test]
fn what_no_record_told_is_read_after_the_window() {
    let mut storms = Storms::new(WINDOW);
    storms.record(&record(ID, 1000, 1), &change());
    let mut more = Vec::new();
    let never = |_| panic!("it is not quiet");
    storms.due(1099, |_| panic!("not before the window is over"), never, |trailing| more.push(trailing));
    storms.due(1100, |_| Some(totals(1090, 3)), never, |trailing| more.push(trailing));
    assert_eq!(told(&more), [2]);
    assert_eq!(more[0].made_ns, 1090);
    assert_eq!(storms.next_deadline(), Some(1200), "it goes on");
}

#[test]
fn a_quiet_storm_is_ended_and_its_last_totals_are_told() {
    let mut storms = Storms::new(WINDOW);
    storms.record(&record(ID, 1000, 1), &change());
    let mut more = Vec::new();
    // A change between the look at the totals and the end of the storm.
    let end = |_| Ended::Last(totals(1301, 2));
    storms.due(1301, |_| Some(totals(1000, 1)), end, |trailing| more.push(trailing));
    assert_eq!(told(&more), [1]);
    assert_eq!(storms.next_deadline(), None);
    assert_eq!(storms.record(&record(ID, 1301, 2), &change()), None, "its record comes late");
    let later = StormId { born: 1400, ..ID };
    assert_eq!(storms.record(&record(later, 1400, 1), &change()), Some((1, 10)), "another storm of the slot");
}

#[test]
fn a_storm_that_somebody_counts_in_is_ended_later() {
    let mut storms = Storms::new(WINDOW);
    storms.record(&record(ID, 1000, 1), &change());
    let tries = Cell::new(0);
    let end = |_| {
        tries.set(tries.get() + 1);
        if tries.get() == 1 { Ended::Busy } else { Ended::Last(totals(1390, 4)) }
    };
    let mut more = Vec::new();
    storms.due(1301, |_| Some(totals(1000, 1)), end, |trailing| more.push(trailing));
    assert_eq!((tries.get(), told(&more)), (1, Vec::new()));
    // It is closed: even if the last change was just now, nothing comes after it.
    storms.due(1401, |_| Some(totals(1000, 3)), end, |trailing| more.push(trailing));
    assert_eq!((tries.get(), told(&more)), (2, vec![3]));
    assert_eq!(storms.next_deadline(), None);
}
