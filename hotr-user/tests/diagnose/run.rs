//! Runs `hotr diagnose --json`, makes watchers, and ends them.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
use serde_json::Value;

/// The program under test.
pub(crate) const HOTR: &str = env!("CARGO_BIN_EXE_hotr");
/// What takes longer has failed.
const DEADLINE: Duration = Duration::from_secs(20);

/// Whether this is root; says so when it is not.
pub(crate) fn root() -> bool {
    let root = rustix::process::geteuid().is_root();
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
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// What a run said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) status: Option<i32>,
    pub(crate) lines: Vec<Value>,
    pub(crate) stderr: String,
}

impl Said {
    /// Findings of one instance.
    pub(crate) fn of(&self, pid: u32, fd: Option<i32>) -> Vec<&Value> {
        let same = |line: &&Value| {
            line["type"] == "finding"
                && line["target"]["pid"] == pid
                && fd.is_none_or(|fd| line["target"]["fd"] == fd)
        };
        self.lines.iter().filter(same).collect()
    }

    /// Severity and cause of each finding of one instance.
    pub(crate) fn kinds(&self, pid: u32, fd: Option<i32>) -> Vec<(&str, &str)> {
        let text = |value: &'_ Value| -> &'static str {
            Box::leak(value.as_str().unwrap().to_owned().into_boxed_str())
        };
        self.of(pid, fd).into_iter().map(|line| (text(&line["severity"]), text(&line["cause"]))).collect()
    }

    /// The line about a path and a process.
    pub(crate) fn watcher(&self, pid: u32) -> &Value {
        let mut found =
            self.lines.iter().filter(|line| line["type"] == "watcher" && line["target"]["pid"] == pid);
        found.next().unwrap_or_else(|| panic!("no watcher {pid}: {:?}", self.lines))
    }
}

/// A command to its end.
pub(crate) fn finish(command: &mut Command) -> Said {
    let output = command.stdin(Stdio::null()).output().expect("hotr runs");
    let lines = String::from_utf8(output.stdout).expect("UTF-8");
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    if output.status.code() != Some(1) && output.status.code() != Some(2) {
        assert_eq!(lines.last().map(|line| &line["type"]), Some(&Value::from("summary")), "{stderr}");
    }
    Said { status: output.status.code(), lines, stderr }
}

/// `hotr diagnose --json` with these words.
pub(crate) fn diagnose<S: AsRef<std::ffi::OsStr>>(words: &[S]) -> Said {
    finish(Command::new(HOTR).args(["diagnose", "--json"]).args(words))
}

/// The same of one process.
pub(crate) fn of_pid(pid: u32) -> Said {
    diagnose(&["--pid", &pid.to_string()])
}

/// The same of this process.
pub(crate) fn of_self() -> Said {
    of_pid(std::process::id())
}

/// A directory that is removed at the end of a test.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("hotr-diag-{name}-{}-{number}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Self(dir.canonicalize().unwrap())
    }

    /// A directory in it.
    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        let dir = self.0.join(name);
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    /// A file in it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        let file = self.0.join(name);
        fs::write(&file, "1\n").unwrap();
        file
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// An instance of this process.
pub(crate) struct Instance(pub(crate) OwnedFd);

impl Instance {
    pub(crate) fn new() -> Self {
        Self(init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).unwrap())
    }

    /// One with a watch.
    pub(crate) fn on(path: &Path, mask: WatchFlags) -> Self {
        let instance = Self::new();
        instance.add(path, mask);
        instance
    }

    pub(crate) fn add(&self, path: &Path, mask: WatchFlags) -> i32 {
        add_watch(&self.0, path, mask).unwrap()
    }

    pub(crate) fn fd(&self) -> i32 {
        self.0.as_raw_fd()
    }

    /// Bytes unread.
    pub(crate) fn unread(&self) -> u64 {
        rustix::io::ioctl_fionread(&self.0).unwrap()
    }

    /// Takes what is queued, as a healthy reader does.
    pub(crate) fn drain(&self) {
        let mut buf = [const { std::mem::MaybeUninit::uninit() }; 1 << 14];
        let mut reader = rustix::fs::inotify::Reader::new(&self.0, &mut buf);
        while reader.next().is_ok() {}
    }

    /// What is found of it when it has been read.
    pub(crate) fn kinds(&self) -> Vec<(&'static str, &'static str)> {
        self.drain();
        self.kinds_unread()
    }

    /// What is found of it as it is.
    pub(crate) fn kinds_unread(&self) -> Vec<(&'static str, &'static str)> {
        let said = of_self();
        let kinds = said.kinds(std::process::id(), Some(self.fd()));
        kinds.into_iter().map(|(a, b)| (leak(a), leak(b))).collect()
    }

    /// The only finding when it has been read.
    pub(crate) fn finding(&self) -> Value {
        self.drain();
        let said = of_self();
        let found = said.of(std::process::id(), Some(self.fd()));
        assert_eq!(found.len(), 1, "{found:?}");
        found[0].clone()
    }
}

fn leak(text: &str) -> &'static str {
    Box::leak(text.to_owned().into_boxed_str())
}

/// A program that watches, killed at the end of its test.
pub(crate) struct Program(Child);

impl Program {
    /// Starts it, and waits until it has this many watches.
    pub(crate) fn start(command: &mut Command, watches: usize) -> Self {
        Self::reading(command, Stdio::null(), watches)
    }

    /// The same, with an input.
    pub(crate) fn reading(command: &mut Command, input: Stdio, watches: usize) -> Self {
        let child = command.stdin(input).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let program =
            Self(child.unwrap_or_else(|error| panic!("{command:?}: {error} (cargo xtask setup --tests)")));
        until("the watches of a program", || program.watches() >= watches && program.is_asleep());
        program
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn send(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.0), signal).unwrap();
    }

    /// Watches of all its instances.
    pub(crate) fn watches(&self) -> usize {
        let Ok(entries) = fs::read_dir(format!("/proc/{}/fdinfo", self.pid())) else { return 0 };
        let infos = entries.flatten().filter_map(|entry| fs::read_to_string(entry.path()).ok());
        infos.map(|info| info.lines().filter(|line| line.starts_with("inotify wd:")).count()).sum()
    }

    /// Its main thread waits.
    pub(crate) fn is_asleep(&self) -> bool {
        self.state() == Some('S')
    }

    pub(crate) fn state(&self) -> Option<char> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).ok()?;
        stat.rsplit_once(')')?.1.trim_start().chars().next()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `inotifywait -m` with these words.
pub(crate) fn inotifywait<S: AsRef<std::ffi::OsStr>>(words: &[S], watches: usize) -> Program {
    Program::start(Command::new("inotifywait").args(["-m", "-q"]).args(words), watches)
}

/// Runs a tool that must succeed.
pub(crate) fn tool(program: &str, words: &[&std::ffi::OsStr]) {
    let status = Command::new(program).args(words).status().unwrap();
    assert!(status.success(), "{program} {words:?}");
}

/// The inode number of a path.
pub(crate) fn ino(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    fs::symlink_metadata(path).unwrap().ino()
}
