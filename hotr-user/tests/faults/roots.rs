//! Roots that are moved, deleted, unmounted, mounted over or replaced under a running trace.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::Value;

use super::place::{Scratch, Tmpfs};
use super::run::{Run, changes, channels, ebpf, path_of, root};

fn losses<'a>(lines: &'a [Value], channel: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["type"] == "loss" && line["channel"] == channel).collect()
}

fn named(line: &Value, name: &str) -> bool {
    line["type"] == "change" && path_of(line).file_name().is_some_and(|last| last == name)
}

#[test]
fn a_root_that_is_moved_is_told_once_and_traced_on() {
    if !ebpf() {
        return;
    }
    let scratch = Scratch::new("moved");
    let (old, new) = (scratch.dir("root"), scratch.0.join("moved"));
    let mut run = Run::start(&["--channels", "ebpf"], &old);
    fs::rename(&old, &new).unwrap();
    let loss = run.loss("root-moved");
    assert_eq!(path_of(&loss), old);
    fs::write(new.join("after"), "x").unwrap();
    run.wait("after, in the moved root", |line| named(line, "after"));
    fs::create_dir(new.join("sub")).unwrap();
    run.wait("sub, in the moved root", |line| named(line, "sub"));
    fs::write(new.join("sub/below"), "x").unwrap();
    run.wait("below, in the moved root", |line| named(line, "below"));
    assert_eq!(losses(&run.end(), "ebpf").len(), 1);
}

#[test]
fn inotify_tells_that_a_root_was_moved() {
    let scratch = Scratch::new("moved-inotify");
    let old = scratch.dir("root");
    let mut run = Run::start(&["--channels", "inotify"], &old);
    fs::rename(&old, scratch.0.join("moved")).unwrap();
    assert_eq!(path_of(&run.loss("root-moved")), old);
    assert_eq!(losses(&run.end(), "inotify").len(), 1);
}

#[test]
fn a_deleted_root_is_told() {
    for channel in channels() {
        let scratch = Scratch::new("deleted");
        let dir = scratch.dir("root");
        fs::create_dir_all(dir.join("a/b")).unwrap();
        fs::write(dir.join("a/b/f"), "x").unwrap();
        let mut run = Run::start(&["--channels", channel], &dir);
        fs::remove_dir_all(&dir).unwrap();
        run.change("remove", &dir.join("a/b/f"));
        let reason = if channel == "ebpf" { "root-deleted" } else { "root-gone" };
        assert_eq!(path_of(&run.loss(reason)), dir);
        assert_eq!(losses(&run.end(), channel).len(), 1, "{channel}");
    }
}

#[test]
fn a_root_that_is_created_again_is_traced_again() {
    for channel in channels() {
        let scratch = Scratch::new("again");
        let dir = scratch.dir("root");
        let mut run = Run::start(&["--channels", channel], &dir);
        fs::remove_dir(&dir).unwrap();
        run.loss(if channel == "ebpf" { "root-deleted" } else { "root-gone" });
        fs::create_dir(&dir).unwrap();
        run.until_heard(|number| created(&dir, number));
        run.end();
    }
}

fn created(dir: &Path, number: u32) -> std::path::PathBuf {
    let file = dir.join(format!("f{number}"));
    fs::write(&file, "x").unwrap();
    file
}

#[test]
fn an_unmount_is_not_hindered_and_told_and_a_new_mount_is_traced() {
    if !root() {
        return;
    }
    for channel in channels() {
        let scratch = Scratch::new("unmounted");
        let dir = scratch.dir("mnt");
        let tmpfs = Tmpfs::on(&dir);
        fs::create_dir(dir.join("sub")).unwrap();
        let mut run = Run::start(&["--channels", channel], &dir);
        assert_eq!(run.ready()["roots"][0]["fs"], "tmpfs");
        fs::write(dir.join("sub/f"), "x").unwrap();
        run.change("create", &dir.join("sub/f"));
        assert_eq!(tmpfs.unmount(), Ok(()), "{channel} holds the filesystem");
        run.loss("unmounted");
        let again = Tmpfs::on(&dir);
        run.until_heard(|number| created(&dir, number));
        run.end();
        drop(again);
    }
}

#[test]
fn what_is_mounted_over_a_root_is_traced_and_then_the_root_again() {
    if !root() {
        return;
    }
    for channel in channels() {
        let scratch = Scratch::new("over");
        let dir = scratch.dir("root");
        fs::write(dir.join("under"), "x").unwrap();
        let mut run = Run::start(&["--channels", channel], &dir);
        let over = Tmpfs::on(&dir);
        run.until_heard(|number| created(&dir, number));
        assert_eq!(over.unmount(), Ok(()), "{channel} holds the filesystem");
        run.until_heard(|number| created(&dir, 100 + number));
        run.end();
    }
}

#[test]
fn a_file_is_traced_through_its_replacements() {
    for channel in channels() {
        let scratch = Scratch::new("file");
        let (file, beside) = (scratch.0.join("config"), scratch.0.join("config.lock"));
        fs::write(&file, "0").unwrap();
        let mut run = Run::start(&["--channels", channel], &file);
        for old in ["config.1", "config.2"].map(|name| scratch.0.join(name)) {
            fs::write(&beside, "x").unwrap();
            fs::write(&old, "new").unwrap();
            let ino = fs::metadata(&old).unwrap().ino();
            fs::rename(&old, &file).unwrap();
            run.wait("the replacement", |line| {
                line["op"] == "rename" && line["ino"] == ino && path_of(line) == file
            });
            fs::remove_file(&beside).unwrap();
        }
        fs::remove_file(&file).unwrap();
        run.change("remove", &file);
        fs::write(&file, "again").unwrap();
        run.change("create", &file);
        let lines = run.end();
        for line in changes(&lines) {
            assert_eq!(path_of(line), file, "{channel}: {line}");
        }
    }
}
