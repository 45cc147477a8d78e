//! More requests in one system call than hotr reads.

use std::fs::File;

use serde_json::Value;

use super::place::{Scratch, Tmpfs};
use super::run::{Run, changes, ebpf, path_of};
use hotr_tests::aio::Context;

/// At the tracepoint tier a program is followed by some 30 more, of which each looks at 128 requests.
const REQUESTS: u32 = 6000;

#[test]
fn requests_beyond_what_is_looked_at_are_counted_as_lost() {
    if !ebpf() {
        return;
    }
    // On a filesystem of its own: what is lost may lie anywhere on one, and other tests count losses.
    let scratch = Scratch::new("requests");
    let _tmpfs = Tmpfs::on(&scratch.0);
    let path = scratch.0.join("f");
    let file = File::create(&path).unwrap();
    let mut run = Run::start(&["--channels", "ebpf", "--tier", "tracepoint"], &scratch.0);
    let context = Context::new(REQUESTS).expect("room for requests: fs.aio-max-nr");
    context.write_all(&vec![(&file, &b"x"[..]); REQUESTS as usize]).unwrap();
    let loss = run.wait("the loss", |line| line["type"] == "loss");
    assert_eq!(loss["reason"], "oversize", "{loss}");
    let lines = run.end();
    // The end may interrupt the search for what was lost.
    let is_loss = |line: &&Value| line["type"] == "loss" && line["reason"] != "interrupted";
    let lost: u64 = lines.iter().filter(is_loss).filter_map(|line| line["count"].as_u64()).sum();
    let told: u64 = changes(&lines)
        .filter(|line| line["detail"][0] == "aio" && path_of(line) == path)
        .filter_map(|line| line["writes"].as_u64())
        .sum();
    assert_eq!(told + lost, u64::from(REQUESTS), "told {told}, lost {lost}");
    assert!(told >= 30 * 128, "told {told}, lost {lost}");
}
