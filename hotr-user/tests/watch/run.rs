//! A running `hotr watch --json`: its reports, what it says, and its end.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;

pub(crate) const HOTR: &str = env!("CARGO_BIN_EXE_hotr");
/// Bounds a failure; a busy machine needs its time to attach programs.
const DEADLINE: Duration = Duration::from_secs(60);

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

/// Waits until what is changed from now on has a later time than what was changed before.
pub(crate) fn next_tick() {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    until("the clock of inodes has moved on", || {
        let coarse = clock_gettime(ClockId::RealtimeCoarse);
        (coarse.tv_sec.unsigned_abs(), coarse.tv_nsec.unsigned_abs())
            > (now.as_secs(), now.subsec_nanos().into())
    });
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

/// A program that is ended by SIGHUP, also where the tests are run by `nohup`.
pub(crate) fn hung_up(mut command: Command) -> Command {
    let reset = || {
        // SAFETY: numbers only.
        let former = unsafe { libc::signal(libc::SIGHUP, libc::SIG_DFL) };
        if former == libc::SIG_ERR { Err(std::io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: the closure makes one system call: it neither allocates nor takes a lock.
    unsafe { command.pre_exec(reset) };
    command
}

impl Watch {
    /// Writes a file in two halves, and checks that there is one reload, when the file is closed; ends the run.
    pub(crate) fn reloads_when_written(mut self, path: &Path) {
        let mut file = File::create(path).unwrap();
        file.write_all(b"half").unwrap();
        let is_write = |line: &Value| line["type"] == "change" && line["op"] == "write";
        self.wait("the first half", is_write);
        // The trailing change of the settling is more than ten debounces later.
        file.write_all(b"half").unwrap();
        self.wait("the second half", is_write);
        assert!(self.heard.iter().all(|line| line["type"] != "reload"), "{:?}", self.heard);
        drop(file);
        let line = self.reload("started");
        assert_eq!(line["changes"][0]["size"], 8, "{line}");
        self.reload("done");
        self.end();
    }

    /// `hotr watch --json -v ARGS PATH -- COMMAND`, up to its `ready`, and until it has read all files: on a busy
    /// machine a change may come before.
    pub(crate) fn start(args: &[&str], path: &Path, command: &[&str]) -> Self {
        let mut hotr = Command::new(HOTR);
        hotr.args(["watch", "--json", "-v"]).args(args).arg(path);
        if !command.is_empty() {
            hotr.arg("--").args(command);
        }
        let watch = Self::spawn(hung_up(hotr), path);
        watch.until_said("initial state recorded");
        watch
    }

    pub(crate) fn spawn(mut hotr: Command, path: &Path) -> Self {
        // A file that was made in the tick of the start is not taken as there before.
        next_tick();
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

    /// Makes several changes while hotr is stopped: it receives all of them at once, however busy the machine is.
    pub(crate) fn at_once(&self, changes: impl FnOnce()) {
        self.send(Signal::STOP);
        let threads = format!("/proc/{}/task", self.pid());
        until("every thread has stopped", || {
            std::fs::read_dir(&threads).unwrap().flatten().all(|thread| {
                let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
                stat.is_empty() || stat.contains(") T ")
            })
        });
        changes();
        self.send(Signal::CONT);
    }

    pub(crate) fn send(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Leaves it no time to clean up.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends it by SIGTERM; its exit status must be 0.
    pub(crate) fn end(self) -> String {
        self.end_by(Signal::TERM)
    }

    pub(crate) fn end_by(mut self, signal: Signal) -> String {
        self.send(signal);
        assert_eq!(self.ended(), Some(0), "{}", self.said());
        self.said()
    }

    /// Its exit status, once it has ended by itself or by a signal that it was sent.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        let mut status = None;
        until("the end of hotr", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
