//! Where a watch reports: JSON Lines on stdout, or short lines on stderr, so that stdout is the command's.

use std::io;
use std::time::SystemTime;

use hotr_events::ReportSink;
use hotr_events::{ChannelInfo, ChannelState, Reload, ReloadState, Report};
use hotr_user::output;
use hotr_user::output::human::reload_text;
use hotr_user::output::notices::{NoticeStyle, Tone};
use hotr_user::output::stdout;
use hotr_user::watch::{Ask, Outlet, ReloadOptions, WatchOptions};
use tokio::sync::mpsc::UnboundedReceiver;

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

/// How the lines on stderr look, and which there are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) loudness: Loudness,
    pub(super) style: NoticeStyle,
}

impl Look {
    fn say(self, tone: Tone, text: &str) {
        stdout::say_bytes(&self.style.line(tone, text, SystemTime::now()));
    }
}

pub(super) async fn run(
    watch: WatchOptions,
    reload: ReloadOptions,
    asks: &mut UnboundedReceiver<Ask>,
    look: Look,
    json: bool,
) -> anyhow::Result<Option<ReloadState>> {
    let mut printer: Box<dyn ReportSink> =
        if json { output::printer(true, false) } else { Box::new(Lines { look }) };
    let tell = |text: &str| {
        if text == "\x1bc" {
            // The terminal's own reset; nowhere else is it of use.
            if io::IsTerminal::is_terminal(&io::stderr()) {
                eprint!("{text}");
            }
        } else if look.loudness != Loudness::Quiet {
            look.say(Tone::Plain, text);
        }
    };
    let verbose = look.loudness == Loudness::Verbose;
    let mut outlet = Outlet { printer: printer.as_mut(), say: &tell, verbose };
    Ok(hotr_user::watch::run(watch, reload, asks, &mut outlet).await?)
}

/// Reports as short lines on stderr.
struct Lines {
    look: Look,
}

impl ReportSink for Lines {
    fn print(&mut self, report: &Report) -> io::Result<()> {
        let say = |tone, text: &str| self.look.say(tone, text);
        match (report, self.look.loudness) {
            (Report::Reload(reload), loudness) if is_told(reload, loudness) => {
                say(tone_of(reload.state), &reload_text(reload));
            }
            (Report::Ready { roots, channels }, Loudness::Plain | Loudness::Verbose) => {
                let roots: Vec<String> = roots.iter().map(|root| root.path.display().to_string()).collect();
                say(Tone::Plain, &format!("watching {}", roots.join(", ")));
                channels.iter().filter_map(impaired).for_each(|text| say(Tone::Warning, &text));
            }
            (Report::Change(change), Loudness::Verbose) => {
                say(Tone::Plain, &format!("{} {}", change.op.as_str(), change.path.display()));
            }
            (Report::Loss { channel, reason, .. }, Loudness::Plain | Loudness::Verbose) => {
                say(Tone::Bad, &format!("{} lost changes ({reason}): checking all files", channel.as_str()));
            }
            (Report::Channel { channel, state, why }, Loudness::Plain | Loudness::Verbose) => {
                let is_well = matches!(state, ChannelState::Active | ChannelState::Idle);
                let tone = if is_well { Tone::Plain } else { Tone::Warning };
                say(tone, &format!("channel {} is {}: {why}", channel.as_str(), state.as_str()));
            }
            _ => {}
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How good a reload's news is.
const fn tone_of(state: ReloadState) -> Tone {
    match state {
        ReloadState::Started => Tone::Plain,
        ReloadState::Done => Tone::Good,
        ReloadState::Replaced => Tone::Warning,
        ReloadState::Failed | ReloadState::Invalid | ReloadState::Unhealthy => Tone::Bad,
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
