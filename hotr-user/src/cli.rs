//! The command line: its options, and how each result of a command becomes a status and one line.
//!
//! In: the process's arguments. Out: reports on stdout, everything else on stderr, and the exit status.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use hotr_user::agent::{AgentError, ClientError};
use hotr_user::ending;
use hotr_user::error::Error;
use hotr_user::output::stdout;
use hotr_user::output::text::visible_message;

mod agent;
mod diagnose;
mod doctor;
mod engine;
mod files;
mod log_file;
mod man;
mod names;
mod paths;
mod privilege;
mod progress;
mod relay;
mod signals;
mod subscribe;
mod trace;
mod usage;
mod values;
mod verify;
mod watch;

/// How a command ended; the numbers are part of the output contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// Done, also when ended by a signal or because the reader has closed the output.
    Done = 0,
    /// It could not do its work.
    Error = 1,
    /// A usage error.
    Usage = 2,
    /// It worked, and found what it looks for.
    Found = 3,
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        Self::from(status as u8)
    }
}

/// See every file change under a directory from the kernel, who made it, and what inotify missed.
#[derive(Debug, Parser)]
#[command(name = "hotr", version, arg_required_else_help = true, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Trace(trace::TraceArgs),
    Watch(Box<watch::WatchArgs>),
    Doctor(doctor::DoctorArgs),
    Diagnose(diagnose::DiagnoseArgs),
    Relay(relay::RelayArgs),
    Verify(verify::VerifyArgs),
    Agent(agent::AgentArgs),
    Subscribe(subscribe::SubscribeArgs),
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  hotr completions bash > /etc/bash_completion.d/hotr")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    #[command(after_help = "Example:\n  hotr man > /usr/local/share/man/man1/hotr.1")]
    Man,
}

impl Command {
    /// What the command does with a path, as its messages say it.
    const fn verb(&self) -> &'static str {
        match self {
            Self::Trace(_) => "trace",
            Self::Doctor(_) => "check",
            Self::Diagnose(_) => "diagnose",
            Self::Relay(_) => "relay",
            Self::Verify(_) => "verify",
            Self::Agent(_) => "serve",
            Self::Subscribe(_) => "subscribe",
            Self::Watch(_) | Self::Completions { .. } | Self::Man => "watch",
        }
    }
}

/// When to use colour; `auto` means on a terminal, unless NO_COLOR is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ColorChoice {
    Auto,
    Always,
    Never,
}

impl ColorChoice {
    /// The same of stderr.
    fn on_stderr(self) -> bool {
        self.on(io::IsTerminal::is_terminal(&io::stderr()))
    }

    /// NO_COLOR counts when it is set and not empty (no-color.org).
    fn on_stdout(self) -> bool {
        self.on(io::IsTerminal::is_terminal(&io::stdout()))
    }

    fn on(self, is_terminal: bool) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        }
    }
}

/// Runs the command that the process was called with.
pub(crate) fn main() -> ExitCode {
    signals::take_over();
    std::panic::set_hook(Box::new(end_with_panic));
    hotr_user::memory::keep_nothing_large();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage::report(&error).into(),
    };
    let verb = cli.command.verb();
    let result = match cli.command {
        Command::Trace(args) => trace::run(args),
        Command::Watch(args) => watch::run(*args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Diagnose(args) => diagnose::run(args),
        Command::Relay(args) => relay::run(args),
        Command::Verify(args) => verify::run(&args),
        Command::Agent(args) => agent::run(args),
        Command::Subscribe(args) => subscribe::run(args),
        Command::Completions { shell } => completions(shell),
        Command::Man => man::page(Cli::command()).and_then(|page| put(&page)),
    };
    match result {
        Ok(status) => status.into(),
        Err(error) if is_output(&error, io::ErrorKind::BrokenPipe) => Status::Done.into(),
        Err(error) if ending::is_asked() && is_output(&error, io::ErrorKind::TimedOut) => {
            say(
                "ended by a signal while the reader of stdout had stopped reading: the last lines are missing",
            );
            Status::Done.into()
        }
        Err(error) => {
            say(&sentence(verb, &error));
            Status::Error.into()
        }
    }
}

/// An error in one line. The library's errors have their cause in their own sentence, and a bad path is named by what the
/// command was to do with it.
fn sentence(verb: &str, error: &anyhow::Error) -> String {
    match error.chain().next().and_then(|outermost| outermost.downcast_ref::<Error>()) {
        Some(Error::Path { path, cause, next }) => format!("{verb} {}: {cause}; {next}", path.display()),
        Some(whole) => whole.to_string(),
        None if error.is::<AgentError>() || error.is::<ClientError>() => error.to_string(),
        None => format!("{error:#}"),
    }
}

/// A thread that panics leaves a change unseen or a reload undone, and nobody would notice: hotr exits, with one line
/// and status 1. With `RUST_BACKTRACE` set the line is followed by the calls that led there.
fn end_with_panic(info: &std::panic::PanicHookInfo<'_>) {
    let what = info.payload_as_str().unwrap_or("no reason given");
    let place = info.location().map_or_else(String::new, |place| format!(" at {place}"));
    say(&format!("internal error{place}: {what}; please report this line"));
    let calls = std::backtrace::Backtrace::capture();
    if calls.status() == std::backtrace::BacktraceStatus::Captured {
        let _ = writeln!(io::stderr().lock(), "{calls}");
    }
    std::process::exit(1);
}

/// One line on stderr, whatever the names in it. When even that cannot be written nobody is left to read it; a reader
/// that has stopped reading keeps no run from ending.
fn say(text: &str) {
    stdout::say(&format!("hotr: {}\n", visible_message(text)));
}

/// Whether writing failed this way. A closed pipe is the reader's way to say "enough", not an error.
fn is_output(error: &anyhow::Error, kind: io::ErrorKind) -> bool {
    error.chain().any(|cause| {
        let io_error = match cause.downcast_ref::<Error>() {
            Some(Error::Output(source)) => Some(source),
            _ => cause.downcast_ref::<io::Error>(),
        };
        io_error.is_some_and(|error| error.kind() == kind)
    })
}

fn completions(shell: clap_complete::Shell) -> anyhow::Result<Status> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "hotr", &mut script);
    put(&script)
}

/// What waits for channels, signals and children.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|source| {
        let next = "raise the limit of open files (`ulimit -n`)";
        anyhow::anyhow!("start the event loop: {source}; {next}")
    })
}

fn put(bytes: &[u8]) -> anyhow::Result<Status> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).context("write to stdout")?;
    Ok(Status::Done)
}

/// The paths of a command line, `.` when there are none.
fn or_here(paths: &[PathBuf]) -> Vec<PathBuf> {
    if paths.is_empty() { vec![PathBuf::from(".")] } else { paths.to_vec() }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
