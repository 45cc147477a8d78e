//! While a large file is read, nothing else waits: channels are read, heartbeats are received, the order is kept.
//!
//! A sparse file of a terabyte takes hours to read: for a test it is read until the test makes it short.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;

use super::inject::Held;
use super::run::{Scratch, Watch, root, until};

const HUGE: u64 = 1 << 40;

/// Whether a process has read some of a file.
fn reads(pid: u32, file: &Path) -> bool {
    let dir = format!("/proc/{pid}/fd");
    let fds = fs::read_dir(&dir).unwrap().flatten();
    let open = fds.filter(|fd| fs::read_link(fd.path()).is_ok_and(|target| target == file));
    open.map(|fd| {
        fs::read_to_string(format!("{dir}info/{}", fd.file_name().to_str().unwrap())).unwrap_or_default()
    })
    .any(|info| info.starts_with("pos:") && !info.starts_with("pos:\t0\n"))
}

/// Makes a file huge, and waits until hotr reads it.
fn being_read(watch: &Watch, file: &Path) {
    File::options().write(true).open(file).unwrap().set_len(HUGE).unwrap();
    until("it is read", || reads(watch.pid(), file));
}

/// Makes it short, with other content than before. Only the last step ends the reading: nothing in between can be seen.
fn make_short(file: &Path) {
    let file = File::options().write(true).open(file).unwrap();
    file.write_all_at(b"1", 0).unwrap();
    file.set_len(1).unwrap();
}

fn changed<'a>(path: &'a Path, op: &'a str) -> impl Fn(&Value) -> bool + 'a {
    move |line| line["type"] == "change" && line["path"] == path.to_str().unwrap() && line["op"] == op
}

#[test]
fn channels_are_read_while_a_large_file_is() {
    let scratch = Scratch::new("large");
    let huge = scratch.file("huge", "0");
    let mut watch = Watch::start(&["--hash-limit", "2048G", "--channels", "inotify"], &scratch.w(), &[]);
    watch.nothing_but_a_marker();
    being_read(&watch, &huge);
    // Reported at once, though nothing of it can be confirmed yet.
    let second = scratch.w().join("second");
    fs::write(&second, "x").unwrap();
    watch.wait("the second file", changed(&second, "create"));
    fs::write(&second, "y").unwrap();
    assert!(reads(watch.pid(), &huge), "it is still read");
    // It changes while it is read: what was read of it is worth nothing, and it is read again with what came since.
    make_short(&huge);
    let line = watch.reload("started");
    assert_eq!(watch.names(&line), ["huge", "second"], "{line}");
    let size = line["changes"].as_array().unwrap().iter().find(|one| one["path"] == huge.to_str().unwrap());
    assert_eq!((&size.unwrap()["size"], &size.unwrap()["by"]), (&1.into(), &"digest".into()), "{line}");
    watch.reload("done");
    watch.nothing_but_a_marker();
    watch.end();
}

#[test]
fn heartbeats_go_on_while_a_large_file_is_read() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("large-beats");
    let huge = scratch.file("huge", "0");
    let mut watch = Watch::start(&["--hash-limit", "2048G"], &scratch.w(), &[]);
    watch.nothing_but_a_marker();
    being_read(&watch, &huge);
    // Only heartbeats show that one channel receives none, and that it receives them again.
    Held::hold(watch.pid()).drop_watches();
    let channel = |name: &'static str, state: &'static str| {
        move |line: &Value| line["type"] == "channel" && line["name"] == name && line["state"] == state
    };
    watch.wait("inotify degraded", channel("inotify", "degraded"));
    watch.wait("inotify again", channel("inotify", "active"));
    assert!(reads(watch.pid(), &huge), "it is still read");
    assert!(!watch.heard.iter().any(channel("ebpf", "degraded")), "{:#?}", watch.heard);
    make_short(&huge);
    let line = watch.reload("started");
    assert_eq!(watch.names(&line), ["huge"], "{line}");
    watch.reload("done");
    watch.nothing_but_a_marker();
    watch.end();
}

#[test]
fn the_end_does_not_wait_for_a_large_file() {
    for rollback in [false, true] {
        let scratch = Scratch::new("large-end");
        let huge = scratch.file("huge", "0");
        let args = ["--hash-limit", "2048G", "--health", "true", "--rollback"];
        let watch = Watch::start(&args[..if rollback { 5 } else { 2 }], &scratch.w(), &["true"]);
        being_read(&watch, &huge);
        watch.end();
        let left: Vec<_> =
            fs::read_dir(scratch.w()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["huge"]);
    }
}

#[test]
fn a_start_that_reads_a_large_file_can_be_ended() {
    let scratch = Scratch::new("large-start");
    let huge = scratch.file("huge", "0");
    File::options().write(true).open(&huge).unwrap().set_len(HUGE).unwrap();
    let mut hotr = std::process::Command::new(super::run::HOTR);
    hotr.args(["watch", "--hash-limit", "2048G", "--health", "true", "--rollback"])
        .arg(scratch.w())
        .args(["--", "true"]);
    let mut child = hotr.spawn().unwrap();
    until("it is read", || reads(child.id(), &huge));
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).unwrap();
    let mut status = None;
    until("the end of hotr", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().code(), Some(0));
}
