//! `hotr-load`: the loads of `cargo xtask bench`, and what they measure of the watchers beside them.
//!
//! In: a benchmark's name, the programs to measure, where to work. Out: figures as JSON Lines
//! `{"key":"cost/hotr/other","value":212.0}`, on stdout or in the file of `--out`. Judging them is the caller's.

mod cost;
mod creates;
mod delivered;
mod diagnose;
mod empty;
mod figures;
mod idle;
mod latency;
mod poll;
mod poll_doc;
mod race;
mod ready;
mod reload;
mod storm;
mod verifier;
mod watch_idle;
mod watcher;
mod wide;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::figures::Figures;

/// Loads and measurements for hotr's benchmarks.
#[derive(Parser)]
struct Cli {
    /// Where the figures go [default: standard output]
    #[arg(long, global = true)]
    out: Option<PathBuf>,
    #[command(subcommand)]
    load: Load,
}

#[derive(Subcommand)]
enum Load {
    /// Time one-byte pwrites to files in turn, and print nanoseconds for each, by the machine's clock and the thread's
    PwriteLoop {
        /// How many.
        count: u64,
        /// The files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// What each watcher adds to a pwrite, for files in and outside of what it watches
    Cost(cost::CostArgs),
    /// What a live diagnosis adds to a write whose event another process receives, and to the reading of that event
    Delivered(delivered::DeliveredArgs),
    /// Attach the empty fexit program until standard input ends
    Empty {
        /// An object with the program `bench_empty`.
        object: PathBuf,
        /// The kernel function.
        function: String,
    },
    /// Many one-byte writes to one watched file
    Storm(storm::StormArgs),
    /// From the return of a write to the line about it, beside inotifywait
    Latency(latency::LatencyArgs),
    /// From the start to `ready` on a large tree, and the memory it takes
    Ready(ready::ReadyArgs),
    /// Directories that are made and filled at once
    Race(race::RaceArgs),
    /// A storm of new directories: its memory, and the end by a signal in its midst
    Wide(wide::WideArgs),
    /// Creates in many directories, as fast as two processes can
    Creates(creates::CreatesArgs),
    /// One of the processes of `creates`
    #[command(hide = true)]
    CreatesWorker(creates::WorkerArgs),
    /// A full audit of large trees, beside find and notify's PollWatcher
    Poll(poll::PollArgs),
    /// One of the subjects of `poll`
    #[command(hide = true)]
    PollSubject(poll::SubjectArgs),
    /// From a change to the start of the command, beside watchexec and entr
    Reload(reload::ReloadArgs),
    /// The command of `reload`
    #[command(hide = true)]
    ReloadNote(reload::NoteArgs),
    /// Processor time and memory of an idle watch
    WatchIdle(watch_idle::WatchIdleArgs),
    /// A diagnosis of many watches, and of many watching processes
    Diagnose(diagnose::DiagnoseArgs),
    /// Memory of an idle trace
    Idle(Common),
    /// Instructions that the kernel's verifier processed for each program that a command loads
    Verifier(verifier::VerifierArgs),
}

/// What every native benchmark needs.
#[derive(Args, Clone)]
struct Common {
    /// hotr
    #[arg(long)]
    hotr: PathBuf,
    /// An existing folder to work in
    #[arg(long)]
    dir: PathBuf,
}

/// What runs in the background may ignore SIGINT, and so would the tools, which are ended by it.
fn heed_interrupts() {
    // SAFETY: the default is no code of ours.
    unsafe { libc::signal(libc::SIGINT, libc::SIG_DFL) };
}

fn main() -> Result<()> {
    // Before anything else: for `reload-note` it is the result.
    let began_ns = reload::clock_ns();
    heed_interrupts();
    let cli = Cli::parse();
    let mut figures = Figures::new(cli.out.as_deref())?;
    let out = &mut figures;
    match cli.load {
        Load::PwriteLoop { count, files } => {
            println!("{}", serde_json::to_string(&cost::pwrite_loop(&files, count)?)?);
            Ok(())
        }
        Load::Cost(args) => cost::run(&args, out),
        Load::Delivered(args) => delivered::run(&args, out),
        Load::Empty { object, function } => empty::hold(&object, &function),
        Load::Storm(args) => storm::run(&args, out),
        Load::Latency(args) => latency::run(&args, out),
        Load::Ready(args) => ready::run(&args, out),
        Load::Race(args) => race::run(&args, out),
        Load::Wide(args) => wide::run(&args, out),
        Load::Creates(args) => creates::run(&args, out),
        Load::CreatesWorker(args) => creates::work(&args),
        Load::Poll(args) => poll::run(&args, out),
        Load::PollSubject(args) => poll::subject(&args),
        Load::Reload(args) => reload::run(&args, out),
        Load::ReloadNote(args) => reload::note(&args, began_ns),
        Load::WatchIdle(args) => watch_idle::run(&args, out),
        Load::Diagnose(args) => diagnose::run(&args, out),
        Load::Idle(common) => idle::run(&common, out),
        Load::Verifier(args) => verifier::run(&args, out),
    }
}
