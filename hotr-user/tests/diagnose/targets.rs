//! Programs that people really watch files with: what each loses, and that one which loses nothing has no finding.
//!
//! `cargo xtask test` installs them: Debian's packages, and those of other registries below `target/tools`.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::live::Live;
use super::run::{Scratch, of_pid, until};

#[path = "targets/daemons.rs"]
mod daemons;
#[path = "targets/node.rs"]
mod node;
#[path = "targets/polling.rs"]
mod polling;
#[path = "targets/programs.rs"]
mod programs;
#[path = "targets/rust.rs"]
mod rust;

/// A program of this name in `PATH` or where administrators' programs are; says so when there is none.
pub(crate) fn installed(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    there(dirs.map(|dir| dir.join(name)).find(|file| file.is_file()), name)
}

/// What `cargo xtask setup --tests` puts below `target/tools`.
pub(crate) fn tool_at(place: &str) -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    there(Some(target.join("tools").join(place)).filter(|file| file.exists()), place)
}

fn there(found: Option<PathBuf>, name: &str) -> Option<PathBuf> {
    if found.is_none() {
        eprintln!("not run: {name} is not installed (cargo xtask setup --tests)");
    }
    found
}

/// As an editor saves it.
fn replace(file: &Path) {
    let mut aside = file.as_os_str().to_owned();
    aside.push(".new");
    fs::write(&aside, "2\n").unwrap();
    fs::rename(&aside, file).unwrap();
}

fn append(file: &Path) {
    fs::OpenOptions::new().append(true).open(file).unwrap().write_all(b"3\n").unwrap();
}

/// Severity, cause and proof of each finding.
fn found(pid: u32) -> Vec<[String; 3]> {
    let said = of_pid(pid);
    let word = |line: &Value, key: &str| line[key].as_str().unwrap().to_owned();
    let lines = said.of(pid, None).into_iter();
    let found: Vec<_> = lines.map(|line| ["severity", "cause", "proof"].map(|key| word(line, key))).collect();
    let is_bad = found.iter().any(|[severity, ..]| matches!(severity.as_str(), "deaf" | "lost"));
    assert_eq!(said.status, Some(if is_bad { 3 } else { 0 }), "{found:?}");
    found
}

/// Waits until exactly this is found: a program needs a moment to read its events.
fn until_found(pid: u32, want: &[[&str; 3]]) {
    let mut last = Vec::new();
    until(&format!("{want:?}, and not {:?}", found(pid)), || {
        last = found(pid);
        last == want
    });
}

/// Two releases, and a link `current` to the first.
fn releases(scratch: &Scratch) -> PathBuf {
    for release in ["1", "2"] {
        scratch.dir(&format!("releases/{release}"));
        scratch.file(&format!("releases/{release}/app.conf"));
    }
    let current = scratch.0.join("current");
    std::os::unix::fs::symlink("releases/1", &current).unwrap();
    current
}

/// As a deployment does it.
fn switch(current: &Path) {
    let next = current.with_file_name("next");
    std::os::unix::fs::symlink("releases/2", &next).unwrap();
    fs::rename(&next, current).unwrap();
}

/// The verdict about the next change of a kind that is made to a path.
fn verdict(live: &mut Live, op: &str, path: &Path, make: impl FnOnce()) -> Value {
    make();
    let path = path.to_str().unwrap();
    live.until(op, |line| line["type"] == "delivery" && line["op"] == op && line["path"] == path)
}

/// Ends a run in which nothing was lost.
/// A watch on a file receives a write, and none to the file that replaces it.
fn loses_a_replaced_file(mut live: Live, file: &Path) {
    let line = verdict(&mut live, "write", file, || append(file));
    assert_eq!(words(&line), ("delivered", None), "{line}");
    replace(file);
    let line = verdict(&mut live, "write", file, || append(file));
    assert_eq!(words(&line), ("never-sent", Some("replaced-file")), "{line}");
    assert_eq!(live.end().0, Some(3));
}

fn nothing_lost(live: Live) {
    assert_eq!(live.end().0, Some(0));
}

fn words(line: &Value) -> (&str, Option<&str>) {
    (line["state"].as_str().unwrap(), line["cause"].as_str())
}

/// A line for the input of a program.
fn input(scratch: &Scratch, line: impl AsRef<OsStr>) -> std::process::Stdio {
    let file = scratch.0.join("input");
    let mut bytes = line.as_ref().as_encoded_bytes().to_vec();
    bytes.push(b'\n');
    fs::write(&file, bytes).unwrap();
    fs::File::open(file).unwrap().into()
}
