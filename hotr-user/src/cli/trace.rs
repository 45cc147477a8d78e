//! `hotr trace`: options, path checks, and the run itself on one thread.

mod groups;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum, ValueHint};
use hotr_events::{Op, ReportSink};
use hotr_user::error::Error;
use hotr_user::kernel::log::{HAS_MESSAGES, TARGET};
use hotr_user::options::{Channels, TierChoice, TraceOptions};
use hotr_user::output;
use hotr_user::output::stdout::Stdout;
use hotr_user::output::template::{Template, TemplatePrinter};
use hotr_user::procinfo::kept_of;
use log::{LevelFilter, Log, Metadata, Record};

use super::log_file::LogFile;
use super::names::ChosenArgs;
use super::{ColorChoice, Status, engine, or_here, paths, say, signals, values};

const EXAMPLES: &str = "\
Examples:
  hotr trace /srv                              every change under /srv, until Ctrl-C
  hotr trace --json --duration 10s /srv        ten seconds of it as JSON Lines
  hotr trace --json -o srv.jsonl /srv          appended to a file, which may be rotated
  hotr trace --op write,rename --comm rsync    what rsync writes and renames below this directory
  hotr trace --exclude .git --exclude '*.tmp'  without .git and temporary files
  hotr trace -e conf,toml /etc                 only files with these extensions
  hotr trace --missed /srv                     only what inotify missed, and why
  hotr trace --missed --watcher $(pidof app)   only what that process missed of what it watches
  hotr trace --unit nginx /var/lib             only changes by processes of this service
  hotr trace --once --op write /etc/hosts      wait for the next write
  hotr trace --format '{kind} {path} {user}'   lines of one's own
  hotr trace -v /etc                           with the writer's user, login, parent, unit and container
  hotr trace --channels ebpf --raw /etc        each kernel record by itself

A filled mark names a channel that saw the change, an open one a channel that missed it, and why.
Exit status: 0 done, also by SIGINT, SIGTERM or SIGHUP; 1 error; 2 usage error.";

/// Print every file change under the paths, who made it, and what inotify missed
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct TraceArgs {
    /// Directories or files to trace [default: .]
    #[arg(value_name = "PATH", value_hint = ValueHint::AnyPath)]
    paths: Vec<PathBuf>,
    /// Print JSON Lines
    #[arg(long)]
    json: bool,
    /// Print each change by this template, as '{time} {kind} {path} {comm}[{pid}]'; what is not known is empty
    #[arg(long, value_name = "TEMPLATE", conflicts_with_all = ["json", "raw"], value_parser = values::template)]
    format: Option<Template>,
    /// Append to this file instead of printing on stdout; when it is renamed or removed, as by logrotate, go on in a new one
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    output: Option<PathBuf>,
    /// Channels to run: ebpf, inotify, or both comma-separated (then each must run); auto runs those that work
    #[arg(long, value_name = "LIST", default_value = "auto", value_parser = values::channels)]
    channels: Channels,
    /// Kind of eBPF programs to attach; auto takes the best for each hook
    #[arg(long, value_enum, default_value_t = Tier::Auto)]
    tier: Tier,
    /// Stop after this long, as in 10s or 5m
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    duration: Option<Duration>,
    /// Print only these operations; comma-separated. `modify` means write, `delete` means remove
    #[arg(long, value_delimiter = ',', value_parser = values::op())]
    op: Vec<Op>,
    /// Print only changes by these processes; comma-separated
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..))]
    pid: Vec<u32>,
    /// Print only changes by tasks of this name (its first 15 bytes count, as in the kernel); repeatable
    #[arg(long, value_name = "NAME", value_parser = values::name())]
    comm: Vec<OsString>,
    /// Print only changes by these users, names or numbers; comma-separated
    #[arg(long, value_name = "USER", value_delimiter = ',', value_parser = values::user())]
    uid: Vec<u32>,
    #[command(flatten)]
    groups: groups::GroupArgs,
    /// Print only changes that a channel missed
    #[arg(long, conflicts_with = "raw")]
    missed: bool,
    /// Mark what became of each change in the inotify instances of this process, instead of in hotr's own; without PATH, trace
    /// what it watches
    #[arg(long, value_name = "PID", conflicts_with = "raw", value_parser = clap::value_parser!(u32).range(1..))]
    watcher: Option<u32>,
    /// End after the first change that is printed; with --raw, after the first record
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    chosen: ChosenArgs,
    /// Leave out paths that match, as in .gitignore; repeatable
    #[arg(short = 'i', long, visible_alias = "ignore", value_name = "GLOB", value_parser = values::glob)]
    exclude: Vec<String>,
    /// Only the named directories, not the content of their subdirectories
    #[arg(long)]
    no_recursive: bool,
    /// Print every record as its channel delivered it: nothing settled, nothing merged
    #[arg(long)]
    raw: bool,
    /// Print where each writer belongs: its user by name, login, parent, unit and container; JSON Lines always have it
    #[arg(short, long)]
    verbose: bool,
    /// Print messages of the kernel programs on stderr: error, warn, info, debug or trace [default: debug]. Needs a hotr that
    /// was built with `cargo xtask build --log-ebpf`
    #[arg(long, value_name = "LEVEL", num_args = 0..=1, require_equals = true, default_missing_value = "debug",
        hide_possible_values = true, value_parser = log_levels())]
    log_ebpf: Option<LevelFilter>,
    /// When to use colour; auto means on a terminal, unless NO_COLOR is set
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = ColorChoice::Auto)]
    color: ColorChoice,
}

fn log_levels() -> impl TypedValueParser<Value = LevelFilter> {
    PossibleValuesParser::new(["error", "warn", "info", "debug", "trace"])
        .try_map(|word| word.parse::<LevelFilter>())
}

/// Prints the messages of the kernel programs from now on, up to this level.
fn log_kernel_messages(level: LevelFilter, channels: Channels) -> Result<(), &'static str> {
    if !channels.ebpf {
        return Err(
            "--log-ebpf prints messages of eBPF programs, and --channels leaves ebpf out; see hotr trace --help",
        );
    }
    if !HAS_MESSAGES {
        return Err(
            "trace --log-ebpf: the kernel programs in this hotr have no messages; build one that has them with `cargo xtask build --log-ebpf`",
        );
    }
    log::set_logger(&KernelMessages).map_err(|_| "trace --log-ebpf: this process has a logger already")?;
    log::set_max_level(level);
    Ok(())
}

/// Prints what the kernel programs say, and nothing of any library.
struct KernelMessages;

impl Log for KernelMessages {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == TARGET
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            say(&format!("ebpf {}: {}", record.level().as_str().to_ascii_lowercase(), record.args()));
        }
    }

    fn flush(&self) {}
}

/// [`TierChoice`] as a word of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Tier {
    Auto,
    Fentry,
    Kprobe,
    Tracepoint,
}

impl From<Tier> for TierChoice {
    fn from(tier: Tier) -> Self {
        match tier {
            Tier::Auto => Self::Auto,
            Tier::Fentry => Self::Fentry,
            Tier::Kprobe => Self::Kprobe,
            Tier::Tracepoint => Self::Tracepoint,
        }
    }
}

pub(super) fn run(args: TraceArgs) -> anyhow::Result<Status> {
    if args.tier != Tier::Auto && !args.channels.ebpf {
        say("--tier chooses eBPF programs, and --channels leaves ebpf out; see hotr trace --help");
        return Ok(Status::Usage);
    }
    if args.watcher.is_some() && !args.channels.ebpf {
        say("--watcher needs eBPF programs, and --channels leaves ebpf out; see hotr trace --help");
        return Ok(Status::Usage);
    }
    if !args.groups.is_empty() && !args.channels.ebpf {
        say(
            "--unit, --cgroup and --container choose writers, which only ebpf knows, and --channels leaves it out; see hotr trace --help",
        );
        return Ok(Status::Usage);
    }
    if args.missed && args.watcher.is_none() && !(args.channels.ebpf && args.channels.inotify) {
        say("--missed compares two channels, and --channels leaves one out; see hotr trace --help");
        return Ok(Status::Usage);
    }
    if args.raw && !args.chosen.is_empty() {
        say("--exts and --filter choose changes, and --raw prints records; see hotr trace --help");
        return Ok(Status::Usage);
    }
    if let Some(level) = args.log_ebpf
        && let Err(why) = log_kernel_messages(level, args.channels)
    {
        say(why);
        return Ok(Status::Usage);
    }
    let named = match args.watcher {
        // What it watches.
        Some(_) if args.paths.is_empty() => Vec::new(),
        _ => or_here(&args.paths).to_vec(),
    };
    let roots = paths::roots(&named, !args.no_recursive)?;
    for note in &roots.notes {
        say(&format!("note: {note}"));
    }
    let exclude = values::exclude_set(args.exclude.iter().map(String::as_str)).map_err(anyhow::Error::msg)?;
    let mut options = TraceOptions::new(roots.paths);
    options.recursive = !args.no_recursive;
    options.channels = args.channels;
    options.tier = args.tier.into();
    options.duration = args.duration;
    options.ops = args.op;
    options.pids = args.pid;
    options.comms = args.comm.iter().map(|name| kept_of(name).to_owned()).collect();
    options.uids = args.uid;
    options.groups = args.groups.groups()?;
    options.missed = args.missed;
    options.once = args.once;
    options.only = args.chosen.only()?;
    options.exts = args.chosen.exts;
    options.exclude = exclude;
    options.raw = args.raw;
    options.origins = args.json || args.verbose || args.format.as_ref().is_some_and(Template::has_origin);
    let mut printer: Box<dyn ReportSink> = match (&args.output, args.format) {
        (Some(path), format) => {
            let file = LogFile::open(path, options.outputs.clone())?;
            match format {
                Some(template) => Box::new(TemplatePrinter::new(file, template, false)),
                None => output::printer_to(file, args.json, args.color == ColorChoice::Always),
            }
        }
        (None, Some(template)) => {
            Box::new(TemplatePrinter::new(Stdout::new(), template, std::io::stdout().is_terminal()))
        }
        (None, None) => output::printer(args.json, args.color.on_stdout()),
    };
    let runtime = super::runtime()?;
    let result = runtime.block_on(async {
        let end = if args.output.is_some() { signals::End::by_signals()? } else { signals::End::new()? };
        match args.watcher {
            Some(pid) => engine::trace_watcher(options, pid, printer.as_mut(), end.wait()).await?,
            None => engine::trace(options, printer.as_mut(), end.wait()).await?,
        }
        printer.flush().map_err(Error::Output)?;
        Ok(Status::Done)
    });
    result.map_err(|error: anyhow::Error| match (&args.output, error.downcast_ref::<Error>()) {
        (Some(path), Some(Error::Output(source))) => {
            anyhow::anyhow!("append to {}: {source}; free space, or name another file", path.display())
        }
        _ => error,
    })
}
