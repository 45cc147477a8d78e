//! Runs `hotr verify`, and keeps the runs that look at the whole machine from the others.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{OnceLock, RwLock};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The program under test.
pub(crate) const HOTR: &str = env!("CARGO_BIN_EXE_hotr");
/// What takes longer has failed.
const DEADLINE: Duration = Duration::from_secs(20);

/// Held for writing by tests that compare what the machine has before and after.
pub(crate) static MACHINE: RwLock<()> = RwLock::new(());

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
    until_said(what, || (is_so(), String::new()));
}

/// The same; what is not so is said when it never is.
pub(crate) fn until_said(what: &str, mut is_so: impl FnMut() -> (bool, String)) {
    let over = Instant::now() + DEADLINE;
    loop {
        let (is_so, why) = is_so();
        if is_so {
            return;
        }
        assert!(Instant::now() < over, "not within {DEADLINE:?}: {what}: {why}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// What a run said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Said {
    pub(crate) fn lines(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    }

    /// The verdict of each experiment.
    pub(crate) fn verdicts(&self) -> BTreeMap<String, String> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let lines = self.lines().into_iter().filter(|line| line["type"] == "verdict");
        lines.map(|line| (text(&line["experiment"]), text(&line["verdict"]))).collect()
    }

    /// The line of an experiment.
    pub(crate) fn of(&self, experiment: &str) -> Value {
        let mut lines = self.lines().into_iter();
        lines
            .find(|line| line["experiment"] == experiment)
            .unwrap_or_else(|| panic!("{experiment}: {self:?}"))
    }
}

/// A command to its end.
pub(crate) fn finish(command: &mut Command) -> Said {
    let output = command.stdin(Stdio::null()).output().expect("hotr runs");
    Said {
        status: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

/// `hotr verify` with these words.
pub(crate) fn verify(words: &[&str]) -> Said {
    let _others = MACHINE.read().unwrap();
    finish(Command::new(HOTR).arg("verify").args(words))
}

/// A run as root of a user namespace; `None` where none can be made.
pub(crate) fn in_user_namespace(words: &[&str]) -> Option<Said> {
    const AS_ROOT: [&str; 2] = ["-U", "-r"];
    let mut probe = Command::new("unshare");
    if !probe.args(AS_ROOT).arg("true").status().is_ok_and(|status| status.success()) {
        eprintln!("not run: no user namespace can be made here");
        return None;
    }
    let _others = MACHINE.read().unwrap();
    let mut command = Command::new("unshare");
    Some(finish(command.args(AS_ROOT).args([HOTR, "verify", "--json"]).args(words)))
}

/// A whole run as it is, made once for all tests.
pub(crate) fn whole() -> &'static Said {
    static WHOLE: OnceLock<Said> = OnceLock::new();
    WHOLE.get_or_init(|| {
        let said = verify(&["--json"]);
        assert_eq!((said.status, said.stderr.as_str()), (Some(0), ""));
        said
    })
}

/// A run that goes on, in a process group of its own; ended by its id.
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) lines: BufReader<ChildStdout>,
}

impl Running {
    pub(crate) fn start(words: &[&str]) -> Self {
        let mut command = Command::new(HOTR);
        command.arg("verify").args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.process_group(0).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// Reads so many lines of stdout.
    pub(crate) fn read(&mut self, count: usize) -> Vec<String> {
        let mut lines = Vec::new();
        for _ in 0..count {
            let mut line = String::new();
            assert!(self.lines.read_line(&mut line).unwrap() > 0, "ended after {lines:?}");
            lines.push(line);
        }
        lines
    }

    /// Reads to the end; the status.
    pub(crate) fn end(&mut self) -> Option<i32> {
        std::io::copy(&mut self.lines, &mut std::io::sink()).unwrap();
        self.child.wait().unwrap().code()
    }

    pub(crate) fn send(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory that is removed at the end of a test.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("hotr-verify-test-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
