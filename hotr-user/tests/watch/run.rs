//! A running `hotr watch --json`: its reports, what it says, and its end.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use serde_json::Value;

pub(crate) const HOTR: &str = env!("CARGO_BIN_EXE_hotr");
const DEADLINE: Duration = Duration::from_secs(20);

/// A directory that is removed at the end of a test.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("hotr-watch-{name}-{}-{number}", std::process::id()));
        std::fs::create_dir_all(dir.join("w")).unwrap();
        Self(dir.canonicalize().unwrap())
    }

    /// The watched directory.
    pub(crate) fn w(&self) -> PathBuf {
        self.0.join("w")
    }

    /// A file in the watched directory.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.w().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A script outside the watched directory.
    pub(crate) fn script(&self, name: &str, text: &str) -> String {
        use std::os::unix::fs::PermissionsExt;
        let path = self.0.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn root() -> bool {
    let root = geteuid().is_root();
    if !root {
        eprintln!("not run: root is needed");
    }
    root
}

/// Waits until something is so.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let over = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < over, "not within {DEADLINE:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// Runs a program to its end; a missing one says what to install.
pub(crate) fn tool(package: &str, program: &str, args: &[&str], dir: &Path) {
    let output = Command::new(program).args(args).current_dir(dir).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}; apt-get install {package}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

pub(crate) struct Watch {
    child: Child,
    lines: Receiver<String>,
    pub(crate) heard: Vec<Value>,
    said: Arc<Mutex<String>>,
    markers: u32,
    dir: PathBuf,
}

impl Watch {
    /// `hotr watch --json -p ARGS PATH -- COMMAND`, up to its `ready`.
    pub(crate) fn start(args: &[&str], path: &Path, command: &[&str]) -> Self {
        let mut hotr = Command::new(HOTR);
        hotr.args(["watch", "--json"]).args(args).arg(path);
        if !command.is_empty() {
            hotr.arg("--").args(command);
        }
        Self::spawn(hotr, path)
    }

    pub(crate) fn spawn(mut hotr: Command, path: &Path) -> Self {
        hotr.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = hotr.spawn().unwrap();
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let said = Arc::new(Mutex::new(String::new()));
        let mut stderr = child.stderr.take().unwrap();
        let into = Arc::clone(&said);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = stderr.read(&mut buffer) {
                into.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..n]));
            }
        });
        let mut watch = Self { child, lines, heard: Vec::new(), said, markers: 0, dir: path.to_owned() };
        watch.wait("ready", |line| line["type"] == "ready");
        watch
    }

    /// What it and its commands said on stderr so far.
    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    pub(crate) fn until_said(&self, text: &str) {
        let over = Instant::now() + DEADLINE;
        while !self.said().contains(text) {
            assert!(Instant::now() < over, "not said: {text}; but\n{}\n{:#?}", self.said(), self.heard);
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    /// The first line not yet waited for that passes.
    pub(crate) fn wait(&mut self, what: &str, test: impl Fn(&Value) -> bool) -> Value {
        let over = Instant::now() + DEADLINE;
        loop {
            let left = over.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("no {what}; heard {:#?}\nsaid {}", self.heard, self.said());
            };
            let line: Value = serde_json::from_str(&line).expect("a JSON line");
            self.heard.push(line.clone());
            if test(&line) {
                return line;
            }
        }
    }

    /// Waits for a reload in this state.
    pub(crate) fn reload(&mut self, state: &str) -> Value {
        self.wait(&format!("reload {state}"), |line| line["type"] == "reload" && line["state"] == state)
    }

    /// Names of what a line says has changed, relative to the watched path.
    pub(crate) fn names(&self, line: &Value) -> Vec<String> {
        let mut names: Vec<String> = line["changes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|change| Path::new(change["path"].as_str().unwrap()).strip_prefix(&self.dir).unwrap())
            .map(|path| path.to_str().unwrap().to_owned())
            .collect();
        names.sort();
        names
    }

    /// Makes a change that is one, and checks that the very next reload is for that alone.
    pub(crate) fn nothing_but_a_marker(&mut self) {
        let name = format!("marker{}", self.markers);
        self.markers += 1;
        std::fs::write(self.dir.join(&name), "x").unwrap();
        let line = self.reload("started");
        assert_eq!(self.names(&line), [name], "{line}\nsaid {}", self.said());
        self.reload("done");
    }

    pub(crate) fn send(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it by SIGTERM; its exit status must be 0.
    pub(crate) fn end(mut self) -> String {
        self.send(Signal::TERM);
        let mut status = None;
        until("the end of hotr", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        assert_eq!(status.unwrap().code(), Some(0), "{}", self.said());
        self.said()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
