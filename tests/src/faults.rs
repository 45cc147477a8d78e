//! Faults that need a machine of their own: the time of day is set.
//!
//! Nothing here sleeps: each step waits for lines of hotr.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime, clock_settime};
use serde_json::Value;

use crate::group::{Group, Report, Setting};
use crate::own_child::OwnChild;

/// The cases.
pub const GROUP: Group = Group { place: "watch", names: || FAULTS.map(|(name, _)| name).to_vec(), make };

/// How long hotr may take for what follows from a fault; guests are slow.
const DEADLINE: Duration = Duration::from_secs(120);

/// Seconds: far more than any clock is slewed by.
const HOUR: i64 = 3600;

type Fault = fn(&mut Watch) -> Result<()>;

/// In this order: whatever is called missed is judged after the clock was set twice.
const FAULTS: [(&str, Fault); 2] = [
    ("clock-set-forward", |watch| clock_set(watch, "forward", HOUR)),
    ("clock-set-back", |watch| clock_set(watch, "back", -2 * HOUR)),
];

fn make(report: &mut Report<'_>) {
    let started = Watch::start(&report.setting);
    report.cases(FAULTS, started, |watch, fault| fault(watch), Watch::end);
}

/// A running `hotr watch`.
struct Watch {
    child: OwnChild,
    lines: Receiver<Value>,
    heard: Vec<Value>,
    file: PathBuf,
    content: u32,
}

impl Watch {
    fn start(setting: &Setting<'_>) -> Result<Self> {
        let Setting { hotr, tier, deadlines, .. } = *setting;
        let dir = std::env::temp_dir().join(format!("hotr-faults-{tier}"));
        fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        let file = dir.join("conf");
        fs::write(&file, "0")?;
        let mut command = Command::new(hotr);
        command.args(["watch", "--json", "-v", "--channels", "ebpf,inotify", "--tier", tier]).arg(&dir);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = OwnChild::start(&mut command)?;
        let (send, lines) = channel();
        let stdout = child.stdout.take().context("take hotr's output")?;
        let reports = send.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let value = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if reports.send(value).is_err() {
                    return;
                }
            }
        });
        let stderr = child.stderr.take().context("take hotr's messages")?;
        forward_messages(stderr, move |line| send.send(serde_json::json!({"said": line})).is_ok());
        let mut watch = Self { child, lines, heard: Vec::new(), file, content: 0 };
        let known =
            |line: &Value| line["said"].as_str().is_some_and(|text| text.contains("initial state recorded"));
        watch.until("the start", 0, deadlines.ready, |heard| {
            heard.iter().any(|line| line["type"] == "ready") && heard.iter().any(known)
        })?;
        Ok(watch)
    }

    /// Reads on until the lines after the first `since` are as they must be.
    fn until(
        &mut self,
        what: &str,
        since: usize,
        limit: Duration,
        done: impl Fn(&[Value]) -> bool,
    ) -> Result<()> {
        let over = Instant::now() + limit;
        while !done(&self.heard[since.min(self.heard.len())..]) {
            match self.lines.recv_timeout(over.saturating_duration_since(Instant::now())) {
                Ok(line) => self.heard.push(line),
                Err(error) => {
                    let last: Vec<String> =
                        self.heard.iter().rev().take(8).rev().map(Value::to_string).collect();
                    bail!("{what}: {error}; the last lines: {}", last.join(" "));
                }
            }
        }
        Ok(())
    }

    /// Writes other content, and waits for the one reload for it.
    fn reloads(&mut self, what: &str) -> Result<()> {
        let since = self.heard.len();
        self.content += 1;
        fs::write(&self.file, self.content.to_string())?;
        let path = self.file.clone();
        self.until(what, since, DEADLINE, |heard| {
            heard.iter().any(|line| {
                line["type"] == "reload"
                    && line["state"] == "started"
                    && line["changes"][0]["path"] == path.to_str().unwrap_or_default()
            })
        })
    }

    fn end(mut self) -> Result<()> {
        self.child.signal(Signal::TERM)?;
        self.until("the end", 0, DEADLINE, |heard| heard.iter().any(|line| line["type"] == "summary"))?;
        let status = self.child.wait().context("wait for hotr")?;
        ensure!(status.success(), "hotr ended with {status}");
        let reloads = self.heard.iter().filter(|line| line["type"] == "reload" && line["state"] == "started");
        let reloads = u32::try_from(reloads.count())?;
        ensure!(reloads == self.content, "{} changes, {reloads} reloads: {:#?}", self.content, self.heard);
        Ok(())
    }
}

fn forward_messages(from: impl Read + Send + 'static, send: impl Fn(String) -> bool + Send + 'static) {
    std::thread::spawn(move || BufReader::new(from).lines().map_while(Result::ok).all(send));
}

fn is_channel(line: &Value, name: &str, state: &str, why: &str) -> bool {
    line["type"] == "channel"
        && line["name"] == name
        && line["state"] == state
        && line["why"].as_str().is_some_and(|text| text.contains(why))
}

/// The step is reported with its direction, all files are checked, changes are still received, and nothing is called
/// missed: times of before the step prove nothing.
fn clock_set(watch: &mut Watch, way: &str, by: i64) -> Result<()> {
    watch.reloads("a change before the clock is set")?;
    let since = watch.heard.len();
    let mut time = clock_gettime(ClockId::Realtime);
    time.tv_sec += by;
    clock_settime(ClockId::Realtime, time).context("set the clock")?;
    watch.reloads("a change just after the clock was set")?;
    let told = format!("the clock was set {way} by");
    watch.until(&told, since, DEADLINE, |heard| {
        heard.iter().any(|line| is_channel(line, "poll", "active", &told))
            && heard.iter().any(|line| is_channel(line, "poll", "idle", "all files were checked"))
    })?;
    watch.reloads("a change after the audit")?;
    let bad = |line: &&Value| {
        line["type"] == "change" && line["seen_by"] == serde_json::json!(["poll"])
            || line["state"] == "degraded"
            || line["type"] == "loss" && line["reason"] != "program-skipped"
    };
    match watch.heard.iter().find(bad) {
        Some(line) => bail!("unexpected: {line}"),
        None => Ok(()),
    }
}
