//! Totals and their differences, without a kernel: the table is a closure.

use std::cell::Cell;
use std::path::PathBuf;
use std::time::SystemTime;

use hotr_common::config::Storm;
use hotr_common::record::Record;

use super::{Storms, Trailing};
use crate::source::ebpf::{Ended, StormId};
use hotr_events::{Change, Channel, Op, Written};

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
        written: Written { writes: 1, bytes: 10 },
        layer: None,
        actor: None,
        seen_by: vec![Channel::Ebpf],
        missed_by: vec![],
        watcher: None,
    }
}

fn counts(more: &[Trailing]) -> Vec<u64> {
    more.iter().map(|more| more.change.written.writes).collect()
}

#[test]
fn a_record_tells_what_came_since_the_last_one() {
    let mut storms = Storms::new(WINDOW);
    assert_eq!(storms.record(&record(ID, 1000, 1), &change(), false), Some((1, 10)));
    assert_eq!(storms.record(&record(ID, 1100, 5), &change(), false), Some((4, 40)));
    assert_eq!(storms.record(&record(ID, 1100, 5), &change(), false), None, "told already");
    let uncounted = Record { bytes: 3, ..record(ID, 1200, 0) };
    assert_eq!(storms.record(&uncounted, &change(), false), Some((1, 3)), "by itself");
}

#[test]
fn what_no_record_told_is_read_after_the_window() {
    let mut storms = Storms::new(WINDOW);
    storms.record(&record(ID, 1000, 1), &change(), false);
    let mut more = Vec::new();
    let never = |_| panic!("it is not quiet");
    storms.due(1099, |_| panic!("not before the window is over"), never, |trailing| more.push(trailing));
    storms.due(1100, |_| Some(totals(1090, 3)), never, |trailing| more.push(trailing));
    assert_eq!(counts(&more), [2]);
    assert_eq!(more[0].made_ns, 1090);
    assert_eq!(storms.next_deadline(), Some(1200), "it goes on");
}

/// A change of names as a record reports it.
fn of_names(op: Op, old: Option<&str>, new: &str, words: &[&'static str]) -> Change {
    let detail = words.iter().map(|word| (*word).into()).collect();
    Change { op, detail, path: new.into(), old_path: old.map(PathBuf::from), ..change() }
}

/// What is reported of a file under `/r/f` at a change of names made at `made_ns`, and where the next is reported; none
/// when the storm was ended.
fn renamed(change_of_names: &Change, made_ns: u64) -> (Vec<u64>, Option<PathBuf>) {
    let mut storms = Storms::new(WINDOW);
    storms.record(&record(ID, 1000, 1), &change(), false);
    let ended = Cell::new(false);
    let mut more = Vec::new();
    let end = |_| {
        ended.set(true);
        Ended::Last(totals(1030, 4))
    };
    storms.renamed(change_of_names, made_ns, |_| Some(totals(1030, 4)), end, |trailing| more.push(trailing));
    assert!(more.iter().all(|more| more.change.path.as_os_str() == "/r/f"), "by the name it had");
    let mut next = Vec::new();
    storms.finish(|_| Some(totals(1060, 9)), |trailing| next.push(trailing));
    assert_eq!(next.is_empty(), ended.get());
    (counts(&more), next.pop().map(|next| next.change.path))
}

#[test]
fn what_is_counted_after_a_change_of_names_is_told_by_the_name_of_then() {
    let at = |path: &str| Some(PathBuf::from(path));
    let rename = |old, new, words: &[&'static str]| of_names(Op::Rename, Some(old), new, words);
    assert_eq!(renamed(&rename("/r/f", "/r/g", &["rename"]), 1050), (vec![3], at("/r/g")));
    assert_eq!(renamed(&rename("/r", "/s", &["rename"]), 1050), (vec![3], at("/s/f")));
    // Either side of an exchange.
    assert_eq!(renamed(&rename("/r/f", "/r/g", &["exchange"]), 1050), (vec![3], at("/r/g")));
    assert_eq!(renamed(&rename("/r/g", "/r/f", &["exchange"]), 1050), (vec![3], at("/r/g")));
    // Some of it was counted later: nobody knows how much.
    assert_eq!(renamed(&rename("/r/f", "/r/g", &["rename"]), 1020), (vec![], at("/r/g")));
    assert_eq!(renamed(&rename("/r/a", "/r/b", &["rename"]), 1050), (vec![], at("/r/f")));
    assert_eq!(renamed(&rename("/r/ff", "/r/b", &["rename"]), 1050), (vec![], at("/r/f")));
}

#[test]
fn the_storm_of_a_file_that_lost_its_name_is_ended() {
    let lost = [
        of_names(Op::Remove, None, "/r/f", &["unlink"]),
        of_names(Op::Rename, Some("/r/g"), "/r/f", &["rename"]),
        of_names(Op::Rename, Some("/r/f"), "/out/f", &["rename", "moved-out"]),
        of_names(Op::Rename, Some("/out/f"), "/r/f", &["exchange", "moved-in"]),
    ];
    for change_of_names in lost {
        assert_eq!(renamed(&change_of_names, 1020), (vec![3], None), "{change_of_names:?}");
    }
}

#[test]
fn a_quiet_storm_is_ended_and_its_last_totals_are_told() {
    let mut storms = Storms::new(WINDOW);
    storms.record(&record(ID, 1000, 1), &change(), false);
    let mut more = Vec::new();
    // A change between the look at the totals and the end of the storm.
    let end = |_| Ended::Last(totals(1301, 2));
    storms.due(1301, |_| Some(totals(1000, 1)), end, |trailing| more.push(trailing));
    assert_eq!(counts(&more), [1]);
    assert_eq!(storms.next_deadline(), None);
    assert_eq!(storms.record(&record(ID, 1301, 2), &change(), false), None, "its record comes late");
    let later = StormId { born: 1400, ..ID };
    assert_eq!(
        storms.record(&record(later, 1400, 1), &change(), false),
        Some((1, 10)),
        "another storm of the slot"
    );
}

#[test]
fn a_storm_that_somebody_counts_in_is_ended_later() {
    let mut storms = Storms::new(WINDOW);
    storms.record(&record(ID, 1000, 1), &change(), false);
    let tries = Cell::new(0);
    let end = |_| {
        tries.set(tries.get() + 1);
        if tries.get() == 1 { Ended::Busy } else { Ended::Last(totals(1390, 4)) }
    };
    let mut more = Vec::new();
    storms.due(1301, |_| Some(totals(1000, 1)), end, |trailing| more.push(trailing));
    assert_eq!((tries.get(), counts(&more)), (1, Vec::new()));
    // It is closed: even if the last change was just now, nothing comes after it.
    storms.due(1401, |_| Some(totals(1000, 3)), end, |trailing| more.push(trailing));
    assert_eq!((tries.get(), counts(&more)), (2, vec![3]));
    assert_eq!(storms.next_deadline(), None);
}
