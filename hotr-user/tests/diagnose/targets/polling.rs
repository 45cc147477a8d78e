//! Processes without an instance: those that poll, and one that does nothing.

use std::process::Command;

use serde_json::Value;

use super::{installed, tool_at};
use crate::run::{Program, Scratch, diagnose, of_pid, root};

/// The only finding: which path, and how often it was looked at.
fn polled(said: &crate::run::Said, pid: u32) -> (Value, u64) {
    let [finding] = said.of(pid, None)[..] else { panic!("{:?} {}", said.lines, said.stderr) };
    assert_eq!((&finding["severity"], &finding["cause"]), (&"note".into(), &"never-watched".into()));
    assert_eq!((said.status, said.stderr.as_str()), (Some(0), ""));
    let evidence = finding["evidence"].as_array().unwrap().iter();
    let sentence = evidence.filter_map(Value::as_str).find(|text| text.contains("at least")).unwrap();
    let count = sentence.split("at least ").nth(1).unwrap().split(' ').next().unwrap();
    (finding["path"].clone(), count.parse().unwrap())
}

#[test]
fn tail_without_inotify() {
    let scratch = Scratch::new("tail-polls");
    let file = scratch.file("log");
    if !root() {
        return;
    }
    let options = ["-n0", "-F", "---disable-inotify", "--sleep-interval=0.2"];
    let program = Program::start(Command::new("tail").args(options).arg(&file), 0);
    let (path, count) = polled(&of_pid(program.pid()), program.pid());
    assert_eq!(path, file.to_str().unwrap());
    // Fifteen times in three seconds, on a machine that has the time.
    assert!((2..=20).contains(&count), "{count}");
}

#[test]
fn chokidar_that_polls() {
    let scratch = Scratch::new("chokidar-polls");
    let file = scratch.file("app.conf");
    let Some(library) = tool_at("npm/node_modules/chokidar").filter(|_| root()) else { return };
    let Some(node) = installed("node") else { return };
    let script = "require(process.argv[1]).watch(process.argv[2], {usePolling: true, interval: 100})\
                  .on('ready', () => require('fs').writeFileSync(process.argv[3], ''))";
    let ready = scratch.0.join("ready");
    let mut command = Command::new(node);
    let program = Program::start(command.args(["-e", script]).arg(library).args([&file, &ready]), 0);
    crate::run::until("chokidar is ready", || ready.exists());
    let (path, count) = polled(&of_pid(program.pid()), program.pid());
    // Its threads free the memory of a path soon. What cannot be read in time is counted and not named.
    assert!(path == file.to_str().unwrap() || path.is_null(), "{path}");
    assert!(count >= 2, "{count}");
}

#[test]
fn a_process_that_does_nothing() {
    if !root() {
        return;
    }
    let program = Program::start(Command::new("sleep").arg("1000"), 0);
    let pid = program.pid();
    let said = of_pid(pid);
    let want = format!(
        "hotr: process {pid} has no inotify or fanotify instance, and looked at no path repeatedly by stat within 3."
    );
    assert!(said.stderr.starts_with(&want), "{}", said.stderr);
    assert_eq!((said.status, said.stderr.lines().count()), (Some(0), 1));
    assert_eq!(said.of(pid, None), Vec::<&Value>::new());
    // By its name it is one of many, and not looked at for seconds.
    let by_name = diagnose(&["--comm", "sleep"]);
    assert!(!by_name.stderr.contains("looked at"), "{}", by_name.stderr);
}
