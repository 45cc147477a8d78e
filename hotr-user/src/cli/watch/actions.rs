//! Options that say what a reload does.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum, ValueHint};
use hotr_user::action::check::Check;
use hotr_user::action::{Action, Busy, CommandSpec, Emit, Identity, StopSpec, Target};
use hotr_user::watch::ReloadOptions;
use rustix::process::Signal;

use crate::cli::values;

/// Why a command line cannot be carried out.
pub(super) enum Refused {
    /// It makes no sense.
    Usage(String),
    /// What it names is not there.
    Error(String),
}

#[derive(Args, Debug)]
pub(super) struct ActionArgs {
    /// Keep the command running; restart it on each change
    #[arg(short, long, conflicts_with_all = ["signal", "on_busy_update"])]
    restart: bool,
    /// Send this signal to a running process instead of running a command
    #[arg(short, long, value_name = "SIGNAL", value_parser = values::signal)]
    signal: Option<Signal>,
    /// The process to signal: its id
    #[arg(long, requires = "signal", group = "target", value_parser = clap::value_parser!(i32).range(1..))]
    pid: Option<i32>,
    /// The process to signal: the one whose id this file holds
    #[arg(long, requires = "signal", group = "target", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pid_file: Option<PathBuf>,
    /// The processes to signal: all of this task name (its first 15 bytes count, as in the kernel)
    #[arg(long, requires = "signal", group = "target", value_name = "NAME", value_parser = values::name())]
    comm: Option<OsString>,
    /// The process to signal: the main process of this systemd unit
    #[arg(long, requires = "signal", group = "target", value_name = "UNIT", value_parser = values::name())]
    unit: Option<OsString>,
    /// What a change does while the command runs
    #[arg(short, long, value_enum, value_name = "POLICY", default_value_t = OnBusy::Queue)]
    on_busy_update: OnBusy,
    /// Signal that stops the command and the processes it started, except daemons
    #[arg(long, value_name = "SIGNAL", default_value = "TERM", value_parser = values::signal)]
    stop_signal: Signal,
    /// How long it may take to exit before it is killed
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = values::duration)]
    stop_timeout: Duration,
    /// Do not run the command at the start, only for changes
    #[arg(short, long)]
    postpone: bool,
    /// End after the first reload for a change or for SIGUSR1; a run at the start does not count
    #[arg(long, conflicts_with_all = ["restart", "rollback"])]
    once: bool,
    /// Wait between validation and command
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = values::duration)]
    delay_run: Duration,
    /// Clear the terminal before each run of the command
    #[arg(short, long)]
    clear: bool,
    /// Run the commands through this shell, as one string with the shell's rules
    #[arg(long, value_name = "SHELL", num_args = 0..=1, default_missing_value = "sh", require_equals = true, value_parser = values::name())]
    shell: Option<OsString>,
    /// Run the commands without a shell, which is the default
    #[arg(short = 'n', conflicts_with = "shell")]
    no_shell: bool,
    /// A variable for the commands; repeatable
    #[arg(short = 'E', long = "env", value_name = "KEY=VALUE", value_parser = values::variable())]
    env: Vec<(OsString, OsString)>,
    /// Working directory of the commands
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    workdir: Option<PathBuf>,
    /// Run the commands as this user (name or id), with its groups; as root only
    #[arg(long, value_name = "USER", value_parser = values::name())]
    user: Option<OsString>,
    /// Run the commands as this group (name or id)
    #[arg(long, value_name = "GROUP", value_parser = values::name())]
    group: Option<OsString>,
    /// How the command receives the list of changes
    #[arg(long, value_enum, default_value_t = EmitChoice::Env)]
    emit: EmitChoice,
    /// Reload only when this command succeeds
    #[arg(long, value_name = "CMD")]
    validate: Option<OsString>,
    /// How long the validation may take
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = values::duration)]
    validate_timeout: Duration,
    /// After a reload, retry this check until it passes or times out
    #[arg(long, value_name = "CMD")]
    health: Option<OsString>,
    /// How long a service may take to become healthy
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = values::duration)]
    health_timeout: Duration,
    /// When a reload or its health check fails, restore the last good content of the changed files and reload again
    #[arg(long, requires = "health")]
    rollback: bool,
    /// Where the last good content is kept; by default in a hidden directory beside the files
    #[arg(long, requires = "rollback", value_name = "DIR", value_hint = ValueHint::DirPath)]
    backup_dir: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OnBusy {
    DoNothing,
    Queue,
    Restart,
    Signal,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum EmitChoice {
    Env,
    Stdin,
    File,
    None,
}

impl ActionArgs {
    /// The checked options.
    pub(super) fn reload(&self, command: Vec<OsString>, json: bool) -> Result<ReloadOptions, Refused> {
        let surroundings = CommandSpec {
            words: Vec::new(),
            dir: self.workdir.clone(),
            env: self.env.clone(),
            stdout_to_stderr: json,
            identity: Identity::of(self.user.as_deref(), self.group.as_deref()).map_err(Refused::Error)?,
        };
        let check = |words: &Option<OsString>, timeout| {
            let command =
                words.as_ref().map(|words| self.split(words).map(|words| surroundings.with_words(words)));
            Ok(command.transpose()?.map(|command| Check { command, timeout }))
        };
        let (validate, health) =
            (check(&self.validate, self.validate_timeout)?, check(&self.health, self.health_timeout)?);
        let action = self.action(&surroundings, command)?;
        // A signal at the start would reload what has just been started by somebody else.
        let at_start = !self.postpone && matches!(action, Action::Run(_) | Action::Restart(_));
        Ok(ReloadOptions {
            action,
            busy: match self.on_busy_update {
                OnBusy::DoNothing => Busy::DoNothing,
                OnBusy::Queue => Busy::Queue,
                OnBusy::Restart => Busy::Restart,
                OnBusy::Signal => Busy::Signal,
            },
            stop: StopSpec { signal: self.stop_signal, timeout: self.stop_timeout },
            emit: match self.emit {
                EmitChoice::Env => Emit::Env,
                EmitChoice::Stdin => Emit::Stdin,
                EmitChoice::File => Emit::File,
                EmitChoice::None => Emit::None,
            },
            validate,
            health,
            delay: self.delay_run,
            clear: self.clear,
            at_start,
            once: self.once,
            rollback: self.rollback.then(|| self.backup_dir.clone()),
        })
    }

    fn action(&self, surroundings: &CommandSpec, command: Vec<OsString>) -> Result<Action, Refused> {
        let usage = |why: &str| Err(Refused::Usage(why.to_owned()));
        if let Some(signal) = self.signal {
            if !command.is_empty() {
                return usage(
                    "--signal signals a running process, and -- names a command to run: choose one",
                );
            }
            return Ok(Action::Signal(self.target()?, signal));
        }
        if command.is_empty() {
            if self.restart {
                return usage("--restart needs a command after --");
            }
            return Ok(Action::Report);
        }
        if command.first().is_some_and(|program| program.is_empty()) {
            return usage("the command after -- has an empty name");
        }
        let words = match &self.shell {
            None => command,
            Some(shell) => vec![shell.clone(), "-c".into(), command.join(OsStr::new(" "))],
        };
        let command = surroundings.with_words(words);
        Ok(if self.restart { Action::Restart(command) } else { Action::Run(command) })
    }

    fn target(&self) -> Result<Target, Refused> {
        if let Some(pid) = self.pid {
            return Target::pid(pid).map_err(Refused::Error);
        }
        let other = self.pid_file.clone().map(Target::PidFile);
        let other = other.or_else(|| self.comm.clone().map(Target::Comm));
        other
            .or_else(|| self.unit.clone().map(Target::Unit))
            .ok_or_else(|| Refused::Usage("--signal needs --pid, --pid-file, --comm or --unit".to_owned()))
    }

    /// One string into words: by the chosen shell, or only by quotes and spaces.
    fn split(&self, text: &OsStr) -> Result<Vec<OsString>, Refused> {
        if let Some(shell) = &self.shell {
            return Ok(vec![shell.clone(), "-c".into(), text.to_owned()]);
        }
        let refused = |why| Refused::Usage(format!("'{}' is not a command: {why}", text.display()));
        let utf8 = text.to_str().ok_or_else(|| refused("it is not UTF-8; put it into a script"))?;
        let words = shell_words::split(utf8).map_err(|_| refused("a quote is not closed"))?;
        if words.first().is_none_or(|program| program.is_empty()) {
            return Err(refused("it is empty"));
        }
        Ok(words.into_iter().map(OsString::from).collect())
    }
}
