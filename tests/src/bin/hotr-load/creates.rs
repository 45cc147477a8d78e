//! Creates in many directories as fast as two processes can: every file is reported, or the loss is reported and the
//! rescan finds the rest.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;

use crate::Common;
use crate::figures::Figures;
use crate::storm::kernel;
use crate::watcher::{self, Heard, Line, PATIENCE, Watcher};

/// How many.
#[derive(Args)]
pub(crate) struct CreatesArgs {
    #[command(flatten)]
    common: Common,
    /// Files
    #[arg(long, default_value_t = 1_000_000)]
    count: usize,
    /// Directories they lie in
    #[arg(long, default_value_t = 128)]
    directories: usize,
}

/// The part of one process: the files `part`, `part + parts`, …
#[derive(Args)]
pub(crate) struct WorkerArgs {
    #[arg(long)]
    dir: PathBuf,
    #[arg(long)]
    count: usize,
    #[arg(long)]
    directories: usize,
    #[arg(long)]
    part: usize,
}

const PARTS: usize = 2;
const MARK: &str = "end-of-creates";
/// How often the writers' end is looked for.
const TURN: Duration = Duration::from_millis(20);
/// A rescan that says nothing for this long is over.
const SILENCE: Duration = Duration::from_secs(10);

/// What was reported.
struct Told {
    files: Vec<bool>,
    lines: u64,
    lost: u64,
    loss_lines: u64,
    summary: Line,
}

impl Told {
    fn take(&mut self, line: &[u8]) {
        let Some(line) = Line::parse(line) else { return };
        match line.kind.as_str() {
            "change" => {
                self.lines += 1;
                let number = line.path.rsplit_once("/n").and_then(|(_, number)| number.parse::<usize>().ok());
                if let Some(file) = number.and_then(|number| self.files.get_mut(number)) {
                    *file = true;
                }
            }
            "loss" => {
                self.loss_lines += 1;
                self.lost += line.count;
            }
            "summary" => self.summary = line,
            _ => {}
        }
    }
}

/// Entry point of the benchmark.
pub(crate) fn run(args: &CreatesArgs, out: &mut Figures) -> Result<()> {
    let dir = args.common.dir.join("creates");
    for index in 0..args.directories {
        let folder = dir.join(index.to_string());
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    }
    let mut told =
        Told { files: vec![false; args.count], lines: 0, lost: 0, loss_lines: 0, summary: Line::default() };
    let mut watcher = watcher::hotr(&args.common.hotr, &[], &dir)?;
    let begin = Instant::now();
    let mut workers = (0..PARTS).map(|part| worker(&dir, args, part)).collect::<Result<Vec<_>>>()?;
    while running(&mut workers)? {
        listen(&mut watcher, &mut told, TURN)?;
    }
    out.value("creates/seconds", begin.elapsed().as_secs_f64())?;
    let mark = dir.join(MARK);
    File::create(&mark).with_context(|| format!("make {}", mark.display()))?;
    watcher.expect(MARK, Instant::now() + PATIENCE, |line| told.take(line))?;
    // What was lost is found by a rescan, whose end has no sign of its own.
    while told.loss_lines > 0 && told.files.iter().any(|found| !found) {
        if !listen(&mut watcher, &mut told, SILENCE)? {
            break;
        }
    }
    out.value("creates/told-seconds", begin.elapsed().as_secs_f64())?;
    out.value("creates/peak-mb", crate::ready::megabytes(watcher.memory("VmHWM")?))?;
    watcher.stop(|line| told.take(line))?;
    out.count("creates/count", args.count as u64)?;
    out.count("creates/on-disk", on_disk(&dir, args.directories)?)?;
    out.count("creates/reported", told.files.iter().filter(|found| **found).count() as u64)?;
    out.count("creates/lines", told.lines)?;
    out.count("creates/loss-lines", told.loss_lines)?;
    out.count("creates/lost", told.lost)?;
    out.count("creates/ring-full", kernel(&told.summary, "ring_full"))
}

/// Takes lines for a while; whether there were any.
fn listen(watcher: &mut Watcher, told: &mut Told, patience: Duration) -> Result<bool> {
    let until = Instant::now() + patience;
    // Bounded, so that the writers' end is seen although lines keep coming.
    for taken in 0..100_000 {
        match watcher.line(until)? {
            Heard::Line(line) => told.take(&line),
            Heard::Late => return Ok(taken > 0),
            Heard::End => bail!("hotr ended while it was measured"),
        }
    }
    Ok(true)
}

fn running(workers: &mut [Child]) -> Result<bool> {
    let mut running = false;
    for worker in workers {
        match worker.try_wait().context("wait for a writer")? {
            None => running = true,
            Some(status) => ensure!(status.success(), "a writer ended with {status}"),
        }
    }
    Ok(running)
}

fn worker(dir: &Path, args: &CreatesArgs, part: usize) -> Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command.arg("creates-worker").arg("--dir").arg(dir);
    command.args(["--count", &args.count.to_string(), "--directories", &args.directories.to_string()]);
    command.args(["--part", &part.to_string()]);
    command.spawn().context("start a writer")
}

/// The body of one of the processes.
pub(crate) fn work(args: &WorkerArgs) -> Result<()> {
    let folders: Vec<PathBuf> = (0..args.directories).map(|index| args.dir.join(index.to_string())).collect();
    for number in (args.part..args.count).step_by(PARTS) {
        let file = folders[number % folders.len()].join(format!("n{number}"));
        File::create(&file).with_context(|| format!("make {}", file.display()))?;
    }
    Ok(())
}

fn on_disk(dir: &Path, directories: usize) -> Result<u64> {
    let mut files = 0;
    for index in 0..directories {
        let folder = dir.join(index.to_string());
        let entries = fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))?;
        files += entries.count() as u64;
    }
    Ok(files)
}
