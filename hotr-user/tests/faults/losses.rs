//! What was reported before a loss, and after it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::place::Scratch;
use super::run::{Run, changes, path_of};

/// How often each file was reported as made, and how often as removed.
fn told(lines: &[Value], op: &str) -> BTreeMap<PathBuf, usize> {
    let mut told = BTreeMap::new();
    for line in changes(lines).filter(|line| line["op"] == op) {
        *told.entry(path_of(line)).or_default() += 1;
    }
    told
}

fn send(run: &Run, signal: Signal) {
    let pid = i32::try_from(run.pid()).ok().and_then(Pid::from_raw).unwrap();
    kill_process(pid, signal).unwrap();
}

#[test]
fn what_inotify_reported_is_not_missed_by_a_loss_that_follows() {
    let queue: usize =
        fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
    if queue > 200_000 {
        return;
    }
    let scratch = Scratch::new("known");
    let dir = scratch.dir("root");
    let file = |name: &str, number: usize| dir.join(format!("{name}{number}"));
    fs::write(dir.join("removed"), "x").unwrap();
    fs::write(dir.join("renamed"), "x").unwrap();
    let mut run = Run::start(&["--channels", "inotify"], &dir);
    for number in 0..50 {
        fs::write(file("before", number), "x").unwrap();
    }
    fs::remove_file(dir.join("removed")).unwrap();
    fs::rename(dir.join("renamed"), dir.join("other")).unwrap();
    run.change("rename", &dir.join("other"));
    send(&run, Signal::STOP);
    // Two events each.
    for number in 0..queue {
        drop(File::create(file("storm", number)).unwrap());
        if number % 2 == 0 {
            fs::remove_file(file("storm", number)).unwrap();
        }
    }
    fs::write(file("before", 7), "xy").unwrap();
    fs::remove_file(file("before", 8)).unwrap();
    send(&run, Signal::CONT);
    run.wait("queue-overflow", |line| line["type"] == "loss" && line["reason"] == "queue-overflow");
    run.wait("rebuilt", |line| line["type"] == "channel" && line["state"] == "active");
    let last = dir.join("last");
    fs::write(&last, "x").unwrap();
    run.change("create", &last);
    let lines = run.end();
    let (made, removed) = (told(&lines, "create"), told(&lines, "remove"));
    assert_eq!(made.values().max(), Some(&1), "nothing is made twice");
    assert_eq!(removed.values().max(), Some(&1), "nothing is removed twice");
    assert!((0..50).all(|number| made.contains_key(&file("before", number))));
    assert!(
        (0..queue).filter(|number| number % 2 == 1).all(|number| made.contains_key(&file("storm", number)))
    );
    let is_found = |line: &&Value| line["seen_by"][0] == "poll";
    let found: Vec<_> =
        changes(&lines).filter(is_found).map(|line| (line["op"].clone(), path_of(line))).collect();
    assert!(!found.is_empty());
    for (op, name) in [("write", "before7"), ("remove", "before8")] {
        assert!(found.contains(&(op.into(), dir.join(name))), "{op} {name} is lost");
    }
    let others = ["removed", "renamed", "other"].map(|name| dir.join(name));
    assert!(found.iter().all(|(_, path)| !others.contains(path)), "{found:?}");
}
