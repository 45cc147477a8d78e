//! Little privilege, few watches, few descriptors, no `/proc`.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use rustix::time::{ClockId, clock_gettime};

use super::place::Scratch;
use super::run::{HOTR, Run, command, ebpf, root};

const NOBODY: u32 = 65534;

/// The program where anybody may run it.
fn for_anybody(scratch: &Scratch) -> PathBuf {
    let copy = scratch.0.join("hotr");
    fs::copy(HOTR, &copy).unwrap();
    copy
}

#[test]
fn without_privileges_inotify_goes_on() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("nobody");
    let dir = scratch.dir("root");
    let mut command = Command::new(for_anybody(&scratch));
    command.args(["trace", "--json"]).arg(&dir).uid(NOBODY).gid(NOBODY);
    let mut run = Run::spawn(command);
    let channels = run.ready()["channels"].clone();
    assert_eq!(channels["inotify"]["state"], "active", "{channels}");
    assert_eq!(channels["ebpf"]["state"], "off", "{channels}");
    let why = channels["ebpf"]["why"].as_str().unwrap();
    assert!(cfg!(hotr_without_ebpf) || why.contains("CAP_"), "{why}");
    fs::write(dir.join("f"), "x").unwrap();
    let line = run.change("create", &dir.join("f"));
    assert_eq!(line["seen_by"], serde_json::json!(["inotify"]));
    assert_eq!(line["missed_by"], serde_json::json!([]));
    run.end();
}

#[test]
fn a_directory_that_cannot_be_watched_is_said_and_watched_once_it_can() {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    if !root() {
        return;
    }
    let scratch = Scratch::new("closed");
    let dir = scratch.dir("root");
    let mut command = Command::new(for_anybody(&scratch));
    command.args(["trace", "--json"]).arg(&dir).uid(NOBODY).gid(NOBODY);
    let mut run = Run::spawn(command);
    run.ready();
    let sub = dir.join("sub");
    fs::DirBuilder::new().mode(0o700).create(&sub).unwrap();
    fs::write(sub.join("before"), "x").unwrap();
    let is = |state: &'static str| {
        move |line: &serde_json::Value| line["type"] == "channel" && line["state"] == state
    };
    let line = run.wait("the channel's state", is("degraded"));
    let why = line["why"].as_str().unwrap();
    assert!(
        why.starts_with("1 directory has no watch, ") && why.contains("sub: Permission denied"),
        "{line}"
    );
    // Closed still: nothing new is to be said.
    fs::set_permissions(&sub, fs::Permissions::from_mode(0o711)).unwrap();
    // The clock that hotr reads ticks, and the time of a file may be ahead of it (fs/inode.c, `inode_set_ctime_current`):
    // until it has passed that of `before`, nobody can tell whether the file is new.
    let made = fs::metadata(sub.join("before")).unwrap();
    let passed = || {
        let now = clock_gettime(ClockId::RealtimeCoarse);
        (now.tv_sec, now.tv_nsec) > (made.ctime(), made.ctime_nsec())
    };
    for at in 0.. {
        let is_last = passed();
        let between = dir.join(format!("between{at}"));
        fs::write(&between, "x").unwrap();
        run.change("create", &between);
        if is_last {
            break;
        }
    }
    // Read by a reading that began after the last one was reported.
    fs::write(dir.join("later"), "x").unwrap();
    run.change("create", &dir.join("later"));
    // What was in it before is not reported as new: its change time is older than the last reading.
    fs::set_permissions(&sub, fs::Permissions::from_mode(0o755)).unwrap();
    run.wait("the channel's state", is("active"));
    fs::write(sub.join("after"), "x").unwrap();
    run.change("create", &sub.join("after"));
    let told =
        |name: &str| run.heard.iter().filter(|line| line["path"] == sub.join(name).to_str().unwrap()).count();
    assert_eq!(told("before"), 0, "{:#?}", run.heard);
    let channels = run.heard.iter().filter(|line| line["type"] == "channel").count();
    assert_eq!(channels, 2, "{:#?}", run.heard);
    run.end();
}

#[test]
fn without_privileges_ebpf_cannot_be_demanded() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("nobody-ebpf");
    let mut command = Command::new(for_anybody(&scratch));
    command.args(["trace", "--json", "--channels", "ebpf"]).arg(&scratch.0).uid(NOBODY).gid(NOBODY);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("hotr: ") && said.contains("ebpf"), "{said}");
}

/// Starts where no more than this many descriptors may be open.
fn with_descriptors(count: u64, mut command: Command) -> Command {
    let limit = move || {
        let few = Rlimit { current: Some(count), maximum: Some(count) };
        Ok(setrlimit(Resource::Nofile, few)?)
    };
    // SAFETY: between fork and exec it makes one system call: it neither allocates nor takes a lock.
    unsafe { command.pre_exec(limit) };
    command
}

#[test]
fn with_few_descriptors_inotify_goes_on() {
    if !ebpf() {
        return;
    }
    let scratch = Scratch::new("few");
    let mut run = Run::spawn(with_descriptors(20, command(&[], &scratch.0)));
    let channels = run.ready()["channels"].clone();
    assert_eq!(channels["ebpf"]["state"], "off", "{channels}");
    let why = channels["ebpf"]["why"].as_str().unwrap();
    assert!(why.contains("Too many open files") && why.contains("; raise the limit"), "{why}");
    fs::write(scratch.0.join("f"), "x").unwrap();
    run.change("create", &scratch.0.join("f"));
    run.end();
}

#[test]
fn with_too_few_descriptors_it_is_one_line_and_status_1() {
    let scratch = Scratch::new("too-few");
    for (count, args) in [(8, ["--channels", "inotify"]), (20, ["--channels", "ebpf"])] {
        if args[1] == "ebpf" && !ebpf() {
            continue;
        }
        let output =
            with_descriptors(count, command(&args, &scratch.0)).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains("Too many open files") && said.contains("; raise the limit"), "{said}");
    }
}

#[test]
fn without_proc_ebpf_says_so() {
    if !ebpf() {
        return;
    }
    let scratch = Scratch::new("without-proc");
    let mut command = command(&["--channels", "ebpf"], &scratch.0);
    let cover = || {
        // SAFETY: the child has one thread, and no descriptor is shared by it.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS)? };
        mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        Ok(mount(c"hotr-fault", c"/proc", c"tmpfs", MountFlags::empty(), c"size=4k")?)
    };
    // SAFETY: between fork and exec it makes system calls only: it neither allocates nor takes a lock.
    unsafe { command.pre_exec(cover) };
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.starts_with("hotr: start channel ebpf: /proc is not mounted; "), "{said}");
}

/// In a user namespace of its own, where one watch is allowed: nobody else is concerned.
#[test]
fn with_one_watch_the_uncovered_directories_are_counted() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("one-watch");
    for name in ["a", "b", "c/d"] {
        scratch.dir(name);
    }
    let mut command = Command::new(HOTR);
    command.args(["trace", "--json"]).arg(&scratch.0);
    let one_watch = || {
        // SAFETY: the child has one thread, and no descriptor is shared by it.
        unsafe { unshare_unsafe(UnshareFlags::NEWUSER | UnshareFlags::NEWNS)? };
        for (file, text) in [
            (c"/proc/self/setgroups", b"deny".as_slice()),
            (c"/proc/self/uid_map", b"0 0 1"),
            (c"/proc/self/gid_map", b"0 0 1"),
            (c"/proc/sys/user/max_inotify_watches", b"1"),
        ] {
            let file = openat(CWD, file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
            rustix::io::write(&file, text)?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec it makes system calls only: it neither allocates nor takes a lock.
    unsafe { command.pre_exec(one_watch) };
    let mut run = Run::spawn(command);
    let channels = run.ready()["channels"].clone();
    assert_eq!(channels["ebpf"]["state"], "off", "{channels}");
    assert_eq!(channels["inotify"]["state"], "degraded", "{channels}");
    assert_eq!(channels["inotify"]["watches"], 1, "{channels}");
    assert!(channels["inotify"]["uncovered"].as_u64() >= Some(3), "{channels}");
    let file = scratch.0.join("f");
    fs::write(&file, "x").unwrap();
    run.change("create", &file);
    run.end();
}
