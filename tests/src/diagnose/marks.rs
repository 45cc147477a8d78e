//! `hotr trace --watcher`: the marks of this process.

use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::fs::inotify::WatchFlags;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::live::{Watched, asked, expected};
use crate::group::Setting;

pub(super) const NAME: &str = "live-marks";

/// A running trace; ended with its case.
struct Trace {
    child: Child,
    lines: Receiver<String>,
}

impl Trace {
    fn start(setting: &Setting<'_>, watched: &Watched) -> Result<Self> {
        let mut command = Command::new(setting.hotr);
        command.args(["trace", "--json", "--tier", asked(setting), "--watcher"]);
        command.arg(std::process::id().to_string()).arg(&watched.dir);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("start hotr")?;
        let lines = super::lines(&mut child)?;
        Ok(Self { child, lines })
    }

    /// The next line of this kind.
    fn next(&self, kind: &str, within: Duration) -> Result<Value> {
        let over = Instant::now() + within;
        loop {
            let line = self.lines.recv_timeout(over.saturating_duration_since(Instant::now()));
            let line = line.with_context(|| format!("wait for a line of the trace: {kind}"))?;
            let line: Value = serde_json::from_str(&line).with_context(|| line)?;
            if line["type"] == kind {
                return Ok(line);
            }
        }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is received, and what is lost with a replaced file, by the marks of a trace.
pub(super) fn marks(setting: &Setting<'_>) -> Result<()> {
    let dir = super::base(setting, "marks")?;
    let watched = &Watched::new(dir.clone(), &dir.join(super::live::NAME), WatchFlags::MODIFY)?;
    let result = made(setting, watched);
    let _ = std::fs::remove_dir_all(&dir);
    result
}

fn made(setting: &Setting<'_>, watched: &Watched) -> Result<()> {
    let mut trace = Trace::start(setting, watched)?;
    let ready = trace.next("ready", 2 * setting.deadlines.ready)?;
    let channel = &ready["channels"]["inotify"];
    ensure!(channel["tier"] == expected(setting), "{ready}");
    ensure!(channel["watcher"]["pid"] == std::process::id(), "{ready}");
    let line = setting.deadlines.line;
    watched.append(&watched.file())?;
    watched.read();
    let change = trace.next("change", line)?;
    let who = &change["watcher"];
    ensure!(who["state"] == "delivered" && who["fd"] == watched.fd(), "{change}");
    ensure!(change["seen_by"] == serde_json::json!(["ebpf", "inotify"]), "{change}");
    let proof = if setting.tier == "tracepoint" { "inferred" } else { "proved" };
    ensure!(who["proof"] == proof && change["missed_by"] == serde_json::json!([]), "{change}");
    watched.replace()?;
    watched.append(&watched.file())?;
    let lost = loop {
        let change = trace.next("change", line)?;
        if change["op"] == "write" && change["path"] == *watched.file().to_string_lossy() {
            break change;
        }
    };
    ensure!(lost["missed_by"][0]["cause"] == "replaced-file", "{lost}");
    ensure!(lost["seen_by"] == serde_json::json!(["ebpf"]) && lost["watcher"]["proof"] == proof, "{lost}");
    kill_process(Pid::from_child(&trace.child), Signal::TERM)?;
    trace.next("summary", line)?;
    ensure!(trace.child.wait()?.code() == Some(0), "the trace failed");
    Ok(())
}
