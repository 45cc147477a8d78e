use super::*;
use hotr_events::LossReason;

const SECOND: i64 = 1_000_000_000;

/// A ledger since second 100 whose loss was noticed in second 200.
fn ledger() -> ReportedSince {
    let mut ledger = ReportedSince::new();
    ledger.since_ns = 100 * SECOND;
    ledger.lose(LossReason::RingFull, time(200 * SECOND));
    ledger
}

fn found(path: &str, (btime, mtime, ctime): (i64, i64, i64)) -> Changed {
    Changed {
        path: path.into(),
        dev: 1,
        ino: 7,
        file_type: Some(FileType::File),
        size: 5,
        ctime_ns: ctime * SECOND,
        mtime_ns: mtime * SECOND,
        btime_ns: Some(btime * SECOND),
    }
}

fn report(op: Op, path: &str, second: i64, size: Option<u64>) -> Change {
    let changed = found(path, (0, 0, second));
    // The kernel's device is another one on some filesystems.
    Change { size, id: None, ..change(op, changed, LossReason::RingFull) }
}

#[test]
fn what_nobody_reported_is_missed_as_its_times_say() {
    let ledger = ledger();
    assert_eq!(ledger.missed(&found("/r/f", (150, 150, 150)), None), Some(Op::Create));
    assert_eq!(ledger.missed(&found("/r/f", (50, 150, 150)), None), Some(Op::Write));
    assert_eq!(ledger.missed(&found("/r/f", (50, 50, 150)), None), Some(Op::Attrib));
}

#[test]
fn what_was_reported_is_not_missed_and_what_came_after_is() {
    let mut ledger = ledger();
    ledger.report(&report(Op::Create, "/r/f", 150, None));
    assert_eq!(ledger.missed(&found("/r/f", (150, 150, 150)), None), None);
    // It is not created once more.
    assert_eq!(ledger.missed(&found("/r/f", (150, 160, 160)), None), Some(Op::Write));
    assert_eq!(ledger.missed(&found("/r/f", (150, 150, 160)), None), Some(Op::Attrib));
    // The write was reported, the mode's change was not.
    ledger.report(&report(Op::Write, "/r/f", 160, Some(5)));
    assert_eq!(ledger.missed(&found("/r/f", (150, 160, 170)), None), Some(Op::Attrib));
    // Within one tick only the size decides.
    ledger.report(&report(Op::Write, "/r/f", 180, Some(4)));
    assert_eq!(ledger.missed(&found("/r/f", (150, 180, 180)), None), Some(Op::Write));
    // Another file took the name.
    assert_eq!(ledger.missed(&found("/r/f", (190, 190, 190)), None), Some(Op::Create));
}

#[test]
fn names_that_come_and_go_in_a_reported_directory_are_no_change_of_it() {
    let mut ledger = ledger();
    ledger.report(&report(Op::Create, "/r/d", 150, None));
    let dir = Changed { file_type: Some(FileType::Dir), ..found("/r/d", (150, 160, 160)) };
    assert_eq!(ledger.missed(&dir, None), None);
}

#[test]
fn a_report_under_the_name_before_a_directory_was_renamed_counts() {
    let mut ledger = ledger();
    ledger.report(&report(Op::Write, "/r/one/a/f", 150, Some(5)));
    for (old, new) in [("/r/one", "/r/two"), ("/r/two/a", "/r/two/b")] {
        let rename = report(Op::Rename, new, 160, None);
        ledger.report(&Change { old_path: Some(old.into()), file_type: Some(FileType::Dir), ..rename });
    }
    assert_eq!(ledger.missed(&found("/r/two/b/f", (50, 150, 150)), None), None);
    assert_eq!(ledger.missed(&found("/r/two/c/f", (50, 150, 150)), None), Some(Op::Write));
}

#[test]
fn a_report_just_before_the_ledger_was_begun_again_counts() {
    let mut ledger = ledger();
    ledger.lost = None;
    ledger.report(&report(Op::Write, "/r/f", 150, Some(5)));
    ledger.clean(time(150 * SECOND + 1));
    assert_eq!(ledger.missed(&found("/r/f", (50, 150, 150)), None), None);
    ledger.clean(time(160 * SECOND));
    assert!(ledger.before.iter().all(|page| page.by_path.is_empty()), "no longer than needed");
}

/// Reports of so many files, that of the first included.
fn report_many(ledger: &mut ReportedSince, count: usize) {
    for n in 0..count {
        ledger.report(&report(Op::Write, &format!("/r/{n}"), 250, None));
    }
}

fn nothing() -> SearchOptions {
    SearchOptions { recursive: false, exclude: globset::GlobSet::empty() }
}

#[test]
fn after_many_reports_a_loss_is_looked_for_while_the_storm_goes_on() {
    let mut ledger = ledger();
    ledger.report(&report(Op::Write, "/r/f", 150, Some(5)));
    report_many(&mut ledger, MANY - 1);
    let noticed = ledger.lost.expect("a loss").until_mono_ns;
    assert!(!ledger.is_long(noticed + 2 * SECOND as u64), "not so many");
    report_many(&mut ledger, MANY);
    assert!(!ledger.is_long(noticed + SECOND as u64), "what was made before may be reported yet");
    assert!(ledger.is_long(noticed + 2 * SECOND as u64));
    // A loss from now on does not put it off.
    ledger.lose(LossReason::Oversize, time(300 * SECOND));
    assert!(ledger.is_long(noticed + 2 * SECOND as u64));
    let search = ledger.search(&[], nothing()).expect("a search");
    assert_eq!((search.reason, search.until_ns), (LossReason::RingFull, 200 * SECOND));
    assert_eq!(ledger.missed(&found("/r/f", (50, 150, 150)), None), None);
    assert_eq!(ledger.missed(&found("/r/1", (50, 150, 150)), None), None);
    ledger.found(&search);
    assert!(ledger.is_short());
    let search = ledger.search(&[], nothing()).expect("a search");
    assert_eq!((search.reason, search.until_ns), (LossReason::Oversize, 300 * SECOND));
    ledger.found(&search);
    assert!(!ledger.is_short());
}

#[test]
fn memory_is_bounded_and_what_is_not_known_is_not_looked_for() {
    let mut ledger = ledger();
    let search = ledger.search(&[], nothing()).expect("a search");
    ledger.lose(LossReason::RingFull, time(300 * SECOND));
    report_many(&mut ledger, REPORTS + 1);
    let names =
        ledger.before.iter().map(|page| page.by_path.len()).sum::<usize>() + ledger.page.by_path.len();
    assert!(names <= 2 * REPORTS, "{names}");
    ledger.found(&search);
    assert!(ledger.is_short());
    assert!(ledger.search(&[], nothing()).is_none(), "which files were reported is not known");
    assert!(!ledger.is_short());
    // From now on it is.
    ledger.lose(LossReason::RingFull, SystemTime::now());
    assert!(ledger.search(&[], nothing()).is_some());
}

#[test]
fn what_was_made_after_the_loss_was_noticed_is_not_missed() {
    let root = std::env::temp_dir().join(format!("hotr-rescan-{}", std::process::id()));
    std::fs::create_dir_all(&root).expect("a directory");
    std::fs::write(root.join("f"), "x").expect("a file");
    let paths = [root.clone()];
    let scan = || SearchOptions { recursive: true, exclude: globset::GlobSet::empty() };
    let hour = Duration::from_secs(3600);
    for (noticed, is_missed) in [(SystemTime::now() - hour / 2, false), (SystemTime::now() + hour, true)] {
        let mut ledger = ReportedSince::new();
        ledger.since_ns = nanos(SystemTime::now() - hour);
        ledger.lose(LossReason::RingFull, noticed);
        let mut missed = Vec::new();
        let mut search = ledger.search(&paths, scan()).expect("a search");
        while search.step(&ledger, |_| None, &mut missed) {}
        ledger.found(&search);
        assert_eq!(missed.iter().any(|change| change.path.ends_with("f")), is_missed);
        assert!(!ledger.is_short());
    }
    std::fs::remove_dir_all(&root).expect("it is ours");
}
