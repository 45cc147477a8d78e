//! How long `hotr diagnose` takes: of one process with many watches, and of a machine with many watchers.

use std::{
    fs,
    os::fd::OwnedFd,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};

use crate::Common;
use crate::figures::{Figures, median};
use crate::poll::cpu;

/// How much there is to look at.
#[derive(Args)]
pub(crate) struct DiagnoseArgs {
    #[command(flatten)]
    common: Common,
    /// Watches of the one process, in all its instances
    #[arg(long, default_value_t = 10_000)]
    watches: usize,
    /// Instances of the one process
    #[arg(long, default_value_t = 50)]
    instances: usize,
    /// Watching processes
    #[arg(long, default_value_t = 200)]
    processes: u32,
    /// Runs of each
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

/// Instances that a user may have, less some for others: the default limit is 128.
const EACH_USER: u32 = 100;

/// Watching processes, ended with the benchmark.
struct Crowd(Vec<Child>);

impl Drop for Crowd {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Entry point of the benchmark.
pub(crate) fn run(args: &DiagnoseArgs, out: &mut Figures) -> Result<()> {
    let dir = args.common.dir.join("diagnose");
    let instances = instances(args, &dir)?;
    let pid = std::process::id().to_string();
    out.count("diagnose/watches", args.watches as u64)?;
    out.count("diagnose/instances", args.instances as u64)?;
    measure(args, &["--pid", &pid], args.watches as u64, "process", out)?;
    drop(instances);
    let crowd = crowd(args, &dir)?;
    out.count("diagnose/processes", args.processes.into())?;
    measure(args, &[], args.processes.into(), "machine", out)?;
    drop(crowd);
    Ok(())
}

fn instances(args: &DiagnoseArgs, dir: &Path) -> Result<Vec<OwnedFd>> {
    let made = (0..args.instances).map(|_| init(CreateFlags::CLOEXEC)).collect::<Result<Vec<_>, _>>();
    let instances = made.context("make inotify instances")?;
    let events = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE;
    for index in 0..args.watches {
        let path = dir.join(format!("{:03}/{:04}", index / 1000, index % 1000));
        fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        let instance = &instances[index % instances.len()];
        add_watch(instance, &path, events).with_context(|| format!("watch {}", path.display()))?;
    }
    Ok(instances)
}

fn crowd(args: &DiagnoseArgs, dir: &Path) -> Result<Crowd> {
    let mut crowd = Crowd(Vec::new());
    for index in 0..args.processes {
        let path: PathBuf = dir.join(format!("crowd/{index}"));
        fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        let mut command = Command::new("inotifywait");
        command.args(["-m", "-q"]).arg(&path).uid(60_000 + index / EACH_USER);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        crowd.0.push(command.spawn().context("run inotifywait (cargo xtask setup --tests)")?);
    }
    let over = Instant::now() + Duration::from_secs(60);
    for child in &crowd.0 {
        let info = format!("/proc/{}/fdinfo/3", child.id());
        while !fs::read_to_string(&info).is_ok_and(|text| text.contains("inotify wd:")) {
            ensure!(Instant::now() < over, "inotifywait does not watch; can user 60000 reach the folder?");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    Ok(crowd)
}

fn measure(args: &DiagnoseArgs, words: &[&str], least: u64, key: &str, out: &mut Figures) -> Result<()> {
    let (mut times, mut spent) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        let (begin, before) = (Instant::now(), cpu(libc::RUSAGE_CHILDREN));
        let output = Command::new(&args.common.hotr).args(["diagnose", "--json"]).args(words).output();
        let output = output.context("run hotr diagnose")?;
        times.push(begin.elapsed().as_secs_f64() * 1e3);
        spent.push((cpu(libc::RUSAGE_CHILDREN) - before).as_secs_f64() * 1e3);
        let text = String::from_utf8_lossy(&output.stdout);
        let summary: serde_json::Value = serde_json::from_str(text.lines().last().unwrap_or_default())?;
        let seen = summary["watches"].as_u64().unwrap_or(0);
        ensure!(seen >= least, "hotr diagnose saw {seen} of {least} watches");
    }
    out.value(format!("diagnose/{key}/ms"), median(&times))?;
    out.value(format!("diagnose/{key}/cpu-ms"), median(&spent))
}
