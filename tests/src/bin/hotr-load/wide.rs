//! A storm of new directories with a few files each: the memory that it takes, and how soon a signal ends hotr in its midst.

use std::{
    fs::{self, File},
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;

use crate::Common;
use crate::figures::Figures;
use crate::ready::megabytes;
use crate::watcher::{Heard, PATIENCE, Watcher};

/// Files in each directory.
const FILES: usize = 9;
/// How often it is looked whether the storm is over.
const TURN: Duration = Duration::from_millis(20);

/// How large.
#[derive(Args)]
pub(crate) struct WideArgs {
    #[command(flatten)]
    common: Common,
    /// Directories that are made before hotr is ended; nine files in each
    #[arg(long, default_value_t = 100_000)]
    directories: usize,
    /// The commands of hotr that are measured
    #[arg(long, value_delimiter = ',', default_value = "trace,watch")]
    commands: Vec<String>,
}

/// Entry point of the benchmark.
pub(crate) fn run(args: &WideArgs, out: &mut Figures) -> Result<()> {
    for name in &args.commands {
        let dir = args.common.dir.join(name);
        fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        one(name, &args.common.hotr, &dir, args.directories, out)?;
        fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
    }
    out.count("wide/directories", args.directories as u64)
}

fn one(name: &str, hotr: &Path, dir: &Path, directories: usize, out: &mut Figures) -> Result<()> {
    let mut command = Command::new(hotr);
    command.args([name, "--json"]).arg(dir);
    let mut watcher = Watcher::start(command, false)?;
    watcher.expect("\"type\":\"ready\"", Instant::now() + PATIENCE, |_| ())?;
    let quiet = watcher.memory("VmHWM")?;
    let (made, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| storm(dir, &made, &is_over));
        let measured = (|| {
            while made.load(Ordering::Relaxed) < directories {
                ensure!(!writer.is_finished(), "the storm ended early");
                // A reader that does not read would hold hotr up.
                if matches!(watcher.line(Instant::now() + TURN)?, Heard::End) {
                    bail!("hotr {name} ended while it was measured");
                }
            }
            out.value(format!("wide/{name}/above-quiet-mb"), megabytes(watcher.memory("VmHWM")? - quiet))?;
            // The storm continues.
            let begin = Instant::now();
            watcher.stop(|_| ())?;
            out.value(format!("wide/{name}/end-seconds"), begin.elapsed().as_secs_f64())
        })();
        is_over.store(true, Ordering::Relaxed);
        let stormed = writer.join().map_err(|_| anyhow::anyhow!("the storm panicked"))?;
        measured.and(stormed)
    })
}

/// Makes directories until it is over.
fn storm(dir: &Path, made: &AtomicUsize, is_over: &AtomicBool) -> Result<()> {
    for number in 0.. {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        let folder = dir.join(format!("{}{number}", "d".repeat(100)));
        fs::create_dir(&folder).with_context(|| format!("make {}", folder.display()))?;
        for file in 0..FILES {
            let file = folder.join(file.to_string());
            File::create(&file).with_context(|| format!("make {}", file.display()))?;
        }
        made.store(number, Ordering::Relaxed);
    }
    Ok(())
}
