//! Readers that do not read: full queues, stopped and blocked programs.

use std::fs;
use std::process::Command;

use rustix::fs::inotify::WatchFlags;
use rustix::process::Signal;
use serde_json::json;

use super::run::{HOTR, Instance, Scratch, finish, inotifywait, of_pid, of_self, root, until};

fn queued() -> u64 {
    fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap()
}

#[test]
fn a_stopped_reader() {
    let scratch = Scratch::new("stopped");
    let watcher = inotifywait(&[&scratch.0], 1);
    watcher.send(Signal::STOP);
    until("it is stopped", || watcher.state() == Some('T'));
    scratch.file("f");
    let said = of_pid(watcher.pid());
    let found = said.of(watcher.pid(), None);
    assert_eq!(said.kinds(watcher.pid(), None), [("at-risk", "unread")]);
    assert_eq!(found[0]["proof"], "proved");
    let evidence = found[0]["evidence"][0].as_str().unwrap();
    assert!(evidence.contains("state T") && !evidence.contains(" 0 bytes"), "{evidence}");
    watcher.send(Signal::CONT);
    until("it has read all", || of_pid(watcher.pid()).kinds(watcher.pid(), None).is_empty());
}

#[test]
fn a_queue_that_overflowed() {
    let scratch = Scratch::new("overflow");
    let instance = Instance::on(
        &scratch.0,
        WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::DELETE | WatchFlags::CLOSE_WRITE,
    );
    let file = scratch.0.join("name");
    let limit = queued();
    // Create, close and delete: three events, none equal to the one before. But a child that another test starts meanwhile
    // holds the file open until it runs its program: then it is closed late, and two such events are one. So there are more.
    for _ in 0..limit / 2 {
        drop(fs::File::create(&file).unwrap());
        fs::remove_file(&file).unwrap();
    }
    let before = instance.unread();
    assert_eq!(before, limit * 32 + 16, "full, with the mark of the overflow");
    let said = of_self();
    assert_eq!(said.status, Some(3));
    let found = said.of(std::process::id(), Some(instance.fd()));
    let lost = found.iter().find(|line| line["cause"] == "queue-overflow").expect("a finding");
    assert_eq!((&lost["severity"], &lost["proof"]), (&json!("lost"), &json!("inferred")));
    assert_eq!(instance.unread(), before, "nothing was taken from the queue");
}

#[test]
fn a_queue_of_nameless_events_is_counted_exactly() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("nameless");
    let file = scratch.file("f");
    let instance = Instance::on(&file, WatchFlags::MODIFY | WatchFlags::ATTRIB);
    let open = fs::OpenOptions::new().append(true).open(&file).unwrap();
    for n in 0..queued() {
        std::io::Write::write_all(&mut &open, b"x").unwrap();
        rustix::fs::fchmod(&open, rustix::fs::Mode::from_raw_mode(0o600 | (n as u32 & 1))).unwrap();
    }
    let said = of_self();
    let found = said.of(std::process::id(), Some(instance.fd()));
    let lost = found.iter().find(|line| line["cause"] == "queue-overflow").expect("a finding");
    assert_eq!((&lost["severity"], &lost["proof"]), (&json!("lost"), &json!("proved")));
}

#[test]
fn events_that_nobody_reads() {
    let scratch = Scratch::new("unread");
    let mask = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE;
    let instance = Instance::on(&scratch.0, mask);
    assert_eq!(instance.kinds(), []);
    scratch.file("f");
    assert_eq!(instance.kinds_unread(), [("at-risk", "unread")]);
}

#[test]
fn a_blocked_reader_is_named_with_what_it_waits_for() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("blocked");
    // Its output is a pipe that nobody empties.
    let (reader, writer) = std::io::pipe().unwrap();
    rustix::pipe::fcntl_setpipe_size(&writer, 4096).unwrap();
    let mut command = Command::new("inotifywait");
    command.args(["-m", "-q"]).arg(&scratch.0).stdout(writer).stderr(std::process::Stdio::null());
    let mut child = command.spawn().unwrap();
    drop(command);
    until("it watches", || {
        scratch.file("name-of-a-file-that-fills-the-pipe-soon");
        let wchan = fs::read_to_string(format!("/proc/{}/wchan", child.id())).unwrap();
        wchan.contains("pipe_write")
    });
    scratch.file("one-more");
    let said = of_pid(child.id());
    let found = said.of(child.id(), None);
    let blocked = found.iter().find(|line| line["cause"] == "unread").cloned().cloned();
    drop(reader);
    child.kill().unwrap();
    child.wait().unwrap();
    let evidence = blocked.expect("a finding")["evidence"].to_string();
    assert!(evidence.contains("pipe_write"), "{evidence}");
}

#[test]
fn an_instance_without_a_watch_is_deaf_only_when_somebody_waits_for_it() {
    let idle = Instance::new();
    assert_eq!(idle.kinds(), [], "a program may make its instance before its watches");
}

#[test]
fn the_terminal_gets_the_same_as_lines() {
    let scratch = Scratch::new("page");
    let file = scratch.file("esc\x1b[2J.conf");
    let watcher = inotifywait(&[&file], 1);
    let output = Command::new(HOTR).args(["diagnose", "--pid", &watcher.pid().to_string()]).output().unwrap();
    let page = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{page}");
    assert!(!page.contains('\x1b'), "{page:?}");
    if root() {
        assert!(page.contains("esc\\x1b[2J.conf") && page.contains("at-risk  inotifywait["), "{page}");
    }
    assert!(page.contains("1 process · 1 instance · 1 watch"), "{page}");
    let _ =
        finish(Command::new(HOTR).args(["diagnose", "--json"]).args(["--pid", &watcher.pid().to_string()]));
}
