//! A full audit of large trees, beside `find -newermt` and notify's PollWatcher, in turns; memory of each; growth.
//!
//! Each subject is a process of its own that holds its snapshot and makes a round when asked: a line on standard
//! input asks, a line on standard output answers when the round is over.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{atomic::AtomicBool, mpsc},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, ValueEnum};
use hotr_user::options::TierChoice;
use hotr_user::source::ebpf::{EbpfOptions, EbpfSource};
use hotr_user::source::poll::{PollOptions, Poller, Progress};
use notify::{Config, EventKind, PollWatcher, RecursiveMode, Watcher as _};

use crate::figures::{Figures, median};

/// How large the trees are.
#[derive(Args)]
pub(crate) struct PollArgs {
    /// An existing folder to work in; the trees stay there
    #[arg(long)]
    dir: PathBuf,
    /// Files of each tree
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 100_000, 1_000_000, 3_000_000])]
    files: Vec<usize>,
    /// Rounds of each subject
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// A folder for poll.md and poll.svg, the growth as a table and a plot
    #[arg(long)]
    into: Option<PathBuf>,
}

/// One subject.
#[derive(Args)]
pub(crate) struct SubjectArgs {
    who: Who,
    tree: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Who {
    Hotr,
    Notify,
}

/// Directories of a tree.
const DIRECTORIES: usize = 1000;
const SENTINEL: &str = "sentinel-of-the-load";
const NAMES: [&str; 3] = ["hotr", "find", "notify"];

/// Entry point of the benchmark.
pub(crate) fn run(args: &PollArgs, out: &mut Figures) -> Result<()> {
    let mut growth = Vec::new();
    for files in &args.files {
        let tree = args.dir.join(format!("poll-{files}"));
        make(&tree, *files)?;
        growth.push(measure(&tree, *files, args.rounds, out)?);
    }
    if let Some(into) = &args.into {
        crate::poll_doc::write(into, &growth, args.rounds, &args.dir)?;
    }
    Ok(())
}

/// The medians of one tree, by subject.
pub(crate) struct Size {
    pub(crate) files: usize,
    pub(crate) wall: [f64; 3],
    pub(crate) cpu: [f64; 3],
    pub(crate) resident: [f64; 3],
}

/// `files` empty files in [`DIRECTORIES`] directories.
pub(crate) fn make(tree: &Path, files: usize) -> Result<()> {
    for index in 0..DIRECTORIES {
        let folder = tree.join(format!("d{index:04}"));
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        for number in (index..files).step_by(DIRECTORIES) {
            let file = folder.join(format!("file-{number:07}"));
            File::create(&file).with_context(|| format!("make {}", file.display()))?;
        }
    }
    Ok(())
}

fn measure(tree: &Path, files: usize, rounds: usize, out: &mut Figures) -> Result<Size> {
    let (mut hotr, mut notify) = (Subject::start(Who::Hotr, tree)?, Subject::start(Who::Notify, tree)?);
    let mut runs: [Vec<(f64, f64)>; 3] = Default::default();
    // Two rounds that are not counted: they leave the tree's new and changed files behind.
    for round in 0..rounds + 2 {
        let found = [hotr.round()?, find(tree)?, notify.round()?];
        if round >= 2 {
            runs.iter_mut().zip(found).for_each(|(runs, found)| runs.push(found));
        }
    }
    let resident = [hotr.resident()?, 0.0, notify.resident()?];
    hotr.stop()?;
    notify.stop()?;
    let each = |pick: &dyn Fn(&(f64, f64)) -> f64| {
        runs.each_ref().map(|runs| median(&runs.iter().map(pick).collect::<Vec<_>>()))
    };
    let size = Size { files, wall: each(&|run| run.0), cpu: each(&|run| run.1), resident };
    for (index, name) in NAMES.iter().enumerate() {
        out.value(format!("poll/{files}/{name}/wall-ms"), size.wall[index] * 1e3)?;
        out.value(format!("poll/{files}/{name}/cpu-ms"), size.cpu[index] * 1e3)?;
        out.value(format!("poll/{files}/{name}/resident-mb"), size.resident[index])?;
    }
    // The middle of the ratios of single turns: a burst of other work on the machine strikes both sides of one turn.
    let ratio = |other: usize, pick: &dyn Fn(&(f64, f64)) -> f64| {
        median(&runs[0].iter().zip(&runs[other]).map(|(a, b)| pick(a) / pick(b)).collect::<Vec<_>>())
    };
    out.value(format!("poll/{files}/wall-by-find"), ratio(1, &|run| run.0))?;
    out.value(format!("poll/{files}/cpu-by-find"), ratio(1, &|run| run.1))?;
    out.value(format!("poll/{files}/wall-by-notify"), ratio(2, &|run| run.0))?;
    Ok(size)
}

/// `find TREE -newermt '2 seconds ago'`: wall and processor seconds.
fn find(tree: &Path) -> Result<(f64, f64)> {
    let before = cpu(libc::RUSAGE_CHILDREN);
    let begin = Instant::now();
    let mut command = Command::new("find");
    command.arg(tree).args(["-newermt", "2 seconds ago"]).stdout(Stdio::null());
    let status = command.status().context("run find")?;
    ensure!(status.success(), "find ended with {status}");
    Ok((begin.elapsed().as_secs_f64(), (cpu(libc::RUSAGE_CHILDREN) - before).as_secs_f64()))
}

/// Processor time so far.
pub(crate) fn cpu(who: libc::c_int) -> Duration {
    // SAFETY: plain numbers, for which all zeros are a value; the call takes a pointer to one that lives on.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(who, &raw mut usage);
        usage
    };
    let of = |time: libc::timeval| {
        Duration::from_micros(time.tv_sec.unsigned_abs() * 1_000_000 + time.tv_usec.unsigned_abs())
    };
    of(usage.ru_utime) + of(usage.ru_stime)
}

struct Subject {
    child: Child,
    ask: ChildStdin,
    answer: BufReader<ChildStdout>,
}

impl Subject {
    fn start(who: Who, tree: &Path) -> Result<Self> {
        let name = if who == Who::Hotr { "hotr" } else { "notify" };
        let mut command = Command::new("/proc/self/exe");
        command.args(["poll-subject", name]).arg(tree);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("start")?;
        let (Some(ask), Some(answer)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("a subject has no pipes")
        };
        let mut subject = Self { child, ask, answer: BufReader::new(answer) };
        subject.line()?;
        Ok(subject)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.answer.read_line(&mut line)? > 0, "a subject ended early");
        Ok(line)
    }

    fn round(&mut self) -> Result<(f64, f64)> {
        self.ask.write_all(b"round\n")?;
        let line = self.line()?;
        let (wall, cpu) = line.trim().split_once(' ').context("an answer has two numbers")?;
        Ok((wall.parse()?, cpu.parse()?))
    }

    /// Megabytes of 10^6 bytes.
    fn resident(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(crate::ready::megabytes(line.trim().trim_end_matches("kB").trim().parse()?))
    }

    fn stop(self) -> Result<()> {
        let Self { mut child, ask, .. } = self;
        drop(ask);
        child.wait().context("wait for a subject")?;
        Ok(())
    }
}

/// The body of a subject.
pub(crate) fn subject(args: &SubjectArgs) -> Result<()> {
    let mut round: Box<dyn FnMut() -> Result<Timed>> = match args.who {
        Who::Hotr => hotr(&args.tree)?,
        Who::Notify => notify(&args.tree)?,
    };
    println!("ready");
    for _ in std::io::stdin().lines() {
        let (wall, cpu) = round()?;
        println!("{wall} {cpu}");
    }
    Ok(())
}

/// Wall and processor seconds.
type Timed = (f64, f64);

fn timed(work: impl FnOnce() -> Result<()>) -> Result<Timed> {
    let (begin, before) = (Instant::now(), cpu(libc::RUSAGE_SELF));
    work()?;
    Ok((begin.elapsed().as_secs_f64(), (cpu(libc::RUSAGE_SELF) - before).as_secs_f64()))
}

fn hotr(tree: &Path) -> Result<Box<dyn FnMut() -> Result<Timed>>> {
    let ebpf = EbpfOptions { tier: TierChoice::Auto, ring_bytes: 1 << 12, window_ns: 0, sizes: &[] };
    let (mut source, _) = EbpfSource::load(ebpf).context("load the kernel programs")?;
    let children = source.child_reader();
    let options = PollOptions { budget: None, idle: false, children, ..PollOptions::default() };
    let mut poller = Poller::new(&[tree.to_owned()], options)?;
    Ok(Box::new(move || {
        timed(|| {
            let audit = poller.audit(&AtomicBool::new(false), &Progress::default())?;
            ensure!(audit.is_complete && audit.unreadable.is_empty(), "an audit was not whole");
            Ok(())
        })
    }))
}

/// PollWatcher reports removals after it has walked the whole tree: that is how the end of its round is seen.
fn notify(tree: &Path) -> Result<Box<dyn FnMut() -> Result<Timed>>> {
    let (send, events) = mpsc::channel();
    let handler = move |event: notify::Result<notify::Event>| {
        let _ = send.send(event);
    };
    let mut watcher = PollWatcher::new(handler, Config::default().with_manual_polling())?;
    let sentinel = tree.join(SENTINEL);
    File::create(&sentinel)?;
    watcher.watch(tree, RecursiveMode::Recursive)?;
    let walk = move |watcher: &PollWatcher, is_end: fn(&EventKind) -> bool| -> Result<()> {
        watcher.poll()?;
        loop {
            let event = events.recv_timeout(Duration::from_secs(300)).context("wait for PollWatcher")?;
            // A round of its own that it begins with may meet the sentinel just as it goes.
            let is_gone = |error: &notify::Error| error.paths.iter().all(|path| path.ends_with(SENTINEL));
            let event = match event {
                Err(error) if is_gone(&error) && !error.paths.is_empty() => continue,
                event => event?,
            };
            if is_end(&event.kind) && event.paths.iter().any(|path| path.ends_with(SENTINEL)) {
                return Ok(());
            }
        }
    };
    Ok(Box::new(move || {
        fs::remove_file(&sentinel)?;
        let took = timed(|| walk(&watcher, |kind| matches!(kind, EventKind::Remove(_))))?;
        // Not timed: it has to be known before it can be missed again.
        File::create(&sentinel)?;
        walk(&watcher, |kind| matches!(kind, EventKind::Create(_)))?;
        // That was reported in the midst of a walk, which must not continue beside the next subject: this waits for its
        // end.
        let _unknown = watcher.unwatch(Path::new("/"));
        Ok(took)
    }))
}
