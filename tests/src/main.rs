//! `hotr-matrix`: runs the kernel conformance matrix, in a virtual machine or natively.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};
use hotr_tests::diagnose;
use hotr_tests::exceptions::Exceptions;
use hotr_tests::fuzz::{self, run::FuzzArgs, watch::LookArgs, writer::WriterArgs};
use hotr_tests::group::Setting;
use hotr_tests::groups::GROUPS;
use hotr_tests::native::{FILESYSTEMS, Native};
use hotr_tests::ops::{self, Operation};
use hotr_tests::place::{LowerFiles, Place};
use hotr_tests::run::{Outcome, Run};
use hotr_tests::session::Deadlines;
use hotr_tests::verdict::Verdict;
use hotr_tests::{render, selftest};

/// Kernel conformance matrix of hotr.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run cells on filesystems that are already mounted.
    Run {
        /// Filesystem and where it is mounted; for an overlay the folder with lower, upper, work, merged.
        #[arg(long = "dir", value_name = "FS=PATH", required = true, value_parser = parse_dir)]
        dirs: Vec<(String, PathBuf)>,
        /// Tiers to run.
        #[arg(long = "tier", required = true)]
        tiers: Vec<String>,
        /// Make the cases beside the matrix, too: they set the clock of this machine and lock it down, so it should be
        /// a guest.
        #[arg(long)]
        faults: bool,
        #[command(flatten)]
        what: What,
    },
    /// Make the filesystems out of image files on this machine, and run cells on them.
    Native {
        /// Filesystems.
        #[arg(long, value_delimiter = ',', default_values_t = FILESYSTEMS.map(String::from))]
        fs: Vec<String>,
        /// Tiers to run.
        #[arg(long = "tier", default_value = "tracepoint")]
        tiers: Vec<String>,
        #[command(flatten)]
        what: What,
    },
    /// Perform every operation without hotr, and compare what the filesystems refuse and what inotify receives.
    Selftest {
        /// As for `run`; without it, the filesystems are made as for `native`.
        #[arg(long = "dir", value_name = "FS=PATH", value_parser = parse_dir)]
        dirs: Vec<(String, PathBuf)>,
        /// Only operations whose name contains this.
        #[arg(long)]
        filter: Option<String>,
    },
    /// Random operations by several processes; the tree that hotr's lines describe must be the real one.
    Fuzz(FuzzArgs),
    /// Changes by three writers, followed by a live diagnosis; none may be called lost
    Deliveries {
        /// The program under test.
        #[arg(long)]
        hotr: PathBuf,
        /// Tier: fentry, kprobe or tracepoint.
        #[arg(long)]
        tier: String,
        /// At least so many.
        #[arg(long, default_value_t = 100_000)]
        changes: u64,
    },
    /// One of the processes of `fuzz`
    #[command(hide = true)]
    FuzzWriter(WriterArgs),
    /// The command that `hotr watch` runs in `fuzz --watch`
    #[command(hide = true)]
    FuzzLook(LookArgs),
    /// Print the names of all operations and faults.
    List,
    /// Print the generated section of docs/coverage.md.
    Render {
        /// Result files.
        #[arg(required = true)]
        results: Vec<PathBuf>,
        /// Replace the section in this document instead of printing it.
        #[arg(long)]
        into: Option<PathBuf>,
    },
}

#[derive(Args)]
struct What {
    /// The program under test.
    #[arg(long)]
    hotr: PathBuf,
    /// Result file.
    #[arg(long)]
    out: PathBuf,
    /// Only operations whose name contains this.
    #[arg(long)]
    filter: Option<String>,
    /// Label of the kernel in results; the running one's release by default.
    #[arg(long)]
    kernel: Option<String>,
    /// Seconds that hotr may take to be ready.
    #[arg(long, default_value_t = 60)]
    ready_deadline: u64,
    /// Seconds that a change may take to be reported; longer than hotr waits before it reports skipped programs again.
    #[arg(long, default_value_t = 30)]
    line_deadline: u64,
    /// Print every line of hotr.
    #[arg(long)]
    verbose: bool,
}

fn main() -> Result<ExitCode> {
    match Cli::parse().command {
        Task::Run { dirs, tiers, faults, what } => run(&dirs, &tiers, &what, faults),
        Task::Native { fs, tiers, what } => run(&Native::new(&fs)?.dirs, &tiers, &what, false),
        Task::Selftest { dirs, filter } => {
            let native =
                if dirs.is_empty() { Some(Native::new(&FILESYSTEMS.map(String::from))?) } else { None };
            run_selftest(native.as_ref().map_or(&dirs, |native| &native.dirs), filter.as_deref())
        }
        Task::Fuzz(args) => run_fuzz(&args),
        Task::Deliveries { hotr, tier, changes } => {
            let deadlines = Deadlines { ready: Duration::from_secs(600), line: Duration::from_secs(60) };
            let setting = Setting { hotr: &hotr, kernel: &running_kernel(), tier: &tier, deadlines };
            diagnose::deliveries(&setting, changes).map(|()| ExitCode::SUCCESS)
        }
        Task::FuzzWriter(args) => fuzz::writer::run(args).map(|()| ExitCode::SUCCESS),
        Task::FuzzLook(args) => fuzz::watch::look(&args).map(|()| ExitCode::SUCCESS),
        Task::List => {
            ops::all().for_each(|op| println!("{}", op.id));
            fault_names(None).for_each(|name| println!("{name}"));
            Ok(ExitCode::SUCCESS)
        }
        Task::Render { results, into } => run_render(&results, into.as_deref()),
    }
}

fn parse_dir(text: &str) -> Result<(String, PathBuf), String> {
    let (fs, path) = text.split_once('=').ok_or("it has to look like ext4=/mnt/ext4")?;
    if !FILESYSTEMS.contains(&fs) {
        return Err(format!("unknown filesystem {fs}; known are {}", FILESYSTEMS.join(", ")));
    }
    Ok((fs.to_owned(), PathBuf::from(path)))
}

/// What they need in the lower layer of an overlay.
fn lower_files(operations: &[&Operation]) -> Vec<LowerFiles> {
    operations.iter().map(|operation| operation.lower_files()).collect()
}

fn selected(filter: Option<&str>) -> Result<Vec<&'static Operation>> {
    let chosen: Vec<_> = ops::all()
        .filter(|op| filter.is_none_or(|parts| parts.split(',').any(|part| op.id.contains(part))))
        .collect();
    ensure!(!chosen.is_empty(), "no operation has {filter:?} in its name; see hotr-matrix list");
    Ok(chosen)
}

/// Names of the cases that are made with `--faults`, and contain this.
fn fault_names(filter: Option<&str>) -> impl Iterator<Item = &'static str> {
    GROUPS.iter().flat_map(move |group| group.chosen(filter))
}

fn running_kernel() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

fn run(dirs: &[(String, PathBuf)], tiers: &[String], what: &What, faulty: bool) -> Result<ExitCode> {
    let exceptions = Exceptions::built_in()?;
    let filter = what.filter.as_deref();
    // A filter may choose faults alone.
    let is_fault = faulty && filter.is_some() && fault_names(filter).next().is_some();
    let chosen = selected(filter).or_else(|error| if is_fault { Ok(Vec::new()) } else { Err(error) })?;
    let dirs = if chosen.is_empty() { &[] } else { dirs };
    let kernel = what.kernel.clone().unwrap_or_else(running_kernel);
    let mut file = File::create(&what.out).with_context(|| format!("make {}", what.out.display()))?;
    let mut outcomes: Vec<Outcome> = Vec::new();
    let deadlines = Deadlines {
        ready: Duration::from_secs(what.ready_deadline),
        line: Duration::from_secs(what.line_deadline),
    };
    for (fs, path) in dirs {
        for tier in tiers {
            let run = Run {
                hotr: &what.hotr,
                kernel: &kernel,
                tier,
                deadlines,
                verbose: what.verbose,
                exceptions: &exceptions,
            };
            for outcome in run.all(&chosen, || Place::new(fs, path, tier, &lower_files(&chosen)))? {
                report(&outcome);
                writeln!(file, "{}", serde_json::to_string(&outcome)?)?;
                outcomes.push(outcome);
            }
        }
    }
    for group in GROUPS.iter().filter(|_| faulty) {
        for tier in tiers {
            let setting = Setting { hotr: &what.hotr, kernel: &kernel, tier, deadlines };
            for outcome in group.run(setting, filter) {
                report(&outcome);
                writeln!(file, "{}", serde_json::to_string(&outcome)?)?;
                outcomes.push(outcome);
            }
        }
    }
    writeln!(file, "{}", serde_json::json!({"end": true, "cells": outcomes.len()}))?;
    file.flush().context("write results")?;
    for ((kernel, fs, tier), [pass, exception, fail]) in render::totals(&outcomes) {
        println!("{kernel} {fs} {tier}: {pass} passed, {exception} as an exception says, {fail} failed");
    }
    let failed = outcomes.iter().any(|outcome| outcome.result == Verdict::Fail);
    Ok(ExitCode::from(u8::from(failed)))
}

fn report(outcome: &Outcome) {
    if outcome.result == Verdict::Fail && !outcome.why.starts_with("not run") {
        println!("FAIL {} {} {} {}", outcome.kernel, outcome.fs, outcome.tier, outcome.op);
        println!("    {}", outcome.why);
    }
}

fn run_fuzz(args: &FuzzArgs) -> Result<ExitCode> {
    let native = Native::new(&args.fs)?;
    let kernel = running_kernel();
    let share = args.ops.div_ceil(args.fs.len() as u64);
    let name = if args.watch { "fuzz-watch" } else { "fuzz" };
    let mut outcomes = Vec::new();
    for (fs, base) in &native.dirs {
        let started = std::time::Instant::now();
        let result = fuzz::run::Place::new(fs, base)
            .and_then(|place| {
                if args.watch {
                    fuzz::watch::run(args, &place, share)
                } else {
                    fuzz::run::run(args, &place, share)
                }
            })
            .and_then(|outcome| {
                println!("{name} {fs} seed {}: {outcome}, {} s", args.seed, started.elapsed().as_secs());
                ensure!(outcome.failures.is_empty(), "{}", outcome.failures.join("\n"));
                Ok(())
            });
        let outcome = Outcome::of(&kernel, fs, &args.tier, name, result);
        report(&outcome);
        outcomes.push(outcome);
    }
    if let Some(out) = &args.out {
        let mut file = File::create(out).with_context(|| format!("make {}", out.display()))?;
        for outcome in &outcomes {
            writeln!(file, "{}", serde_json::to_string(outcome)?)?;
        }
        writeln!(file, "{}", serde_json::json!({"end": true, "cells": outcomes.len()}))?;
        file.flush().context("write results")?;
    }
    let failed = outcomes.iter().any(|outcome| outcome.result == Verdict::Fail);
    Ok(ExitCode::from(u8::from(failed)))
}

fn run_selftest(dirs: &[(String, PathBuf)], filter: Option<&str>) -> Result<ExitCode> {
    let exceptions = Exceptions::built_in()?;
    let mut wrong = 0;
    for (fs, path) in dirs {
        let operations = selected(filter)?;
        let place = Place::new(fs, path, "selftest", &lower_files(&operations))?;
        let operations: Vec<_> = operations.into_iter().filter(|op| op.runs_at(&place)).collect();
        wrong += selftest::selftest(&running_kernel(), &place, &operations, &exceptions)?;
    }
    Ok(ExitCode::from(u8::from(wrong > 0)))
}

fn run_render(results: &[PathBuf], into: Option<&Path>) -> Result<ExitCode> {
    let mut outcomes = Vec::new();
    for path in results {
        outcomes.extend(render::read(path)?);
    }
    let section = render::section(&outcomes, &Exceptions::built_in()?)?;
    match into {
        None => print!("{section}"),
        Some(path) => {
            let document =
                std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
            std::fs::write(path, render::replace(&document, &section)?)
                .with_context(|| format!("write {}", path.display()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
