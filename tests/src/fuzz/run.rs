//! The rounds of one filesystem.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::model::{Compared, Model};
use super::mounts::{Mounts, POINT};
use super::random::Random;
use super::real::{self, Entry};
use super::report::{self, Round};
use crate::observed::Observed;
use crate::session::{Deadlines, Session};

/// How the test runs.
#[derive(clap::Args, Clone, Debug)]
pub struct FuzzArgs {
    /// The program under test.
    #[arg(long)]
    pub hotr: PathBuf,
    /// Result file, in the form of the matrix's.
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Filesystems.
    #[arg(long, value_delimiter = ',', default_value = "tmpfs,ext4,ovl-ext4")]
    pub fs: Vec<String>,
    /// Tier of the eBPF programs.
    #[arg(long, default_value = "tracepoint")]
    pub tier: String,
    /// Operations, over all filesystems and writers.
    #[arg(long, default_value_t = 100_000)]
    pub ops: u64,
    /// Seed.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Writers on a filesystem.
    #[arg(long, default_value_t = 3)]
    pub writers: u64,
    /// Operations of a writer between two comparisons.
    #[arg(long, default_value_t = 700)]
    pub round: u64,
    /// Let changes of names overlap, too. At the tracepoint tier, which sees the end of a call, two that do may be reported
    /// in the other order.
    #[arg(long)]
    pub overlap: bool,
    /// Give names by whole paths, too. The tracepoint tier finds out after a call where its path led.
    #[arg(long)]
    pub paths: bool,
    /// Count a line that says that eBPF missed a change as a difference: all of these operations are seen by it. While
    /// directories move, inotify's paths are those of later moments.
    #[arg(long)]
    pub claims: bool,
    /// Mount nothing.
    #[arg(long)]
    pub no_mounts: bool,
    /// Test `hotr watch` instead of `hotr trace`: the state that the last command saw must be the tree.
    #[arg(long)]
    pub watch: bool,
    /// Continue after a difference, with the tree as it is.
    #[arg(long)]
    pub keep_going: bool,
    /// Where the whole log of a round that differed goes.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    pub logs: PathBuf,
}

/// After its last operation hotr has so long to have said everything about it.
const SETTLE: Duration = Duration::from_secs(5);

/// Lines are taken up together for this time.
const LISTEN: Duration = Duration::from_millis(100);

/// A writer's process.
pub(super) struct Writer {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

/// Where one filesystem is tested.
pub struct Place {
    /// Its name.
    pub fs: String,
    /// The traced directory.
    pub root: PathBuf,
    /// Not traced, on the same filesystem.
    pub outside: PathBuf,
    /// Not traced: is mounted over directories.
    pub source: PathBuf,
    /// The file whose lock orders the changes of names.
    pub lock: PathBuf,
}

impl Place {
    /// Makes the directories below the mount of a filesystem.
    ///
    /// # Errors
    /// They cannot be made.
    pub fn new(fs: &str, base: &Path) -> Result<Self> {
        let overlay = fs.starts_with("ovl");
        let top = if overlay { base.join("merged") } else { base.to_owned() };
        let place = Self {
            fs: fs.to_owned(),
            root: top.join("in"),
            outside: top.join("out"),
            source: top.join("source"),
            lock: base.join("lock"),
        };
        if overlay {
            // Some of the tree is in the lower layer, to be copied up.
            fill(&base.join("lower/in"))?;
        }
        for dir in [&place.root, &place.outside, &place.source] {
            std::fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
            if !overlay || dir != &place.root {
                fill(dir)?;
            }
        }
        let point = place.root.join(POINT);
        std::fs::create_dir_all(&point).with_context(|| format!("make {}", point.display()))?;
        std::fs::write(&place.lock, "").with_context(|| format!("make {}", place.lock.display()))?;
        Ok(place)
    }
}

/// Makes a small tree.
fn fill(dir: &Path) -> Result<()> {
    for sub in ["a", "b", "b/a", "c", "c/a", "c/a/b"] {
        let sub = dir.join(sub);
        std::fs::create_dir_all(&sub).with_context(|| format!("make {}", sub.display()))?;
        for file in ["d", "e"] {
            std::fs::write(sub.join(file), file.repeat(100))
                .with_context(|| format!("fill {}", sub.display()))?;
        }
    }
    Ok(())
}

impl Writer {
    pub(super) fn start(args: &FuzzArgs, place: &Place, number: u64) -> Result<Self> {
        let myself = std::env::current_exe().context("find this program")?;
        let mut command = Command::new(myself);
        command.arg("fuzz-writer").arg("--root").arg(&place.root).arg("--outside").arg(&place.outside);
        if !args.overlap {
            command.arg("--lock").arg(&place.lock);
        }
        if args.paths {
            command.arg("--paths");
        }
        command.args(["--seed", &args.seed.to_string(), "--number", &number.to_string()]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("start a writer")?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().context("take a writer's output")?);
        Ok(Self { child, input, output })
    }

    pub(super) fn begin(&mut self, count: u64) -> Result<()> {
        let input = self.input.as_mut().context("a writer has ended")?;
        writeln!(input, "{count}").context("order operations")
    }

    pub(super) fn end(&mut self, log: &mut Vec<String>) -> Result<()> {
        for line in (&mut self.output).lines() {
            let line = line.context("read a writer's log")?;
            if line == "." {
                return Ok(());
            }
            log.push(line);
        }
        bail!("a writer ended before its operations did")
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

/// What one filesystem came to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Comparisons made.
    pub rounds: u64,
    /// Operations that succeeded.
    pub done: u64,
    /// What else is worth a number, each with its name.
    pub counts: Vec<(&'static str, u64)>,
    /// Reports of differences.
    pub failures: Vec<String>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} comparisons, {} operations that succeeded", self.rounds, self.done)?;
        self.counts.iter().try_for_each(|(name, count)| write!(f, ", {count} {name}"))
    }
}

/// One filesystem under test.
struct Test<'a> {
    args: &'a FuzzArgs,
    place: &'a Place,
    session: Session,
    model: Model,
    before: BTreeMap<PathBuf, Entry>,
    mounts: Mounts,
    random: Random,
    outcome: Outcome,
    /// Lines that say that eBPF missed a change.
    alone: usize,
    /// Rounds in which hotr said that it had lost records.
    lossy: u64,
}

/// Tests one filesystem with so many operations.
///
/// # Errors
/// The test itself cannot be carried out. Differences are in the outcome.
pub fn run(args: &FuzzArgs, place: &Place, ops: u64) -> Result<Outcome> {
    let before = real::walk(&place.root)?;
    let model = Model::new(&place.root, &before, args.tier != "tracepoint");
    let deadlines = Deadlines { ready: Duration::from_secs(600), line: Duration::from_secs(30) };
    let roots = [place.root.as_path()];
    let (session, _) = Session::start(&args.hotr, "ebpf,inotify", &args.tier, &roots, deadlines, false)?;
    let random = Random::new(args.seed, 0);
    let outcome = Outcome::default();
    let mut test = Test {
        args,
        place,
        session,
        model,
        before,
        mounts: Mounts::default(),
        random,
        outcome,
        alone: 0,
        lossy: 0,
    };
    let mut writers =
        (0..args.writers).map(|number| Writer::start(args, place, number)).collect::<Result<Vec<_>>>()?;
    let rounds = ops.div_ceil(args.round * args.writers);
    for number in 0..rounds {
        test.round(number, &mut writers)?;
        if !test.outcome.failures.is_empty() && !args.keep_going {
            break;
        }
    }
    drop(writers);
    let end = test.session.finish()?;
    ensure!(end.status.success(), "hotr ended with {}: {}", end.status, test.session.messages());
    test.outcome.counts = vec![
        ("lines", test.session.changes),
        ("of them say that eBPF missed something", test.alone as u64),
        ("rounds with a loss", test.lossy),
    ];
    if test.lossy * 2 > rounds {
        test.outcome.failures.push(format!("hotr lost records in {} of {rounds} rounds", test.lossy));
    }
    Ok(test.outcome)
}

impl Test<'_> {
    fn round(&mut self, number: u64, writers: &mut [Writer]) -> Result<()> {
        let mut log = Vec::new();
        if !number.is_multiple_of(3) && !self.args.no_mounts {
            self.switch_mounts()?;
        }
        for writer in &mut *writers {
            writer.begin(self.args.round)?;
        }
        for writer in &mut *writers {
            writer.end(&mut log)?;
        }
        log.sort();
        self.outcome.done += log.iter().filter(|line| line.ends_with("= ok")).count() as u64;
        self.outcome.rounds += 1;
        self.session.barrier()?;
        let real = real::walk(&self.place.root)?;
        let lines = self.settle(&real, &log)?;
        let lost = self.lost();
        self.judge(number, &real, &lines, &log, lost)?;
        self.before = real;
        self.model.adopt(&self.before);
        Ok(())
    }

    /// Reads hotr's lines until the model is the tree, or it is certain that it will not be.
    fn settle(&mut self, real: &BTreeMap<PathBuf, Entry>, log: &[String]) -> Result<Vec<Observed>> {
        let unheard = self.unheard(log);
        let mut lines: Vec<Observed> = Vec::new();
        let over = std::time::Instant::now() + SETTLE;
        loop {
            for line in std::mem::take(&mut self.session.seen) {
                if is_barrier(&line.path) {
                    continue;
                }
                self.model.apply(&line);
                lines.push(line);
            }
            let differences = self.model.differences(real, &self.before, &unheard, self.compared());
            let now = std::time::Instant::now();
            if differences.is_empty() || now > over {
                return Ok(lines);
            }
            self.session.read_for(LISTEN, |_| false)?;
        }
    }

    fn compared(&self) -> Compared {
        // At the tracepoint tier type, inode and size are those of what had the name when the line was made.
        let exact = self.args.tier != "tracepoint";
        Compared { inodes: exact && !self.place.fs.starts_with("ovl"), types: exact }
    }

    /// Inodes whose stores through a mapping this tier is known not to see.
    fn unheard(&self, log: &[String]) -> Vec<u64> {
        let is_known = self.args.tier == "tracepoint" && self.place.fs != "ext4";
        let stores = log.iter().filter(|line| is_known && line.contains("mmap "));
        stores.filter_map(|line| line.split("ino=").nth(1)?.split(' ').next()?.parse().ok()).collect()
    }

    /// Whether hotr said that records were lost since the last comparison.
    fn lost(&mut self) -> Vec<String> {
        let lost = |line: &&serde_json::Value| {
            line["type"] == "loss" && line["channel"] == "ebpf" && line["reason"] != "unmounted"
        };
        self.session.others.iter().filter(lost).map(ToString::to_string).collect()
    }

    fn judge(
        &mut self,
        number: u64,
        real: &BTreeMap<PathBuf, Entry>,
        lines: &[Observed],
        log: &[String],
        lost: Vec<String>,
    ) -> Result<()> {
        let unheard = self.unheard(log);
        let mut differences = self.model.differences(real, &self.before, &unheard, self.compared());
        let is_alone = |line: &&Observed| line.missed_by.iter().any(|missed| missed.starts_with("ebpf:"));
        if let Some(line) = lines.iter().find(is_alone)
            && lost.is_empty()
        {
            self.alone += lines.iter().filter(is_alone).count();
            let count = lines.iter().filter(is_alone).count();
            let what = format!("{count} lines say that eBPF missed a change; the first is {}", line.text);
            if self.args.claims {
                differences.push((line.path.clone(), what));
            }
        }
        for line in lines {
            if line.seen_by.is_empty() {
                differences.push((line.path.clone(), format!("said to be seen by nobody: {}", line.text)));
            }
            differences.extend(line.encoding_problem.clone().map(|problem| (line.path.clone(), problem)));
        }
        differences
            .extend(self.session.broken.drain(..).map(|line| (PathBuf::new(), format!("no line: {line}"))));
        let others: Vec<String> = self.session.others.drain(..).map(|line| line.to_string()).collect();
        // What a search finds after a loss may be reported when the next round has begun, and is of an earlier moment.
        let is_found = lines.iter().any(|line| line.detail.iter().any(|detail| detail == "rescan"));
        if !lost.is_empty() || is_found {
            self.lossy += 1;
            println!("fuzz {} round {number}: {}", self.place.fs, lost.join(" "));
            return Ok(());
        }
        if differences.is_empty() {
            return Ok(());
        }
        let round = Round { root: &self.place.root, lines, others: &others, log };
        let path =
            self.args.logs.join(format!("hotr-fuzz-{}-{}-{number}.log", self.place.fs, self.args.seed));
        std::fs::write(&path, report::whole(&round)).with_context(|| format!("write {}", path.display()))?;
        self.outcome.failures.push(format!(
            "{} seed {} round {number} ({} operations a writer a round): {} differences; all lines in {}\n{}",
            self.place.fs,
            self.args.seed,
            self.args.round,
            differences.len(),
            path.display(),
            report::failure(&round, &differences)
        ));
        Ok(())
    }

    fn switch_mounts(&mut self) -> Result<()> {
        let (place, random) = (self.place, &mut self.random);
        self.mounts.switch(&mut self.session, random, &place.root, &place.source)?;
        // What is visible now was there before: no line reported it.
        self.session.seen.clear();
        self.before = real::walk(&place.root)?;
        self.model.adopt(&self.before);
        Ok(())
    }
}

fn is_barrier(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".barrier-"))
}
