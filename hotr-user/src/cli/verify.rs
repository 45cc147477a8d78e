//! `hotr verify`: tests claims about file watching on the kernel that runs.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use clap::{Args, ValueEnum, ValueHint};
use hotr_user::diagnose::live::Machine;
use hotr_user::ending;
use hotr_user::output::stdout::Stdout;
use hotr_user::output::verify::report::{Form, report as write_report};
use hotr_user::output::verify::{human, json};
use hotr_user::verify::evidence::Listener;
use hotr_user::verify::runner::SelfTest;
use hotr_user::verify::saved::{self, Saved};
use hotr_user::verify::{Experiment, Finding, Options, Verdict, catalogue, run as experiment};
use indicatif::{ProgressBar, ProgressStyle};

use super::files::Replacing;
use super::{ColorChoice, Status, say, signals};

const EXAMPLES: &str = "\
Examples:
  hotr verify --list                       every experiment, with its claim
  hotr verify                              all of them on this kernel
  hotr verify overlay-upper-write data-swap
  hotr verify --json > before.jsonl        keep the verdicts of this kernel
  hotr verify --expect before.jsonl        what did the kernel upgrade change
  hotr verify --compare a.jsonl b.jsonl    claims whose verdict differs between saved runs
  hotr verify --strace oneshot             the listener's system calls beside the events
  hotr verify --report claims.html         one page with all evidence, for a browser
  hotr verify --keep mmap-store            leave files and mounts to look at, until Ctrl-C

Needs root. Everything happens in a mount namespace of its own, in memory, and disappears with hotr.

Exit status: 0 done; 3 with --expect or --compare: a verdict differs; 1 error; 2 usage error.";

/// Test claims about inotify on this kernel: make each situation, listen, and print a verdict
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct VerifyArgs {
    /// Experiments to make, in this order [default: all]
    #[arg(value_name = "EXPERIMENT")]
    experiments: Vec<String>,
    /// Print the names and claims of all experiments, and make none
    #[arg(long, conflicts_with_all = ["experiments", "repeat", "keep", "expect"])]
    list: bool,
    /// Print JSON Lines
    #[arg(long)]
    json: bool,
    /// Keep files and mounts, and wait for Ctrl-C
    #[arg(long)]
    keep: bool,
    /// Make each experiment this often; runs that differ count as PARTLY
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: u32,
    /// Compare the verdicts with those that an earlier `hotr verify --json` printed
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    expect: Option<PathBuf>,
    /// Print the claims whose verdict differs between runs that `hotr verify --json` printed, and make no experiment
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, num_args = 2..,
          conflicts_with_all = ["experiments", "list", "repeat", "keep", "expect", "report", "strace"])]
    compare: Vec<PathBuf>,
    /// Record the listener's system calls with strace, which must be installed
    #[arg(long, conflicts_with = "list")]
    strace: bool,
    /// Write a report: FILE.html for a browser, FILE.md as Markdown
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, value_parser = report_file, conflicts_with = "list")]
    report: Option<(PathBuf, Form)>,
    /// Self-test: this listener loses what it received
    #[arg(long, value_enum, value_name = "CHANNEL", hide = true)]
    mute: Option<Muted>,
    /// Self-test: leave out what the experiments are about
    #[arg(long, hide = true)]
    omit_operation: bool,
    /// When to use colour; auto means on a terminal, unless NO_COLOR is set
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = ColorChoice::Auto)]
    color: ColorChoice,
}

/// [`Listener`] as a word of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Muted {
    Inotify,
    Fanotify,
    Ebpf,
    Poll,
}

impl From<Muted> for Listener {
    fn from(muted: Muted) -> Self {
        match muted {
            Muted::Inotify => Self::Inotify,
            Muted::Fanotify => Self::Fanotify,
            Muted::Ebpf => Self::Ebpf,
            Muted::Poll => Self::Poll,
        }
    }
}

pub(super) fn run(args: &VerifyArgs) -> anyhow::Result<Status> {
    if args.list {
        list(args).context("write to stdout")?;
        return Ok(Status::Done);
    }
    if !args.compare.is_empty() {
        return compare(args);
    }
    let experiments = match chosen(&args.experiments) {
        Ok(experiments) => experiments,
        Err(why) => {
            say(&why);
            return Ok(Status::Usage);
        }
    };
    // Before the laboratory hides a directory that the file may be in.
    let saved = args.expect.as_deref().map(Saved::read).transpose().map_err(anyhow::Error::msg)?;
    anyhow::ensure!(
        rustix::process::geteuid().is_root(),
        "verify claims: it mounts filesystems and loads eBPF programs; run it as root"
    );
    let runtime = super::runtime()?;
    let end = runtime.block_on(async { signals::End::new() })?;
    let mut page = Page::new(args, saved);
    // Likewise; and a file that cannot be written is better known before a run than after it.
    let mut report = match &args.report {
        Some((path, form)) => Some((Replacing::create(path)?, *form, Machine::gather(&[]), Vec::new())),
        None => None,
    };
    let mut options = Options::new(experiments);
    options.repeat = args.repeat;
    options.keep = args.keep;
    options.strace = args.strace;
    options.self_test = SelfTest { mute: args.mute.map(Listener::from), omit_operation: args.omit_operation };
    let bar = bar(options.experiments.len() as u64);
    let laboratory = experiment(
        &options,
        |next| bar.set_message(next.name),
        |finding| {
            bar.inc(1);
            bar.suspend(|| page.add(&finding))?;
            if let Some((.., findings)) = &mut report {
                findings.push(finding);
            }
            Ok(())
        },
    )?;
    bar.finish_and_clear();
    if let Some((file, form, machine, findings)) = report {
        file.finish(&write_report(&machine, &findings, form))?;
    }
    page.end().context("write to stdout")?;
    if args.keep && !ending::is_asked() {
        let (folder, pid) = (laboratory.folder().display(), std::process::id());
        say(&format!(
            "files and mounts stay in {folder} of process {pid} until Ctrl-C; look at them with: nsenter -t {pid} -m ls {folder}"
        ));
        runtime.block_on(end.wait());
    }
    drop(laboratory);
    Ok(if page.differing > 0 { Status::Found } else { Status::Done })
}

/// A report's file; its form is that of its name.
fn report_file(name: &str) -> Result<(PathBuf, Form), String> {
    let path = PathBuf::from(name);
    let form = match path.extension().and_then(|ending| ending.to_str()) {
        Some("html") => Form::Html,
        Some("md") => Form::Markdown,
        _ => return Err("a report ends with .md or .html".to_owned()),
    };
    Ok((path, form))
}

/// One line on a terminal's stderr: how many experiments were made, and which one is next. It has no thread of its own.
fn bar(experiments: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{pos}/{len} {msg}");
    let bar = ProgressBar::new(experiments);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// The experiments of these names, or all.
fn chosen(names: &[String]) -> Result<Vec<&'static Experiment>, String> {
    if names.is_empty() {
        return Ok(catalogue::all().collect());
    }
    names.iter().map(|name| catalogue::find(name).ok_or_else(|| unknown(name))).collect()
}

/// What to say of a name that no experiment has.
fn unknown(name: &str) -> String {
    let distance = |experiment: &&Experiment| strsim::damerau_levenshtein(name, experiment.name);
    let nearest = catalogue::all().min_by_key(distance).map_or("", |experiment| experiment.name);
    format!("'{name}' is not an experiment; did you mean {nearest}? See hotr verify --list")
}

/// Compares saved runs.
fn compare(args: &VerifyArgs) -> anyhow::Result<Status> {
    let runs: Result<Vec<Saved>, String> = args.compare.iter().map(|file| Saved::read(file)).collect();
    let (experiments, differences) = saved::compare(&runs.map_err(anyhow::Error::msg)?);
    let mut out = Stdout::new();
    let print = |out: &mut Stdout| {
        if !args.json {
            let color = args.color.on_stdout();
            return human::comparison(&args.compare, experiments, &differences, color, out);
        }
        differences.iter().try_for_each(|difference| json::difference(difference, out))?;
        json::compared(&args.compare, experiments, differences.len(), out)
    };
    print(&mut out).and_then(|()| out.flush()).context("write to stdout")?;
    Ok(if differences.is_empty() { Status::Done } else { Status::Found })
}

fn list(args: &VerifyArgs) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if args.json {
        return catalogue::all().try_for_each(|experiment| json::listed(experiment, &mut out));
    }
    human::list(catalogue::all(), args.color.on_stdout(), &mut out)
}

/// What is printed of a run.
struct Page {
    out: Stdout,
    json: bool,
    color: bool,
    saved: Option<Saved>,
    verdicts: Vec<Verdict>,
    differing: u64,
    since: Instant,
}

impl Page {
    fn new(args: &VerifyArgs, saved: Option<Saved>) -> Self {
        Self {
            out: Stdout::new(),
            json: args.json,
            color: args.color.on_stdout(),
            saved,
            verdicts: Vec::new(),
            differing: 0,
            since: Instant::now(),
        }
    }

    fn add(&mut self, finding: &Finding) -> io::Result<()> {
        let verdict = finding.ruling.verdict;
        let before = self.saved.as_ref().and_then(|saved| saved.of(finding.experiment.name));
        let expected = before.filter(|before| *before != verdict);
        self.differing += u64::from(expected.is_some());
        self.verdicts.push(verdict);
        if self.json {
            json::finding(finding, expected, &mut self.out)
        } else {
            human::finding(finding, expected, self.color, &mut self.out)
        }
    }

    fn end(&mut self) -> io::Result<()> {
        let duration = self.since.elapsed();
        if self.json {
            json::summary(&self.verdicts, self.differing, duration, &mut self.out)?;
        } else {
            let differing = self.saved.as_ref().map(|_| self.differing);
            human::summary(&self.verdicts, differing, duration, self.color, &mut self.out)?;
        }
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::unknown;

    #[test]
    fn a_name_that_is_nearly_right_is_understood() {
        let said = unknown("overlay-uper-write");
        assert!(said.contains("did you mean overlay-upper-write?"), "{said}");
    }
}
