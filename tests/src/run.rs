//! All operations on one filesystem in one tier, and the verdict on each.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::exceptions::Exceptions;
use crate::expect::Expect;
use crate::observed::Observed;
use crate::ops::{Cell, OpError, Operation, Prepared};
use crate::place::Place;
use crate::session::{Deadlines, End, Session};
use crate::verdict::{Facts, Verdict, decide};

/// After so many barriers in a row that were not reported, the rest of a run is not tried.
const PATIENCE: usize = 3;

/// Sessions in which a cell may be tried, where the table says that cells are run again.
const SESSIONS: usize = 8;

/// How a session ended.
struct Ended {
    outcomes: Vec<Outcome>,
    /// hotr reported that the kernel had skipped programs.
    skipped: bool,
}

/// One line of the result file.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Outcome {
    /// Label of the kernel.
    pub kernel: String,
    /// Filesystem.
    pub fs: String,
    /// Tier of the eBPF programs.
    pub tier: String,
    /// Operation, or `ready` and `summary` for the beginning and end of the run.
    pub op: String,
    /// Verdict.
    pub result: Verdict,
    /// Reason of an exception or failure.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

impl Outcome {
    /// Of something that has a result instead of lines to be compared.
    pub fn of(kernel: &str, fs: &str, tier: &str, op: &str, result: Result<()>) -> Self {
        Self {
            kernel: kernel.to_owned(),
            fs: fs.to_owned(),
            tier: tier.to_owned(),
            op: op.to_owned(),
            result: if result.is_ok() { Verdict::Pass } else { Verdict::Fail },
            why: result.err().map(|error| format!("{error:#}")).unwrap_or_default(),
        }
    }
}

/// One run.
pub struct Run<'a> {
    /// The program.
    pub hotr: &'a Path,
    /// Label of the kernel.
    pub kernel: &'a str,
    /// Tier.
    pub tier: &'a str,
    /// Deadlines.
    pub deadlines: Deadlines,
    /// Print all lines of hotr.
    pub verbose: bool,
    /// The table.
    pub exceptions: &'a Exceptions,
}

/// What an operation did.
struct Done<'a> {
    operation: &'a Operation,
    phase: usize,
    elapsed: Duration,
    expect: Vec<Expect>,
    result: Result<(), OpError>,
    barrier: Result<()>,
}

impl Run<'_> {
    /// Runs the operations. Cells that failed in a session in which hotr reported skipped programs are run again in
    /// another one, where the table says so: what is judged is a session without that loss. `fresh` makes the
    /// directories of a session.
    ///
    /// # Errors
    /// The directories cannot be made.
    pub fn all(
        &self,
        operations: &[&Operation],
        mut fresh: impl FnMut() -> Result<Place>,
    ) -> Result<Vec<Outcome>> {
        let place = fresh()?;
        let mut operations: Vec<&Operation> =
            operations.iter().copied().filter(|op| op.runs_at(&place)).collect();
        let mut ended = self.session(&place, &operations);
        let mut outcomes = std::mem::take(&mut ended.outcomes);
        let may_run_again = self.exceptions.may_run_again(self.kernel, place.fs(), self.tier);
        for _ in 1..SESSIONS {
            let failed = |op: &str| outcomes.iter().any(|cell| cell.op == op && cell.result == Verdict::Fail);
            if !may_run_again || !ended.skipped {
                break;
            }
            operations.retain(|op| failed(op.id));
            println!("again, because hotr reported skipped programs: {} cells", operations.len());
            ended = self.session(&fresh()?, &operations);
            for cell in std::mem::take(&mut ended.outcomes) {
                match outcomes.iter_mut().find(|known| known.op == cell.op) {
                    Some(known) => *known = cell,
                    None => outcomes.push(cell),
                }
            }
        }
        Ok(outcomes)
    }

    /// One session: hotr is started, the operations run, hotr ends. Everything that goes wrong is an outcome.
    fn session(&self, place: &Place, operations: &[&Operation]) -> Ended {
        let prepared: Vec<_> = operations.iter().map(|op| (*op, prepare(place, op))).collect();
        settle(place);
        let (mut session, ready) = match Session::start(
            self.hotr,
            "ebpf,inotify",
            self.tier,
            &[place.traced()],
            self.deadlines,
            self.verbose,
        ) {
            Ok(started) => started,
            Err(error) => {
                let mut outcomes =
                    vec![self.verdict(place, "ready", vec![format!("hotr did not start: {error:#}")])];
                let not_run = |op: &&Operation| {
                    self.outcome(place, op.id, Verdict::Fail, "not run: hotr did not start".to_owned())
                };
                outcomes.extend(operations.iter().map(not_run));
                return Ended { outcomes, skipped: false };
            }
        };
        let mut outcomes = vec![self.judge_ready(place, &ready)];
        let done = run_operations(&mut session, prepared);
        let storms = wait_for_storms(&mut session, &done);
        let end = storms.and_then(|()| session.finish());
        for (number, one) in done.iter().enumerate() {
            let lines = lines_of(place, number, &done, &session.seen);
            outcomes.push(self.judge(place, one, &lines));
        }
        outcomes.push(self.judge_end(place, &session, end));
        let skipped = session.others.iter().any(is_skipped);
        Ended { outcomes, skipped }
    }

    fn outcome(&self, place: &Place, op: &str, result: Verdict, why: String) -> Outcome {
        Outcome {
            kernel: self.kernel.to_owned(),
            fs: place.fs().to_owned(),
            tier: self.tier.to_owned(),
            op: op.to_owned(),
            result,
            why,
        }
    }

    fn verdict(&self, place: &Place, op: &str, problems: Vec<String>) -> Outcome {
        let result = if problems.is_empty() { Verdict::Pass } else { Verdict::Fail };
        self.outcome(place, op, result, problems.join("; "))
    }

    fn judge_ready(&self, place: &Place, ready: &serde_json::Value) -> Outcome {
        let mut problems = Vec::new();
        let ebpf = &ready["channels"]["ebpf"];
        if ebpf["state"] != "active" || ebpf["tier"] != self.tier {
            problems.push(format!("ebpf channel: expected active in tier {}, got {ebpf}", self.tier));
        }
        if ready["channels"]["inotify"]["state"] != "active" {
            problems.push(format!("inotify channel: {}", ready["channels"]["inotify"]));
        }
        if ready["roots"][0]["path"].as_str().map(Path::new) != Some(place.traced()) {
            problems.push(format!("roots: {}", ready["roots"]));
        }
        self.verdict(place, "ready", problems)
    }

    fn judge(&self, place: &Place, done: &Done<'_>, lines: &[&Observed]) -> Outcome {
        let id = done.operation.id;
        let (result, why) = decide(&Facts {
            expect: &done.expect,
            lines,
            phase: done.phase,
            elapsed: done.elapsed,
            result: &done.result,
            barrier: done.barrier.as_ref().map_err(|error| format!("{error:#}")).copied(),
            on_disk: !place.is_overlay(),
            exception: self.exceptions.find(self.kernel, place.fs(), self.tier, id),
        });
        self.outcome(place, id, result, why)
    }

    fn judge_end(&self, place: &Place, session: &Session, end: Result<End>) -> Outcome {
        let mut problems = Vec::new();
        match end {
            Err(error) => problems.push(format!("{error:#}; messages: {}", session.messages())),
            Ok(end) => {
                if !end.status.success() {
                    problems.push(format!("{}; messages: {}", end.status, session.messages()));
                }
                match end.summary {
                    None => problems.push("no summary line".to_owned()),
                    Some(summary) => problems.extend(check_summary(&summary, session.changes)),
                }
            }
        }
        problems.extend(session.broken.iter().map(|line| format!("not a line of the contract: {line}")));
        let complaints = session.others.iter().filter(|line| line["type"] != "summary");
        problems.extend(complaints.map(|line| format!("unexpected line: {line}")));
        self.verdict(place, "summary", problems)
    }
}

/// Everything before the fixtures' changes are on disk, so that the pages of the fixtures are clean.
fn settle(place: &Place) {
    if let Ok(dir) = std::fs::File::open(place.traced()) {
        // A filesystem that cannot sync has clean or no pages; the cells say it if that matters.
        let _ = rustix::fs::syncfs(dir);
    }
}

pub(crate) fn prepare(place: &Place, operation: &Operation) -> Result<Prepared, OpError> {
    (operation.prepare)(&Cell::new(place, operation)?)
}

fn run_operations<'a>(
    session: &mut Session,
    prepared: Vec<(&'a Operation, Result<Prepared, OpError>)>,
) -> Vec<Done<'a>> {
    let mut unheard = 0;
    let mut barrier = |session: &mut Session| {
        if unheard >= PATIENCE {
            anyhow::bail!("not tried: {PATIENCE} barriers before were not reported");
        }
        let result = session.barrier();
        unheard = if result.is_ok() { 0 } else { unheard + 1 };
        result
    };
    let mut first = Some(barrier(session));
    let mut out = Vec::new();
    for (operation, prepared) in prepared {
        let mut before = first.take().unwrap_or(Ok(()));
        let (expect, result, elapsed, phase) = match prepared {
            Err(error) => (Vec::new(), Err(error), Duration::ZERO, session.phase()),
            Ok(prepared) => {
                let mut result = Ok(());
                if let Some(act) = prepared.before {
                    result = act();
                    before = before.and_then(|()| barrier(session));
                }
                let (phase, start) = (session.phase(), Instant::now());
                let result = result.and_then(|()| (prepared.act)());
                (prepared.expect, result, start.elapsed(), phase)
            }
        };
        let after = barrier(session);
        out.push(Done { operation, phase, elapsed, expect, result, barrier: before.and(after) });
    }
    out
}

/// The totals of repeated changes come up to a coalescing window later.
fn wait_for_storms(session: &mut Session, done: &[Done<'_>]) -> Result<()> {
    let storms: Vec<&Expect> =
        done.iter().filter(|d| d.result.is_ok()).flat_map(|d| &d.expect).filter(|e| e.repeated).collect();
    let told = |seen: &[Observed], storm: &Expect| {
        let writes: u64 =
            seen.iter().filter(|line| line.path == storm.path).filter_map(|line| line.writes).sum();
        storm.writes.is_none_or(|expected| writes >= expected)
    };
    // A total that never comes is judged in its own cell; here it only means that waiting is over.
    drop(session.read_until(|session| storms.iter().all(|storm| told(&session.seen, storm))));
    Ok(())
}

/// The lines of one operation: those with a path in its directories, and those with a path in no operation's
/// directory that came while it ran.
fn lines_of<'a>(place: &Place, number: usize, done: &[Done<'_>], seen: &'a [Observed]) -> Vec<&'a Observed> {
    let directory = |path: &'a Path| {
        let inner = path.strip_prefix(place.traced()).or_else(|_| path.strip_prefix(place.outside())).ok()?;
        inner.components().next()
    };
    let owner = |line: &'a Observed| {
        let old = line.old_path.as_deref().and_then(directory);
        let names = [directory(&line.path), old];
        done.iter().position(|one| names.iter().flatten().any(|name| name.as_os_str() == one.operation.id))
    };
    let this = &done[number];
    let next = done.get(number + 1).map_or(usize::MAX, |next| next.phase);
    seen.iter()
        .filter(|line| match owner(line) {
            Some(owner) => owner == number && line.phase >= this.phase,
            None => (this.phase..next).contains(&line.phase),
        })
        .collect()
}

/// Whether a line reports that the kernel did not run programs.
fn is_skipped(line: &serde_json::Value) -> bool {
    line["type"] == "loss" && line["reason"] == "program-skipped"
}

fn check_summary(summary: &serde_json::Value, changes: u64) -> Vec<String> {
    let mut out = Vec::new();
    if summary["changes"] != changes {
        out.push(format!("summary: {changes} change lines were printed, it says {}", summary["changes"]));
    }
    let total = |name: &str| summary["kernel"][name].as_u64();
    let parts = ["submitted", "coalesced", "filtered", "ring_full", "oversize"];
    let sum = parts.iter().filter_map(|name| total(name)).sum::<u64>();
    if total("seen") != Some(sum) {
        out.push(format!("summary: seen is not the sum of its parts: {}", summary["kernel"]));
    }
    if total("ring_full").unwrap_or(0) + total("oversize").unwrap_or(0) != 0 {
        out.push(format!("summary: records were lost: {}", summary["kernel"]));
    }
    out
}
