//! Programs on the crate `notify`: watchexec, and watchfiles, which is a Python package.

use std::process::Command;

use super::{
    Live, append, found, nothing_lost, releases, replace, switch, tool_at, until_found, verdict, words,
};
use crate::run::{Program, Scratch, root};

const WATCHEXEC: &str = "watchexec/bin/watchexec";
const WATCHFILES: &str = "python/bin/watchfiles";

#[test]
fn watchexec_watches_the_directory_of_a_file() {
    let scratch = Scratch::new("watchexec");
    let file = scratch.file("app.conf");
    let Some(watchexec) = tool_at(WATCHEXEC).filter(|_| root()) else { return };
    let mut command = Command::new(watchexec);
    command.arg("-w").arg(&file).args(["--postpone", "true"]).current_dir(&scratch.0);
    let program = Program::start(&mut command, 2);
    assert_eq!(found(program.pid()), [[""; 3]; 0]);
    let mut live = Live::start("auto", program.pid());
    let line = verdict(&mut live, "rename", &file, || replace(&file));
    assert_eq!(words(&line), ("delivered", None), "{line}");
    let line = verdict(&mut live, "write", &file, || append(&file));
    assert_eq!(words(&line), ("delivered", None), "{line}");
    nothing_lost(live);
    assert_eq!(found(program.pid()), [[""; 3]; 0]);
}

#[test]
fn watchexec_on_a_switched_link() {
    let scratch = Scratch::new("watchexec-link");
    let current = releases(&scratch);
    let Some(watchexec) = tool_at(WATCHEXEC).filter(|_| root()) else { return };
    let mut command = Command::new(watchexec);
    command.arg("-w").arg(&current).args(["--postpone", "true"]).current_dir(&scratch.0);
    let program = Program::start(&mut command, 1);
    assert_eq!(found(program.pid()), [[""; 3]; 0]);
    switch(&current);
    until_found(program.pid(), &[["deaf", "symlink-swap", "inferred"]]);
}

#[test]
fn watchfiles_loses_a_replaced_file() {
    let scratch = Scratch::new("watchfiles");
    let file = scratch.file("app.conf");
    let Some(watchfiles) = tool_at(WATCHFILES).filter(|_| root()) else { return };
    let lone = Program::start(Command::new(&watchfiles).arg("true").arg(&file), 1);
    assert_eq!(found(lone.pid()), [["at-risk", "replaced-file", "inferred"]]);
    replace(&file);
    // Its instance has no watch left, and its thread waits for events and to be woken.
    until_found(lone.pid(), &[["deaf", "replaced-file", "inferred"]]);
    let said = crate::run::of_pid(lone.pid());
    assert_eq!(said.of(lone.pid(), None)[0]["path"], file.to_str().unwrap());
}

#[test]
fn watchfiles_on_a_directory() {
    let scratch = Scratch::new("watchfiles-dir");
    scratch.dir("src/a");
    let file = scratch.file("src/a/x.py");
    let Some(watchfiles) = tool_at(WATCHFILES).filter(|_| root()) else { return };
    let program = Program::start(Command::new(watchfiles).arg("true").arg(scratch.0.join("src")), 2);
    let mut live = Live::start("auto", program.pid());
    let line = verdict(&mut live, "rename", &file, || replace(&file));
    assert_eq!(words(&line), ("delivered", None), "{line}");
    nothing_lost(live);
    assert_eq!(found(program.pid()), [[""; 3]; 0]);
}
