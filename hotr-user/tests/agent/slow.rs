//! Who does not read is disconnected, and nobody else waits.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::Value;

use super::run::{Bare, ONE, OTHER, Scratch, agent, can_run, subscribe, until};

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

/// Ends writers when a test ends, however it ends.
pub(crate) struct Over<'a>(pub(crate) &'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn who_floods_its_own_directory_puts_off_no_report_to_another() {
    if !can_run() {
        return;
    }
    let scratch = Scratch::new("flood");
    let (flooded, quiet) = (scratch.dir("w/flooded", 0o755, ONE), scratch.dir("w/quiet", 0o755, OTHER));
    let _agent = agent(&scratch);
    let _flooder = subscribe(&scratch, ONE, &flooded);
    let mut beside = subscribe(&scratch, OTHER, &quiet);
    let (is_over, written) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let over = Over(&is_over);
        for writer in 0..2 {
            let (file, is_over, written) = (flooded.join(format!("f{writer}")), &is_over, &written);
            scope.spawn(move || {
                use std::io::Write;
                let mut file = File::create(file).unwrap();
                while !is_over.load(Ordering::Relaxed) {
                    file.write_all(b"x").unwrap();
                    written.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // More than are read at once, so that there are always more to be read.
        until("a flood", || written.load(Ordering::Relaxed) > 200_000);
        // Each may be lost in a full buffer; one is reported while the flood lasts.
        let (before, mut number) = (written.load(Ordering::Relaxed), 0);
        until("a report in the flood", || {
            fs::write(quiet.join(format!("q{number}")), "x").unwrap();
            number += 1;
            beside.has(|line| line["type"] == "change")
        });
        assert!(written.load(Ordering::Relaxed) > before, "the flood went on");
        drop(over);
    });
}
