//! The fuzz test of `hotr watch`: when the writers rest, the state that the last command saw has to be the tree.
//!
//! The command that hotr runs is this program ([`look`]): it writes down which files it found, and their content. After a change
//! that it came too early for it must be run again. What hotr prints is taken for nothing but the report of a failure and the
//! number of files that only an audit found.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use super::mounts::Mounts;
use super::random::Random;
use super::real;
use super::report::{self, Round};
use super::run::{FuzzArgs, Outcome, Place, Writer};
use crate::own_child::{OwnChild, lines_of};

/// How long hotr may take, after the last operation, until its command has seen the tree. An audit, which finds what no channel
/// of this tier reports, comes every second.
const SETTLE: Duration = Duration::from_secs(15);
/// How long it may take to start and to end.
const PATIENCE: Duration = Duration::from_secs(60);
/// Lines that a failure shows.
const LINES: usize = 200;

/// What is a file's state: its type, and a hash of its content.
type State = BTreeMap<PathBuf, (String, u64)>;

/// The command that `hotr watch` runs.
#[derive(clap::Args, Clone, Debug)]
pub struct LookArgs {
    /// The watched directory.
    #[arg(long)]
    pub root: PathBuf,
    /// Where the state goes.
    #[arg(long)]
    pub into: PathBuf,
}

/// Writes down the state of a tree. What disappears meanwhile is left out.
///
/// # Errors
/// The state cannot be written.
pub fn look(args: &LookArgs) -> Result<()> {
    let text = serde_json::to_vec(&state_of(&real::walk_moving(&args.root))).context("write the state")?;
    let new = args.into.with_extension("new");
    std::fs::write(&new, text).with_context(|| format!("write {}", new.display()))?;
    std::fs::rename(&new, &args.into).with_context(|| format!("rename {}", new.display()))
}

/// Files whose content can change.
fn state_of(tree: &BTreeMap<PathBuf, real::Entry>) -> State {
    let files = tree.iter().filter(|(_, entry)| entry.kind == "file");
    files.map(|(path, entry)| (path.clone(), (entry.kind.to_owned(), entry.content))).collect()
}

/// A running `hotr watch`.
struct Watch {
    child: OwnChild,
    lines: Receiver<String>,
    last: VecDeque<String>,
    audits: u64,
    losses: u64,
}

impl Watch {
    fn start(args: &FuzzArgs, place: &Place, seen: &Path) -> Result<Self> {
        let myself = std::env::current_exe().context("find this program")?;
        let mut command = Command::new(&args.hotr);
        command
            .args(["watch", "--json", "--poll=1s", "--tier", &args.tier])
            .arg(&place.root)
            .arg("--")
            .arg(&myself);
        command.arg("fuzz-look").arg("--root").arg(&place.root).arg("--into").arg(seen);
        let mut child = OwnChild::start(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
        let lines = lines_of(child.stdout.take().context("take hotr's output")?);
        Ok(Self { child, lines, last: VecDeque::new(), audits: 0, losses: 0 })
    }

    /// Takes lines until this is so, or the time is over; whether it is.
    fn read_until(&mut self, limit: Duration, mut done: impl FnMut() -> Result<bool>) -> Result<bool> {
        let deadline = Instant::now() + limit;
        while !done()? {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.take(line),
                Err(RecvTimeoutError::Timeout) => return done(),
                Err(RecvTimeoutError::Disconnected) => anyhow::bail!("hotr has ended"),
            }
        }
        Ok(true)
    }

    fn take(&mut self, line: String) {
        if let Ok(value) = serde_json::from_str::<Value>(&line) {
            let detail = value["detail"].as_array().into_iter().flatten();
            self.audits += u64::from(detail.into_iter().any(|word| word == "audit"));
            self.losses += u64::from(value["type"] == "loss");
        }
        if self.last.len() == LINES {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }

    fn finish(mut self) -> Result<()> {
        self.child.signal(Signal::INT)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.take(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => anyhow::bail!("hotr did not end after SIGINT"),
            }
        }
        let status = self.child.wait().context("wait for hotr")?;
        ensure!(status.success(), "hotr ended with {status}");
        Ok(())
    }
}

/// Tests one filesystem with so many operations.
///
/// # Errors
/// The test itself cannot be carried out. Differences are in the outcome.
pub fn run(args: &FuzzArgs, place: &Place, ops: u64) -> Result<Outcome> {
    let seen = place.lock.with_file_name("seen");
    let mut watch = Watch::start(args, place, &seen)?;
    ensure!(
        watch.read_until(PATIENCE, || Ok(seen.exists()))?,
        "hotr did not run its command at the start; it printed {:?}",
        watch.last
    );
    let mut writers =
        (0..args.writers).map(|number| Writer::start(args, place, number)).collect::<Result<Vec<_>>>()?;
    let (mut mounts, mut random) = (Mounts::default(), Random::new(args.seed, 0));
    let mut outcome = Outcome::default();
    for number in 0..ops.div_ceil(args.round * args.writers) {
        let mut log = Vec::new();
        if !number.is_multiple_of(3) && !args.no_mounts {
            log.push(mounts.change(&mut random, &place.root, &place.source)?.to_owned());
        }
        for writer in &mut writers {
            writer.begin(args.round)?;
        }
        for writer in &mut writers {
            writer.end(&mut log)?;
        }
        log.sort();
        outcome.done += log.iter().filter(|line| line.ends_with("= ok")).count() as u64;
        outcome.rounds += 1;
        let real = state_of(&real::walk(&place.root)?);
        if watch.read_until(SETTLE, || Ok(read(&seen)? == real))? {
            continue;
        }
        outcome.failures.push(failure(
            args,
            place,
            number,
            &differences(&read(&seen)?, &real),
            &watch,
            &log,
        )?);
        if !args.keep_going {
            break;
        }
    }
    outcome.counts = vec![("changes that only an audit found", watch.audits), ("losses", watch.losses)];
    drop(writers);
    watch.finish()?;
    Ok(outcome)
}

/// The state that the last command saw.
fn read(seen: &Path) -> Result<State> {
    let text = std::fs::read(seen).with_context(|| format!("read {}", seen.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("parse {}", seen.display()))
}

fn differences(seen: &State, real: &State) -> Vec<(PathBuf, String)> {
    let missing = real.iter().filter(|(path, state)| seen.get(*path) != Some(state));
    let missing = missing.map(|(path, _)| {
        let what = if seen.contains_key(path) { "is different since" } else { "is new since" };
        (path.clone(), format!("{what} the last command"))
    });
    let left = seen.keys().filter(|path| !real.contains_key(*path));
    missing
        .chain(left.map(|path| (path.clone(), "is no longer there since the last command".to_owned())))
        .collect()
}

fn failure(
    args: &FuzzArgs,
    place: &Place,
    number: u64,
    differences: &[(PathBuf, String)],
    watch: &Watch,
    log: &[String],
) -> Result<String> {
    let others: Vec<String> = watch.last.iter().cloned().collect();
    let round = Round { root: &place.root, lines: &[], others: &others, log };
    let path = args.logs.join(format!("hotr-fuzz-watch-{}-{}-{number}.log", place.fs, args.seed));
    std::fs::write(&path, report::whole(&round)).with_context(|| format!("write {}", path.display()))?;
    Ok(format!(
        "{} seed {} round {number}: {} files of which no command saw the last state; all lines in {}\n{}",
        place.fs,
        args.seed,
        differences.len(),
        path.display(),
        report::failure(&round, differences)
    ))
}
