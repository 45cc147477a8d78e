//! `hotr watch`: options, checks, and the run itself on one thread.

mod actions;
mod defaults;
mod outlet;

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum, ValueHint};
use hotr_events::{Kind, ReloadState};
use hotr_user::options::Channels;
use hotr_user::output::notices::NoticeStyle;
use hotr_user::pipeline::confirm::HashKind;
use hotr_user::watch::{Ask, Builder, Polling, WatchOptions};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::unbounded_channel;

use super::names::NameArgs;
use super::trace::Tier;
use super::{ColorChoice, Status, or_here, paths, progress, say, signals, values};
use defaults::DEFAULTS;

const EXAMPLES: &str = "\
Examples:
  hotr watch /etc/app -- systemctl reload app        run a command when content below /etc/app changes
  hotr watch -r src -- ./server                      keep a server running, restart it on each change
  hotr watch /etc/app -s HUP --pid-file /run/app.pid signal a running service
  hotr watch conf --validate 'nginx -t' --health 'curl -fs localhost' --rollback -- nginx -s reload
  hotr watch --json /srv                             only report what really changed
  hotr watch --once -p /etc/app -- ./deploy          run it for the next change, and end

Exit status: 0 done, also by SIGINT, SIGTERM or SIGHUP; 1 error, with --once also a reload that failed; 2 usage error. SIGUSR1 requests a reload.";

/// Reload when, and only when, the content of files really changed
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct WatchArgs {
    /// Directories or files to watch [default: .]
    #[arg(value_name = "PATH", value_hint = ValueHint::AnyPath)]
    paths: Vec<PathBuf>,
    /// One more path to watch; repeatable
    #[arg(short, long = "watch", value_name = "PATH", value_hint = ValueHint::AnyPath)]
    watch: Vec<PathBuf>,
    #[command(flatten)]
    actions: actions::ActionArgs,
    #[command(flatten)]
    names: NameArgs,
    /// Reload only for these kinds of changes; comma-separated. `modify` means write, `delete` means remove
    #[arg(long, value_name = "KIND", value_delimiter = ',', value_parser = values::kind())]
    on: Vec<Kind>,
    /// Ignore .gitignore rules and watch .git too
    #[arg(long)]
    no_vcs_ignore: bool,
    /// Include editor leftovers (*~, .*.swp, 4913, #*#) and Kubernetes' staging names
    #[arg(long)]
    no_default_ignore: bool,
    /// Only the named directories, not the content of their subdirectories
    #[arg(long)]
    no_recursive: bool,
    /// Reload when nothing changed for this long
    #[arg(short, long, visible_alias = "settle", value_name = "TIME", default_value = &*DEFAULTS.debounce, value_parser = values::duration)]
    debounce: Duration,
    /// Wait at most this long while changes continue or a changed file is open for writing
    #[arg(long, value_name = "TIME", default_value = &*DEFAULTS.settle_max, value_parser = values::duration)]
    settle_max: Duration,
    /// How content is compared
    #[arg(long, value_enum, default_value_t = DEFAULTS.hash.into())]
    hash: Hash,
    /// Larger files, in bytes (K, M, G), are compared by size and modification time
    #[arg(long, value_name = "SIZE", default_value = &*DEFAULTS.hash_limit, value_parser = values::size)]
    hash_limit: u64,
    /// Maximum number of files whose state is cached; an evicted file counts as changed
    #[arg(long, value_name = "COUNT", default_value = &*DEFAULTS.hash_entries)]
    hash_entries: NonZeroUsize,
    /// Channels to run: ebpf, inotify, or both comma-separated (then each must run); auto runs those that work
    #[arg(long, value_name = "LIST", default_value = "auto", value_parser = values::channels)]
    channels: Channels,
    /// Kind of eBPF programs to attach; auto takes the best for each hook
    #[arg(long, value_enum, default_value_t = Tier::Auto)]
    tier: Tier,
    /// Audit all files at this interval beside the channels [default: adapts, from 30s on]
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "auto", value_parser = values::poll_interval)]
    poll: Option<values::PollInterval>,
    /// Share of one core that an audit may use; after a loss it uses what it needs
    #[arg(long, value_name = "PERCENT", default_value = &*DEFAULTS.poll_budget, value_parser = values::share)]
    poll_budget: f64,
    /// Do not audit all files beside the channels
    #[arg(long, conflicts_with_all = ["poll", "poll_budget"])]
    no_poll: bool,
    /// Print JSON Lines on stdout; the command's own stdout then goes to stderr
    #[arg(long)]
    json: bool,
    /// Print only errors
    #[arg(short, long, conflicts_with = "verbose")]
    quiet: bool,
    /// Print every change, including those that left the content unchanged
    #[arg(short, long)]
    verbose: bool,
    /// Colour the lines on stderr; auto means on a terminal, unless NO_COLOR is set
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = ColorChoice::Never)]
    color: ColorChoice,
    /// Begin the lines on stderr with the local time
    #[arg(long)]
    timestamps: bool,
    /// The command and its arguments
    #[arg(last = true, value_name = "COMMAND", value_hint = ValueHint::CommandWithArguments, action = ArgAction::Append)]
    command: Vec<OsString>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Hash {
    Sha256,
    Blake3,
}

impl From<HashKind> for Hash {
    fn from(hash: HashKind) -> Self {
        match hash {
            HashKind::Sha256 => Self::Sha256,
            HashKind::Blake3 => Self::Blake3,
        }
    }
}

impl From<Hash> for HashKind {
    fn from(hash: Hash) -> Self {
        match hash {
            Hash::Sha256 => Self::Sha256,
            Hash::Blake3 => Self::Blake3,
        }
    }
}

pub(super) fn run(mut args: WatchArgs) -> anyhow::Result<Status> {
    if args.tier != Tier::Auto && !args.channels.ebpf {
        say("--tier chooses eBPF programs, and --channels leaves ebpf out; see hotr watch --help");
        return Ok(Status::Usage);
    }
    super::privilege::may_read_content().map_err(anyhow::Error::msg)?;
    let command = std::mem::take(&mut args.command);
    let reload = match args.actions.reload(command, args.json) {
        Ok(reload) => reload,
        Err(actions::Refused::Usage(why)) => {
            say(&format!("{why}; see hotr watch --help"));
            return Ok(Status::Usage);
        }
        Err(actions::Refused::Error(why)) => return Err(anyhow::Error::msg(why)),
    };
    let named: Vec<PathBuf> = args.paths.iter().chain(&args.watch).cloned().collect();
    // `hotr watch src make`: what is meant is `hotr watch src -- make`.
    if let [_, .., last] = args.paths.as_slice()
        && reload.action.is_report()
        && !last.exists()
        && last.components().count() == 1
    {
        say(&format!(
            "'{0}' is not a path; put the command after --, as in -- {0}; see hotr watch --help",
            last.display()
        ));
        return Ok(Status::Usage);
    }
    let roots = paths::roots(&or_here(&named), !args.no_recursive)?;
    if !args.quiet {
        roots.notes.iter().for_each(|note| say(&format!("note: {note}")));
    }
    let mut watch = args.watch_options(roots.paths, reload.rollback.is_some())?;
    // A reload is said to be by somebody.
    watch.trace.origins = true;
    let runtime = super::runtime()?;
    runtime.block_on(async {
        let end = signals::End::new()?;
        let mut usr1 = signal(SignalKind::user_defined1())?;
        let (asks, mut inbox) = unbounded_channel();
        tokio::spawn(async move {
            let mut end = std::pin::pin!(end.wait());
            loop {
                tokio::select! {
                    () = &mut end => break,
                    _ = usr1.recv() => drop(asks.send(Ask::Reload)),
                }
            }
            let _ = asks.send(Ask::End);
        });
        if !args.quiet {
            tokio::spawn(progress::show(watch.polling.scanning.clone()));
        }
        let style = NoticeStyle { color: args.color.on_stderr(), timestamps: args.timestamps };
        let look = outlet::Look { loudness: outlet::Loudness::of(args.quiet, args.verbose), style };
        let last = outlet::run(watch, reload, &mut inbox, look, args.json).await?;
        Ok(if last.is_none_or(|state| state == ReloadState::Done) { Status::Done } else { Status::Error })
    })
}

impl WatchArgs {
    /// What the flags say; whatever they leave open is the library's to choose.
    fn watch_options(&self, paths: Vec<PathBuf>, whole_baseline: bool) -> anyhow::Result<WatchOptions> {
        let builder = Builder::of(paths)
            .add_extensions(self.names.chosen.exts.iter().cloned())
            .add_only(self.names.chosen.filter.iter().cloned())
            .add_ignore(self.names.ignore.iter().cloned())
            .only_kinds(self.on.iter().copied())
            .recursive(!self.no_recursive)
            .channels(self.channels)
            .tier(self.tier.into())
            .hash(self.hash.into())
            .hash_limit(self.hash_limit)
            .hash_entries(self.hash_entries)
            .debounce(self.debounce)
            .settle_max(self.settle_max)
            .whole_baseline(whole_baseline)
            .vcs_ignore(!self.no_vcs_ignore)
            .default_ignore(!self.no_default_ignore)
            .polling(self.polling());
        Ok(builder.options()?)
    }

    fn polling(&self) -> Polling {
        let mut polling = Polling::default();
        polling.enabled = !self.no_poll;
        polling.interval = self.poll.and_then(|poll| poll.0);
        polling.budget = self.poll_budget;
        polling
    }
}
