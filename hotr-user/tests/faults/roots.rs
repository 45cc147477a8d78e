//! Roots that are moved, deleted, unmounted, mounted over or replaced under a running trace.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::place::{Scratch, Tmpfs};
use super::run::{Run, changes, channels, ebpf, path_of, root};

/// Each channel by itself that can run here, and all together as they are without `--channels`.
fn ways() -> Vec<&'static str> {
    channels().into_iter().chain(["auto"]).collect()
}

/// The channel that reports roots: eBPF where it runs.
fn teller(way: &str) -> &'static str {
    if way == "inotify" || channels() == ["inotify"] { "inotify" } else { "ebpf" }
}

/// Waits for the line on a root, which says what is done about it.
fn told(run: &mut Run, root: &Path, channel: &str, reason: &str) {
    let line = run.wait(&format!("{channel}: {reason}"), |line| {
        line["type"] == "loss" && line["channel"] == channel && line["reason"] == reason
    });
    assert_eq!(path_of(&line), root, "{line}");
    let why = line["why"].as_str().unwrap_or_default();
    assert!(why.contains("watched") || why.contains("traced"), "{line}");
}

/// Makes files below a root until every channel of `way` receives one.
fn heard_by_all(run: &mut Run, dir: &Path, way: &str) {
    let mut number = 0;
    loop {
        let line = run.until_heard(|_| {
            number += 1;
            created(dir, number)
        });
        let deaf = ["ebpf", "inotify"].into_iter().filter(|channel| {
            (way == "auto" || way == *channel)
                && channels().contains(channel)
                && !line["seen_by"].as_array().unwrap().iter().any(|seen| seen == channel)
        });
        if deaf.count() == 0 {
            return;
        }
    }
}

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
    for way in ["ebpf", "auto"] {
        let scratch = Scratch::new("moved");
        let (old, new) = (scratch.dir("root"), scratch.0.join("moved"));
        let mut run = Run::start(&["--channels", way], &old);
        fs::rename(&old, &new).unwrap();
        told(&mut run, &old, "ebpf", "root-moved");
        if way == "auto" {
            told(&mut run, &old, "inotify", "root-moved");
        }
        fs::write(new.join("after"), "x").unwrap();
        run.wait("after, in the moved root", |line| named(line, "after"));
        fs::create_dir(new.join("sub")).unwrap();
        run.wait("sub, in the moved root", |line| named(line, "sub"));
        fs::write(new.join("sub/below"), "x").unwrap();
        run.wait("below, in the moved root", |line| named(line, "below"));
        let lines = run.end();
        assert_eq!(losses(&lines, "ebpf").len(), 1, "{way}");
        assert_eq!(losses(&lines, "inotify").len(), usize::from(way == "auto"), "{way}");
    }
}

#[test]
fn inotify_tells_that_a_root_was_moved() {
    let scratch = Scratch::new("moved-inotify");
    let old = scratch.dir("root");
    let mut run = Run::start(&["--channels", "inotify"], &old);
    fs::rename(&old, scratch.0.join("moved")).unwrap();
    told(&mut run, &old, "inotify", "root-moved");
    assert_eq!(losses(&run.end(), "inotify").len(), 1);
}

#[test]
fn a_deleted_root_is_told() {
    for way in ways() {
        let scratch = Scratch::new("deleted");
        let dir = scratch.dir("root");
        fs::create_dir_all(dir.join("a/b")).unwrap();
        fs::write(dir.join("a/b/f"), "x").unwrap();
        let mut run = Run::start(&["--channels", way], &dir);
        fs::remove_dir_all(&dir).unwrap();
        run.change("remove", &dir.join("a/b/f"));
        told(&mut run, &dir, teller(way), "root-deleted");
        assert_eq!(losses(&run.end(), teller(way)).len(), 1, "{way}");
    }
}

/// Each change of a run as operation, path and type, in order.
fn told_changes(lines: &[Value]) -> Vec<(String, PathBuf, String)> {
    let word = |line: &Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
    let mut told: Vec<_> =
        changes(lines).map(|line| (word(line, "op"), path_of(line), word(line, "file_type"))).collect();
    told.sort();
    told
}

#[test]
fn a_root_that_is_deleted_is_told_alike_by_both_channels() {
    for way in ways() {
        let scratch = Scratch::new("alike-deleted");
        let dir = scratch.dir("root");
        fs::create_dir(dir.join("sub")).unwrap();
        fs::write(dir.join("sub/f"), "x").unwrap();
        let mut run = Run::start(&["--channels", way], &dir);
        fs::remove_dir_all(&dir).unwrap();
        told(&mut run, &dir, teller(way), "root-deleted");
        if way == "auto" {
            told(&mut run, &dir, "inotify", "root-deleted");
        }
        run.change("remove", &dir);
        let lines = run.end();
        let removed: Vec<_> = told_changes(&lines).into_iter().map(|(op, path, _)| (op, path)).collect();
        let paths = [dir.clone(), dir.join("sub"), dir.join("sub/f")];
        assert_eq!(removed, paths.map(|path| ("remove".to_owned(), path)), "each once, {way}");
        for line in changes(&lines) {
            assert_eq!(line["missed_by"].as_array().map(Vec::len), Some(0), "{line}");
            let is_dir = !path_of(line).ends_with("f");
            assert_eq!(line["file_type"] == "dir", is_dir, "{line}");
        }
    }
}

#[test]
fn a_root_that_is_moved_is_told_alike_by_both_channels() {
    for way in ways() {
        let scratch = Scratch::new("alike-moved");
        let (dir, new) = (scratch.dir("root"), scratch.0.join("moved"));
        fs::write(dir.join("f"), "x").unwrap();
        let mut run = Run::start(&["--channels", way], &dir);
        fs::rename(&dir, &new).unwrap();
        told(&mut run, &dir, teller(way), "root-moved");
        if way == "auto" {
            told(&mut run, &dir, "inotify", "root-moved");
        }
        let lines = run.end();
        // inotify does not say where to. What is in it was not removed.
        let line = if teller(way) == "ebpf" { ("rename", &new) } else { ("remove", &dir) };
        let expected = (line.0.to_owned(), line.1.clone(), "dir".to_owned());
        assert_eq!(told_changes(&lines), [expected], "{way}");
        for line in changes(&lines) {
            assert!(line["detail"].as_array().unwrap().iter().any(|word| word == "moved-out"), "{line}");
            assert_eq!(line["missed_by"].as_array().map(Vec::len), Some(0), "{line}");
        }
    }
}

#[test]
fn a_root_that_is_created_again_is_traced_again() {
    for way in ways() {
        let scratch = Scratch::new("again");
        let dir = scratch.dir("root");
        let mut run = Run::start(&["--channels", way], &dir);
        fs::remove_dir(&dir).unwrap();
        told(&mut run, &dir, teller(way), "root-deleted");
        fs::create_dir(&dir).unwrap();
        heard_by_all(&mut run, &dir, way);
        run.end();
    }
}

fn created(dir: &Path, number: u32) -> PathBuf {
    let file = dir.join(format!("f{number}"));
    fs::write(&file, "x").unwrap();
    file
}

#[test]
fn an_unmount_is_not_hindered_and_told_and_a_new_mount_is_traced() {
    if !root() {
        return;
    }
    for way in ways() {
        let scratch = Scratch::new("unmounted");
        let dir = scratch.dir("mnt");
        let tmpfs = Tmpfs::on(&dir);
        fs::create_dir(dir.join("sub")).unwrap();
        let mut run = Run::start(&["--channels", way], &dir);
        assert_eq!(run.ready()["roots"][0]["fs"], "tmpfs");
        fs::write(dir.join("sub/f"), "x").unwrap();
        run.change("create", &dir.join("sub/f"));
        assert_eq!(tmpfs.unmount(), Ok(()), "{way} holds the filesystem");
        told(&mut run, &dir, teller(way), "unmounted");
        let again = Tmpfs::on(&dir);
        heard_by_all(&mut run, &dir, way);
        run.end();
        drop(again);
    }
}

#[test]
fn what_is_mounted_over_a_root_is_told_and_traced_and_then_the_root_again() {
    if !root() {
        return;
    }
    for way in ways() {
        let scratch = Scratch::new("over");
        let dir = scratch.dir("root");
        fs::write(dir.join("under"), "x").unwrap();
        let mut run = Run::start(&["--channels", way], &dir);
        let over = Tmpfs::on(&dir);
        told(&mut run, &dir, teller(way), "mounted-over");
        if way == "auto" {
            told(&mut run, &dir, "inotify", "mounted-over");
        }
        heard_by_all(&mut run, &dir, way);
        assert_eq!(over.unmount(), Ok(()), "{way} holds the filesystem");
        told(&mut run, &dir, teller(way), "unmounted");
        heard_by_all(&mut run, &dir, way);
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
