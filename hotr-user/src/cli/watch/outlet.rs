//! Where a watch reports: JSON Lines on stdout, or short lines on stderr, so that stdout is the command's.

use std::io;

use hotr_events::ReportSink;
use hotr_events::{ChannelInfo, Reload, ReloadState, Report};
use hotr_user::output;
use hotr_user::output::human::reload_text;
use hotr_user::watch::{Ask, Outlet, ReloadOptions, WatchOptions};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::cli::say;

/// How much is printed.
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
) -> anyhow::Result<Option<ReloadState>> {
    let mut printer: Box<dyn ReportSink> =
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
    Ok(hotr_user::watch::run(watch, reload, asks, &mut outlet).await?)
}

/// Reports as short lines on stderr.
struct Lines {
    loudness: Loudness,
}

impl ReportSink for Lines {
    fn print(&mut self, report: &Report) -> io::Result<()> {
        match (report, self.loudness) {
            (Report::Reload(reload), loudness) if is_told(reload, loudness) => say(&reload_text(reload)),
            (Report::Ready { roots, channels }, Loudness::Plain | Loudness::Verbose) => {
                let roots: Vec<String> = roots.iter().map(|root| root.path.display().to_string()).collect();
                say(&format!("watching {}", roots.join(", ")));
                channels.iter().filter_map(impaired).for_each(|text| say(&text));
            }
            (Report::Change(change), Loudness::Verbose) => {
                say(&format!("{} {}", change.op.as_str(), change.path.display()));
            }
            (Report::Loss { channel, reason, .. }, Loudness::Plain | Loudness::Verbose) => {
                say(&format!("{} lost changes ({reason}): checking all files", channel.as_str()));
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

/// What a channel cannot do from the start.
fn impaired(info: &ChannelInfo) -> Option<String> {
    let why = info.impairment()?;
    Some(format!("channel {} is {}: {why}", info.channel.as_str(), info.state.as_str()))
}

/// A reload that succeeds is printed at its start; a failure is always printed.
fn is_told(reload: &Reload, loudness: Loudness) -> bool {
    match reload.state {
        ReloadState::Started => loudness != Loudness::Quiet,
        ReloadState::Done => loudness == Loudness::Verbose,
        _ => true,
    }
}
