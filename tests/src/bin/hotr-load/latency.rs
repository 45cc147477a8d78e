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
use crate::figures::{Figures, percentile};
use crate::watcher::{self, PATIENCE, Watcher};

/// How many samples.
#[derive(Args)]
pub(crate) struct LatencyArgs {
    #[command(flatten)]
    common: Common,
    /// Samples of each watcher
    #[arg(long, default_value_t = 2000)]
    count: usize,
}

struct Subject {
    name: &'static str,
    dir: PathBuf,
    watcher: Watcher,
    microseconds: Vec<f64>,
}

/// Entry point of the benchmark.
pub(crate) fn run(args: &LatencyArgs, out: &mut Figures) -> Result<()> {
    let hotr = &args.common.hotr;
    let start = |name: &'static str| -> Result<Subject> {
        let dir = args.common.dir.join(format!("latency-{name}"));
        prepare(&dir, args.count)?;
        let watcher = match name {
            "inotifywait" => watcher::inotifywait(&["-e", "modify"], &dir),
            "hotr-ebpf" => watcher::hotr(hotr, &["--channels", "ebpf"], &dir),
            _ => watcher::hotr(hotr, &[], &dir),
        }?;
        Ok(Subject { name, dir, watcher, microseconds: Vec::new() })
    };
    let mut subjects = [start("hotr")?, start("inotifywait")?, start("hotr-ebpf")?];
    let pids = [0, 1, 2].map(|of: usize| subjects[of].watcher.pid());
    for sample in 0..args.count {
        for subject in &mut subjects {
            let took = one(subject, sample)?;
            subject.microseconds.push(took);
            // As between the saves of a person: nobody still works on the one before.
            for pid in pids {
                watcher::until_asleep(pid)?;
            }
        }
    }
    for subject in subjects {
        for percent in [50, 90, 99] {
            let value = percentile(&subject.microseconds, percent);
            out.value(format!("latency/{}/p{percent}", subject.name), value)?;
        }
        subject.watcher.stop(|_| ())?;
    }
    Ok(())
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
