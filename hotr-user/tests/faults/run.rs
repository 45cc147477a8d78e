//! A running `hotr trace --json`: its lines, read by a thread, and its end.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use serde_json::Value;

/// The program under test.
pub(crate) const HOTR: &str = env!("CARGO_BIN_EXE_hotr");
/// What takes longer has failed.
const DEADLINE: Duration = Duration::from_secs(20);

/// Whether the eBPF channel can run here; says why when it cannot.
pub(crate) fn ebpf() -> bool {
    if cfg!(hotr_without_ebpf) {
        eprintln!("not run: the program was built without its eBPF object");
    } else if !root() {
        return false;
    }
    !cfg!(hotr_without_ebpf)
}

/// Whether this is root; says so when it is not.
pub(crate) fn root() -> bool {
    let root = geteuid().is_root();
    if !root {
        eprintln!("not run: root is needed");
    }
    root
}

/// The channels, each by itself, that can run here.
pub(crate) fn channels() -> Vec<&'static str> {
    if ebpf() { vec!["inotify", "ebpf"] } else { vec!["inotify"] }
}

/// Waits until something is so.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let over = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < over, "not within {DEADLINE:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// `hotr trace --json` with these arguments on a path.
pub(crate) fn command(args: &[&str], path: &Path) -> Command {
    let mut command = Command::new(HOTR);
    command.args(["trace", "--json"]).args(args).arg(path);
    command
}

/// A started program, killed if a test gives up on it.
pub(crate) struct Started(Child);

impl Started {
    /// Starts a command.
    pub(crate) fn new(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().expect("hotr runs"))
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Sends a signal.
    pub(crate) fn send(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).expect("it runs");
    }

    /// The exit status, as soon as there is one; none when a signal killed it.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        let mut ended = None;
        until("the end of hotr", || {
            ended = self.0.try_wait().expect("a child");
            ended.is_some()
        });
        ended.and_then(|status| status.code())
    }

    /// What it said on stderr, to its end.
    pub(crate) fn said(&mut self) -> JoinHandle<String> {
        let mut stderr = self.0.stderr.take().expect("a pipe");
        std::thread::spawn(move || {
            let mut said = String::new();
            stderr.read_to_string(&mut said).expect("UTF-8");
            said
        })
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One run.
pub(crate) struct Run {
    child: Started,
    lines: Receiver<String>,
    said: JoinHandle<String>,
    /// Every line so far.
    pub(crate) heard: Vec<Value>,
}

impl Run {
    /// Starts it and waits for `ready`.
    pub(crate) fn start(args: &[&str], path: &Path) -> Self {
        Self::spawn(command(args, path))
    }

    /// Starts it and waits for `ready`.
    pub(crate) fn spawn(command: Command) -> Self {
        let (child, stdout) = spawn(command);
        Self::read(child, BufReader::new(stdout), Vec::new())
    }

    /// Continues with a program whose first lines were read.
    pub(crate) fn read(mut child: Started, stdout: BufReader<ChildStdout>, heard: Vec<Value>) -> Self {
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines() {
                if sender.send(line.expect("lines are UTF-8")).is_err() {
                    return;
                }
            }
        });
        let said = child.said();
        let mut run = Self { child, lines, said, heard };
        run.wait("ready", |line| line["type"] == "ready");
        run
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Sends a signal.
    pub(crate) fn send(&self, signal: Signal) {
        self.child.send(signal);
    }

    /// Waits for its end, which must be a good one; how long that took.
    pub(crate) fn dies(mut self, since: Instant) -> Duration {
        let status = self.child.wait();
        let took = since.elapsed();
        assert_eq!(status, Some(0), "{}", self.said.join().unwrap());
        took
    }

    /// The first line.
    pub(crate) fn ready(&self) -> &Value {
        &self.heard[0]
    }

    /// The first line, of those before as well, that passes the test.
    pub(crate) fn wait(&mut self, what: &str, test: impl Fn(&Value) -> bool) -> Value {
        if let Some(line) = self.heard.iter().find(|line| test(line)) {
            return line.clone();
        }
        let over = Instant::now() + DEADLINE;
        loop {
            match self.next(over) {
                Ok(line) if test(&line) => return line,
                Ok(_) => {}
                Err(why) => panic!("no line {what}: {why:?}; {}", self.tail()),
            }
        }
    }

    /// Reads on until something is so of all lines.
    pub(crate) fn until(&mut self, what: &str, is_so: impl Fn(&[Value]) -> bool) {
        let over = Instant::now() + DEADLINE;
        while !is_so(&self.heard) {
            if let Err(why) = self.next(over) {
                panic!("not told: {what}: {why:?}; {}", self.tail());
            }
        }
    }

    /// The same, unless records are lost.
    pub(crate) fn until_or_disturbed(
        &mut self,
        what: &str,
        is_so: impl Fn(&[Value]) -> bool,
    ) -> Result<(), Disturbed> {
        self.until(what, |lines| is_so(lines) || undisturbed(lines).is_err());
        undisturbed(&self.heard)
    }

    /// Waits for a change of this path.
    pub(crate) fn change(&mut self, op: &str, path: &Path) -> Value {
        self.wait(&format!("{op} {}", path.display()), |line| line["op"] == op && path_of(line) == path)
    }

    /// Does `change` with 0, 1, … until a line of one of them is there: for what hotr notices at its own time.
    pub(crate) fn until_heard(&mut self, mut change: impl FnMut(u32) -> PathBuf) -> Value {
        let over = Instant::now() + DEADLINE;
        let mut made = Vec::new();
        let mut next = Instant::now();
        loop {
            if Instant::now() >= next {
                made.push(change(u32::try_from(made.len()).unwrap()));
                next = Instant::now() + Duration::from_millis(200);
            }
            match self.next(next) {
                Ok(line) if line["type"] == "change" && made.contains(&path_of(&line)) => return line,
                Ok(_) | Err(RecvTimeoutError::Timeout) => {}
                Err(why) => panic!("{why:?}: {}", self.tail()),
            }
            assert!(Instant::now() < over, "none of {made:?}: {}", self.tail());
        }
    }

    fn next(&mut self, over: Instant) -> Result<Value, RecvTimeoutError> {
        let line = self.lines.recv_timeout(over.saturating_duration_since(Instant::now()))?;
        let line: Value = serde_json::from_str(&line).expect("a JSON line");
        self.heard.push(line.clone());
        Ok(line)
    }

    fn tail(&self) -> String {
        let first = self.heard.len().saturating_sub(12);
        let lines: Vec<String> = self.heard[first..].iter().map(Value::to_string).collect();
        format!("heard {} lines, at last\n{}", self.heard.len(), lines.join("\n"))
    }

    /// Ends it by SIGTERM; all its lines.
    pub(crate) fn end(self) -> Vec<Value> {
        self.end_by(Signal::TERM)
    }

    /// Ends it by a signal, and checks that it ends well. All its lines.
    pub(crate) fn end_by(self, signal: Signal) -> Vec<Value> {
        self.child.send(signal);
        self.ended()
    }

    /// Waits for its end. All its lines.
    pub(crate) fn ended(mut self) -> Vec<Value> {
        let over = Instant::now() + DEADLINE;
        while self.next(over).is_ok() {}
        let status = self.child.wait();
        let tail = self.tail();
        assert_eq!((status, self.said.join().unwrap().as_str()), (Some(0), ""), "{tail}");
        check(&self.heard);
        self.heard
    }
}

/// Records were lost: others on this machine, tests among them, fill the ring buffer of the tracepoint tier with their calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Disturbed;

/// Whether that was said.
pub(crate) fn undisturbed(lines: &[Value]) -> Result<(), Disturbed> {
    let is_lost =
        |line: &Value| line["type"] == "loss" && (line["path"].is_null() || line["reason"] == "interrupted");
    if lines.iter().any(is_lost) { Err(Disturbed) } else { Ok(()) }
}

/// Makes a case until no record is lost in it.
pub(crate) fn until_undisturbed(case: impl Fn() -> Result<(), Disturbed>) {
    const MOST: usize = 20;
    assert!((0..MOST).any(|_| case().is_ok()), "records were lost {MOST} times");
}

/// Starts a command with its outputs in pipes.
pub(crate) fn spawn(mut command: Command) -> (Started, ChildStdout) {
    let mut child = Started::new(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    let stdout = child.0.stdout.take().expect("a pipe");
    (child, stdout)
}

/// What every run owes.
pub(crate) fn check(lines: &[Value]) {
    let of = |kind: &str| lines.iter().filter(|line| line["type"] == kind).collect::<Vec<_>>();
    let (Some(first), Some(summary)) = (lines.first(), lines.last()) else { panic!("no line") };
    assert_eq!(first["type"], "ready");
    assert_eq!(summary["type"], "summary", "{summary}");
    assert_eq!((of("ready").len(), of("summary").len()), (1, 1));
    let numbers: Vec<_> = of("change").iter().map(|line| line["seq"].as_u64()).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).map(Some).collect::<Vec<_>>(), "in order, none missing");
    if of("raw").is_empty() {
        assert_eq!(summary["changes"], numbers.len(), "{summary}");
    }
    let Some(kernel) = summary.get("kernel") else { return };
    let count = |name: &str| kernel[name].as_u64().unwrap_or_else(|| panic!("{name}: {summary}"));
    let parts = ["submitted", "coalesced", "filtered", "ring_full", "oversize"];
    assert_eq!(count("seen"), parts.into_iter().map(count).sum::<u64>(), "{summary}");
}

/// Changes among the lines.
pub(crate) fn changes(lines: &[Value]) -> impl Iterator<Item = &Value> {
    lines.iter().filter(|line| line["type"] == "change")
}

/// The exact path of a line.
pub(crate) fn path_of(line: &Value) -> PathBuf {
    match line["path_b64"].as_str() {
        Some(text) => PathBuf::from(std::ffi::OsString::from_vec(base64(text))),
        None => PathBuf::from(OsStr::from_bytes(line["path"].as_str().unwrap_or_default().as_bytes())),
    }
}

fn base64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0_u32, 0);
    for digit in text.bytes().filter(|digit| *digit != b'=') {
        let value = DIGITS.iter().position(|known| *known == digit).expect("a digit of base64");
        bits = bits << 6 | u32::try_from(value).unwrap();
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held & 0xff) as u8);
        }
    }
    bytes
}
