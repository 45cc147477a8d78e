//! `hotr watch`: options, checks, and the run itself on one thread.

mod actions;
mod outlet;

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum, ValueHint};
use globset::GlobSet;
use hotr_user::options::{Channels, TraceOptions};
use hotr_user::pipeline::confirm::{ConfirmOptions, HashKind};
use hotr_user::watch::filter::FilterOptions;
use hotr_user::watch::{Ask, Polling, WatchOptions};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::unbounded_channel;

use super::trace::Tier;
use super::{Status, or_here, paths, progress, say, signals, values};

const EXAMPLES: &str = "\
Examples:
  hotr watch /etc/app -- systemctl reload app        run a command when content below /etc/app changed
  hotr watch -r src -- ./server                      keep a server running, start it anew
  hotr watch /etc/app -s HUP --pid-file /run/app.pid signal a running service
  hotr watch conf --validate 'nginx -t' --health 'curl -fs localhost' --rollback -- nginx -s reload
  hotr watch --json /srv                             only say what really changed

Exit status: 0 done, also by SIGINT or SIGTERM; 1 error; 2 wrong command line. SIGUSR1 asks for a reload now.";

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
    /// Only files with these extensions; a list has commas
    #[arg(short, long, value_name = "EXT", value_delimiter = ',', value_parser = values::extension())]
    exts: Vec<OsString>,
    /// Only paths that match, as in .gitignore; repeatable
    #[arg(short, long, value_name = "GLOB", value_parser = values::glob)]
    filter: Vec<String>,
    /// Not paths that match, as in .gitignore; repeatable
    #[arg(short, long, value_name = "GLOB", value_parser = values::glob)]
    ignore: Vec<String>,
    /// Do not keep to .gitignore, and look into .git as well
    #[arg(long)]
    no_vcs_ignore: bool,
    /// Do not leave out what editors leave behind (*~, .*.swp, 4913, #*#) and Kubernetes' staging names
    #[arg(long)]
    no_default_ignore: bool,
    /// Only the named directories, not what is below their subdirectories
    #[arg(long)]
    no_recursive: bool,
    /// Reload when nothing changed for this long
    #[arg(short, long, visible_alias = "settle", value_name = "TIME", default_value = "50ms", value_parser = values::duration)]
    debounce: Duration,
    /// Wait for this long at most: while changes go on, or a changed file is open for writing
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = values::duration)]
    settle_max: Duration,
    /// How content is compared
    #[arg(long, value_enum, default_value_t = Hash::Sha256)]
    hash: Hash,
    /// Larger files, in bytes (K, M, G), are compared by size and modification time
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = values::size)]
    hash_limit: u64,
    /// Files whose content is remembered; one that was forgotten counts as changed
    #[arg(long, value_name = "COUNT", default_value = "40000")]
    hash_entries: NonZeroUsize,
    /// Channels to run: ebpf, inotify or both with a comma (then each must run); auto runs what it can
    #[arg(long, value_name = "LIST", default_value = "auto", value_parser = values::channels)]
    channels: Channels,
    /// Kind of eBPF programs to attach; auto takes the best for each hook
    #[arg(long, value_enum, default_value_t = Tier::Auto)]
    tier: Tier,
    /// Look at all files at this interval beside the channels [default: adapts, from 30s on]
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "auto", value_parser = values::poll_interval)]
    poll: Option<values::PollInterval>,
    /// Share of one core that such a look may take; after a loss it takes what it needs
    #[arg(long, value_name = "PERCENT", default_value = "10%", value_parser = values::share)]
    poll_budget: f64,
    /// Do not look at all files beside the channels
    #[arg(long, conflicts_with_all = ["poll", "poll_budget"])]
    no_poll: bool,
    /// Print JSON Lines on stdout; the command's own stdout then goes to stderr
    #[arg(long)]
    json: bool,
    /// Say nothing but errors
    #[arg(short, long, conflicts_with = "verbose")]
    quiet: bool,
    /// Tell of every change, and of those that changed nothing
    #[arg(short, long)]
    verbose: bool,
    /// The command and its arguments
    #[arg(last = true, value_name = "COMMAND", value_hint = ValueHint::CommandWithArguments, action = ArgAction::Append)]
    command: Vec<OsString>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Hash {
    Sha256,
    Blake3,
}

pub(super) fn run(mut args: WatchArgs) -> anyhow::Result<Status> {
    if args.tier != Tier::Auto && !args.channels.ebpf {
        say("--tier chooses eBPF programs, and --channels leaves ebpf out; see hotr watch --help");
        return Ok(Status::Usage);
    }
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
            "'{0}' is no path here; a command goes after --, as in -- {0}; see hotr watch --help",
            last.display()
        ));
        return Ok(Status::Usage);
    }
    let roots = paths::roots(&or_here(&named), !args.no_recursive)?;
    if !args.quiet {
        roots.notes.iter().for_each(|note| say(&format!("note: {note}")));
    }
    let watch = args.watch_options(roots.paths, reload.rollback.is_some())?;
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
        outlet::run(watch, reload, &mut inbox, outlet::Loudness::of(args.quiet, args.verbose), args.json)
            .await?;
        Ok(Status::Done)
    })
}

impl WatchArgs {
    fn watch_options(&self, paths: Vec<PathBuf>, whole_baseline: bool) -> anyhow::Result<WatchOptions> {
        let set = |globs: &[String]| {
            values::exclude_set(globs.iter().map(String::as_str)).map_err(anyhow::Error::msg)
        };
        let filter = FilterOptions {
            exts: self.exts.clone(),
            only: if self.filter.is_empty() { None } else { Some(set(&self.filter)?) },
            ignore: set(&self.ignore)?,
            vcs_ignore: !self.no_vcs_ignore,
            default_ignore: !self.no_default_ignore,
        };
        let hash = if self.hash == Hash::Sha256 { HashKind::Sha256 } else { HashKind::Blake3 };
        // Whole directories are pruned by the sources already: .git and what the user ignores get no watch.
        let exclude = if self.no_vcs_ignore {
            set(&self.ignore)?
        } else {
            let vcs = hotr_user::watch::filter::VCS_DIRS.iter().map(|dir| (*dir).to_owned());
            set(&self.ignore.iter().cloned().chain(vcs).collect::<Vec<_>>())?
        };
        Ok(WatchOptions {
            trace: TraceOptions {
                paths,
                recursive: !self.no_recursive,
                channels: self.channels,
                tier: self.tier.into(),
                duration: None,
                ops: Vec::new(),
                pids: Vec::new(),
                comms: Vec::new(),
                exclude: GlobSet::clone(&exclude),
                raw: false,
                at_once: false,
                audited: false,
            },
            filter,
            confirm: ConfirmOptions { hash, hash_limit: self.hash_limit, entries: self.hash_entries },
            debounce: self.debounce,
            settle_max: self.settle_max,
            whole_baseline,
            polling: Polling {
                enabled: !self.no_poll,
                interval: self.poll.and_then(|poll| poll.0),
                budget: self.poll_budget,
                scanning: Arc::default(),
            },
        })
    }
}
