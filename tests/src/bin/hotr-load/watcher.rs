//! A watcher under measurement: started, read line by line with deadlines, stopped.
//!
//! In: a command line. Out: its lines as they come, without a thread in between: the reader of the pipe is the one who
//! looks at the clock.

use std::{
    fs::{self, File},
    io::{PipeReader, Read as _},
    os::unix::{fs::FileExt as _, process::CommandExt as _},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use hotr_tests::asleep::is_asleep;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use serde::Deserialize;

/// How long anything that must happen may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A running watcher.
pub(crate) struct Watcher {
    name: String,
    child: Child,
    pipe: PipeReader,
    buffer: Vec<u8>,
    /// Bytes of `buffer` that were returned.
    taken: usize,
    /// What it said on stderr, when that is not in the pipe.
    said: File,
}

/// What reading gave.
pub(crate) enum Heard {
    /// A line, without its end.
    Line(Vec<u8>),
    /// The deadline came first.
    Late,
    /// The watcher closed its end.
    End,
}

/// The parts of hotr's JSON Lines that the benchmarks read.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Line {
    /// `ready`, `change`, `summary`, …
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// The changed file.
    #[serde(default)]
    pub(crate) path: String,
    /// `create`, `write`, …
    #[serde(default)]
    pub(crate) op: String,
    /// Writes that a change stands for.
    #[serde(default)]
    pub(crate) writes: u64,
    /// Bytes of them.
    #[serde(default)]
    pub(crate) bytes: u64,
    /// Records lost.
    #[serde(default)]
    pub(crate) count: u64,
    /// Totals of the kernel side.
    #[serde(default)]
    pub(crate) kernel: Option<serde_json::Map<String, serde_json::Value>>,
}

impl Line {
    /// Parses a line; `None` when it is not hotr's.
    pub(crate) fn parse(line: &[u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }
}

impl Watcher {
    /// Starts `command` with its output in a pipe, and with it what it says on stderr when `with_stderr`.
    pub(crate) fn start(mut command: Command, with_stderr: bool) -> Result<Self> {
        let name =
            Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (pipe, writer) = std::io::pipe().context("make a pipe")?;
        let said: File = memfd_create("stderr", MemfdFlags::CLOEXEC).context("make a file in memory")?.into();
        if with_stderr {
            command.stderr(writer.try_clone().context("copy the end of a pipe")?);
        } else {
            command.stderr(said.try_clone().context("copy a file in memory")?);
        }
        command.stdin(Stdio::null()).stdout(writer);
        // SAFETY: prctl is a plain system call, safe between fork and exec.
        unsafe {
            command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
        }
        let child = command.spawn().with_context(|| format!("start {name}"))?;
        // `command` holds the writing end: without it the pipe would never end.
        drop(command);
        Ok(Self { name, child, pipe, buffer: Vec::new(), taken: 0, said })
    }

    /// Process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line.
    pub(crate) fn line(&mut self, until: Instant) -> Result<Heard> {
        loop {
            if let Some(end) = self.buffer[self.taken..].iter().position(|&byte| byte == b'\n') {
                let line = self.buffer[self.taken..self.taken + end].to_vec();
                self.taken += end + 1;
                return Ok(Heard::Line(line));
            }
            self.buffer.drain(..self.taken);
            self.taken = 0;
            if !self.readable(until)? {
                return Ok(Heard::Late);
            }
            if self.fill()? == 0 {
                return Ok(Heard::End);
            }
        }
    }

    /// Reads what is in the pipe now; 0 at its end.
    fn fill(&mut self) -> Result<usize> {
        let start = self.buffer.len();
        self.buffer.resize(start + 64 * 1024, 0);
        let read = self.pipe.read(&mut self.buffer[start..]);
        self.buffer.truncate(start + *read.as_ref().unwrap_or(&0));
        read.with_context(|| format!("read the lines of {}", self.name))
    }

    /// Does `work` on a thread of its own, and meanwhile takes what the watcher says into memory. A watcher whose reader
    /// does not read waits for it.
    pub(crate) fn read_during<T: Send>(&mut self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let (over, end) = std::io::pipe().context("make a pipe")?;
        std::thread::scope(|scope| {
            let worker = scope.spawn(move || {
                let result = work();
                // The end of the pipe is what the loop waits for.
                drop(end);
                result
            });
            loop {
                let mut fds = [PollFd::new(&self.pipe, PollFlags::IN), PollFd::new(&over, PollFlags::IN)];
                match poll(&mut fds, None) {
                    Ok(_) | Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error).context("wait for lines"),
                }
                let (says, is_over) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
                if is_over || says && self.fill()? == 0 {
                    break;
                }
            }
            worker.join().map_err(|_| anyhow::anyhow!("the load panicked"))
        })
    }

    fn readable(&self, until: Instant) -> Result<bool> {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).context("wait for a line")?;
        let mut fds = [PollFd::new(&self.pipe, PollFlags::IN)];
        loop {
            match poll(&mut fds, Some(&timeout)) {
                Ok(ready) => return Ok(ready > 0),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).context("wait for a line"),
            }
        }
    }

    /// Waits for a line that contains `text`, passing each earlier one to `other`.
    pub(crate) fn expect(
        &mut self,
        text: &str,
        until: Instant,
        mut other: impl FnMut(&[u8]),
    ) -> Result<Vec<u8>> {
        let mut last = Vec::new();
        loop {
            match self.line(until)? {
                Heard::Line(line) if contains(&line, text.as_bytes()) => return Ok(line),
                Heard::Line(line) => {
                    other(&line);
                    last = line;
                }
                Heard::Late => bail!("{}: no line with {text:?} in time", self.name),
                Heard::End => {
                    let said = format!("{}{}", String::from_utf8_lossy(&last), self.said());
                    bail!("{} ended before it said {text:?}: {}", self.name, said.trim())
                }
            }
        }
    }

    /// Waits until each of these texts was in some line: what comes by stderr and by stdout comes in either order.
    pub(crate) fn expect_all(&mut self, texts: &[&str], until: Instant) -> Result<()> {
        let mut missing = texts.to_vec();
        while let Some(&text) = missing.first() {
            let seen =
                self.expect(text, until, |line| missing.retain(|text| !contains(line, text.as_bytes())))?;
            missing.retain(|text| !contains(&seen, text.as_bytes()));
        }
        Ok(())
    }

    /// The beginning of what it said on stderr.
    fn said(&self) -> String {
        let mut said = [0; 1024];
        let length = self.said.read_at(&mut said, 0).unwrap_or(0);
        String::from_utf8_lossy(&said[..length]).into_owned()
    }

    /// Ends the watcher as Ctrl-C does; the lines that still come go to `rest`.
    pub(crate) fn stop(mut self, mut rest: impl FnMut(&[u8])) -> Result<()> {
        self.signal()?;
        let until = Instant::now() + PATIENCE;
        loop {
            match self.line(until)? {
                Heard::Line(line) => rest(&line),
                Heard::End => break,
                Heard::Late => bail!("{}: did not end at SIGINT", self.name),
            }
        }
        self.child.wait().with_context(|| format!("wait for {}", self.name))?;
        Ok(())
    }

    fn signal(&self) -> Result<()> {
        let pid =
            i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("a process has an id")?;
        kill_process(pid, Signal::INT).with_context(|| format!("stop {}", self.name))
    }

    /// A field of `/proc/PID/status` in kB, for example `VmHWM`.
    pub(crate) fn memory(&self, field: &str) -> Result<u64> {
        let file = format!("/proc/{}/status", self.pid());
        let text = fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
        memory_field(&text, field).with_context(|| format!("find {field} in {file}"))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // Both fail only when the process is gone already.
            let _gone = self.child.kill();
            let _gone = self.child.wait();
        }
    }
}

/// `hotr trace --json` with more arguments, on `dir`. A channel that lacks a program would be cheap, and not what is to
/// be measured.
pub(crate) fn hotr(hotr: &Path, arguments: &[&str], dir: &Path) -> Result<Watcher> {
    let mut command = Command::new(hotr);
    command.args(["trace", "--json"]).args(arguments).arg(dir);
    let mut watcher = Watcher::start(command, false)?;
    let end = Instant::now() + PATIENCE;
    let ready = loop {
        match watcher.line(end)? {
            Heard::Line(line) if contains(&line, b"\"type\":\"ready\"") => break line,
            Heard::Line(_) => {}
            Heard::Late | Heard::End => bail!("hotr did not say that it is ready"),
        }
    };
    let degraded = contains(&ready, b"\"ebpf\":{\"state\":\"degraded\"");
    ensure!(!degraded, "hotr lacks programs: {}", String::from_utf8_lossy(&ready));
    Ok(watcher)
}

/// `inotifywait -m` with more arguments, on `dir`, with its watches established.
pub(crate) fn inotifywait(arguments: &[&str], dir: &Path) -> Result<Watcher> {
    let mut command = Command::new("inotifywait");
    command.arg("-m").args(arguments).arg(dir);
    let mut watcher = Watcher::start(command, true)?;
    watcher.expect("Watches established.", Instant::now() + PATIENCE, |_| ())?;
    Ok(watcher)
}

/// Waits until every thread of a process sleeps: it is done with what it received.
pub(crate) fn until_asleep(pid: u32) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while !are_asleep(pid)? {
        ensure!(Instant::now() < end, "process {pid} does not come to rest");
        std::thread::yield_now();
    }
    Ok(())
}

fn are_asleep(pid: u32) -> Result<bool> {
    let tasks = format!("/proc/{pid}/task");
    for task in fs::read_dir(&tasks).with_context(|| format!("read {tasks}"))? {
        // A thread may end meanwhile.
        let Ok(stat) = task.and_then(|task| fs::read_to_string(task.path().join("stat"))) else { continue };
        if !is_asleep(&stat) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether `text` is somewhere in `line`.
pub(crate) fn contains(line: &[u8], text: &[u8]) -> bool {
    line.windows(text.len()).any(|window| window == text)
}

fn memory_field(status: &str, field: &str) -> Option<u64> {
    let rest = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    rest.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_and_the_end_is_seen() {
        let mut command = Command::new("printf");
        command.arg("one\\ntwo\\nrest");
        let mut watcher = Watcher::start(command, false).unwrap();
        let until = Instant::now() + PATIENCE;
        let mut heard = Vec::new();
        while let Heard::Line(line) = watcher.line(until).unwrap() {
            heard.push(line);
        }
        assert_eq!(heard, [b"one".to_vec(), b"two".to_vec()]);
    }

    #[test]
    fn lines_are_read_while_work_is_done() {
        // More than a pipe holds, and the work is over only when all of it was said.
        let mut command = Command::new("head");
        command.args(["-c", "1000000", "/dev/zero"]);
        let mut watcher = Watcher::start(command, false).unwrap();
        let pid = Pid::from_raw(i32::try_from(watcher.pid()).unwrap()).unwrap();
        let ended = || {
            rustix::process::waitid(
                rustix::process::WaitId::Pid(pid),
                rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT,
            )
        };
        watcher.read_during(ended).unwrap().unwrap();
        while watcher.fill().unwrap() > 0 {}
        assert_eq!(watcher.buffer.len(), 1_000_000);
    }

    #[test]
    fn memory_is_read_in_kilobytes() {
        let status = "Name:\tx\nVmHWM:\t    2504 kB\nVmRSS:\t 1 kB\n";
        assert_eq!(memory_field(status, "VmHWM"), Some(2504));
        assert_eq!(memory_field(status, "Vm"), None);
    }

    #[test]
    fn a_summary_line_is_read() {
        let line = Line::parse(br#"{"type":"summary","changes":3,"kernel":{"seen":5}}"#).unwrap();
        assert_eq!(line.kind, "summary");
        assert_eq!(line.kernel.unwrap()["seen"], 5);
    }
}
