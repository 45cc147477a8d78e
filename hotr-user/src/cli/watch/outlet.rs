//! Where a watch tells: JSON Lines on stdout, or short lines on stderr, so that stdout is the command's.

use std::io;

use hotr_user::output::human::reload_text;
use hotr_user::output::{self, Printer};
use hotr_user::report::{Reload, ReloadState, Report};
use hotr_user::watch::{Ask, Outlet, ReloadOptions, WatchOptions};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::cli::say;

/// How much is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loudness {
    Quiet,
    Plain,
    Verbose,
}

impl Loudness {
    pub(super) const fn of(quiet: bool, verbose: bool) -> Self {
        if quiet {
            Self::Quiet
        } else if verbose {
            Self::Verbose
        } else {
            Self::Plain
        }
    }
}

pub(super) async fn run(
    watch: WatchOptions,
    reload: ReloadOptions,
    asks: &mut UnboundedReceiver<Ask>,
    loudness: Loudness,
    json: bool,
) -> anyhow::Result<()> {
    let mut printer: Box<dyn Printer> =
        if json { output::printer(true, false) } else { Box::new(Lines { loudness }) };
    let tell = |text: &str| {
        if text == "\x1bc" {
            // The terminal's own reset; nowhere else is it of use.
            if io::IsTerminal::is_terminal(&io::stderr()) {
                eprint!("{text}");
            }
        } else if loudness != Loudness::Quiet {
            say(text);
        }
    };
    let verbose = loudness == Loudness::Verbose;
    let mut outlet = Outlet { printer: printer.as_mut(), say: &tell, verbose };
    hotr_user::watch::run(watch, reload, asks, &mut outlet).await?;
    Ok(())
}

/// Reports as short lines on stderr.
struct Lines {
    loudness: Loudness,
}

impl Printer for Lines {
    fn print(&mut self, report: &Report) -> io::Result<()> {
        match (report, self.loudness) {
            (Report::Reload(reload), loudness) if is_told(reload, loudness) => say(&reload_text(reload)),
            (Report::Ready { .. }, Loudness::Plain | Loudness::Verbose) => say("watching"),
            (Report::Change(change), Loudness::Verbose) => {
                say(&format!("{} {}", change.op.as_str(), change.path.display()));
            }
            (Report::Loss { channel, reason, .. }, Loudness::Plain | Loudness::Verbose) => {
                say(&format!("{} lost changes ({reason}): looking at all files", channel.as_str()));
            }
            (Report::Channel { channel, state, why }, Loudness::Plain | Loudness::Verbose) => {
                say(&format!("channel {} is {}: {why}", channel.as_str(), state.as_str()));
            }
            _ => {}
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A reload that went well is told at its begin; what did not go well is told always.
fn is_told(reload: &Reload, loudness: Loudness) -> bool {
    match reload.state {
        ReloadState::Started => loudness != Loudness::Quiet,
        ReloadState::Done => loudness == Loudness::Verbose,
        _ => true,
    }
}
