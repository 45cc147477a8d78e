//! The arbiter by tables, with a clock that stands where the table puts it.

use super::*;
use hotr_events::Channel::{Ebpf, Inotify, Poll};

fn at(ms: u64) -> Moment {
    Moment {
        mono: Duration::from_millis(ms),
        real_ns: 1_000_000_000_000 + i64::try_from(ms).unwrap() * 1_000_000,
    }
}

fn both() -> Arbiter {
    Arbiter::new(vec![(Ebpf, None), (Inotify, None)], true, None, at(0))
}

/// `name state: why` of each report.
fn texts(reports: &[Report]) -> Vec<String> {
    let line = |report: &Report| match report {
        Report::Channel { channel, state, why } => format!("{} {}: {why}", channel.as_str(), state.as_str()),
        other => format!("{other:?}"),
    };
    reports.iter().map(line).collect()
}

/// An audit from begin to judgement.
fn audit(arbiter: &mut Arbiter, ms: u64, found: usize) -> Vec<String> {
    arbiter.audit_begins();
    let reports = arbiter.audit_ends(at(ms), Duration::from_millis(1));
    arbiter.audit_judged(found);
    texts(&reports)
}

#[test]
fn health_follows_the_share_and_the_row() {
    let dots = ".".repeat(38);
    // (heartbeats, `.` received, `x` not; degraded after, transitions)
    let table: [(&str, bool, i32); 13] = [
        ("", false, 0),
        ("xx", false, 0),
        ("xxx", true, 1),
        ("xx.xx.xx", false, 0),
        // Two of twenty: below 95%.
        ("..................xx", true, 1),
        ("...................x", false, 0),
        // Two of forty: 95%.
        (&format!("x{dots}x"), false, 0),
        // Three of forty-one, and the first has left the window.
        (&format!("x{dots}x.x"), false, 0),
        // Three of forty.
        (&format!("{dots}x.x.x"), true, 1),
        ("xxx.........", true, 1),
        ("xxx..........", false, 2),
        // Ten in a row are not enough while one of the last forty is a miss.
        ("xxx.........x..........", true, 1),
        ("xxx..........xxx", true, 3),
    ];
    for (beats, degraded, turns) in table {
        let mut health = Health::default();
        let mut count = 0_i32;
        for beat in beats.chars() {
            count += i32::from(health.expect(Expected::Heartbeat, beat == '.').is_some());
        }
        assert_eq!((health.is_degraded(), count), (degraded, turns), "{beats}");
    }
}

#[test]
fn a_channel_recovers_when_the_misses_have_left_the_window() {
    let mut health = Health::default();
    for _ in 0..3 {
        health.expect(Expected::Heartbeat, false);
    }
    health.expect(Expected::Heartbeat, false);
    let good = (1..200).find(|_| health.expect(Expected::Heartbeat, true).is_some());
    assert_eq!(good, Some(health::WINDOW), "a flapping channel stays degraded for a whole window");
    assert!(!health.is_degraded());
}

#[test]
fn a_new_start_is_judged_by_itself() {
    let mut arbiter = Arbiter::new(vec![(Ebpf, None)], true, None, at(0));
    for ms in 0..9 {
        arbiter.beat(at(ms), Ebpf, false);
    }
    assert!(arbiter.is_deaf(Ebpf));
    arbiter.restarted(Ebpf);
    // Found by an audit, and made before the new start.
    assert!(arbiter.not_received(at(9), Ebpf).is_empty());
    let good = (1..99).find(|_| !arbiter.beat(at(9), Ebpf, true).is_empty());
    assert_eq!(good, Some(health::GOOD_IN_A_ROW.try_into().unwrap()));
}

#[test]
fn what_only_audits_find_degrades_by_its_share_and_never_by_its_row() {
    let mut health = Health::default();
    for _ in 0..u32::try_from(health::ENOUGH).unwrap() - 1 {
        assert_eq!(health.expect(Expected::Change, false), None);
    }
    let Some(HealthChange::Degraded(why)) = health.expect(Expected::Change, false) else {
        panic!("degraded")
    };
    assert_eq!(why, "received 0 of the last 20 changes that it should have received");
}

#[test]
fn one_healthy_channel_keeps_the_level_and_a_degraded_one_asks_for_an_audit() {
    let mut arbiter = both();
    for ms in [2_000, 2_250] {
        assert_eq!(texts(&arbiter.beat(at(ms), Ebpf, false)), [""; 0]);
        assert!(arbiter.beat(at(ms), Inotify, true).is_empty());
        assert_eq!(arbiter.beat_period(false), SUSPECT);
    }
    assert_eq!(
        texts(&arbiter.beat(at(2_500), Ebpf, false)),
        [
            "ebpf degraded: 3 heartbeats in a row were missed",
            "poll active: ebpf is degraded: all files are checked now",
        ]
    );
    assert_eq!(arbiter.next_audit(), Some(Duration::ZERO));
    assert_eq!(
        audit(&mut arbiter, 2_600, 0),
        ["poll idle: all files were checked; the next audit is in 30s"]
    );
    assert_eq!(arbiter.level(), Level::Event);
    assert_eq!(arbiter.beat_period(false), BUSY, "while it recovers");
}

#[test]
fn without_a_healthy_channel_every_file_is_looked_at_every_five_seconds() {
    let mut arbiter = both();
    for _ in 0..3 {
        arbiter.beat(at(1_000), Ebpf, false);
        arbiter.beat(at(1_000), Inotify, false);
    }
    assert_eq!(arbiter.level(), Level::Emergency);
    assert_eq!(
        audit(&mut arbiter, 1_100, 9),
        ["poll active: every event channel is degraded: all files are checked every 5s"]
    );
    assert_eq!((arbiter.level(), arbiter.next_audit()), (Level::Polling, Some(Duration::from_millis(6_100))));
    assert_eq!(audit(&mut arbiter, 6_200, 0), [""; 0]);
    assert_eq!(arbiter.next_audit(), Some(Duration::from_millis(11_200)), "quiet or not");
    let mut lines = Vec::new();
    for ms in 0..10 {
        lines.extend(texts(&arbiter.beat(at(12_000 + ms), Inotify, true)));
    }
    assert_eq!(
        lines,
        [
            "inotify active: received 10 heartbeats in a row",
            "poll idle: an event channel is healthy: all files are checked once more, then in 30s"
        ]
    );
    assert_eq!(arbiter.next_audit(), Some(Duration::from_millis(12_009)), "for the time since the last look");
    audit(&mut arbiter, 12_100, 2);
    assert_eq!(arbiter.next_audit(), Some(Duration::from_millis(42_100)));
}

#[test]
fn a_start_without_a_healthy_channel_polls_and_says_nothing_more() {
    let gap = Some("7 directories have no watch".to_owned());
    let mut arbiter = Arbiter::new(vec![(Inotify, gap.clone())], true, None, at(0));
    assert_eq!(
        (arbiter.level(), arbiter.interval(), arbiter.next_audit()),
        (Level::Polling, Some(DEGRADED), Some(DEGRADED))
    );
    assert!(arbiter.gap(at(1), Inotify, gap).is_empty());
    assert!(arbiter.tick(at(2), Duration::ZERO).is_empty());
    assert_eq!(audit(&mut arbiter, 5_000, 0), [""; 0]);
    assert_eq!(arbiter.gap(at(5_001), Inotify, None).len(), 2);
    audit(&mut arbiter, 6_000, 1);
    assert_eq!(arbiter.interval(), Some(AUDIT_START));
}

#[test]
fn skipped_programs_ask_for_an_audit_when_nobody_else_heard() {
    let mut arbiter = both();
    assert!(arbiter.lost(at(1), Ebpf, LossReason::ProgramSkipped).is_empty());
    assert_eq!(arbiter.level(), Level::Event);
    let mut alone = Arbiter::new(vec![(Ebpf, None)], true, None, at(0));
    assert_eq!(alone.lost(at(1), Ebpf, LossReason::ProgramSkipped).len(), 1);
    assert_eq!(alone.level(), Level::Emergency);
}

#[test]
fn audits_adapt_beside_healthy_channels_unless_the_user_set_their_interval() {
    let mut adapting = both();
    assert_eq!(adapting.next_audit(), Some(AUDIT_START));
    // (end in ms, found, interval then in ms)
    for (end, found, then) in [(30_000, 0, 45_000), (75_000, 2, 45_000), (120_000, 3, 31_500)] {
        assert_eq!(audit(&mut adapting, end, found), [""; 0]);
        assert_eq!(adapting.next_audit(), Some(Duration::from_millis(end + then)), "{end}");
    }
    let mut fixed = Arbiter::new(vec![(Ebpf, None)], true, Some(Duration::from_secs(60)), at(0));
    for end in [60_000, 120_000] {
        audit(&mut fixed, end, 7);
        assert_eq!(fixed.next_audit(), Some(Duration::from_millis(end + 60_000)));
    }
}

#[test]
fn a_loss_asks_at_once_and_a_storm_of_losses_once_a_second() {
    let mut arbiter = both();
    let first = texts(&arbiter.lost(at(500), Inotify, LossReason::QueueOverflow));
    assert_eq!(first, ["poll active: inotify lost changes (queue-overflow): all files are checked now"]);
    assert!(arbiter.lost(at(501), Ebpf, LossReason::RingFull).is_empty(), "no transition");
    assert_eq!(arbiter.next_audit(), Some(Duration::ZERO));
    assert!(arbiter.audit_begins(), "at full speed");
    // Lost during the audit: one more, and the level stays.
    assert!(arbiter.lost(at(600), Ebpf, LossReason::RingFull).is_empty());
    assert_eq!(arbiter.next_audit(), None, "one at a time");
    assert!(arbiter.audit_ends(at(700), Duration::ZERO).is_empty());
    assert_eq!(arbiter.next_audit(), None, "not before its findings are judged");
    arbiter.audit_judged(0);
    assert_eq!(arbiter.next_audit(), Some(Duration::from_millis(1_700)));
    assert_eq!(audit(&mut arbiter, 1_800, 0).len(), 1);
    assert_eq!(arbiter.level(), Level::Event);
    assert!(!arbiter.audit_begins(), "within the budget");
}

#[test]
fn a_gap_degrades_at_once_and_ends_at_once() {
    let mut arbiter = Arbiter::new(vec![(Inotify, None)], true, None, at(0));
    let gap = Some("2 directories have no watch".to_owned());
    assert_eq!(
        texts(&arbiter.gap(at(1), Inotify, gap.clone()))[0],
        "inotify degraded: 2 directories have no watch"
    );
    assert!(arbiter.gap(at(2), Inotify, gap).is_empty(), "told once");
    audit(&mut arbiter, 3, 0);
    assert_eq!(arbiter.level(), Level::Polling);
    assert_eq!(texts(&arbiter.gap(at(9), Inotify, None))[0], "inotify active: it covers everything again");
    assert_eq!(arbiter.level(), Level::Event);
}

#[test]
fn a_gap_hides_no_failing_heartbeats() {
    let mut arbiter = Arbiter::new(vec![(Inotify, None)], true, None, at(0));
    arbiter.gap(at(1), Inotify, Some("gap".to_owned()));
    for ms in 2..5 {
        assert!(arbiter.beat(at(ms), Inotify, false).is_empty(), "degraded already");
    }
    assert!(arbiter.gap(at(6), Inotify, None).is_empty(), "still failing");
    assert!(arbiter.is_degraded(Inotify) && arbiter.is_deaf(Inotify));
}

#[test]
fn clock_steps_and_stalls_are_told_and_audited() {
    let second = 1_000_000_000;
    // (step of the time of day in ns, late in ms, reported)
    let table = [
        (0, 0, None),
        (50_000_000, 0, None),
        (-50_000_000, 4_999, None),
        (3_600 * second, 0, Some("the clock was set forward by 1h")),
        (-90 * second, 0, Some("the clock was set back by 1m 30s")),
        (0, 12_000, Some("hotr did not run for 12 s")),
    ];
    for (step, late, reason) in table {
        let mut arbiter = both();
        arbiter.tick(at(0), Duration::ZERO);
        let now = Moment { real_ns: at(1_000).real_ns + step, ..at(1_000) };
        assert_eq!(arbiter.is_stepped(now), step.abs() > second, "{step}");
        let lines = texts(&arbiter.tick(now, Duration::from_millis(late)));
        let wanted = reason.map(|why| format!("poll active: {why}: all files are checked now"));
        assert_eq!(lines, wanted.into_iter().collect::<Vec<_>>());
        // Heartbeats and audits go by the other clock.
        let due = if reason.is_some() { Duration::ZERO } else { AUDIT_START };
        assert_eq!(arbiter.next_audit(), Some(due), "{step}");
        assert!(
            arbiter
                .tick(Moment { mono: Duration::from_secs(2), real_ns: now.real_ns + second }, Duration::ZERO)
                .is_empty()
        );
    }
}

#[test]
fn without_audits_the_channels_are_told_all_the_same() {
    let mut arbiter = Arbiter::new(vec![(Ebpf, None)], false, None, at(0));
    arbiter.beat(at(1), Ebpf, false);
    arbiter.beat(at(2), Ebpf, false);
    assert_eq!(
        texts(&arbiter.beat(at(3), Ebpf, false)),
        ["ebpf degraded: 3 heartbeats in a row were missed"]
    );
    assert!(arbiter.lost(at(4), Ebpf, LossReason::RingFull).is_empty());
    assert_eq!((arbiter.next_audit(), arbiter.interval()), (None, None));
    assert!(arbiter.beat(at(5), Poll, true).is_empty(), "not an event channel");
}
