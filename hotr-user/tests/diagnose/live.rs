//! `hotr diagnose --live` on this machine, by its best tier and by tracepoints.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::Value;

use super::run::{HOTR, Program, Scratch, inotifywait, root};
use super::targets::installed;

pub(crate) struct Live {
    child: Child,
    lines: BufReader<ChildStdout>,
    pub(crate) said: Vec<Value>,
}

impl Live {
    pub(crate) fn start(tier: &str, pid: u32) -> Self {
        Self::with(&["--tier", tier], pid)
    }

    /// With more options.
    pub(crate) fn with<S: AsRef<std::ffi::OsStr>>(words: &[S], pid: u32) -> Self {
        let mut command = Command::new(HOTR);
        command.args(["diagnose", "--live", "--json", "--duration", "60s"]).args(words).arg("--pid");
        Self::run(command.arg(pid.to_string()))
    }

    /// Another command, until it is ready.
    pub(crate) fn run(command: &mut Command) -> Self {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let mut live = Self { child, lines, said: Vec::new() };
        live.until("ready", |line| line["type"] == "ready");
        live
    }

    /// Reads until such a line comes.
    pub(crate) fn until(&mut self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        loop {
            let mut line = String::new();
            let read = self.lines.read_line(&mut line).unwrap();
            assert!(read > 0, "no {what} in {:#?}", self.said);
            let line: Value = serde_json::from_str(&line).unwrap();
            self.said.push(line.clone());
            if is_it(&line) {
                return line;
            }
        }
    }

    pub(crate) fn end(self) -> (Option<i32>, String) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        self.ended()
    }

    /// Ends it: all its lines.
    pub(crate) fn lines(mut self) -> Vec<Value> {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        self.until("summary", |line| line["type"] == "summary");
        std::mem::take(&mut self.said)
    }

    /// Its status, and what it said on stderr, once it has ended by itself.
    pub(crate) fn ended(mut self) -> (Option<i32>, String) {
        self.until("summary", |line| line["type"] == "summary");
        let mut said = String::new();
        std::io::Read::read_to_string(&mut self.child.stderr.take().unwrap(), &mut said).unwrap();
        (self.child.wait().unwrap().code(), said)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The same for each tier that works everywhere.
pub(crate) const TIERS: [&str; 2] = ["auto", "tracepoint"];

#[test]
fn a_program_reads_what_it_is_sent_and_loses_a_replaced_file() {
    if !root() {
        return;
    }
    for tier in TIERS {
        let scratch = Scratch::new("live");
        let file = scratch.file("app.conf");
        let watcher = inotifywait(&[&file], 1);
        let mut live = Live::start(tier, watcher.pid());
        let write = || fs::OpenOptions::new().append(true).open(&file).unwrap().write_all(b"2\n").unwrap();
        write();
        let of_write = |line: &Value| line["type"] == "delivery" && line["op"] == "write";
        let line = live.until("delivery", of_write);
        assert_eq!(
            (&line["state"], &line["events"][0]),
            (&"delivered".into(), &"IN_MODIFY".into()),
            "{line}"
        );
        fs::write(scratch.0.join("new"), "3\n").unwrap();
        fs::rename(scratch.0.join("new"), &file).unwrap();
        write();
        let lost = |line: &Value| of_write(line) && line["state"] == "never-sent";
        let line = live.until("lost write", lost);
        assert_eq!(line["cause"], "replaced-file", "{line}");
        let inferred = live.said[0]["tier"] == "tracepoint";
        assert_eq!(line["proof"], if inferred { "inferred" } else { "proved" }, "{line}");
        assert!(!inferred || !line.to_string().contains("was not called"), "it was not seen: {line}");
        assert_eq!(live.end().0, Some(3), "{tier}");
    }
}

#[test]
fn the_target_gets_no_watch_and_loses_no_event() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("undisturbed");
    let file = scratch.file("app.conf");
    let watcher = inotifywait(&[&file], 1);
    let before = watcher.watches();
    // It does not read: what is queued for it stays there.
    watcher.send(rustix::process::Signal::STOP);
    let mut live = Live::start("tracepoint", watcher.pid());
    fs::OpenOptions::new().append(true).open(&file).unwrap().write_all(b"2\n").unwrap();
    assert_eq!(watcher.watches(), before);
    // It is known at the end that nobody read it.
    let pid = rustix::process::Pid::from_child(&live.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let line = live.until("delivery", |line| line["type"] == "delivery");
    assert_eq!((&line["state"], &line["proof"]), (&"unread".into(), &"inferred".into()), "{line}");
    assert_eq!(live.end().0, Some(0));
    // The file goes when its last name does: no watch of hotr's holds it.
    fs::remove_file(&file).unwrap();
    watcher.send(rustix::process::Signal::CONT);
    super::run::until("the watch goes with its file", || watcher.watches() == 0);
}

#[test]
fn it_ends_with_the_process() {
    if !root() {
        return;
    }
    for tier in TIERS {
        let scratch = Scratch::new("exits");
        let watcher: Program = inotifywait(&[&scratch.0], 1);
        let pid = watcher.pid();
        let mut live = Live::start(tier, pid);
        drop(watcher);
        live.until("summary", |line| line["type"] == "summary");
        has_ended_with(live, pid, tier);
    }
}

/// The run ended by itself, and said that the process has exited.
fn has_ended_with(mut live: Live, pid: u32, tier: &str) {
    let mut said = String::new();
    std::io::Read::read_to_string(&mut live.child.stderr.take().unwrap(), &mut said).unwrap();
    let want = format!("hotr: note: process {pid} has exited: it is followed no longer\n");
    assert_eq!(said, want, "{tier}");
    assert_eq!(live.child.wait().unwrap().code(), Some(0));
}

/// Starts a program under a certain id, as a machine whose ids have gone round does it. `None` where that is refused.
fn start_as(pid: u32, program: &std::path::Path, watched: &std::path::Path) -> Option<rustix::process::Pid> {
    use std::os::unix::ffi::OsStrExt;
    let text = |path: &std::path::Path| std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap();
    let (program, watched) = (text(program), text(watched));
    let words = [program.as_ptr(), c"-m".as_ptr(), c"-q".as_ptr(), watched.as_ptr(), std::ptr::null()];
    let environment = [std::ptr::null::<libc::c_char>()];
    let ids = [libc::pid_t::try_from(pid).unwrap()];
    // SAFETY: all zeros are valid arguments.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.exit_signal = libc::SIGCHLD.unsigned_abs().into();
    arguments.set_tid = ids.as_ptr() as u64;
    arguments.set_tid_size = 1;
    // SAFETY: a fork: the child has a copy of the memory, and does nothing but to run another program or to end.
    let made = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of_val(&arguments)) };
    if made == 0 {
        // SAFETY: the words and strings live until here, and the lists end with a null pointer.
        unsafe {
            libc::execve(program.as_ptr(), words.as_ptr(), environment.as_ptr());
            libc::_exit(127);
        }
    }
    rustix::process::Pid::from_raw(i32::try_from(made).ok()?).filter(|_| made > 0)
}

#[test]
fn another_process_that_gets_the_number_is_no_target() {
    if !root() {
        return;
    }
    let Some(program) = installed("inotifywait") else { return };
    for tier in TIERS {
        let scratch = Scratch::new("reused");
        let (file, other) = (scratch.file("app.conf"), scratch.dir("other"));
        let watcher: Program = inotifywait(&[&scratch.0], 1);
        let pid = watcher.pid();
        let mut live = Live::start(tier, pid);
        drop(watcher);
        // hotr looks every 200 ms.
        let Some(heir) = start_as(pid, &program, &scratch.0) else {
            return eprintln!("not run: the kernel gives no chosen process id");
        };
        fs::write(other.join("x"), "1\n").unwrap();
        fs::OpenOptions::new().append(true).open(&file).unwrap().write_all(b"2\n").unwrap();
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            live.until("summary", |line| line["type"] == "summary")
        }));
        rustix::process::kill_process(heir, rustix::process::Signal::KILL).unwrap();
        rustix::process::waitpid(Some(heir), rustix::process::WaitOptions::empty()).unwrap();
        let summary = ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        assert_eq!(summary["delivered"], 0, "{:?}", live.said);
        has_ended_with(live, pid, tier);
    }
}

#[test]
fn what_hotr_writes_itself_is_no_change_of_the_target() {
    if !root() {
        return;
    }
    for tier in TIERS {
        let scratch = Scratch::new("own-writes");
        let file = scratch.file("app.conf");
        let watcher = inotifywait(&[&scratch.0], 1);
        let (record, page) = (scratch.0.join("run.jsonl"), scratch.0.join("run.html"));
        let words = [
            "--tier".as_ref(),
            tier.as_ref(),
            "--record".as_ref(),
            record.as_os_str(),
            "--report".as_ref(),
            page.as_os_str(),
        ];
        let mut live = Live::with(&words, watcher.pid());
        for _ in 0..3 {
            fs::OpenOptions::new().append(true).open(&file).unwrap().write_all(b"2\n").unwrap();
            live.until("delivery", |line| {
                line["type"] == "delivery" && line["path"] == file.to_str().unwrap()
            });
        }
        // It has written while it followed the target, and the target received that.
        let before = fs::metadata(&record).unwrap().len();
        assert!(before > 0);
        let pid = rustix::process::Pid::from_child(&live.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        live.until("summary", |line| line["type"] == "summary");
        let own: Vec<_> = live
            .said
            .iter()
            .filter(|line| {
                matches!(line["type"].as_str(), Some("change" | "delivery"))
                    && line["path"] != file.to_str().unwrap()
            })
            .collect();
        assert!(own.is_empty(), "{tier}: {own:#?}");
        assert_eq!(live.child.wait().unwrap().code(), Some(0));
        assert!(fs::metadata(&record).unwrap().len() > before && fs::metadata(&page).unwrap().len() > 0);
    }
}
