//! Names and paths at the limits of what a filesystem allows.

use std::ffi::OsStr;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};

use super::place::Scratch;
use super::run::{Run, changes, channels, path_of};

#[test]
fn any_name_is_told_exactly() {
    let long = "n".repeat(255);
    let names: [&[u8]; 8] = [
        b"new\nline",
        b"quo\"te'",
        b"back\\slash",
        b"\x1b[31mred",
        b"not-\xff\xfe-utf8",
        b" -- ",
        "\u{202e}right-to-left".as_bytes(),
        long.as_bytes(),
    ];
    for channel in channels() {
        let scratch = Scratch::new("names");
        let dir = scratch.dir("d");
        let mut run = Run::start(&["--channels", channel], &scratch.0);
        for name in names {
            let path = scratch.0.join(OsStr::from_bytes(name));
            fs::write(&path, "x").unwrap();
            let line = run.change("create", &path);
            assert_eq!(line.get("path_b64").is_some(), std::str::from_utf8(name).is_err(), "{line}");
            let to = dir.join(OsStr::from_bytes(name));
            fs::rename(&path, &to).unwrap();
            run.change("rename", &to);
            fs::remove_file(&to).unwrap();
            run.change("remove", &to);
        }
        let lines = run.end();
        assert!(lines.iter().all(|line| line["type"] != "loss"), "{channel}");
    }
}

#[test]
fn a_hundred_levels_are_told() {
    for channel in channels() {
        let scratch = Scratch::new("deep");
        let mut run = Run::start(&["--channels", channel], &scratch.0);
        let dirs: Vec<PathBuf> = (0..100)
            .scan(scratch.0.clone(), |dir, level| {
                dir.push(level.to_string());
                Some(dir.clone())
            })
            .collect();
        for dir in &dirs {
            fs::create_dir(dir).unwrap();
        }
        let file = dirs[99].join("f");
        fs::write(&file, "x").unwrap();
        for dir in &dirs {
            run.change("create", dir);
        }
        run.change("create", &file);
        run.end();
    }
}

/// No path names these, so whoever makes them goes step by step; the last of them have more than `PATH_MAX` bytes.
#[test]
fn what_no_path_can_name_is_told_or_counted_as_lost() {
    for channel in channels() {
        let scratch = Scratch::new("oversize");
        let mut run = Run::start(&["--channels", channel], &scratch.0);
        let name = "d".repeat(250);
        let directory = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut at: OwnedFd = openat(CWD, &scratch.0, directory, Mode::empty()).unwrap();
        let mut path = scratch.0.clone();
        let mut made = Vec::new();
        for _ in 0..20 {
            mkdirat(&at, &name, Mode::RWXU).unwrap();
            at = openat(&at, &name, directory, Mode::empty()).unwrap();
            path.push(&name);
            made.push(path.clone());
        }
        let create = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        drop(openat(&at, "f", create, Mode::RUSR).unwrap());
        made.push(path.join("f"));
        // What comes after is reported whatever became of the rest.
        let after = scratch.0.join("after");
        fs::write(&after, "x").unwrap();
        run.change("create", &after);
        let lines = run.end();
        let told: Vec<PathBuf> = changes(&lines).map(path_of).collect();
        let missing = made.iter().filter(|path| !told.contains(path)).count();
        let lost = lines.iter().any(|line| line["type"] == "loss");
        let oversize = lines.last().unwrap()["kernel"]["oversize"].as_u64();
        assert!(
            missing == 0 || lost,
            "{channel}: {missing} of {} are not told, and nothing is said; oversize {oversize:?}",
            made.len()
        );
        assert!(told.contains(&made[10]), "{channel}: what has a path is told");
    }
}
