//! Who does not read is disconnected, and nobody else waits.

use std::fs::{self, File};
use std::os::fd::AsFd;

use serde_json::Value;

use super::run::{Bare, ONE, Scratch, agent, can_run, subscribe, until};

#[test]
fn a_subscriber_that_does_not_read_is_disconnected_and_no_other_one_waits() {
    if !can_run() {
        return;
    }
    let scratch = Scratch::new("slow");
    let _agent = agent(&scratch);
    let mut slow = Bare::greeted(&scratch);
    assert_eq!(slow.add(0, &[File::open(scratch.w("")).unwrap().as_fd()])["type"], "added");
    let mut beside = subscribe(&scratch, ONE, &scratch.w(""));
    // More than may wait for it and fits into its socket; the other one gets each.
    let mut number = 0;
    for _ in 0..40 {
        for _ in 0..250 {
            number += 1;
            fs::write(scratch.w(&format!("{number:0>200}")), "x").unwrap();
        }
        beside.change("write", &format!("{number:0>200}"));
    }
    let mut last = None;
    let mut changes = 0;
    until("its connection ends", || {
        let Some(event) = slow.next() else { return true };
        changes += u64::from(event["type"] == "change");
        last = Some(event);
        false
    });
    let last = last.unwrap();
    assert_eq!((&last["type"], &last["reason"]), (&"loss".into(), &"slow-subscriber".into()), "{last}");
    assert!(changes > 0 && changes < 2 * number, "{changes} of {number}");
    // Where programs are preempted the kernel skips some, whoever reads or does not.
    let is_of_agent = |line: &&Value| line["type"] == "loss" && line["reason"] != "program-skipped";
    let lost: Vec<_> = beside.seen.iter().filter(is_of_agent).collect();
    assert!(lost.is_empty(), "{lost:?}");
}
