//! The rules one by one; `model` holds random schedules.

use super::*;

#[path = "correlate_model.rs"]
mod model;

fn file() -> &'static Path {
    Path::new("/srv/a")
}

fn made(last_ns: u64, events: u64) -> RecordedChanges {
    RecordedChanges { last_ns, events, is_silent: true, unread: false, is_before: false }
}

fn at(after_ns: u64, read_ns: u64) -> Reading {
    Reading { after_ns, read_ns }
}

fn orphans(correlator: &mut Correlator<&'static str>) -> Vec<&'static str> {
    let mut orphans = Vec::new();
    correlator.expire(u64::MAX, |_, event| orphans.push(event));
    orphans
}

#[test]
fn an_event_read_after_the_record_covers_every_earlier_record() {
    let mut correlator = Correlator::default();
    correlator.receive(file(), EventKind::Modify, at(1, 100), "");
    assert!(correlator.covers(file(), EventKind::Modify, made(90, 1)));
    assert!(correlator.covers(file(), EventKind::Modify, made(100, 1)), "merged with the unread event");
    assert!(!correlator.covers(file(), EventKind::Modify, made(101, 1)), "made after the queue was empty");
    assert!(orphans(&mut correlator).is_empty());
}

#[test]
fn an_event_queued_after_the_record_does_not_cover_it() {
    let mut correlator = Correlator::default();
    correlator.receive(file(), EventKind::Modify, at(95, 100), "of somebody else");
    assert!(!correlator.covers(file(), EventKind::Modify, made(90, 1)));
    assert_eq!(orphans(&mut correlator), ["of somebody else"]);
}

#[test]
fn an_event_read_before_the_functions_exit_covers_the_record() {
    let mut correlator = Correlator::default();
    correlator.receive(file(), EventKind::Create, at(1, 100), "");
    assert!(correlator.covers(file(), EventKind::Create, made(120, 1)));
    assert!(!correlator.covers(file(), EventKind::Create, made(130, 1)), "another record explains it");
    let merged = RecordedChanges { is_silent: false, ..made(130, 1) };
    assert!(correlator.covers(file(), EventKind::Create, merged), "two writers, whose events merged");
    let late = RecordedChanges { is_silent: false, ..made(101 + HELD_UP_NS, 1) };
    assert!(!correlator.covers(file(), EventKind::Create, late));
}

#[test]
fn a_record_of_many_changes_explains_as_many_events_and_no_more() {
    let mut correlator = Correlator::default();
    for _ in 0..4 {
        correlator.receive(file(), EventKind::Modify, at(1, 100), "one too many");
    }
    assert!(correlator.covers(file(), EventKind::Modify, made(90, 3)));
    assert_eq!(orphans(&mut correlator), ["one too many"]);
    for _ in 0..4 {
        correlator.receive(file(), EventKind::Modify, at(1, 100), "of a call in parts");
    }
    assert!(correlator.covers(file(), EventKind::Modify, made(90, u64::MAX)));
    assert!(orphans(&mut correlator).is_empty());
}

#[test]
fn counted_changes_explain_events_that_are_read_later() {
    let mut correlator = Correlator::default();
    correlator.covers(file(), EventKind::Modify, RecordedChanges { unread: true, ..made(90, 2) });
    for event in ["first", "second", "third"] {
        correlator.receive(file(), EventKind::Modify, at(1, 100), event);
    }
    correlator.receive(file(), EventKind::Modify, at(95, 110), "queued later");
    assert_eq!(orphans(&mut correlator), ["third", "queued later"]);
}

#[test]
fn a_second_event_of_one_change_is_not_told_alone_whenever_it_is_read() {
    for later in [false, true] {
        let mut correlator = Correlator::default();
        correlator.receive(file(), EventKind::Modify, at(1, 95), "first");
        assert!(correlator.covers(file(), EventKind::Modify, made(100, 1)));
        if later {
            correlator.may_come_again(file(), EventKind::Modify, 100);
            correlator.receive(file(), EventKind::Modify, at(110, 120), "second");
        } else {
            correlator.receive(file(), EventKind::Modify, at(110, 120), "second");
            correlator.may_come_again(file(), EventKind::Modify, 100);
        }
        correlator.receive(file(), EventKind::Modify, at(130, 140), "of somebody else");
        assert_eq!(orphans(&mut correlator), ["of somebody else"]);
    }
    // It need not come, and is not waited for.
    let mut correlator = Correlator::default();
    correlator.may_come_again(file(), EventKind::Modify, 100);
    correlator.receive(file(), EventKind::Modify, at(101 + HELD_UP_NS, 102 + HELD_UP_NS), "long after");
    assert_eq!(orphans(&mut correlator), ["long after"]);
}

#[test]
fn a_change_recorded_before_its_event_is_covered_once_that_is_read() {
    let before = RecordedChanges { is_silent: false, is_before: true, ..made(90, 1) };
    let mut correlator = Correlator::default();
    assert!(!correlator.covers(file(), EventKind::Modify, before), "it is asked for again");
    correlator.receive(file(), EventKind::Modify, at(95, 100), "its own");
    assert!(correlator.covers(file(), EventKind::Modify, before));
    correlator.receive(file(), EventKind::Modify, at(105, 110), "of somebody else");
    assert_eq!(orphans(&mut correlator), ["of somebody else"]);
    // What covers it is of another change, and its own comes later.
    correlator.receive(file(), EventKind::Modify, at(80, 90), "of another");
    assert!(correlator.covers(file(), EventKind::Modify, before));
    correlator.receive(file(), EventKind::Modify, at(95, 100), "its own");
    assert!(correlator.covers(file(), EventKind::Modify, made(85, 1)));
    assert!(orphans(&mut correlator).is_empty());
}

#[test]
fn many_changes_of_one_file_whose_events_are_to_come_are_remembered_as_few() {
    let mut correlator = Correlator::default();
    for change in 0..1000 {
        correlator.may_come_again(file(), EventKind::Modify, 100 + change);
    }
    assert!(correlator.owed[&correlator.key(file(), EventKind::Modify)].len() <= OWED);
    for _ in 0..1001 {
        correlator.receive(file(), EventKind::Modify, at(1, 2000), "one too many");
    }
    assert_eq!(orphans(&mut correlator), ["one too many"]);
}

#[test]
fn a_name_found_in_a_new_directory_is_explained_by_whatever_brought_it_there() {
    let dir = Path::new("/srv/new");
    let found = dir.join("final");
    let mut correlator = Correlator::default();
    correlator.find(&found, 100, "renamed within");
    correlator.arrived(&found);
    correlator.find(&found, 100, "came with its directory");
    correlator.arrived(dir);
    correlator.find(&found, 100, "created");
    correlator.covers(&found, EventKind::Create, made(90, 1));
    correlator.find(&found, 100, "nobody told");
    correlator.arrived(Path::new("/srv/ne"));
    assert_eq!(orphans(&mut correlator), ["nobody told"]);
}

#[test]
fn other_names_and_other_kinds_do_not_cover() {
    let mut correlator = Correlator::default();
    correlator.receive(file(), EventKind::Modify, at(1, 100), "");
    assert!(!correlator.covers(Path::new("/srv/b"), EventKind::Modify, made(90, 1)));
    assert!(!correlator.covers(file(), EventKind::Attrib, made(90, 1)));
}

#[test]
fn an_event_without_a_record_is_handed_back_once_its_time_is_over() {
    let mut correlator = Correlator::default();
    correlator.receive(file(), EventKind::Modify, at(1, 100), "heard alone");
    correlator.expire(100 + HOLD_NS - 1, |_, _| panic!("its record may come"));
    assert_eq!(correlator.next_deadline(), Some(100 + HOLD_NS));
    assert_eq!(orphans(&mut correlator), ["heard alone"]);
    assert_eq!(correlator.next_deadline(), None);
}

#[test]
fn nothing_is_proven_of_what_was_made_before_events_were_forgotten() {
    let mut correlator = Correlator::<()>::default();
    correlator.clear(100);
    assert!(!correlator.proves(file(), EventKind::Modify, made(100 + HELD_UP_NS, 1)));
    assert!(correlator.proves(file(), EventKind::Modify, made(101 + HELD_UP_NS, 1)));
}

#[test]
fn a_write_to_a_file_that_is_being_renamed_may_have_either_name() {
    let write = |at_ns| RecordedChanges { is_silent: false, ..made(at_ns, 1) };
    for rename in [EventKind::MovedFrom, EventKind::MovedTo] {
        let mut correlator = Correlator::default();
        correlator.receive(file(), EventKind::Modify, at(1, 100), "before");
        correlator.receive(file(), rename, at(1, 110), "the rename");
        correlator.receive(file(), EventKind::Modify, at(1, 120), "after");
        correlator.receive(file(), EventKind::Modify, at(1, 111 + HELD_UP_NS), "much later");
        assert!(!correlator.proves(file(), EventKind::Modify, write(110 + HELD_UP_NS)));
        assert!(correlator.proves(file(), EventKind::Modify, write(111 + HELD_UP_NS)));
        assert!(
            correlator.proves(file(), EventKind::Modify, made(110, 1)),
            "nobody is notified of it by any name"
        );
        // A create has the former name only in its event, and the new one only in its record.
        assert_eq!(correlator.proves(file(), EventKind::Create, write(110)), rename == EventKind::MovedFrom);
        assert_eq!(orphans(&mut correlator), ["the rename", "much later"]);
    }
    for (rename, told) in [(EventKind::MovedFrom, None), (EventKind::MovedTo, Some("made"))] {
        let mut correlator = Correlator::default();
        correlator.receive(file(), EventKind::Create, at(1, 100), "made");
        correlator.receive(file(), rename, at(1, 110), "the rename");
        let expected: Vec<_> = told.into_iter().chain(["the rename"]).collect();
        assert_eq!(orphans(&mut correlator), expected);
    }
    let mut correlator = Correlator::default();
    correlator.moved(110);
    assert!(
        correlator.proves(file(), EventKind::Create, write(120)),
        "a create is not below what is moved later"
    );
    correlator.receive(file(), EventKind::Modify, at(1, 100), "below a directory");
    correlator.moved(110);
    assert!(!correlator.proves(file(), EventKind::Modify, write(120)));
    correlator.receive(file(), EventKind::Modify, at(1, 111 + HELD_UP_NS), "much later");
    assert_eq!(orphans(&mut correlator), ["much later"]);
}

#[test]
fn an_event_below_a_directory_that_is_being_renamed_is_counted_only() {
    let heard = |path: &str, read_ns| {
        let mut correlator = Correlator::default();
        correlator.renamed(2 * HELD_UP_NS, Path::new("/w/old"), Path::new("/w/new"));
        correlator.receive(Path::new(path), EventKind::Create, at(1, read_ns), "event");
        let mut orphans = Vec::new();
        let unplaced = correlator.expire(u64::MAX, |_, event| orphans.push(event));
        (orphans.len(), unplaced)
    };
    for path in ["/w/old", "/w/old/f", "/w/new/d/f"] {
        assert_eq!(heard(path, HELD_UP_NS), (0, 1), "{path}, before");
        assert_eq!(heard(path, 3 * HELD_UP_NS), (0, 1), "{path}, after");
        assert_eq!(heard(path, HELD_UP_NS - 1), (1, 0), "{path}, long before");
        assert_eq!(heard(path, 3 * HELD_UP_NS + 1), (1, 0), "{path}, long after");
    }
    assert_eq!(heard("/w/older", 2 * HELD_UP_NS), (1, 0), "another directory");
}

#[test]
fn a_storm_takes_no_more_room_and_nothing_is_claimed_that_was_forgotten() {
    let mut correlator = Correlator { room: 100, ..Correlator::default() };
    let path = |number: u64| PathBuf::from(format!("/srv/{number}"));
    let at_ns = |number: u64| number * HELD_UP_NS / 10;
    for number in 1..=1000 {
        correlator.receive(path(number), EventKind::Create, at(at_ns(number) - 1, at_ns(number)), "");
        if number % 2 == 0 {
            assert!(correlator.covers(&path(number), EventKind::Create, made(at_ns(number), 1)));
        }
    }
    assert_eq!((correlator.order.len(), correlator.heard.len()), (100, 100));
    assert_eq!(
        (correlator.take_unmatched(), correlator.take_unmatched()),
        (450, 0),
        "every other one had a record"
    );
    // Number 900 is the last that was forgotten.
    let proves =
        |number| correlator.proves(Path::new("/srv/none"), EventKind::Create, made(at_ns(number), 1));
    assert!(!proves(850) && !proves(905), "its event may be one of those, or of the time before");
    assert!(proves(950), "of later ones every event is known");
    assert!(correlator.covers(&path(901), EventKind::Create, made(at_ns(901), 1)));
    let mut left = 0;
    assert_eq!(correlator.expire(u64::MAX, |_, _| left += 1), 0);
    assert_eq!(left, 49);
}
