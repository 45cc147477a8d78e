//! `hotr relay`: announces to watchers the changes that they missed.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, ValueHint};
use hotr_user::diagnose::live::RelayOptions;
use hotr_user::diagnose::select::Choice;
use hotr_user::output;

use super::trace::Tier;
use super::values::container_id;
use super::{ColorChoice, Status, engine, paths, say, signals, values};

const EXAMPLES: &str = "\
Examples:
  hotr relay /srv/app                            to every process that watches something there
  hotr relay --to $(pidof app) /etc/app          to one process
  hotr relay --container 3f2a9c /var/lib/docker/overlay2/ID/merged/srv
                                                 what the host writes in the upper layer, to the container

A missed change is announced by opening the file for writing and closing it, which sends IN_OPEN and IN_CLOSE_WRITE and
changes nothing of the file. It needs root.
Exit status: 0 done, also by SIGINT, SIGTERM or SIGHUP; 1 error; 2 usage error.";

/// Announce to inotify watchers the changes that they missed
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct RelayArgs {
    /// Files or directories whose changes are relayed
    #[arg(value_name = "PATH", required = true, value_hint = ValueHint::AnyPath)]
    paths: Vec<PathBuf>,
    /// Only to this process; may be repeated [default: all that watch something at or below PATH now]
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    to: Vec<u32>,
    /// Only to processes of this systemd unit; may be repeated
    #[arg(long, value_name = "UNIT", value_parser = NonEmptyStringValueParser::new())]
    unit: Vec<String>,
    /// Only to processes of this container, by its id or the beginning of it; may be repeated
    #[arg(long, value_name = "ID", value_parser = container_id)]
    container: Vec<String>,
    /// Send IN_MODIFY to watches that ask for it, by setting the modification time to what it is: for programs that do not ask
    /// for IN_CLOSE_WRITE, as all of Node.js. The change time of the file changes by that
    #[arg(long)]
    modify: bool,
    /// Announce also what is in a lower layer of an overlay: the file is copied to the upper layer by that
    #[arg(long)]
    copy_up: bool,
    /// Kind of eBPF programs to follow changes and watchers with
    #[arg(long, value_enum, default_value_t = Tier::Auto)]
    tier: Tier,
    /// Stop after this long, as in 10s or 5m
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    duration: Option<Duration>,
    /// Print JSON Lines
    #[arg(long)]
    json: bool,
    /// When to use colour; auto means on a terminal, unless NO_COLOR is set
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = ColorChoice::Auto)]
    color: ColorChoice,
}

pub(super) fn run(args: RelayArgs) -> anyhow::Result<Status> {
    // It opens files of others for writing: the rights to do so must be those of its caller.
    super::privilege::may_announce().map_err(anyhow::Error::msg)?;
    let roots = paths::roots(&args.paths, true)?;
    roots.notes.iter().for_each(|note| say(&format!("note: {note}")));
    let choices = args.to.into_iter().map(Choice::Pid);
    let choices = choices.chain(args.unit.into_iter().map(Choice::Unit));
    let choices = choices.chain(args.container.into_iter().map(Choice::Container)).collect();
    let options = RelayOptions {
        paths: roots.paths,
        choices,
        tier: args.tier.into(),
        duration: args.duration,
        copy_up: args.copy_up,
        modify: args.modify,
    };
    let mut printer = output::printer(args.json, args.color.on_stdout());
    super::runtime()?.block_on(async {
        let end = signals::End::new()?;
        engine::relay(options, printer.as_mut(), end.wait()).await?;
        printer.flush()?;
        Ok(Status::Done)
    })
}
