//! `hotr subscribe`: options, and what is done with the events of an agent.

mod command;

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::{ArgAction, Args, ValueHint};
use hotr_events::{Change, Op, Report, ReportSink};
use hotr_user::agent::{Client, Event, SOCKET};
use hotr_user::mounts::join;
use hotr_user::output;
use hotr_user::output::stdout::Stdout;
use hotr_user::watch::filter::{FilterOptions, PathFilter};
use rustix::fs::{CWD, Mode, OFlags, openat};

use super::names::NameArgs;
use super::{ColorChoice, Status, or_here, say, signals, values};
use command::Runner;

const EXAMPLES: &str = "\
Examples:
  hotr subscribe /srv/app                      every change below /srv/app that you may see
  hotr subscribe --json /srv/app               the same as JSON Lines, with paths relative to the directory
  hotr subscribe -e conf /etc/app -- ./reload  run a command when a .conf file changes

It needs no privilege, but a running hotr agent.
Exit status: 0 done, also by SIGINT, SIGTERM or SIGHUP; 1 error, also when the agent ends; 2 usage error.";

/// Print what a hotr agent reports below directories, or run a command when something changes there
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct SubscribeArgs {
    /// Directories that you may read [default: .]
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    dirs: Vec<PathBuf>,
    /// The agent's socket
    #[arg(long, value_name = "PATH", default_value = SOCKET, value_hint = ValueHint::FilePath)]
    socket: PathBuf,
    #[command(flatten)]
    names: NameArgs,
    /// Print JSON Lines on stdout; the command's own stdout then goes to stderr
    #[arg(long)]
    json: bool,
    /// Colour the lines
    #[arg(long, value_enum, default_value_t = ColorChoice::Auto)]
    color: ColorChoice,
    /// The command and its arguments
    #[arg(last = true, value_name = "COMMAND", value_hint = ValueHint::CommandWithArguments, action = ArgAction::Append)]
    command: Vec<OsString>,
}

/// Where events go.
enum Printer {
    /// As they come, one a line.
    Json(Stdout),
    Human(Box<dyn ReportSink>),
    /// Only the command matters.
    Nothing,
}

/// A run.
struct Subscription {
    dirs: Vec<PathBuf>,
    filter: PathFilter,
    printer: Printer,
    runner: Option<Runner>,
    /// Directories that are there.
    left: usize,
}

pub(super) fn run(args: SubscribeArgs) -> anyhow::Result<Status> {
    let dirs = or_here(&args.dirs);
    let set =
        |globs: &[String]| values::exclude_set(globs.iter().map(String::as_str)).map_err(anyhow::Error::msg);
    let options = FilterOptions {
        only: args.names.chosen.only()?,
        exts: args.names.chosen.exts,
        ignore: set(&args.names.ignore)?,
        vcs_ignore: false,
        default_ignore: !args.command.is_empty(),
    };
    let runner = (!args.command.is_empty()).then(|| Runner::new(args.command, args.json));
    let printer = match (args.json, &runner) {
        (true, _) => Printer::Json(Stdout::new()),
        (false, Some(_)) => Printer::Nothing,
        (false, None) => Printer::Human(output::printer(false, args.color.on_stdout())),
    };
    let filter = PathFilter::new(options, dirs.clone());
    let mut subscription = Subscription { left: dirs.len(), dirs, filter, printer, runner };
    let runtime = super::runtime()?;
    runtime.block_on(async {
        let end = signals::End::new()?;
        let result = subscription.run(&args.socket, end).await;
        if let Some(runner) = &mut subscription.runner {
            runner.stop().await;
        }
        result
    })
}

impl Subscription {
    async fn run(&mut self, socket: &Path, end: signals::End) -> anyhow::Result<Status> {
        // Opened before anything is asked for, so that what is wrong with them is said first.
        let opened: Vec<_> = self.dirs.iter().map(|dir| open(dir)).collect::<Result<_, _>>()?;
        let mut client = Client::connect(socket).await?;
        for dir in &opened {
            client.add(dir.as_fd()).await?;
        }
        drop(opened);
        let mut end = std::pin::pin!(end.wait());
        loop {
            tokio::select! {
                biased;
                () = &mut end => return Ok(Status::Done),
                event = client.next() => match event {
                    Some(event) => self.take(&event?)?,
                    None => return Ok(Status::Done),
                },
                () = next(&mut self.runner) => {}
            }
        }
    }

    fn take(&mut self, event: &Event) -> anyhow::Result<()> {
        match event {
            Event::Refused { root, why } => {
                return Err(anyhow!("subscribe {}: {why}", self.dir(*root).display()));
            }
            Event::Change { root, change, .. } => {
                if !self.wants(*root, change) {
                    return Ok(());
                }
                // A reload is for content and names, as with hotr watch.
                if change.op != Op::Attrib
                    && let Some(runner) = &mut self.runner
                {
                    runner.request();
                }
            }
            // What was lost may have been anything.
            Event::Loss { .. } => self.runner.iter_mut().for_each(Runner::request),
            _ => {}
        }
        self.print(event)?;
        match event {
            Event::Loss { reason, .. } if reason == "slow-subscriber" => Err(anyhow!(
                "read from the agent: this subscriber was too slow, and missed changes; subscribe again, and compare"
            )),
            Event::Gone { root } => {
                self.left = self.left.saturating_sub(1);
                match self.left {
                    0 => Err(anyhow!(
                        "subscribe {}: it was deleted; name a directory that is there",
                        self.dir(*root).display()
                    )),
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    fn dir(&self, root: u32) -> &Path {
        let index = usize::try_from(root).unwrap_or(usize::MAX);
        self.dirs.get(index).map_or(Path::new(""), PathBuf::as_path)
    }

    /// A rename matters by either name.
    fn wants(&mut self, root: u32, change: &Change) -> bool {
        let dir = self.dir(root).to_path_buf();
        let is_dir = change.file_type == Some(hotr_events::FileType::Dir);
        let mut names = std::iter::once(&change.path).chain(&change.old_path);
        names.any(|path| self.filter.wants(&join(&dir, path), is_dir))
    }

    fn print(&mut self, event: &Event) -> anyhow::Result<()> {
        let dir = |root: &u32| self.dir(*root).display().to_string();
        let note = match event {
            Event::Added { root } => Some(format!("subscribed to {}", dir(root))),
            Event::Uncovered { root, why } => Some(format!("note: {}: {why}", dir(root))),
            Event::Loss { reason, why } => Some(format!("loss  {reason}  {why}")),
            Event::Gone { root } => Some(format!("note: {} was deleted", dir(root))),
            _ => None,
        };
        let change = match event {
            Event::Change { root, change, .. } => Some(self.shown(*root, change)),
            _ => None,
        };
        match &mut self.printer {
            Printer::Json(out) => {
                let mut line = serde_json::to_vec(event)?;
                line.push(b'\n');
                out.write_all(&line)?;
                out.flush()?;
                return Ok(());
            }
            Printer::Human(printer) => {
                if let Some(change) = change {
                    printer.print(&Report::Change(Box::new(change)))?;
                    printer.flush()?;
                }
            }
            Printer::Nothing => {}
        }
        note.iter().for_each(|note| say(note));
        Ok(())
    }

    /// With the paths as the user would write them.
    fn shown(&self, root: u32, change: &Change) -> Change {
        let dir = self.dir(root);
        let mut change = change.clone();
        change.path = join(dir, &change.path);
        change.old_path = change.old_path.map(|old| join(dir, &old));
        change
    }
}

/// When the command wants attention; never without one.
async fn next(runner: &mut Option<Runner>) {
    match runner {
        Some(runner) => runner.next().await,
        None => std::future::pending().await,
    }
}

fn open(dir: &Path) -> anyhow::Result<std::os::fd::OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    openat(CWD, dir, flags, Mode::empty()).map_err(|errno| {
        let cause = io::Error::from(errno);
        anyhow!("subscribe {}: {cause}; name a directory that you may read", dir.display())
    })
}
