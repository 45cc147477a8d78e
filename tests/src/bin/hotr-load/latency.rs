//! From the return of a write to the line about it in the reader's hands: hotr and inotifywait, in turns, each on its
//! own folder, both running all the time.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, Result};
use clap::Args;

use crate::Common;
use crate::figures::{Figures, median, percentile};
use crate::watcher::{self, PATIENCE, Watcher};

/// How many samples.
#[derive(Args)]
pub(crate) struct LatencyArgs {
    #[command(flatten)]
    common: Common,
    /// Samples of each watcher in a round
    #[arg(long, default_value_t = 2000)]
    count: usize,
    /// Rounds, each with watchers of its own
    #[arg(long, default_value_t = 15)]
    rounds: usize,
}

struct Subject {
    dir: PathBuf,
    watcher: Watcher,
    microseconds: Vec<f64>,
}

/// The percentiles that are reported.
const PERCENTS: [usize; 3] = [50, 90, 99];
const NAMES: [&str; 3] = ["hotr", "inotifywait", "hotr-ebpf"];
/// The one that the others are measured by, in [`NAMES`].
const YARDSTICK: usize = 1;

/// Entry point of the benchmark. The noise of a machine comes and goes: what a subject takes beside the yardstick is
/// found for each round by itself.
pub(crate) fn run(args: &LatencyArgs, out: &mut Figures) -> Result<()> {
    let rounds = (0..args.rounds).map(|_| round(args)).collect::<Result<Vec<_>>>()?;
    for (of, name) in NAMES.iter().enumerate() {
        for (at, percent) in PERCENTS.iter().enumerate() {
            let times: Vec<f64> = rounds.iter().map(|round| round[of][at]).collect();
            let ratios: Vec<f64> = rounds.iter().map(|round| round[of][at] / round[YARDSTICK][at]).collect();
            out.value(format!("latency/{name}/p{percent}"), median(&times))?;
            out.value(format!("latency/{name}/ratio{percent}"), median(&ratios))?;
            if *percent == 99 {
                let below = ratios.iter().filter(|ratio| **ratio <= 1.0).count();
                out.count(format!("latency/{name}/below"), below as u64)?;
            }
        }
    }
    out.count("latency/rounds", args.rounds as u64)?;
    out.count("latency/samples", args.count as u64)
}

/// Percentiles of each subject, in microseconds.
fn round(args: &LatencyArgs) -> Result<[[f64; PERCENTS.len()]; NAMES.len()]> {
    let hotr = &args.common.hotr;
    let start = |name: &'static str| -> Result<Subject> {
        let dir = args.common.dir.join(format!("latency-{name}"));
        prepare(&dir, args.count)?;
        let watcher = match name {
            "inotifywait" => watcher::inotifywait(&["-e", "modify"], &dir),
            "hotr-ebpf" => watcher::hotr(hotr, &["--channels", "ebpf"], &dir),
            _ => watcher::hotr(hotr, &[], &dir),
        }?;
        Ok(Subject { dir, watcher, microseconds: Vec::new() })
    };
    let mut subjects = [start(NAMES[0])?, start(NAMES[1])?, start(NAMES[2])?];
    let pids = [0, 1, 2].map(|of: usize| subjects[of].watcher.pid());
    for sample in 0..args.count {
        for subject in &mut subjects {
            let took = one(subject, sample)?;
            subject.microseconds.push(took);
            // As between the saves of a user: nobody still works on the one before.
            for pid in pids {
                watcher::until_asleep(pid)?;
            }
        }
    }
    let mut found = [[0.0; PERCENTS.len()]; NAMES.len()];
    for (found, subject) in found.iter_mut().zip(subjects) {
        *found = PERCENTS.map(|percent| percentile(&subject.microseconds, percent));
        subject.watcher.stop(|_| ())?;
        fs::remove_dir_all(&subject.dir).with_context(|| format!("remove {}", subject.dir.display()))?;
    }
    Ok(found)
}

/// Files are there before the watchers are: a sample is one write and nothing else.
fn prepare(dir: &Path, count: usize) -> Result<()> {
    fs::create_dir(dir).with_context(|| format!("make {}", dir.display()))?;
    for sample in 0..count {
        let file = dir.join(name(sample));
        File::create(&file).with_context(|| format!("make {}", file.display()))?;
    }
    Ok(())
}

fn name(sample: usize) -> String {
    format!("sample-{sample:06}")
}

fn one(subject: &mut Subject, sample: usize) -> Result<f64> {
    let name = name(sample);
    let path = subject.dir.join(&name);
    let mut file =
        File::options().append(true).open(&path).with_context(|| format!("open {}", path.display()))?;
    file.write_all(b"x").with_context(|| format!("write to {}", path.display()))?;
    let returned = Instant::now();
    subject.watcher.expect(&name, returned + PATIENCE, |_| ())?;
    Ok(returned.elapsed().as_secs_f64() * 1e6)
}
