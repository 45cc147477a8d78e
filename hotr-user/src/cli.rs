//! The command line: what can be asked for, and how every end of a command becomes a status and one line.
//!
//! In: the process's arguments. Out: reports on stdout, everything else on stderr, and the exit status.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use hotr_user::error::Error;

mod doctor;
mod engine;
mod man;
mod paths;
mod progress;
mod signals;
mod trace;
mod usage;
mod values;
mod watch;

/// How a command ended; the numbers are part of the output contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// Done, also when ended by a signal or because the reader has gone.
    Done = 0,
    /// It could not do its work.
    Error = 1,
    /// The command line makes no sense.
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

/// When to use colour; `auto` means on a terminal, unless NO_COLOR is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ColorChoice {
    Auto,
    Always,
    Never,
}

impl ColorChoice {
    /// NO_COLOR counts when it is set and not empty (no-color.org).
    fn on_stdout(self) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => {
                std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
                    && io::IsTerminal::is_terminal(&io::stdout())
            }
        }
    }
}

/// Runs the command that the process was called with.
pub(crate) fn main() -> ExitCode {
    hotr_user::memory::keep_nothing_large();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage::report(&error).into(),
    };
    let result = match cli.command {
        Command::Trace(args) => trace::run(args),
        Command::Watch(args) => watch::run(*args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Completions { shell } => completions(shell),
        Command::Man => man::page(Cli::command()).and_then(|page| put(&page)),
    };
    match result {
        Ok(status) => status.into(),
        Err(error) if reader_has_gone(&error) => Status::Done.into(),
        Err(error) => {
            // The library's errors have their cause in their own sentence.
            let is_whole = error.chain().next().is_some_and(|outermost| outermost.is::<Error>());
            say(&if is_whole { error.to_string() } else { format!("{error:#}") });
            Status::Error.into()
        }
    }
}

/// One line on stderr, whatever the names in it. When even that cannot be written there is nobody left to tell.
fn say(text: &str) {
    let mut line = String::from("hotr: ");
    for c in text.chars() {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// A closed pipe is the reader's way to say "enough", not an error.
fn reader_has_gone(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let io_error = match cause.downcast_ref::<Error>() {
            Some(Error::Output(source)) => Some(source),
            _ => cause.downcast_ref::<io::Error>(),
        };
        io_error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
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
