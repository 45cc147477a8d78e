//! Which differences were reported: a table of reports and findings.

use std::time::Duration;

use super::*;
use hotr_events::{Channel, FileId};

/// `op path ino size ms`, a directory when the path ends in a slash; `old>new` is a rename.
fn change(text: &str) -> Change {
    let words: Vec<&str> = text.split(' ').collect();
    let op = Op::ALL.into_iter().find(|op| op.as_str() == words[0]).unwrap();
    let (old, path) = words[1].split_once('>').map_or((None, words[1]), |(old, new)| (Some(old), new));
    let is_dir = path.ends_with('/');
    Change {
        old_path: old.map(|old| old.trim_end_matches('/').into()),
        file_type: Some(if is_dir { FileType::Dir } else { FileType::File }),
        id: Some(FileId { dev: 1, ino: words[2].parse().unwrap(), gen_: 0 }),
        size: (!is_dir && op != Op::Remove).then(|| words[3].parse().unwrap()),
        seen_by: vec![Channel::Ebpf],
        ..Change::new(
            op,
            path.trim_end_matches('/').into(),
            UNIX_EPOCH + Duration::from_millis(1_000_000 + words[4].parse::<u64>().unwrap()),
        )
    }
}

#[test]
fn a_report_at_or_after_the_change_time_tells_it() {
    use ReportedBy::{No, Yes};
    // (reported, found, answer)
    let table: &[(&[&str], &str, ReportedBy)] = &[
        (&[], "write /w/a 7 5 100", No),
        (&["write /w/a 7 5 103"], "write /w/a 7 5 100", Yes),
        (&["write /w/a 7 5 99"], "write /w/a 7 5 100", No),
        // Within one tick the size decides; later the report is of a later state in any case.
        (&["write /w/a 7 4 103"], "write /w/a 7 5 100", No),
        (&["write /w/a 7 9 500"], "write /w/a 7 5 100", Yes),
        (&["write /w/a 7 4 90", "write /w/a 7 5 101"], "write /w/a 7 5 100", Yes),
        (&["write /w/a 7 5 101", "write /w/a 7 4 90"], "write /w/a 7 5 100", Yes),
        // Another name of the same file; another file.
        (&["write /w/b 7 5 103"], "write /w/a 7 5 100", Yes),
        (&["write /w/b 8 5 103"], "write /w/a 7 5 100", No),
        // Created, written and renamed: each way of reporting it.
        (&["create /w/a 7 5 103"], "create /w/a 7 5 100", Yes),
        (&["rename /w/t>/w/a 7 5 103"], "create /w/a 7 5 100", Yes),
        (&["rename /w/t>/w/a 7 5 103"], "rename /w/t>/w/a 7 5 100", Yes),
        // Removals.
        (&["remove /w/a 7 0 103"], "remove /w/a 7 0 900", Yes),
        (&["rename /w/a>/w/b 7 5 103"], "remove /w/a 7 0 900", Yes),
        (&["write /w/a 7 5 103"], "remove /w/a 7 0 900", No),
        (&["remove /w/b 7 0 103"], "remove /w/a 7 0 900", No),
        // What a directory brought or took with it.
        (&["rename /x/>/w/d/ 9 0 103"], "create /w/d/e/a 7 5 20", Yes),
        (&["create /w/d/ 9 0 103"], "create /w/d/a 7 5 150", No),
        (&["rename /w/d/>/x/ 9 0 103"], "remove /w/d/e/a 7 0 900", Yes),
        (&["remove /w/d/ 9 0 103"], "remove /w/d/a 7 0 900", Yes),
        (&["attrib /w/d/ 9 0 103"], "create /w/d/a 7 5 20", No),
    ];
    for (told, found, answer) in table {
        let mut ledger = RecentReports::default();
        told.iter().for_each(|one| ledger.receive(&change(one)));
        assert_eq!(ledger.reported_by(&change(found)), *answer, "{told:?}: {found}");
        ledger.turn_page();
        assert_eq!(
            ledger.reported_by(&change(found)),
            *answer,
            "after the begin of an audit: {told:?}: {found}"
        );
        ledger.turn_page();
        assert_eq!(ledger.reported_by(&change(found)), No, "after another one");
    }
}

#[test]
fn where_the_clock_was_set_times_prove_nothing() {
    let mut ledger = RecentReports::default();
    ledger.receive(&change("write /w/a 7 5 103"));
    ledger.receive(&change("remove /w/g 9 0 103"));
    ledger.step();
    assert_eq!(ledger.reported_by(&change("write /w/a 7 5 100")), ReportedBy::Perhaps);
    assert_eq!(ledger.reported_by(&change("write /w/a 7 5 900")), ReportedBy::Perhaps);
    assert_eq!(
        ledger.reported_by(&change("write /w/b 8 5 100")),
        ReportedBy::No,
        "nobody told anything of it"
    );
    assert_eq!(ledger.reported_by(&change("remove /w/g 9 0 900")), ReportedBy::Yes, "a removal has no time");
}

#[test]
fn a_full_ledger_says_so() {
    let mut ledger = RecentReports::default();
    for ino in 0..=MOST {
        ledger.receive(&change(&format!("write /w/{ino} {ino} 5 103")));
    }
    assert!(ledger.is_full());
    assert_eq!(ledger.reported_by(&change("write /w/1 1 5 100")), ReportedBy::Yes);
    assert_eq!(ledger.reported_by(&change(&format!("write /w/{MOST} {MOST} 5 100"))), ReportedBy::Perhaps);
    ledger.turn_page();
    assert!(!ledger.is_full());
}
