//! Reports in a file: it is rotated, and it is what it should be.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;
use serde_json::Value;

use super::place::Scratch;
use super::run::{Started, changes, check, command, path_of, root, until};

/// Another user.
const OTHER: u32 = 12345;

/// A run that reports to a file, from its `ready` on, with what it prints in two other files.
fn start(log: &Path, dir: &Path, printed: &Path, said: &Path) -> Started {
    let mut command = command(&["--op", "create", "-o", log.to_str().unwrap()], dir);
    command.stdout(File::create(printed).unwrap()).stderr(File::create(said).unwrap());
    let run = Started::new(&mut command);
    until("ready", || lines(log).iter().any(|line| line["type"] == "ready"));
    run
}

/// The whole lines of a file.
fn lines(log: &Path) -> Vec<Value> {
    let text = fs::read_to_string(log).unwrap_or_default();
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    whole.map(|line| serde_json::from_str(line).expect(line)).collect()
}

/// Makes files until something is so.
fn make_until(dir: &Path, made: &mut Vec<PathBuf>, what: &str, is_so: impl Fn() -> bool) {
    until(what, || {
        made.push(dir.join(format!("f{}", made.len())));
        File::create(made.last().unwrap()).unwrap();
        is_so()
    });
}

#[test]
fn a_rotated_file_is_followed_without_a_signal() {
    let scratch = Scratch::new("rotated");
    let dir = scratch.dir("d");
    // In the traced directory: its own changes are not reported.
    let [log, first] = ["log", "log.1"].map(|name| dir.join(name));
    // Another name, with which its lines can be read once it was removed.
    let [second, printed, said] = ["log.2", "printed", "said"].map(|name| scratch.0.join(name));
    let mut child = start(&log, &dir, &printed, &said);
    assert_eq!(fs::metadata(&log).unwrap().permissions().mode() & 0o777, 0o600);
    let mut made = Vec::new();
    make_until(&dir, &mut made, "the first file", || lines(&log).len() > 1);
    fs::rename(&log, &first).unwrap();
    make_until(&dir, &mut made, "a file in place of a renamed one", || !lines(&log).is_empty());
    let held = File::open(&log).unwrap();
    fs::hard_link(&log, &second).unwrap();
    fs::remove_file(&log).unwrap();
    make_until(&dir, &mut made, "a file in place of a removed one", || !lines(&log).is_empty());
    drop(held);
    child.send(Signal::TERM);
    assert_eq!(child.wait(), Some(0));
    let all = [&first, &second, &log].map(|log| lines(log)).concat();
    check(&all);
    let told: Vec<PathBuf> = changes(&all).map(path_of).collect();
    assert_eq!(told, made);
    assert_eq!(fs::read(&printed).unwrap(), b"");
}

#[test]
fn only_a_regular_file_of_its_own_is_written_to() {
    let scratch = Scratch::new("refused");
    let place = scratch.dir("place");
    let victim = scratch.0.join("victim");
    fs::write(&victim, "").unwrap();
    let [link, pipe, hard, dir, others] =
        ["link", "pipe", "hard", "dir", "others"].map(|name| place.join(name));
    symlink(&victim, &link).unwrap();
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RWXU, 0).unwrap();
    fs::hard_link(&victim, &hard).unwrap();
    fs::create_dir(&dir).unwrap();
    let mut cases = vec![
        (&link, "it is a symbolic link; name the file itself"),
        (&pipe, "it is not a regular file; name another file"),
        (&dir, "it is not a regular file; name another file"),
        (&hard, "it has other names (hard links); remove them, or name another file"),
    ];
    if root() {
        fs::write(&others, "").unwrap();
        chown(&others, Some(OTHER), None).unwrap();
        cases.push((&others, "it belongs to user 12345; remove it, or name another file"));
    }
    for (log, why) in cases {
        let mut command = command(&["--channels", "inotify", "-o", log.to_str().unwrap()], &place);
        let output = command.stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(said, format!("hotr: append to {}: {why}\n", log.display()));
        assert_eq!((output.status.code(), output.stdout), (Some(1), Vec::new()));
    }
    assert_eq!(fs::read(&victim).unwrap(), b"");
}

/// In a directory of another user, who puts a link to a file of root's in the place of the log.
#[test]
fn lines_are_not_led_elsewhere() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("led");
    let (dir, place) = (scratch.dir("d"), scratch.dir("place"));
    let (log, aside, victim) = (place.join("log"), place.join("aside"), scratch.0.join("victim"));
    fs::write(&victim, "").unwrap();
    chown(&place, Some(OTHER), None).unwrap();
    let [printed, said] = ["printed", "said"].map(|name| scratch.0.join(name));
    let mut child = start(&log, &dir, &printed, &said);
    fs::rename(&log, &aside).unwrap();
    symlink(&victim, &log).unwrap();
    let link =
        "it is a symbolic link; name the file itself; until then, lines go to the file that had this name";
    let is_said = || fs::read_to_string(&said).unwrap().contains(link);
    let mut made = Vec::new();
    make_until(&dir, &mut made, "a look at the link", is_said);
    fs::remove_file(&log).unwrap();
    make_until(&dir, &mut made, "a new file", || !lines(&log).is_empty());
    child.send(Signal::TERM);
    assert_eq!(child.wait(), Some(0));
    let all = [&aside, &log].map(|log| lines(log)).concat();
    check(&all);
    assert_eq!(changes(&all).map(path_of).collect::<Vec<_>>(), made);
    assert_eq!(fs::read(&victim).unwrap(), b"");
    let said = fs::read_to_string(&said).unwrap();
    assert_eq!(said.matches(link).count(), 1, "{said}");
}
