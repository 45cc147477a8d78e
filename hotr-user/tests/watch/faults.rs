//! The safety net: channels made deaf, full queues, limits, a stopped process, roots that go and come back.
//!
//! Each test makes a fault on the real program, makes a change that the channels cannot report, and checks that it is
//! reloaded for within one interval of degraded polling, and that the output says what happened.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{Signal, geteuid};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use serde_json::Value;

use super::inject::Held;
use super::run::{HOTR, Scratch, Watch, root};
use hotr_tests::outside;

/// What no change may be lost for.
const INTERVAL: Duration = Duration::from_secs(5);

fn channel<'a>(name: &'a str, state: &'a str, why: &'a str) -> impl Fn(&Value) -> bool + 'a {
    move |line| {
        line["type"] == "channel"
            && line["name"] == name
            && line["state"] == state
            && line["why"].as_str().is_some_and(|text| text.contains(why))
    }
}

/// Waits for the reload for these files alone or among others; how long after `since`.
fn reloaded(watch: &mut Watch, files: &[&Path], since: Instant) -> (Value, Duration) {
    let mut missing: Vec<&Path> = files.to_vec();
    loop {
        let line = watch.reload("started");
        for change in line["changes"].as_array().unwrap() {
            missing.retain(|path| Path::new(change["path"].as_str().unwrap()) != *path);
        }
        if missing.is_empty() {
            return (line, since.elapsed());
        }
    }
}

fn in_time(what: &str, took: Duration) {
    eprintln!("{what}: reloaded after {took:?}");
    assert!(took < INTERVAL, "{what}: {took:?}");
}

#[test]
fn detached_programs_are_noticed_by_their_silence_and_started_anew() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("detached");
    let file = scratch.file("config", "0");
    let mut watch = Watch::start(&["--channels", "ebpf"], &scratch.w(), &[]);
    watch.nothing_but_a_marker();
    Held::hold(watch.pid()).detach_programs();
    let begin = Instant::now();
    fs::write(&file, "1").unwrap();
    watch.wait("ebpf degraded", channel("ebpf", "degraded", "3 heartbeats in a row were missed"));
    watch.wait("an audit", channel("poll", "active", "all files are checked now"));
    let (line, took) = reloaded(&mut watch, &[&file], begin);
    in_time("programs detached", took);
    assert_eq!(line["changes"][0]["seen_by"], serde_json::json!(["poll"]), "{line}");
    let change =
        watch.wait("the change", |line| line["type"] == "change" && line["path"] == file.to_str().unwrap());
    assert_eq!(change["detail"], serde_json::json!(["audit"]), "{change}");
    assert_eq!(change["missed_by"][0]["channel"], "ebpf", "{change}");
    assert_eq!(change["missed_by"][0]["cause"], "degraded", "{change}");
    watch.wait("ebpf again", channel("ebpf", "active", "heartbeats in a row"));
    fs::write(&file, "2").unwrap();
    let (line, _) = reloaded(&mut watch, &[&file], Instant::now());
    assert_eq!(line["changes"][0]["seen_by"], serde_json::json!(["ebpf"]), "{line}");
    watch.end();
}

/// Another privileged process cuts the programs off, without a word in hotr: see `outside` for what can be reached by id.
#[test]
fn programs_cut_off_by_id_are_noticed_by_their_silence_and_started_anew() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("by-id");
    let file = scratch.file("config", "0");
    let mut watch = Watch::start(&["--channels", "ebpf"], &scratch.w(), &[]);
    watch.nothing_but_a_marker();
    eprintln!("cut off: {:?}", outside::cut(watch.pid()).unwrap());
    let begin = Instant::now();
    fs::write(&file, "1").unwrap();
    watch.wait("ebpf degraded", channel("ebpf", "degraded", "3 heartbeats in a row were missed"));
    let (line, took) = reloaded(&mut watch, &[&file], begin);
    in_time("programs cut off by id", took);
    assert_eq!(line["changes"][0]["seen_by"], serde_json::json!(["poll"]), "{line}");
    watch.wait("ebpf again", channel("ebpf", "active", "heartbeats in a row"));
    fs::write(&file, "2").unwrap();
    let (line, _) = reloaded(&mut watch, &[&file], Instant::now());
    assert_eq!(line["changes"][0]["seen_by"], serde_json::json!(["ebpf"]), "{line}");
    watch.end();
}

#[test]
fn while_one_channel_is_deaf_the_other_one_is_relied_on() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("one-deaf");
    let file = scratch.file("config", "0");
    let mut watch = Watch::start(&["--no-poll"], &scratch.w(), &[]);
    assert_eq!(watch.heard[0]["channels"]["poll"]["state"], "off");
    Held::hold(watch.pid()).detach_programs();
    watch.wait("ebpf degraded", channel("ebpf", "degraded", "3 heartbeats"));
    fs::write(&file, "1").unwrap();
    let (line, _) = reloaded(&mut watch, &[&file], Instant::now());
    assert_eq!(line["changes"][0]["seen_by"], serde_json::json!(["inotify"]), "{line}");
    watch.end();
}

#[test]
fn with_all_channels_deaf_files_are_looked_at_every_five_seconds() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("all-deaf");
    let files: Vec<PathBuf> = (0..3).map(|n| scratch.file(&format!("config{n}"), "0")).collect();
    let mut watch = Watch::start(&[], &scratch.w(), &[]);
    watch.nothing_but_a_marker();
    let held = Held::hold(watch.pid());
    held.detach_programs();
    held.drop_watches();
    drop(held);
    let begin = Instant::now();
    fs::write(&files[0], "1").unwrap();
    fs::remove_file(&files[1]).unwrap();
    fs::rename(&files[2], scratch.w().join("renamed")).unwrap();
    let all: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
    let (_, took) = reloaded(&mut watch, &all, begin);
    in_time("all channels deaf", took);
    for name in ["ebpf", "inotify"] {
        assert!(watch.heard.iter().any(channel(name, "degraded", "3 heartbeats")), "{:#?}", watch.heard);
    }
    watch.wait("both again", channel("poll", "idle", "an event channel is healthy"));
    watch.nothing_but_a_marker();
    watch.end();
}

/// Runs in a user namespace of its own with this many watches: nobody else is concerned.
fn with_watches(count: &'static [u8], args: &[&str], path: &Path) -> Watch {
    let mut command = Command::new(HOTR);
    command.args(["watch", "--json"]).args(args).arg(path);
    let limit = move || {
        // SAFETY: the child has one thread, and no descriptor is shared by it.
        unsafe { unshare_unsafe(UnshareFlags::NEWUSER | UnshareFlags::NEWNS)? };
        for (file, text) in [
            (c"/proc/self/setgroups", b"deny".as_slice()),
            (c"/proc/self/uid_map", b"0 0 1"),
            (c"/proc/self/gid_map", b"0 0 1"),
            (c"/proc/sys/user/max_inotify_watches", count),
        ] {
            let file = openat(CWD, file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
            rustix::io::write(&file, text)?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec it makes system calls only: it neither allocates nor takes a lock.
    unsafe { command.pre_exec(limit) };
    Watch::spawn(command, path)
}

#[test]
fn what_has_no_watch_is_polled() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("no-watch");
    let file = scratch.file("a/b/c/config", "0");
    let mut watch = with_watches(b"2", &[], &scratch.w());
    let channels = watch.heard[0]["channels"].clone();
    assert_eq!(channels["inotify"]["state"], "degraded", "{channels}");
    assert_eq!(channels["poll"], serde_json::json!({"state": "active", "interval_ms": 5000}), "{channels}");
    let begin = Instant::now();
    fs::write(&file, "1").unwrap();
    let change =
        watch.wait("found", |line| line["type"] == "change" && line["path"] == file.to_str().unwrap());
    assert_eq!(change["missed_by"][0]["cause"], "degraded", "{change}");
    eprintln!("told after {:?}", begin.elapsed());
    let started = watch.heard.iter().any(|line| line["type"] == "reload");
    assert!(started, "reloaded before its cause was judged: {:#?}", watch.heard);
    watch.end();
}

#[test]
fn a_limit_reached_on_the_way_is_told() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("limit-later");
    scratch.file("a/config", "0");
    let mut watch = with_watches(b"4", &[], &scratch.w());
    assert_eq!(watch.heard[0]["channels"]["inotify"]["state"], "active", "{}", watch.heard[0]);
    let deep = scratch.w().join("x/y/z");
    fs::create_dir_all(&deep).unwrap();
    watch.wait("inotify degraded", channel("inotify", "degraded", "have no watch"));
    watch.wait("polling", channel("poll", "active", "checked every 5s"));
    let begin = Instant::now();
    let file = deep.join("late");
    fs::write(&file, "1").unwrap();
    let (_, took) = reloaded(&mut watch, &[&file], begin);
    assert!(took < INTERVAL + Duration::from_secs(1), "{took:?}");
    watch.end();
}

#[test]
fn full_queues_of_a_stopped_process_lose_nothing() {
    const FILES: usize = 30_000;
    let scratch = Scratch::new("full");
    let victim = scratch.file("victim", "0");
    let mut watch = Watch::start(&[], &scratch.w(), &[]);
    watch.nothing_but_a_marker();
    watch.send(Signal::STOP);
    for number in 0..FILES {
        drop(fs::File::create(scratch.w().join(format!("f{number}"))).unwrap());
    }
    // After all queues were full: a removal leaves no time behind by which it could be found.
    fs::remove_file(&victim).unwrap();
    watch.send(Signal::CONT);
    let begin = Instant::now();
    watch.wait("the loss", |line| line["type"] == "loss" && line["reason"] == "queue-overflow");
    let (_, took) = reloaded(&mut watch, &[&victim], begin);
    eprintln!("full queues: the removal was reloaded for after {took:?}");
    if geteuid().is_root() {
        let is_ring_full = |line: &Value| {
            line["type"] == "loss" && line["channel"] == "ebpf" && line["reason"] == "ring-full"
        };
        if !watch.heard.iter().any(is_ring_full) {
            watch.wait("the full ring", is_ring_full);
        }
    }
    // The first of several reasons is reported: on a slow machine, that hotr did not run for so long.
    let looks = channel("poll", "active", "all files are checked now");
    assert!(watch.heard.iter().any(looks), "{:#?}", watch.heard.last());
    watch.end();
}

#[test]
fn a_process_that_was_stopped_says_so_and_looks() {
    let scratch = Scratch::new("stopped");
    let file = scratch.file("config", "0");
    let mut watch = Watch::start(&[], &scratch.w(), &[]);
    watch.nothing_but_a_marker();
    watch.send(Signal::STOP);
    fs::write(&file, "1").unwrap();
    let over = Instant::now() + Duration::from_secs(8);
    while let Some(left) = over.checked_duration_since(Instant::now()) {
        // The passing of time is what is tested.
        std::thread::park_timeout(left);
    }
    watch.send(Signal::CONT);
    watch.wait("the stall", channel("poll", "active", "hotr did not run for"));
    watch.wait("the audit", channel("poll", "idle", "all files were checked"));
    if !watch.heard.iter().any(|line| line["type"] == "reload") {
        reloaded(&mut watch, &[&file], Instant::now());
    }
    watch.end();
}

/// A tmpfs that is unmounted at the end of a test.
struct Tmpfs<'a>(&'a Path);

impl<'a> Tmpfs<'a> {
    fn on(dir: &'a Path) -> Self {
        mount("tmpfs", dir, "tmpfs", MountFlags::empty(), None).unwrap();
        Self(dir)
    }
}

impl Drop for Tmpfs<'_> {
    fn drop(&mut self) {
        let _ = unmount(self.0, UnmountFlags::DETACH);
    }
}

#[test]
fn what_a_mount_covers_and_uncovers_is_compared() {
    if cfg!(hotr_without_ebpf) || !root() {
        return;
    }
    let scratch = Scratch::new("mounted-below");
    scratch.file("conf.d/a", "old");
    scratch.file("conf.d/b", "only below");
    let below = scratch.w().join("conf.d");
    let mut watch = Watch::start(&["-p"], &scratch.w(), &["true"]);
    let mounted = Tmpfs::on(&below);
    let line = watch.reload("started");
    assert_eq!(watch.names(&line), ["conf.d/a", "conf.d/b"], "{line}");
    watch.reload("done");
    drop(mounted);
    let line = watch.reload("started");
    assert_eq!(watch.names(&line), ["conf.d/a", "conf.d/b"], "{line}");
    watch.reload("done");
    watch.end();
}

#[test]
fn a_root_that_is_unmounted_and_mounted_again_is_watched_again() {
    if !root() {
        return;
    }
    for channels in ["ebpf", "inotify", "ebpf,inotify"] {
        let scratch = Scratch::new("remounted");
        let dir = scratch.w();
        let first = Tmpfs::on(&dir);
        let file = scratch.file("config", "0");
        let mut watch = Watch::start(&["--channels", channels], &dir, &[]);
        watch.nothing_but_a_marker();
        let begin = Instant::now();
        drop(first);
        watch.wait("the loss", |line| line["type"] == "loss" && line["reason"] == "unmounted");
        let (_, took) = reloaded(&mut watch, &[&file], begin);
        in_time(&format!("{channels}: unmounted"), took);
        let second = Tmpfs::on(&dir);
        let begin = Instant::now();
        let file = scratch.file("config", "1");
        let (_, took) = reloaded(&mut watch, &[&file], begin);
        in_time(&format!("{channels}: mounted again"), took);
        watch.end();
        drop(second);
    }
}
