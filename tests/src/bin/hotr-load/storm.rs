//! A storm: many one-byte writes to one watched file, and what hotr reports of it, settled and raw.

use std::{fs::File, io::Write as _, time::Instant};

use anyhow::{Context as _, Result};
use clap::Args;

use crate::Common;
use crate::figures::Figures;
use crate::watcher::{self, Line, PATIENCE};

/// How large a storm.
#[derive(Args)]
pub(crate) struct StormArgs {
    #[command(flatten)]
    common: Common,
    /// Writes
    #[arg(long, default_value_t = 1_000_000)]
    count: u64,
}

/// Lines about the file of the storm.
#[derive(Default)]
struct Told {
    lines: u64,
    writes: u64,
    bytes: u64,
    submitted: u64,
    lost: u64,
}

impl Told {
    fn take(&mut self, line: &[u8]) {
        let Some(line) = Line::parse(line) else { return };
        match line.kind.as_str() {
            "change" | "raw" if line.op == "write" && line.path.ends_with("/storm") => {
                self.lines += 1;
                self.writes += line.writes;
                self.bytes += line.bytes;
            }
            "loss" => self.lost += line.count,
            "summary" => self.submitted = kernel(&line, "submitted"),
            _ => {}
        }
    }
}

/// A total of the kernel side in a summary line; 0 when it has none.
pub(crate) fn kernel(line: &Line, field: &str) -> u64 {
    line.kernel.as_ref().and_then(|totals| totals.get(field)?.as_u64()).unwrap_or(0)
}

/// Entry point of the benchmark.
pub(crate) fn run(args: &StormArgs, out: &mut Figures) -> Result<()> {
    out.count("storm/count", args.count)?;
    for (mode, options) in [("json", &["--channels", "ebpf"][..]), ("raw", &["--channels", "ebpf", "--raw"])]
    {
        let dir = args.common.dir.join(format!("storm-{mode}"));
        std::fs::create_dir(&dir).with_context(|| format!("make {}", dir.display()))?;
        let path = dir.join("storm");
        let mut file = File::create(&path).with_context(|| format!("make {}", path.display()))?;
        let mut told = Told::default();
        let mut watcher = watcher::hotr(&args.common.hotr, options, &dir)?;
        let took = watcher.read_during(|| {
            let start = Instant::now();
            for _ in 0..args.count {
                file.write_all(b"x")?;
            }
            Ok::<_, std::io::Error>(start.elapsed())
        })?;
        let took = took.with_context(|| format!("write to {}", path.display()))?;
        let mark = dir.join("end-of-storm");
        File::create(&mark).with_context(|| format!("make {}", mark.display()))?;
        watcher.expect("end-of-storm", Instant::now() + PATIENCE, |line| told.take(line))?;
        watcher.stop(|line| told.take(line))?;
        out.value(format!("storm/{mode}/seconds"), took.as_secs_f64())?;
        for (name, value) in [
            ("lines", told.lines),
            ("writes", told.writes),
            ("bytes", told.bytes),
            ("submitted", told.submitted),
            ("lost", told.lost),
        ] {
            out.count(format!("storm/{mode}/{name}"), value)?;
        }
    }
    Ok(())
}
