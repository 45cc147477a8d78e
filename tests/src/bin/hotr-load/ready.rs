//! From the start of a watcher to the moment it receives everything, on a tree of many directories, and its memory
//! then.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::Args;

use crate::Common;
use crate::figures::{Figures, median};
use crate::watcher::{PATIENCE, Watcher};

/// How large a tree.
#[derive(Args)]
pub(crate) struct ReadyArgs {
    #[command(flatten)]
    common: Common,
    /// Directories
    #[arg(long, default_value_t = 100_000)]
    directories: usize,
    /// Starts of each watcher
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

/// Directories in a directory.
const FAN: usize = 1000;

struct Started {
    took: Duration,
    peak: u64,
    resident: u64,
}

/// Entry point of the benchmark.
pub(crate) fn run(args: &ReadyArgs, out: &mut Figures) -> Result<()> {
    let dir = args.common.dir.join("ready");
    for index in 0..args.directories {
        let path = dir.join(format!("{:03}/{:04}", index / FAN, index % FAN));
        fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
    }
    out.count("ready/directories", args.directories as u64)?;
    let subjects: [(&str, &dyn Fn() -> Command, &str); 3] = [
        ("hotr", &|| hotr(&args.common.hotr, &["--channels", "ebpf"]), "\"type\":\"ready\""),
        ("inotifywait", &inotifywait, "Watches established."),
        ("hotr-auto", &|| hotr(&args.common.hotr, &[]), "\"type\":\"ready\""),
    ];
    let mut runs: [Vec<Started>; 3] = Default::default();
    for _ in 0..args.rounds {
        for ((_, command, sign), runs) in subjects.iter().zip(&mut runs) {
            let mut command = command();
            command.arg(&dir);
            runs.push(start(command, sign)?);
        }
    }
    for ((name, _, _), runs) in subjects.iter().zip(&runs) {
        let each = |pick: &dyn Fn(&Started) -> f64| median(&runs.iter().map(pick).collect::<Vec<_>>());
        out.value(format!("ready/{name}/ms"), each(&|run| run.took.as_secs_f64() * 1e3))?;
        out.value(format!("ready/{name}/peak-mb"), each(&|run| megabytes(run.peak)))?;
        out.value(format!("ready/{name}/resident-mb"), each(&|run| megabytes(run.resident)))?;
    }
    Ok(())
}

/// From the kernel's kB, which are 1024 bytes, to 10^6 bytes.
pub(crate) fn megabytes(kilobytes: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "no process has 2^52 kB")]
    let kilobytes = kilobytes as f64;
    kilobytes * 1024.0 / 1e6
}

fn hotr(hotr: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(hotr);
    command.args(["trace", "--json"]).args(arguments);
    command
}

fn inotifywait() -> Command {
    let mut command = Command::new("inotifywait");
    command.args(["-m", "-r"]);
    command
}

fn start(command: Command, sign: &str) -> Result<Started> {
    let begin = Instant::now();
    // inotifywait gives its sign on stderr.
    let mut watcher = Watcher::start(command, true)?;
    watcher.expect(sign, begin + PATIENCE, |_| ())?;
    let took = begin.elapsed();
    let started = Started { took, peak: watcher.memory("VmHWM")?, resident: watcher.memory("VmRSS")? };
    watcher.stop(|_| ())?;
    Ok(started)
}
