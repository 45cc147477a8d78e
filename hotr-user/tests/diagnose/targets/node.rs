//! chokidar and nodemon, which set a watch again when its file was replaced, and plain `fs.watch`, which does not.

use std::path::Path;
use std::process::Command;

use super::{
    Live, append, found, installed, loses_a_replaced_file, nothing_lost, releases, replace, switch, tool_at,
    until_found, verdict, words,
};
use crate::run::{Program, Scratch, diagnose, root};

const LONE: [&str; 3] = ["at-risk", "replaced-file", "inferred"];
const SET_AGAIN: [&str; 3] = ["note", "rewatch-race", "inferred"];

fn chokidar(path: &Path, watches: usize) -> Option<Program> {
    let library = tool_at("npm/node_modules/chokidar")?;
    let script = "require(process.argv[1]).watch(process.argv[2])";
    let mut command = Command::new(installed("node")?);
    Some(Program::start(command.args(["-e", script]).arg(library).arg(path), watches))
}

#[test]
fn chokidar_sets_its_watch_again() {
    let scratch = Scratch::new("chokidar");
    let file = scratch.file("app.conf");
    let Some(program) = chokidar(&file, 1).filter(|_| root()) else { return };
    assert_eq!(found(program.pid()), [LONE]);
    let mut live = Live::start("auto", program.pid());
    let line = verdict(&mut live, "rename", &file, || replace(&file));
    assert_eq!(words(&line), ("delivered", None), "{line}");
    // It was replaced, and that is no danger to this program.
    until_found(program.pid(), &[SET_AGAIN]);
    let line = verdict(&mut live, "write", &file, || append(&file));
    assert_eq!(words(&line), ("delivered", None), "{line}");
    nothing_lost(live);
}

#[test]
fn chokidar_on_a_tree_and_on_a_switched_link() {
    let scratch = Scratch::new("chokidar-tree");
    let current = releases(&scratch);
    let file = scratch.0.join("releases/1/app.conf");
    // The three directories, and the two files in them.
    let Some(tree) = chokidar(&scratch.0.join("releases"), 5).filter(|_| root()) else { return };
    assert_eq!(found(tree.pid()), [[""; 3]; 0]);
    replace(&file);
    until_found(tree.pid(), &[]);
    let Some(linked) = chokidar(&current, 2) else { return };
    assert_eq!(found(linked.pid()), [[""; 3]; 0]);
    switch(&current);
    until_found(linked.pid(), &[["deaf", "symlink-swap", "inferred"]]);
}

#[test]
fn plain_node_loses_a_replaced_file() {
    let scratch = Scratch::new("fs-watch");
    let file = scratch.file("app.conf");
    let Some(node) = installed("node").filter(|_| root()) else { return };
    let script = "require('fs').watch(process.argv[1], () => {}); setInterval(() => {}, 1e6)";
    let program = Program::start(Command::new(node).args(["-e", script]).arg(&file), 1);
    assert_eq!(found(program.pid()), [LONE]);
    let live = Live::start("auto", program.pid());
    loses_a_replaced_file(live, &file);
}

#[test]
fn nodemon_restarts_after_a_replacement_and_leaves_node_modules_out() {
    let scratch = Scratch::new("nodemon");
    let script = scratch.0.join("app.js");
    // It ends at once: nodemon would leave it behind.
    std::fs::write(&script, "").unwrap();
    scratch.dir("node_modules/x");
    let dependency = scratch.file("node_modules/x/index.js");
    let Some(nodemon) = tool_at("npm/node_modules/nodemon/bin/nodemon.js").filter(|_| root()) else { return };
    let Some(node) = installed("node") else { return };
    let mut command = Command::new(node);
    command.arg(nodemon).args(["--watch", "app.js", "--watch", "node_modules", "--signal", "SIGKILL"]);
    let program = Program::start(command.arg("app.js").current_dir(&scratch.0), 1);
    assert_eq!(found(program.pid()), [LONE]);
    let pid = program.pid().to_string();
    let said = diagnose(&["--pid".as_ref(), pid.as_ref(), dependency.as_os_str()]);
    let answer = said.watcher(program.pid());
    assert_eq!(
        (&answer["write"]["receives"], &answer["write"]["cause"]),
        (&"no".into(), &"never-watched".into())
    );
    let mut live = Live::start("auto", program.pid());
    replace(&script);
    until_found(program.pid(), &[SET_AGAIN]);
    let line = verdict(&mut live, "write", &script, || append(&script));
    assert_eq!(words(&line), ("delivered", None), "{line}");
    nothing_lost(live);
}
