//! `hotr diagnose`: says which watchers of this machine receive their changes, and which do not, and why.

mod follow;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::builder::NonEmptyStringValueParser;
use clap::{ArgGroup, Args, ValueHint};
use hotr_user::diagnose::live;
use hotr_user::diagnose::select::Choice;
use hotr_user::diagnose::{Options, run as survey};
use hotr_user::output::diagnose::{human, json};

use super::trace::Tier;
use super::{ColorChoice, Status, say, values};
use follow::{Outputs, follow, replay};

const EXAMPLES: &str = "\
Examples:
  hotr diagnose                          every watcher of this machine, worst first
  hotr diagnose /etc/app/app.conf        who watches this file, and what they would receive
  hotr diagnose --pid $(pidof app)       what is wrong with the watches of one process
  hotr diagnose --unit nginx /etc/nginx  would nginx receive a change here
  hotr diagnose --live --pid $(pidof app)        what becomes of each change, until Ctrl-C
  hotr diagnose --live --comm app --record run.jsonl --report run.html
  hotr diagnose --replay run.jsonl               what that run printed, on any machine
  hotr diagnose --json | jq 'select(.severity == \"deaf\")'

Without root, hotr can look only at processes of the same user, and finds few paths.

Exit status: 0 nothing is deaf, 3 a watch is deaf or lost events; 1 error; 2 usage error.";

/// Find watchers that no longer receive their changes, and say why
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
#[command(group = ArgGroup::new("target").args(["pid", "comm", "unit", "container"]).multiple(true))]
#[command(group = ArgGroup::new("reported").args(["pid", "comm", "unit", "container", "replay"]).multiple(true))]
pub(super) struct DiagnoseArgs {
    /// Files or directories: who watches them, and would a write, a replacement, a creation be received
    #[arg(value_name = "PATH", value_hint = ValueHint::AnyPath)]
    paths: Vec<PathBuf>,
    /// Only this process; may be repeated
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pid: Vec<u32>,
    /// Only processes of this command name; may be repeated
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    comm: Vec<String>,
    /// Only processes of this systemd unit; may be repeated
    #[arg(long, value_name = "UNIT", value_parser = NonEmptyStringValueParser::new())]
    unit: Vec<String>,
    /// Only processes of this container, by its id or the beginning of it; may be repeated
    #[arg(long, value_name = "ID", value_parser = container_id)]
    container: Vec<String>,
    /// Follow these processes until Ctrl-C: what becomes of each change; with paths, of each change below them
    #[arg(long, requires = "target")]
    live: bool,
    /// Follow them for this long, as in 10s or 5m
    #[arg(long, value_name = "TIME", value_parser = values::duration, requires = "target")]
    duration: Option<Duration>,
    /// Kind of eBPF programs to follow them with
    #[arg(long, value_enum, default_value_t = Tier::Auto, requires = "target")]
    tier: Tier,
    /// Keep what is reported in a new file, for --replay
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "target")]
    record: Option<PathBuf>,
    /// Print what a recorded run printed; needs no privileges
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with_all = ["target", "paths", "live", "record"])]
    replay: Option<PathBuf>,
    /// At the end, write a page for a browser: of a run, or of a recorded one
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "reported")]
    report: Option<PathBuf>,
    /// Print JSON Lines
    #[arg(long)]
    json: bool,
    /// When to use colour; auto means on a terminal, unless NO_COLOR is set
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = ColorChoice::Auto)]
    color: ColorChoice,
}

/// The beginning of an id, long enough to mean one.
pub(super) fn container_id(text: &str) -> Result<String, String> {
    let id = text.to_ascii_lowercase();
    if (4..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(id);
    }
    Err("a container's id is hexadecimal; give at least 4 digits of it".to_owned())
}

pub(super) fn run(args: DiagnoseArgs) -> anyhow::Result<Status> {
    let outputs =
        Outputs { record: args.record, report: args.report, json: args.json, color: args.color.on_stdout() };
    if let Some(file) = &args.replay {
        return replay(file, outputs);
    }
    let choices = args.pid.into_iter().map(Choice::Pid);
    let choices = choices.chain(args.comm.into_iter().map(Choice::Comm));
    let choices = choices.chain(args.unit.into_iter().map(Choice::Unit));
    let choices = choices.chain(args.container.into_iter().map(Choice::Container)).collect();
    if args.live || args.duration.is_some() || outputs.is_of_a_run() {
        let options =
            live::Options { choices, paths: args.paths, tier: args.tier.into(), duration: args.duration };
        return follow(options, outputs);
    }
    let diagnosis = survey(&Options { choices, paths: args.paths })?;
    for note in &diagnosis.notes {
        say(note);
    }
    if args.json {
        for (path, sentence) in &diagnosis.absent {
            say(&format!("{} {sentence}", path.display()));
        }
    }
    let mut out = io::stdout().lock();
    if args.json {
        json::print(&diagnosis, &mut out)
    } else {
        human::print(&diagnosis, args.color.on_stdout(), &mut out)
    }
    .context("write to stdout")?;
    Ok(if diagnosis.is_bad() { Status::Found } else { Status::Done })
}
