//! inotifywait, tail, entr, and a script of an interpreter.

use std::process::Command;

use super::{
    Live, append, found, input, installed, nothing_lost, releases, replace, switch, until_found, verdict,
    words,
};
use crate::run::{Program, Scratch, diagnose, inotifywait, of_pid, root};

const LONE: [&str; 3] = ["at-risk", "replaced-file", "inferred"];

#[test]
fn inotifywait_that_asks_for_writes_only() {
    let scratch = Scratch::new("modify");
    let file = scratch.file("app.conf");
    if !root() {
        return;
    }
    let program = inotifywait(&["-e".as_ref(), "modify".as_ref(), scratch.0.as_os_str()], 1);
    assert_eq!(found(program.pid()), [["at-risk", "mask-mismatch", "proved"]]);
    let mut live = Live::start("auto", program.pid());
    let line = verdict(&mut live, "write", &file, || append(&file));
    assert_eq!(words(&line), ("delivered", None), "{line}");
    let line = verdict(&mut live, "rename", &file, || replace(&file));
    assert_eq!(words(&line), ("never-sent", Some("mask-mismatch")), "{line}");
    assert_eq!(live.end().0, Some(3));
}

#[test]
fn tail_by_descriptor_and_by_name() {
    let scratch = Scratch::new("tails");
    let file = scratch.file("log");
    if !root() {
        return;
    }
    let by_name = Program::start(Command::new("tail").args(["-n0", "-F"]).arg(&file), 2);
    let mut live = Live::start("auto", by_name.pid());
    let line = verdict(&mut live, "rename", &file, || replace(&file));
    assert_eq!(words(&line), ("delivered", None), "{line}");
    crate::run::until("tail watches the new file", || by_name.watches() == 2 && by_name.is_asleep());
    let line = verdict(&mut live, "write", &file, || append(&file));
    assert_eq!(words(&line), ("delivered", None), "{line}");
    nothing_lost(live);
    assert_eq!(found(by_name.pid()), [[""; 3]; 0]);
    // It holds the old file open, and follows that.
    let by_descriptor = Program::start(Command::new("tail").args(["-n0", "-f"]).arg(&file), 1);
    assert_eq!(found(by_descriptor.pid()), [LONE]);
    replace(&file);
    until_found(by_descriptor.pid(), &[["deaf", "replaced-file", "inferred"]]);
}

#[test]
fn tail_by_a_name_whose_directory_is_a_switched_link() {
    let scratch = Scratch::new("tail-link");
    let current = releases(&scratch);
    if !root() {
        return;
    }
    let program = Program::start(Command::new("tail").args(["-n0", "-F"]).arg(current.join("app.conf")), 2);
    assert_eq!(found(program.pid()), [[""; 3]; 0]);
    switch(&current);
    until_found(program.pid(), &[["deaf", "symlink-swap", "inferred"]]);
}

#[test]
fn entr_sets_its_watch_again_and_knows_no_new_file() {
    let scratch = Scratch::new("entr");
    let file = scratch.file("app.conf");
    let Some(entr) = installed("entr").filter(|_| root()) else { return };
    let program = Program::reading(Command::new(entr).args(["-n", "true"]), input(&scratch, &file), 1);
    assert_eq!(found(program.pid()), [LONE]);
    let mut live = Live::start("auto", program.pid());
    let line = verdict(&mut live, "rename", &file, || replace(&file));
    assert_eq!(words(&line), ("delivered", None), "{line}");
    crate::run::until("entr watches the new file", || {
        diagnose(&[&file]).lines.iter().any(|line| {
            line["type"] == "watcher" && line["target"]["pid"] == program.pid() && line["by"][0] == "file"
        })
    });
    let line = verdict(&mut live, "write", &file, || append(&file));
    assert_eq!(words(&line), ("delivered", None), "{line}");
    nothing_lost(live);
    let pid = program.pid().to_string();
    let said = diagnose(&["--pid".as_ref(), pid.as_ref(), scratch.0.join("new.conf").as_os_str()]);
    let answer = said.watcher(program.pid());
    assert_eq!(
        (&answer["create"]["receives"], &answer["create"]["cause"]),
        (&"no".into(), &"never-watched".into())
    );
}

#[test]
fn a_script_is_not_what_it_watches() {
    let scratch = Scratch::new("script");
    let script = scratch.0.join("watch.py");
    let text = "import ctypes, os, sys\n\
                libc = ctypes.CDLL(None)\n\
                fd = libc.inotify_init()\n\
                libc.inotify_add_watch(fd, sys.argv[1].encode(), 0xfff)\n\
                while True: os.read(fd, 4096)\n";
    std::fs::write(&script, text).unwrap();
    let Some(python) = installed("python3").filter(|_| root()) else { return };
    for is_replaced in [true, false] {
        let file = scratch.file("app.conf");
        let program = Program::start(Command::new(&python).arg(&script).arg(&file), 1);
        assert_eq!(found(program.pid()), [LONE]);
        if is_replaced {
            replace(&file);
            until_found(program.pid(), &[["deaf", "replaced-file", "inferred"]]);
            let said = of_pid(program.pid());
            assert_eq!(said.of(program.pid(), None)[0]["path"], file.to_str().unwrap());
        } else {
            // The script is the only file that the command line still names.
            std::fs::remove_file(&file).unwrap();
            until_found(program.pid(), &[["deaf", "mark-gone", "proved"]]);
        }
    }
}
