//! Readers that stop reading, and readers that go.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{ChildStdout, Command, Stdio};

use serde_json::Value;

use super::place::Scratch;
use super::run::{Run, Started, changes, command, ebpf, path_of, spawn};

/// A run whose first line only is read.
fn unread(command: Command) -> (Started, BufReader<ChildStdout>, Value) {
    let (child, stdout) = spawn(command);
    let mut stdout = BufReader::with_capacity(4096, stdout);
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let ready: Value = serde_json::from_str(&line).expect(&line);
    assert_eq!(ready["type"], "ready");
    (child, stdout, ready)
}

#[test]
fn a_storm_that_nobody_reads_is_told_later() {
    const FILES: usize = 20_000;
    let scratch = Scratch::new("storm");
    let (child, stdout, ready) = unread(command(&[], &scratch.0));
    let files: HashSet<PathBuf> = (0..FILES).map(|number| scratch.0.join(format!("f{number}"))).collect();
    for file in &files {
        drop(File::create(file).unwrap());
    }
    let mut run = Run::read(child, stdout, vec![ready]);
    let last = scratch.0.join("last");
    fs::write(&last, "x").unwrap();
    // A signal would end it before all is looked for.
    let left = RefCell::new(files.clone());
    left.borrow_mut().insert(last);
    run.wait("all files", |line| {
        if line["type"] == "change" {
            left.borrow_mut().remove(&path_of(line));
        }
        left.borrow().is_empty()
    });
    let peak = peak(&run);
    let lines = run.end();
    let told: HashSet<PathBuf> = changes(&lines).map(path_of).collect();
    let missing = files.difference(&told).count();
    let made = changes(&lines).filter(|line| line["op"] == "create" && files.contains(&path_of(line)));
    assert!(made.count() <= FILES, "what was reported is found again");
    let found = changes(&lines).filter(|line| line["seen_by"][0] == "poll").count();
    let lost = lost(&lines);
    eprintln!("{} changes, {found} of them found by a rescan, {lost} lost, peak {peak} KiB", told.len());
    assert_eq!(missing, 0, "of {FILES} files; {lost} lost");
    assert!(found == 0 || lost > 0, "found by a rescan, and no loss was told");
    if lines[0]["channels"]["ebpf"]["state"] == "active" {
        // What was made is more than the ring buffer, a turn of hotr's and the pipe hold.
        assert!(lost > 0 && found > 0, "{lost} lost, {found} found");
    }
}

/// The most memory a run had so far, in KiB; bounded, whatever is lost.
fn peak(run: &Run) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", run.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim().to_owned();
    let kib = peak.strip_suffix(" kB").unwrap().parse().unwrap();
    assert!(kib < 200 * 1024, "{peak}");
    kib
}

/// Records that did not fit the ring buffer, as reported while hotr ran; the summary counts the same.
fn lost(lines: &[Value]) -> u64 {
    let told = lines.iter().filter(|line| line["type"] == "loss" && line["reason"] == "ring-full");
    let lost = told.map(|line| line["count"].as_u64().unwrap()).sum();
    if let Some(kernel) = lines.last().unwrap().get("kernel") {
        assert_eq!(kernel["ring_full"], lost, "{kernel}");
    }
    lost
}

#[test]
fn every_write_of_a_raw_storm_that_nobody_reads_is_printed_or_counted() {
    if !ebpf() {
        return;
    }
    const WRITES: u64 = 200_000;
    let scratch = Scratch::new("raw-storm");
    let path = scratch.0.join("storm");
    let mut file = File::create(&path).unwrap();
    let (child, stdout, ready) = unread(command(&["--channels", "ebpf", "--raw"], &scratch.0));
    for _ in 0..WRITES {
        file.write_all(b"x").unwrap();
    }
    let mut run = Run::read(child, stdout, vec![ready]);
    run.wait("ring-full", |line| line["type"] == "loss" && line["reason"] == "ring-full");
    peak(&run);
    let lines = run.end();
    let is_write = |line: &&Value| line["type"] == "raw" && line["op"] == "write" && path_of(line) == path;
    let printed = u64::try_from(lines.iter().filter(is_write).count()).unwrap();
    let lost = lost(&lines);
    // What there was no time for at the end.
    let cut = lines.iter().filter(|line| line["reason"] == "interrupted");
    let cut: u64 = cut.map(|line| line["count"].as_u64().unwrap()).sum();
    let all = printed + lost + cut;
    assert!(printed > 0 && lost > 0 && all >= WRITES, "{printed} printed, {lost} lost, {cut} cut");
}

#[test]
fn a_reader_that_goes_ends_a_run_well() {
    for change in [false, true] {
        let scratch = Scratch::new("gone");
        let (mut child, stdout, _) = unread(command(&[], &scratch.0));
        drop(stdout);
        if change {
            fs::write(scratch.0.join("f"), "x").unwrap();
        }
        assert_eq!(child.wait(), Some(0));
        assert_eq!(child.said().join().unwrap(), "");
    }
}

#[test]
fn an_output_without_room_is_one_line_and_status_1() {
    let scratch = Scratch::new("full");
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = command(&[], &scratch.0).stdin(Stdio::null()).stdout(full).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("hotr: ") && said.contains("No space left on device"), "{said}");
}
