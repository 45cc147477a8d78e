//! `hotr subscribe`: options, and what is done with the events of an agent.

mod command;

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::{ArgAction, Args, ValueHint};
use hotr_events::{Change, Op, Report, ReportSink};
use hotr_user::agent::{Client, ClientError, Event, SOCKET, Subscription as LastingSubscription, Update};
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

It needs no privilege, but a running hotr agent. When that ends it is sought again, and then what changed meanwhile is found by
comparing the directories with what they were.
Exit status: 0 done, also by SIGINT, SIGTERM or SIGHUP; 1 error; 2 usage error.";

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
    /// End with an error when the agent ends; the directories are then not read for a comparison
    #[arg(long)]
    no_reconnect: bool,
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

/// Where they come from.
enum Source {
    Once(Client),
    Lasting(LastingSubscription),
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
        let result = subscription.run(&args.socket, !args.no_reconnect, end).await;
        if let Some(runner) = &mut subscription.runner {
            runner.stop().await;
        }
        result
    })
}

impl Subscription {
    async fn run(&mut self, socket: &Path, lasts: bool, end: signals::End) -> anyhow::Result<Status> {
        // Opened before anything is asked for, so that what is wrong with them is said first.
        let opened: Vec<_> = self.dirs.iter().map(|dir| open(dir)).collect::<Result<_, _>>()?;
        let mut source = Source::connect(socket, opened, lasts).await?;
        let mut end = std::pin::pin!(end.wait());
        loop {
            tokio::select! {
                biased;
                () = &mut end => return Ok(Status::Done),
                update = source.next() => match update {
                    Some(update) => self.take(&update?)?,
                    None => return Ok(Status::Done),
                },
                () = next(&mut self.runner) => {}
            }
        }
    }

    fn take(&mut self, update: &Update) -> anyhow::Result<()> {
        match update {
            Update::Event(Event::Refused { root, why }) => {
                return Err(anyhow!("subscribe {}: {why}", self.dir(*root).display()));
            }
            Update::Event(Event::Change { root, change, .. }) | Update::Found { root, change } => {
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
            Update::Event(Event::Loss { .. }) | Update::Compared { complete: false, .. } => {
                self.runner.iter_mut().for_each(Runner::request);
            }
            _ => {}
        }
        self.print(update)?;
        match update {
            Update::Event(Event::Loss { reason, .. }) if reason == "slow-subscriber" => Err(anyhow!(
                "read from the agent: this subscriber was too slow, and missed changes; subscribe again, and compare"
            )),
            Update::Event(Event::Gone { root }) => {
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

    fn print(&mut self, update: &Update) -> anyhow::Result<()> {
        let note = self.note(update);
        let change = match update {
            Update::Event(Event::Change { root, change, .. }) | Update::Found { root, change } => {
                Some(self.shown(*root, change))
            }
            _ => None,
        };
        match &mut self.printer {
            Printer::Json(out) => {
                let mut line = serde_json::to_vec(update)?;
                line.push(b'\n');
                out.write_all(&line)?;
                out.flush()?;
                // Whoever reads lines knows by them; who looks at the terminal sees that nothing comes.
                if !matches!(update, Update::Disconnected { .. }) {
                    return Ok(());
                }
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

    /// What is said of it beside the changes.
    fn note(&self, update: &Update) -> Option<String> {
        let dir = |root: &u32| self.dir(*root).display().to_string();
        Some(match update {
            Update::Event(Event::Added { root }) => format!("subscribed to {}", dir(root)),
            Update::Event(Event::Uncovered { root, why }) => format!("note: {}: {why}", dir(root)),
            Update::Event(Event::Loss { reason, why }) => format!("loss  {reason}  {why}"),
            Update::Event(Event::Gone { root }) => format!("note: {} was deleted", dir(root)),
            Update::Disconnected { why } => {
                format!(
                    "note: {why}; it is sought until it answers, and what changes meanwhile is reported then"
                )
            }
            Update::Reconnected => "note: there is an agent again".to_owned(),
            Update::Compared { found, complete: true } => {
                format!("note: found by polling what changed meanwhile: {found}")
            }
            Update::Compared { found, complete: false } => {
                format!(
                    "note: found by polling what changed meanwhile: {found}, and perhaps not all; look into the directories"
                )
            }
            _ => return None,
        })
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

impl Source {
    async fn connect(socket: &Path, dirs: Vec<OwnedFd>, lasts: bool) -> Result<Self, ClientError> {
        if lasts {
            return Ok(Self::Lasting(LastingSubscription::connect(socket, dirs).await?));
        }
        let mut client = Client::connect(socket).await?;
        for dir in &dirs {
            client.add(dir.as_fd()).await?;
        }
        Ok(Self::Once(client))
    }

    /// The next update. A future that is dropped before it is ready has lost nothing.
    async fn next(&mut self) -> Option<Result<Update, ClientError>> {
        match self {
            Self::Once(client) => client.next().await.map(|event| event.map(Update::Event)),
            Self::Lasting(subscription) => subscription.next().await,
        }
    }
}

/// When the command wants attention; never without one.
async fn next(runner: &mut Option<Runner>) {
    match runner {
        Some(runner) => runner.next().await,
        None => std::future::pending().await,
    }
}

fn open(dir: &Path) -> anyhow::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    openat(CWD, dir, flags, Mode::empty()).map_err(|errno| {
        let cause = io::Error::from(errno);
        anyhow!("subscribe {}: {cause}; name a directory that you may read", dir.display())
    })
}
