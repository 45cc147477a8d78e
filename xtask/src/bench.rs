//! `cargo xtask bench`: hotr by itself and beside other tools, figures against bars.
//!
//! In: the release build, this machine, virtual machines whose clock counts instructions. Out: bench/RESULTS.md and
//! bench/data/results.json from one run; exit status 1 when a bar is missed. A part or a quick run is no result: it is
//! written to target/bench.

mod bars;
mod figures;
mod guests;
mod machine;
mod native;
mod report;
mod tables;

use std::{ffi::OsStr, fs, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};

use self::{
    figures::Figures,
    report::{Report, Row},
};
use crate::{
    apt,
    build::{self, Flavour},
    cmd::say,
    paths, setup,
};

/// Which benchmarks to run.
#[derive(Args)]
pub(crate) struct BenchArgs {
    /// Only these
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Bench>,
    /// A kernel series for the benchmarks in virtual machines; may be repeated [default: 6.12 for pwrite and delivered, all
    /// of the matrix for verifier]
    #[arg(long, value_name = "SERIES")]
    kernel: Vec<String>,
    /// Smaller loads: shows that everything works, says little about the figures
    #[arg(long)]
    quick: bool,
}

/// A benchmark: one row or one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Bench {
    /// Instructions that each tool adds to a one-byte pwrite
    Pwrite,
    /// Instructions that a live diagnosis adds to a delivered event
    Delivered,
    /// A million writes to one file
    Storm,
    /// From write to line
    Latency,
    /// Start on 100,000 directories
    Ready,
    /// New directories that are filled at once
    Race,
    /// A million creates
    Creates,
    /// A storm of new directories: memory, and the end by a signal
    Wide,
    /// The verifier's work
    Verifier,
    /// An audit of a million files, beside find and notify's PollWatcher
    Poll,
    /// From a change to the start of the command, beside watchexec and entr
    Reload,
    /// Processor time and memory of an idle watch on a million files
    WatchIdle,
    /// A diagnosis of many watches, and of many watching processes
    Diagnose,
    /// Size of the program, memory of an idle trace
    Idle,
}

/// Entry point of the command.
pub(crate) fn run(args: &BenchArgs) -> Result<ExitCode> {
    anyhow::ensure!(apt::is_root(), "measure: root is needed to load eBPF; run `cargo xtask bench` as root");
    setup::install(setup::TESTS)?;
    setup::install(setup::BENCHES)?;
    let benches = if args.only.is_empty() { Bench::value_variants() } else { &args.only };
    let mut report = Report::new(machine::describe()?);
    for &bench in benches {
        say(format!("bench: {}", name(bench)));
        if let Err(error) = one(bench, args, &mut report) {
            let why = format!("could not be measured: {error:#}");
            say(format!("bench: {}: {why}", name(bench)));
            report.rows.push(Row::failed(name(bench), &why));
        }
    }
    finish(&report, args)
}

fn name(bench: Bench) -> String {
    bench.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// Measures one benchmark and judges it.
fn one(bench: Bench, args: &BenchArgs, report: &mut Report) -> Result<()> {
    match bench {
        Bench::Pwrite => {
            let default = vec!["6.12".to_owned()];
            for label in if args.kernel.is_empty() { &default } else { &args.kernel } {
                let (version, figures) = guests::cost(label, args.quick)?;
                report.rows.extend(bars::pwrite(label, &figures));
                report.tables.push(tables::pwrite(&version, &figures));
            }
        }
        Bench::Delivered => {
            let default = vec!["6.12".to_owned()];
            for label in if args.kernel.is_empty() { &default } else { &args.kernel } {
                let (version, figures) = guests::delivered(label, args.quick)?;
                report.rows.extend(bars::delivered(label, &figures));
                report.tables.push(tables::delivered(&version, &figures));
            }
        }
        Bench::Verifier => {
            let labels =
                if args.kernel.is_empty() { crate::vm::kernel::labels() } else { args.kernel.clone() };
            let figures = guests::verifier(&labels)?;
            report.rows.push(bars::verifier(&figures));
            report.tables.push(tables::verifier(&labels, &figures));
        }
        Bench::Poll => {
            let (files, rounds) = if args.quick { ("20000", "3") } else { ("1000000", "5") };
            report.rows.extend(bars::poll(&native::audit(files, rounds)?, files));
        }
        Bench::WatchIdle => {
            let (files, seconds) = if args.quick { ("20000", "40") } else { ("1000000", "300") };
            let hotr = build::hotr(Flavour::Release)?;
            report.rows.extend(bars::watch_idle(&native::watch_idle(&hotr, files, seconds)?));
        }
        Bench::Reload => {
            let watchexec = setup::watchexec()?;
            let hotr = build::hotr(Flavour::Release)?;
            let count = if args.quick { "30" } else { "500" };
            let options = ["--count", count, "--watchexec"].map(OsStr::new);
            let figures =
                native::measure(&name(bench), &hotr, &[&options, &[watchexec.as_os_str()][..]].concat())?;
            report.rows.extend(bars::reload(&figures));
            report.tables.push(tables::reload(&figures));
        }
        _ => {
            let hotr = build::hotr(Flavour::Release)?;
            let options: Vec<&OsStr> = load_options(bench, args.quick).iter().map(OsStr::new).collect();
            let figures = native::measure(&name(bench), &hotr, &options)?;
            judge(bench, &figures, report);
        }
    }
    Ok(())
}

fn judge(bench: Bench, figures: &Figures, report: &mut Report) {
    match bench {
        Bench::Storm => report.rows.extend(bars::storm(figures)),
        Bench::Latency => {
            report.rows.push(bars::latency(figures));
            report.tables.push(tables::latency(figures));
        }
        Bench::Ready => {
            report.rows.extend(bars::ready(figures));
            report.tables.push(tables::ready(figures));
        }
        Bench::Race => {
            report.rows.push(bars::race(figures));
            report.tables.push(tables::race(figures));
        }
        Bench::Creates => report.rows.push(bars::creates(figures)),
        Bench::Wide => report.rows.extend(bars::wide(figures)),
        Bench::Idle => report.tables.push(tables::idle(figures)),
        Bench::Diagnose => report.rows.extend(bars::diagnose(figures)),
        Bench::Pwrite
        | Bench::Delivered
        | Bench::Verifier
        | Bench::Poll
        | Bench::Reload
        | Bench::WatchIdle => {}
    }
}

/// The load's size, where it is not the full one.
fn load_options(bench: Bench, quick: bool) -> &'static [&'static str] {
    match bench {
        Bench::Storm if quick => &["--count", "100000"],
        Bench::Latency if quick => &["--count", "200", "--rounds", "3"],
        Bench::Ready if quick => &["--directories", "10000", "--rounds", "2"],
        Bench::Race if quick => &["--rounds", "2"],
        Bench::Creates if quick => &["--count", "50000"],
        Bench::Wide if quick => &["--directories", "10000"],
        Bench::Diagnose if quick => &["--watches", "1000", "--processes", "20", "--rounds", "2"],
        _ => &[],
    }
}

/// Writes the report and says what was missed.
fn finish(report: &Report, args: &BenchArgs) -> Result<ExitCode> {
    let whole = args.only.is_empty() && args.kernel.is_empty() && !args.quick;
    let folder: PathBuf = if whole { paths::root().join("bench") } else { paths::target().join("bench") };
    let data = folder.join("data");
    fs::create_dir_all(&data).with_context(|| format!("make {}", data.display()))?;
    let (text, json) = (folder.join("RESULTS.md"), data.join("results.json"));
    fs::write(&text, report.markdown()).with_context(|| format!("write {}", text.display()))?;
    fs::write(&json, report.json()?).with_context(|| format!("write {}", json.display()))?;
    if !whole {
        print!("{}", report.markdown());
    }
    say(format!("bench: written to {}", text.display()));
    let mut code = ExitCode::SUCCESS;
    for row in report.rows.iter().filter(|row| !row.met) {
        say(format!("bench: missed: {}: {} (bar: {})", row.figure, row.measured, row.bar));
        code = ExitCode::FAILURE;
    }
    Ok(code)
}
