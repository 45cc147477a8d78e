//! A running agent, and subscribers: the program as other users run it, and bare sockets.

use std::fs;
use std::io::{BufRead, BufReader, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use serde_json::Value;

pub(crate) const HOTR: &str = env!("CARGO_BIN_EXE_hotr");
/// Two users that nobody else is.
pub(crate) const ONE: u32 = 54_321;
pub(crate) const OTHER: u32 = 54_323;
/// Bounds a failure; a busy machine needs its time to attach programs.
const DEADLINE: Duration = Duration::from_secs(60);

/// Whether an agent can run here; says why when not.
pub(crate) fn can_run() -> bool {
    if cfg!(hotr_without_ebpf) {
        eprintln!("not run: the program was built without its eBPF object");
    } else if !geteuid().is_root() {
        eprintln!("not run: root is needed");
    }
    !cfg!(hotr_without_ebpf) && geteuid().is_root()
}

/// Whether the kernel gives a descriptor of who has connected (Linux 6.5). Without it a subscriber is told of no process, and root
/// has no capability.
pub(crate) fn knows_processes() -> bool {
    let (one, _other) = UnixStream::pair().unwrap();
    let mut number: libc::c_int = -1;
    let mut length = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap();
    // SAFETY: the number is as long as is said. The descriptor stays until the test ends.
    let result = unsafe {
        libc::getsockopt(
            one.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERPIDFD,
            (&raw mut number).cast(),
            &raw mut length,
        )
    };
    result == 0
}

pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let over = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < over, "not within {DEADLINE:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// A directory with the program, the socket's directory `run` and the watched directory `w`.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        let place = std::env::temp_dir().join(format!("hotr-agent-{name}-{}", std::process::id()));
        let scratch = Self(place);
        for dir in ["", "run", "w"] {
            scratch.dir(dir, 0o755, 0);
        }
        let program = scratch.0.join("hotr");
        // Where other users reach it.
        fs::hard_link(HOTR, &program).or_else(|_| fs::copy(HOTR, &program).map(drop)).unwrap();
        scratch
    }

    pub(crate) fn dir(&self, name: &str, mode: u32, owner: u32) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(&path).unwrap();
        chown(&path, Some(owner), Some(owner)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    pub(crate) fn w(&self, name: &str) -> PathBuf {
        self.0.join("w").join(name)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.0.join("run/agent.sock")
    }

    /// `hotr` with these arguments, as this user.
    pub(crate) fn hotr(&self, user: u32, args: &[&str]) -> Command {
        let mut command = Command::new(self.0.join("hotr"));
        command.args(args).uid(user).gid(user).current_dir("/");
        command
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A program whose lines are read; ended with this.
pub(crate) struct Program {
    pub(crate) child: Child,
    lines: Receiver<String>,
    pub(crate) seen: Vec<Value>,
    said: Arc<Mutex<String>>,
}

impl Program {
    pub(crate) fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let said = Arc::new(Mutex::new(String::new()));
        let (into, mut stderr) = (Arc::clone(&said), child.stderr.take().unwrap());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = stderr.read(&mut buffer) {
                into.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..n]));
            }
        });
        Self { child, lines, seen: Vec::new(), said }
    }

    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Waits for a line that passes.
    pub(crate) fn wait(&mut self, what: &str, test: impl Fn(&Value) -> bool) -> Value {
        let over = Instant::now() + DEADLINE;
        loop {
            let left = over.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("no {what}; seen {:#?}\nsaid {}", self.seen, self.said());
            };
            let line: Value = serde_json::from_str(&line).expect("a JSON line");
            self.seen.push(line.clone());
            if test(&line) {
                return line;
            }
        }
    }

    /// Whether a line that is there, now or before, passes.
    pub(crate) fn has(&mut self, test: impl Fn(&Value) -> bool) -> bool {
        let new = self.lines.try_iter().map(|line| serde_json::from_str(&line).expect("a JSON line"));
        self.seen.extend(new);
        self.seen.iter().any(test)
    }

    /// Waits for a change of this path.
    pub(crate) fn change(&mut self, op: &str, path: &str) -> Value {
        let is_it = |line: &Value| line["type"] == "change" && line["op"] == op && line["path"] == path;
        self.wait(&format!("{op} of {path}"), is_it)
    }

    /// All lines so far as text.
    pub(crate) fn text(&self) -> String {
        self.seen.iter().map(|line| format!("{line}\n")).collect()
    }

    /// How many descriptors it has.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Memory that it has, in KiB.
    pub(crate) fn memory_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    pub(crate) fn send(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end: the exit status, and what it said.
    pub(crate) fn end(&mut self) -> (Option<i32>, String) {
        let mut status = None;
        until("it ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        // What it said last may still be on its way to the thread that reads it.
        let code = status.and_then(|status| status.code());
        if code == Some(1) {
            until("it says why", || self.said().ends_with('\n'));
        }
        (code, self.said())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts an agent, which listens when this returns.
pub(crate) fn agent(scratch: &Scratch) -> Program {
    let socket = scratch.socket();
    let agent = Program::start(scratch.hotr(0, &["agent", "--socket", socket.to_str().unwrap()]));
    until("it listens", || agent.said().contains("listening"));
    agent
}

/// `hotr subscribe --json` as a user, up to `added`.
pub(crate) fn subscribe(scratch: &Scratch, user: u32, dir: &Path) -> Program {
    let socket = scratch.socket();
    let args = ["subscribe", "--json", "--socket", socket.to_str().unwrap(), dir.to_str().unwrap()];
    let mut subscriber = Program::start(scratch.hotr(user, &args));
    subscriber.wait("added", |line| line["type"] == "added");
    subscriber
}

/// The same, which ends with the agent.
pub(crate) fn subscribe_once(scratch: &Scratch, user: u32, dir: &Path) -> Program {
    let (socket, dir) = (scratch.socket(), dir.to_str().unwrap());
    let args = ["subscribe", "--json", "--no-reconnect", "--socket", socket.to_str().unwrap(), dir];
    let mut subscriber = Program::start(scratch.hotr(user, &args));
    subscriber.wait("added", |line| line["type"] == "added");
    subscriber
}

/// A subscriber that is only a socket.
pub(crate) struct Bare(pub(crate) UnixStream);

impl Bare {
    pub(crate) fn connect(scratch: &Scratch) -> Self {
        let socket = UnixStream::connect(scratch.socket()).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Self(socket)
    }

    /// After the greeting.
    pub(crate) fn greeted(scratch: &Scratch) -> Self {
        let mut bare = Self::connect(scratch);
        bare.send(r#"{"type":"hello","version":1}"#, &[]);
        assert_eq!(bare.next().unwrap()["type"], "hello");
        bare
    }

    pub(crate) fn send(&mut self, body: &str, fds: &[BorrowedFd<'_>]) {
        let mut frame = u32::try_from(body.len()).unwrap().to_le_bytes().to_vec();
        frame.extend_from_slice(body.as_bytes());
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(fds)));
        }
        sendmsg(self.0.as_fd(), &[IoSlice::new(&frame)], &mut ancillary, SendFlags::NOSIGNAL).unwrap();
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    /// The next frame; none at the end.
    pub(crate) fn next(&mut self) -> Option<Value> {
        let mut head = [0; 4];
        match self.0.read_exact(&mut head) {
            Ok(()) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset
                ) =>
            {
                return None;
            }
            Err(error) => panic!("{error}"),
        }
        let mut body = vec![0; usize::try_from(u32::from_le_bytes(head)).unwrap()];
        self.0.read_exact(&mut body).unwrap();
        Some(serde_json::from_slice(&body).unwrap())
    }

    /// What the agent answers to a directory.
    pub(crate) fn add(&mut self, root: u32, fds: &[BorrowedFd<'_>]) -> Value {
        self.send(&format!(r#"{{"type":"add","root":{root}}}"#), fds);
        loop {
            let event = self.next().unwrap();
            if event["type"] == "added" || event["type"] == "refused" {
                return event;
            }
        }
    }
}
