//! A running diagnosis of this process, and the instances that it is about.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use rustix::fs::inotify::{CreateFlags, Reader, WatchFlags, add_watch, init};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::group::Setting;
use crate::session::Deadlines;

/// The file that each case has in its directory.
pub(super) const NAME: &str = "app.conf";

/// An instance of this process.
pub(super) struct Watched {
    pub(super) instance: OwnedFd,
    pub(super) dir: PathBuf,
}

impl Watched {
    pub(super) fn new(dir: PathBuf, path: &Path, mask: WatchFlags) -> Result<Self> {
        fs::create_dir_all(&dir)?;
        fs::write(dir.join(NAME), "1\n")?;
        let instance = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        add_watch(&instance, path, mask)?;
        Ok(Self { instance, dir })
    }

    pub(super) fn fd(&self) -> i32 {
        self.instance.as_raw_fd()
    }

    /// Reads all events; how many there were.
    pub(super) fn read(&self) -> usize {
        let mut buf = [const { MaybeUninit::uninit() }; 1 << 14];
        let mut reader = Reader::new(&self.instance, &mut buf);
        let mut count = 0;
        while reader.next().is_ok() {
            count += 1;
        }
        count
    }

    pub(super) fn file(&self) -> PathBuf {
        self.dir.join(NAME)
    }

    /// Writes to the file without emptying it: one event.
    pub(super) fn append(&self, path: &Path) -> Result<()> {
        OpenOptions::new().append(true).open(path)?.write_all(b"2\n").context("write")
    }

    /// The same by another process.
    pub(super) fn appended(&self, path: &Path) -> Result<()> {
        let mut tee = Command::new("tee");
        let mut tee =
            tee.arg("-a").arg(path).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().context("tee")?;
        tee.stdin.take().context("tee's input")?.write_all(b"2\n")?;
        ensure!(tee.wait()?.success(), "tee failed");
        Ok(())
    }

    /// Writes a new file and renames it over the watched one.
    pub(super) fn replace(&self) -> Result<()> {
        let new = self.dir.join(".new");
        fs::write(&new, "3\n")?;
        fs::rename(&new, self.file()).context("rename")
    }
}

/// A running diagnosis.
pub(super) struct Live {
    child: Child,
    lines: Receiver<String>,
    pub(super) deadlines: Deadlines,
    /// Every `delivery` so far.
    pub(super) said: Vec<Value>,
    /// Every `finding`, all at the end.
    pub(super) findings: Vec<Value>,
    pub(super) tier: String,
    /// Changes that were not sent and are read all the same.
    pub(super) reread: u64,
    /// Records of deliveries, and changes, that hotr says it lost.
    pub(super) lost: u64,
    pub(super) lost_changes: u64,
    /// Until then it is to run: what was read later is not judged.
    pub(super) until: Instant,
    pub(super) summary: Option<Value>,
    pub(super) watched: Vec<Watched>,
    pub(super) base: PathBuf,
}

impl Live {
    pub(super) fn start(
        setting: &Setting<'_>,
        paths: &[&Path],
        watched: Vec<Watched>,
        base: PathBuf,
    ) -> Result<Self> {
        let mut child = command(setting, paths).spawn().context("start hotr")?;
        let lines = super::lines(&mut child)?;
        let deadlines = setting.deadlines;
        let (said, findings, until) = (Vec::new(), Vec::new(), Instant::now());
        let (lost, summary, tier) = (0, None, setting.tier.to_owned());
        let mut live = Self {
            child,
            lines,
            deadlines,
            said,
            findings,
            tier,
            reread: 0,
            lost,
            lost_changes: 0,
            until,
            summary,
            watched,
            base,
        };
        // It starts twice: the programs of a trace, and those at deliveries.
        let over = Instant::now() + 2 * deadlines.ready;
        let ready = live.line(over)?;
        ensure!(ready["type"] == "ready", "the first line is {ready}");
        let tier = expected(setting);
        ensure!(ready["tier"] == tier, "{tier} was expected: {ready}");
        Ok(live)
    }

    /// Whether stand-ins say what becomes of changes.
    pub(super) fn is_inferred(&self) -> bool {
        self.tier == "tracepoint"
    }

    /// What it says of a cause that functions prove.
    pub(super) fn proof(&self) -> &'static str {
        if self.is_inferred() { "inferred" } else { "proved" }
    }

    pub(super) fn line(&mut self, over: Instant) -> Result<Value> {
        let line = self.lines.recv_timeout(over.saturating_duration_since(Instant::now()));
        let last = &self.said[self.said.len().saturating_sub(3)..];
        let line = line.with_context(|| format!("wait for a line after {last:#?}"))?;
        let line: Value = serde_json::from_str(&line).with_context(|| line)?;
        if line["type"] == "delivery" {
            self.said.push(line.clone());
        } else if line["type"] == "finding" {
            self.findings.push(line.clone());
        } else if line["type"] == "loss" {
            let count = line["count"].as_u64().unwrap_or(0);
            let of_deliveries = line["reason"] == "deliveries-skipped";
            *(if of_deliveries { &mut self.lost } else { &mut self.lost_changes }) += count;
        } else if line["type"] == "summary" {
            self.summary = Some(line.clone());
        }
        Ok(line)
    }

    /// Waits until this many lines about an instance and a path have come.
    pub(super) fn about(
        &mut self,
        watched: Option<&Watched>,
        path: &Path,
        count: usize,
    ) -> Result<Vec<Value>> {
        let over = Instant::now() + self.deadlines.line;
        let fd = watched.map(Watched::fd);
        let is_it = |line: &Value| {
            line["path"] == *path.to_string_lossy() && line["target"]["fd"].as_i64() == fd.map(i64::from)
        };
        loop {
            let found: Vec<Value> = self.said.iter().filter(|line| is_it(line)).cloned().collect();
            if found.len() >= count {
                return Ok(found);
            }
            self.line(over)?;
        }
    }

    /// Ends it, reads the rest, and returns the status.
    pub(super) fn end(&mut self) -> Result<Option<i32>> {
        while Instant::now() < self.until {
            let _ = self.line(self.until);
        }
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let over = Instant::now() + self.deadlines.line;
        while self.summary.is_none() {
            self.line(over)?;
        }
        Ok(self.child.wait()?.code())
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.base);
    }
}

/// Whether the kernel skips programs on functions, because it preempts tasks in them (docs/coverage.toml).
fn is_skipped(setting: &Setting<'_>) -> bool {
    setting.tier == "fentry" && ["6.18", "7.3"].contains(&setting.kernel)
}

/// The tier that it then takes.
pub(super) fn expected<'a>(setting: &Setting<'a>) -> &'a str {
    if is_skipped(setting) { "kprobe" } else { setting.tier }
}

/// The tier that it is asked for.
pub(super) fn asked<'a>(setting: &Setting<'a>) -> &'a str {
    if is_skipped(setting) { "auto" } else { setting.tier }
}

pub(super) fn command(setting: &Setting<'_>, paths: &[&Path]) -> Command {
    let mut command = Command::new(setting.hotr);
    command.args(["diagnose", "--live", "--json", "--tier", asked(setting), "--pid"]);
    command.arg(std::process::id().to_string()).args(paths);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
}
