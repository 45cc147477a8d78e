//! Reports for humans: one readable line each, coloured on a terminal.
//!
//! In: [`Report`]s. Out: `time op path detail size who marks`, times in the local time zone (`TZ`, else
//! /etc/localtime). A name can neither break its line nor control the terminal, and is never shortened: when a line
//! does not fit the terminal, what follows the path is printed on a second line.

use std::io::{self, Write};

use super::Buffered;
use crate::text::{push_clock, push_padded, push_visible, unix_time, visible_message};
use hotr_events::KernelTotals;
use hotr_events::ReportSink;
use hotr_events::{Actor, Change, Channel, Origin, Watcher, WatcherState};
use hotr_events::{ChannelInfo, Raw, Relay, Report, Root};

pub(super) mod clock;
mod reload;
pub(super) mod style;

pub use reload::reload_text;

use style::{Paint, bytes_text, op_paint, state_paint};

/// Columns before the path: `HH:MM:SS.mmm` and the operation, each with two spaces behind it.
const INDENT: usize = 22;

/// Prints lines for humans.
#[derive(Debug)]
pub struct HumanPrinter<W: Write> {
    out: Buffered<W>,
    /// What follows the path, until it is known whether it fits behind it.
    tail: Vec<u8>,
    color: bool,
    columns: fn() -> Option<usize>,
    width: Option<usize>,
    clock: clock::Clock,
}

impl<W: Write> HumanPrinter<W> {
    /// Prints to `out`, wrapped to the width of the terminal on stdout when it is one.
    pub fn for_stdout(out: W, color: bool) -> Self {
        Self::new(out, color, terminal_columns, clock::Clock::local())
    }

    /// Prints to `out`, one line for each report.
    pub fn for_file(out: W, color: bool) -> Self {
        Self::new(out, color, || None, clock::Clock::local())
    }

    fn new(out: W, color: bool, columns: fn() -> Option<usize>, clock: clock::Clock) -> Self {
        Self { out: Buffered::new(out), tail: Vec::new(), color, columns, width: columns(), clock }
    }

    /// What was printed to, with all that was flushed.
    pub(super) fn into_inner(self) -> W {
        self.out.out
    }

    fn paint(&mut self, paint: Paint, text: &str) {
        paint.push(&mut self.out.bytes, self.color, text.as_bytes());
    }

    /// `HH:MM:SS.mmm  op`, padded to [`INDENT`].
    fn stamp(&mut self, time: std::time::SystemTime, paint: Paint, op: &str) {
        let (secs, nanos) = unix_time(time);
        let clock = self.clock.at(secs);
        let color = self.color;
        let buf = &mut self.out.bytes;
        Paint::Dim.wrap(buf, color, |buf| {
            push_clock(buf, clock);
            buf.push(b'.');
            push_padded(buf, nanos / 1_000_000, 3);
        });
        buf.extend_from_slice(b"  ");
        paint.push(buf, color, op.as_bytes());
        buf.resize(buf.len() + 8_usize.saturating_sub(op.len()), b' ');
    }

    fn change(&mut self, change: &Change) {
        self.stamp(change.time, op_paint(change.op), change.op.as_str());
        let start = self.out.bytes.len();
        names(&mut self.out.bytes, self.color, change);
        self.tail.clear();
        what(&mut self.tail, change);
        if let Some(actor) = &change.actor {
            who(&mut self.tail, self.color, actor);
        }
        marks(&mut self.tail, self.color, change);
        self.put_tail(start);
    }

    fn relay(&mut self, relay: &Relay) {
        self.stamp(relay.time, Paint::Cyan, "relay");
        let start = self.out.bytes.len();
        Paint::Bold.wrap(&mut self.out.bytes, self.color, |buf| {
            push_visible(buf, relay.path.as_os_str().as_encoded_bytes());
        });
        self.tail.clear();
        relay_tail(&mut self.tail, self.color, relay);
        self.put_tail(start);
    }

    /// Puts the tail behind the path that begins at `start`, or below it when the line would not fit.
    fn put_tail(&mut self, start: usize) {
        let used = INDENT + style::columns(&self.out.bytes[start..]);
        let fits = self.width.is_none_or(|width| used + style::columns(&self.tail) <= width);
        if !fits {
            self.out.bytes.push(b'\n');
            self.out.bytes.resize(self.out.bytes.len() + INDENT - 2, b' ');
        }
        self.out.bytes.extend_from_slice(&self.tail);
    }

    fn raw(&mut self, raw: &Raw) {
        match raw {
            Raw::Ebpf { time, hook, tier, change, .. } => {
                self.stamp(*time, op_paint(change.op), change.op.as_str());
                names(&mut self.out.bytes, self.color, change);
                self.paint(Paint::Dim, &format!("  {tier}:{hook}"));
                what(&mut self.out.bytes, change);
                if let Some(actor) = &change.actor {
                    who(&mut self.out.bytes, self.color, actor);
                }
            }
            Raw::Inotify { time, path, mask, cookie, wd, name } => {
                self.stamp(*time, Paint::Dim, "inotify");
                push_visible(&mut self.out.bytes, path.as_os_str().as_encoded_bytes());
                let mut text = format!("  {}  wd {wd}", hotr_events::mask::names(*mask).join("|"));
                if *cookie != 0 {
                    text.push_str(&format!("  cookie {cookie}"));
                }
                self.out.bytes.extend_from_slice(text.as_bytes());
                if let Some(name) = name {
                    self.out.bytes.extend_from_slice(b"  name ");
                    push_visible(&mut self.out.bytes, name);
                }
            }
        }
    }

    fn ready(&mut self, roots: &[Root], channels: &[ChannelInfo]) {
        self.paint(Paint::Bold, "tracing");
        for (i, root) in roots.iter().enumerate() {
            let buf = &mut self.out.bytes;
            buf.extend_from_slice(if i == 0 { b" " } else { b", " });
            push_visible(buf, root.path.as_os_str().as_encoded_bytes());
            buf.extend_from_slice(format!(" ({}", root.fs).as_bytes());
            for alias in &root.aliases {
                buf.extend_from_slice(format!(", {} ", alias.layer.as_str()).as_bytes());
                push_visible(buf, alias.path.as_os_str().as_encoded_bytes());
            }
            buf.push(b')');
        }
        for info in channels {
            self.out.bytes.extend_from_slice(" · ".as_bytes());
            self.paint(state_paint(info.state), &format!("{} {}", info.channel.as_str(), channel_text(info)));
        }
    }

    fn summary(&mut self, changes: u64, kernel: Option<&KernelTotals>, duration: std::time::Duration) {
        let noun = if changes == 1 { "change" } else { "changes" };
        self.paint(Paint::Bold, &format!("{changes} {noun}"));
        let mut text = format!(" in {:.1} s", duration.as_secs_f64());
        if let Some(totals) = kernel {
            text.push_str(&format!(
                " · kernel: {} seen, {} submitted, {} coalesced, {} filtered",
                totals.seen, totals.submitted, totals.coalesced, totals.filtered
            ));
        }
        self.out.bytes.extend_from_slice(text.as_bytes());
        let lost = kernel.map_or(0, |t| t.ring_full + t.oversize + t.recursion_misses);
        if lost > 0 {
            self.out.bytes.extend_from_slice(b", ");
            self.paint(Paint::Red, &format!("{lost} lost"));
        }
    }
}

impl<W: Write> ReportSink for HumanPrinter<W> {
    fn print(&mut self, report: &Report) -> io::Result<()> {
        match report {
            Report::Ready { roots, channels } => self.ready(roots, channels),
            Report::Change(change) => self.change(change),
            Report::Raw(raw) => self.raw(raw),
            Report::Loss { channel, reason, count, path } => {
                self.paint(Paint::Red, &format!("loss  {}  {reason} ×{count}", channel.as_str()));
                if let Some(path) = path {
                    self.out.bytes.extend_from_slice(b"  ");
                    push_visible(&mut self.out.bytes, path.as_os_str().as_encoded_bytes());
                }
                self.out.bytes.extend_from_slice(b"  ");
                self.out.bytes.extend_from_slice(reason.sentence(*channel).as_bytes());
            }
            Report::Channel { channel, state, why } => {
                let text = format!("channel  {} {}", channel.as_str(), state.as_str());
                self.paint(state_paint(*state), &text);
                self.out.bytes.extend_from_slice(b"  ");
                push_visible(&mut self.out.bytes, why.as_bytes());
            }
            Report::Reload(reload) => {
                self.out.bytes.extend_from_slice(visible_message(&reload_text(reload)).as_bytes());
            }
            Report::Relay(relay) => self.relay(relay),
            Report::Summary { changes, kernel, duration } => {
                self.summary(*changes, kernel.as_ref(), *duration);
            }
        }
        self.out.bytes.push(b'\n');
        self.out.line_done()
    }

    fn flush(&mut self) -> io::Result<()> {
        // A terminal may have been resized; one system call a flush is cheap enough to know.
        self.width = (self.columns)();
        self.out.flush()
    }
}

/// `path`, or `old → new`; a directory ends with a slash.
fn names(buf: &mut Vec<u8>, color: bool, change: &Change) {
    if let Some(old) = &change.old_path {
        push_visible(buf, old.as_os_str().as_encoded_bytes());
        let exchanged = change.detail.iter().any(|detail| detail == "exchange");
        buf.extend_from_slice(if exchanged { " ↔ " } else { " → " }.as_bytes());
    }
    Paint::Bold.wrap(buf, color, |buf| {
        push_visible(buf, change.path.as_os_str().as_encoded_bytes());
        if change.file_type == Some(hotr_events::FileType::Dir) && !buf.ends_with(b"/") {
            buf.push(b'/');
        }
    });
}

/// How, how much, and by which other way.
fn what(buf: &mut Vec<u8>, change: &Change) {
    let mut text = String::new();
    for (i, detail) in change.detail.iter().enumerate() {
        text.push_str(if i == 0 { "  " } else { "," });
        text.push_str(detail);
    }
    if change.written.writes > 1 {
        text.push_str(&format!(" ×{}", change.written.writes));
    }
    if change.written.writes > 0 {
        text.push_str(&format!("  +{}", bytes_text(change.written.bytes)));
    }
    if let Some(size) = change.size {
        text.push_str(&format!("  size {}", bytes_text(size)));
    }
    if let Some(layer) = change.layer {
        text.push_str(&format!("  via {}", layer.as_str()));
    }
    buf.extend_from_slice(text.as_bytes());
}

fn who(buf: &mut Vec<u8>, color: bool, actor: &Actor) {
    buf.extend_from_slice(b"  ");
    Paint::Cyan.wrap(buf, color, |buf| push_visible(buf, &actor.comm));
    buf.extend_from_slice(format!("[{}] uid {}", actor.pid, actor.uid).as_bytes());
    if let Some(origin) = actor.origin.as_deref() {
        belongs(buf, actor, origin);
    }
}

/// `(deploy) parent sh[7] unit ssh.service container 0123456789ab`, as far as it is known.
fn belongs(buf: &mut Vec<u8>, actor: &Actor, origin: &Origin) {
    if origin.user.is_some() || origin.login_uid.is_some_and(|uid| uid != actor.uid) {
        buf.extend_from_slice(format!(" ({})", reload::user(actor)).as_bytes());
    }
    if let Some(parent) = &origin.parent {
        buf.extend_from_slice(b" parent ");
        push_visible(buf, &parent.comm);
        buf.extend_from_slice(format!("[{}]", parent.pid).as_bytes());
    }
    if let Some(unit) = &origin.unit {
        buf.extend_from_slice(b" unit ");
        push_visible(buf, unit.as_bytes());
    }
    if let Some(container) = &origin.container {
        // As container engines print it.
        let short = container.get(..12).unwrap_or(container);
        buf.extend_from_slice(format!(" container {short}").as_bytes());
    }
}

/// A filled mark for each channel that saw the change, an open one with the cause for each that did not. Of another process
/// that watches, also what is neither.
fn marks(buf: &mut Vec<u8>, color: bool, change: &Change) {
    let watcher = change.watcher.as_deref();
    let name = |buf: &mut Vec<u8>, channel: Channel| match watcher {
        Some(watcher) if channel == Channel::Inotify => watcher_name(buf, watcher),
        _ => buf.extend_from_slice(channel.as_str().as_bytes()),
    };
    let mut gap = "  ";
    for &channel in &change.seen_by {
        buf.extend_from_slice(gap.as_bytes());
        Paint::Green.wrap(buf, color, |buf| {
            buf.extend_from_slice("● ".as_bytes());
            name(buf, channel);
            if channel == Channel::Inotify && watcher.is_some_and(|one| one.state == WatcherState::Merged) {
                buf.extend_from_slice(b" merged");
            }
        });
        gap = " ";
    }
    for missed in &change.missed_by {
        buf.extend_from_slice(gap.as_bytes());
        Paint::Red.wrap(buf, color, |buf| {
            buf.extend_from_slice("○ ".as_bytes());
            name(buf, missed.channel);
            buf.extend_from_slice(format!(" {}", missed.cause).as_bytes());
        });
        gap = " ";
    }
    let is_neither = |one: &&Watcher| {
        use WatcherState::{Reread, Unasked, Unknown, Unread};
        matches!(one.state, Unread | Reread | Unknown | Unasked)
    };
    if let Some(watcher) = watcher.filter(is_neither) {
        buf.extend_from_slice(gap.as_bytes());
        Paint::Dim.wrap(buf, color, |buf| {
            buf.extend_from_slice("◌ ".as_bytes());
            watcher_name(buf, watcher);
            buf.extend_from_slice(format!(" {}", watcher.state).as_bytes());
        });
    }
}

/// Why the watcher missed a change, who it is, and what was done.
fn relay_tail(buf: &mut Vec<u8>, color: bool, relay: &Relay) {
    let to = &relay.to;
    buf.extend_from_slice(format!("  {}  → ", relay.cause).as_bytes());
    push_visible(buf, &to.comm);
    buf.extend_from_slice(format!("[{}] fd {} wd {}  ", to.pid, to.fd, to.wd).as_bytes());
    let (paint, text) = match (relay.event, relay.refused) {
        (Some(event), _) => match relay.arrived {
            Some(true) => (Paint::Green, format!("● {event}")),
            Some(false) => (Paint::Red, format!("○ {event} did not arrive")),
            None => (Paint::Dim, format!("◌ {event}, not known whether it arrived")),
        },
        (None, Some(refusal)) => (Paint::Yellow, format!("not announced: {refusal}")),
        (None, None) => (Paint::Yellow, "not announced".to_owned()),
    };
    paint.push(buf, color, text.as_bytes());
    if let Some(why) = &relay.why {
        buf.extend_from_slice(b"  ");
        push_visible(buf, why.as_bytes());
    }
}

/// `app[7]`, or `app[7] fd 3`.
fn watcher_name(buf: &mut Vec<u8>, watcher: &Watcher) {
    push_visible(buf, &watcher.id.comm);
    buf.extend_from_slice(format!("[{}]", watcher.id.pid).as_bytes());
    if let Some(fd) = watcher.fd {
        buf.extend_from_slice(format!(" fd {fd}").as_bytes());
    }
}

fn channel_text(info: &ChannelInfo) -> String {
    let mut text = String::from(info.tier.as_deref().unwrap_or(info.state.as_str()));
    if info.tier.is_some() && info.state != hotr_events::ChannelState::Active {
        text.push_str(&format!(" {}", info.state.as_str()));
    }
    if let Some(watches) = info.watches {
        let word = if watches == 1 { "watch" } else { "watches" };
        text.push_str(&format!(", {watches} {word}"));
    }
    if let Some(watcher) = &info.watcher {
        let mut name = Vec::new();
        push_visible(&mut name, &watcher.comm);
        text.push_str(&format!(" of {}[{}]", String::from_utf8_lossy(&name), watcher.pid));
    }
    if let Some(uncovered) = info.uncovered {
        text.push_str(&format!(", {uncovered} directories uncovered"));
    }
    if let Some(interval) = info.interval_ms {
        text.push_str(&format!(", every {interval} ms"));
    }
    if let Some(why) = &info.why {
        text.push_str(&format!(" ({why})"));
    }
    text
}

fn terminal_columns() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    (size.ws_col > 0).then_some(size.ws_col.into())
}

#[cfg(test)]
mod tests;
