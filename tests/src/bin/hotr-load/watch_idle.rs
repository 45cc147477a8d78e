//! A whole `hotr watch` on a large tree with nothing to do: its processor time over some minutes, and its memory.
//!
//! Measured from the moment on at which it has said that it knows the trees; audits are part of what is measured.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::Common;
use crate::figures::Figures;
use crate::ready::megabytes;
use crate::watcher::{Heard, Watcher, contains};

/// The first states of a large tree are read at idle priority.
const READING: Duration = Duration::from_secs(600);
/// How long a watch uses no processor time once it is idle.
const REST: Duration = Duration::from_secs(2);

/// How large, how long.
#[derive(Args)]
pub(crate) struct WatchIdleArgs {
    #[command(flatten)]
    common: Common,
    /// Files of the tree, in 1,000 directories
    #[arg(long, default_value_t = 1_000_000)]
    files: usize,
    /// How long the idle watch is observed
    #[arg(long, default_value_t = 300)]
    seconds: u64,
}

/// Entry point of the benchmark.
pub(crate) fn run(args: &WatchIdleArgs, out: &mut Figures) -> Result<()> {
    let tree: PathBuf = args.common.dir.join("tree");
    crate::poll::make(&tree, args.files)?;
    let mut command = Command::new(&args.common.hotr);
    command.args(["watch", "--json", "--verbose"]).arg(&tree);
    let mut watcher = Watcher::start(command, true)?;
    // The first states are read, or as many as are remembered.
    watcher.expect_all(&["\"type\":\"ready\"", "initial state recorded"], Instant::now() + READING)?;
    until_at_rest(&mut watcher)?;
    out.count("watch-idle/files", args.files as u64)?;
    let (begin, before) = (Instant::now(), used(watcher.pid())?);
    let until = begin + Duration::from_secs(args.seconds);
    let mut said = 0_u64;
    while let Heard::Line(line) = watcher.line(until)? {
        // Whatever it has to say of an idle tree belongs to the figures.
        eprintln!("hotr: {}", String::from_utf8_lossy(&line));
        said += u64::from(!contains(&line, b"summary"));
    }
    let (seconds, cpu) = (begin.elapsed().as_secs_f64(), used(watcher.pid())? - before);
    out.value("watch-idle/seconds", seconds)?;
    out.value("watch-idle/cpu-seconds", cpu)?;
    out.value("watch-idle/cpu-percent", 100.0 * cpu / seconds)?;
    out.count("watch-idle/said", said)?;
    out.value("watch-idle/resident-mb", megabytes(watcher.memory("VmRSS")?))?;
    out.value("watch-idle/anonymous-mb", megabytes(watcher.memory("RssAnon")?))?;
    out.value("watch-idle/peak-mb", megabytes(watcher.memory("VmHWM")?))?;
    watcher.stop(|_| ())
}

/// Waits until the watch has used no processor time for [`REST`]: what it says of its start may come before the end of it.
fn until_at_rest(watcher: &mut Watcher) -> Result<()> {
    let end = Instant::now() + READING;
    loop {
        let before = used(watcher.pid())?;
        let until = Instant::now() + REST;
        while let Heard::Line(line) = watcher.line(until)? {
            eprintln!("hotr: {}", String::from_utf8_lossy(&line));
        }
        if used(watcher.pid())? <= before {
            return Ok(());
        }
        ensure!(Instant::now() < end, "the watch does not come to rest");
    }
}

/// Processor seconds of a process and of its children that have ended.
fn used(pid: u32) -> Result<f64> {
    let file = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
    ticks(&text).map(|ticks| ticks / hertz()).with_context(|| format!("understand {file}"))
}

/// utime, stime, cutime and cstime: the fields after the name in brackets, which may hold anything.
fn ticks(stat: &str) -> Option<f64> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    fields.get(11..15)?.iter().map(|field| field.parse::<f64>().ok()).sum()
}

fn hertz() -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "the kernel's USER_HZ is 100")]
    let hertz = rustix::param::clock_ticks_per_second() as f64;
    hertz
}

#[cfg(test)]
mod tests {
    #[test]
    fn ticks_are_of_the_process_and_its_children() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 200 0 0 11 22 33 44 20 0 1 0 5 6 7";
        assert_eq!(super::ticks(stat), Some(110.0));
        assert_eq!(super::ticks("7 (a"), None);
    }
}
