//! Healthy watchers have no finding, and hotr disturbs nobody.

use std::fs;
use std::process::Command;

use rustix::fs::inotify::WatchFlags;

use super::run::{Instance, Program, Scratch, diagnose, inotifywait, of_pid, of_self};

#[test]
fn inotifywait_on_a_tree() {
    let scratch = Scratch::new("recursive");
    for dir in ["a/b", "c"] {
        scratch.dir(dir);
    }
    scratch.file("a/f");
    let watcher = inotifywait(&["-r".as_ref(), scratch.0.as_os_str()], 4);
    let said = of_pid(watcher.pid());
    assert_eq!((said.kinds(watcher.pid(), None), said.status), (vec![], Some(0)));
}

#[test]
fn tail_that_follows_a_name() {
    let scratch = Scratch::new("tail");
    let file = scratch.file("log");
    let tail = Program::start(Command::new("tail").args(["-n0", "-F"]).arg(&file), 2);
    assert_eq!(of_pid(tail.pid()).kinds(tail.pid(), None), []);
    // Rotated: tail has to find the new file by itself.
    fs::rename(&file, scratch.0.join("log.1")).unwrap();
    scratch.file("log");
    super::run::until("tail follows the new file", || {
        let said = diagnose(&[&file]);
        let answer = said.watcher(tail.pid());
        answer["by"] == serde_json::json!(["file", "directory"])
    });
    assert_eq!(of_pid(tail.pid()).kinds(tail.pid(), None), []);
}

#[test]
fn node_that_watches_a_directory() {
    let scratch = Scratch::new("node");
    scratch.file("app.js");
    let script = "require('fs').watch(process.argv[1], () => {}); setInterval(() => {}, 1e6)";
    if Command::new("node").arg("--version").output().is_err() {
        eprintln!("not run: node is not installed");
        return;
    }
    let node = Program::start(Command::new("node").args(["-e", script]).arg(&scratch.0), 1);
    assert_eq!(of_pid(node.pid()).kinds(node.pid(), None), []);
}

#[test]
fn a_look_causes_no_event_and_keeps_nothing() {
    let scratch = Scratch::new("quiet");
    let all = WatchFlags::from_bits_retain(0xfff);
    let instance = Instance::on(&scratch.0, all);
    let file = scratch.file("app.conf");
    let dir = scratch.dir("d");
    instance.add(&file, all);
    instance.add(&dir, all);
    // The directory above reports what is done to this one, and the root what is done to that.
    let above = Instance::on(
        scratch.0.parent().unwrap(),
        WatchFlags::OPEN | WatchFlags::ACCESS | WatchFlags::CLOSE_NOWRITE,
    );
    let before = instance.unread();
    let said = of_self();
    assert_eq!(said.status, Some(0), "{:?}", said.lines);
    diagnose(&[&file]);
    diagnose(&[&dir]);
    diagnose::<&str>(&[]);
    assert_eq!(instance.unread(), before, "no event was caused or taken");
    // Other tests work beside this directory; events about it would carry its name.
    let mut buf = [const { std::mem::MaybeUninit::uninit() }; 1 << 16];
    let mut events = rustix::fs::inotify::Reader::new(&above.0, &mut buf);
    while let Ok(event) = events.next() {
        let name = event.file_name().map(|name| name.to_bytes().to_vec()).unwrap_or_default();
        assert_ne!(name, scratch.0.file_name().unwrap().as_encoded_bytes(), "{event:?}");
    }
}
