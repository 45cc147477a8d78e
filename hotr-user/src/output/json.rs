//! Reports as JSON Lines, exactly as the output contract in docs/output.md orders the fields.
//!
//! In: [`Report`]s. Out: one object a line; a field is absent rather than null, and a list that can be empty is
//! there when it is empty. Lines are written straight into one reused buffer: no tree, no allocation a line.

use std::io::{self, Write};

use super::object::{Object, quote_word};
use super::{Buffered, Printer, mask};
use crate::event::{Actor, Change, Missed};
use crate::pipeline::confirm::Confirmed;
use crate::report::{ChannelInfo, KernelTotals, Raw, Reload, ReloadState, Report, Root, meaning_of_loss};

/// Prints JSON Lines; `seq` counts the change lines from 1.
#[derive(Debug)]
pub struct JsonPrinter<W: Write> {
    out: Buffered<W>,
    seq: u64,
}

impl<W: Write> JsonPrinter<W> {
    /// Prints to `out`, which needs no buffer of its own.
    pub fn new(out: W) -> Self {
        Self { out: Buffered::new(out), seq: 0 }
    }
}

impl<W: Write> Printer for JsonPrinter<W> {
    fn print(&mut self, report: &Report) -> io::Result<()> {
        let mut line = Object::open(&mut self.out.bytes);
        match report {
            Report::Ready { roots, channels } => ready(&mut line, roots, channels),
            Report::Change(change) => {
                self.seq += 1;
                line.word("type", "change");
                line.number("seq", self.seq);
                change_line(&mut line, change);
            }
            Report::Raw(raw) => raw_line(&mut line, raw),
            Report::Loss { channel, reason, count, path } => {
                line.word("type", "loss");
                line.word("channel", channel.as_str());
                line.word("reason", reason);
                line.number("count", *count);
                line.maybe(path.as_deref(), |line, path| line.path("path", "path_b64", path));
                line.maybe(meaning_of_loss(*channel, reason), |line, why| line.text("why", why.as_bytes()));
            }
            Report::Channel { channel, state, why } => {
                line.word("type", "channel");
                line.word("name", channel.as_str());
                line.word("state", state.as_str());
                line.text("why", why.as_bytes());
            }
            Report::Reload(reload) => reload_line(&mut line, reload),
            Report::Summary { changes, kernel, duration } => {
                line.word("type", "summary");
                line.number("changes", *changes);
                line.maybe(kernel.as_ref(), |line, totals| {
                    line.object("kernel", |o| kernel_totals(o, totals))
                });
                line.number("duration_ms", u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
            }
        }
        line.close();
        self.out.bytes.push(b'\n');
        self.out.line_done()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn ready(line: &mut Object<'_>, roots: &[Root], channels: &[ChannelInfo]) {
    line.word("type", "ready");
    line.word("version", env!("CARGO_PKG_VERSION"));
    line.list("roots", roots, |buf, root| {
        Object::whole(buf, |o| {
            o.path("path", "path_b64", &root.path);
            o.text("fs", root.fs.as_bytes());
            o.list("aliases", &root.aliases, |buf, alias| {
                Object::whole(buf, |o| {
                    o.path("path", "path_b64", &alias.path);
                    o.word("layer", alias.layer.as_str());
                });
            });
        });
    });
    line.object("channels", |o| {
        for info in channels {
            o.object(info.channel.as_str(), |o| {
                o.word("state", info.state.as_str());
                o.maybe(info.tier, |o, tier| o.word("tier", tier));
                o.maybe(info.watches, |o, n| o.number("watches", n));
                o.maybe(info.uncovered, |o, n| o.number("uncovered", n));
                o.maybe(info.interval_ms, |o, n| o.number("interval_ms", n));
                o.maybe(info.why.as_deref(), |o, why| o.text("why", why.as_bytes()));
            });
        }
    });
}

fn change_line(line: &mut Object<'_>, change: &Change) {
    line.time("time", change.time);
    line.word("op", change.op.as_str());
    details(line, change);
    line.path("path", "path_b64", &change.path);
    what(line, change);
    line.list("seen_by", &change.seen_by, |buf, channel| quote_word(buf, channel.as_str()));
    line.list("missed_by", &change.missed_by, missed);
}

fn details(line: &mut Object<'_>, change: &Change) {
    line.list("detail", &change.detail, |buf, detail| quote_word(buf, detail));
}

/// The fields of a change between its path and its channels.
fn what(line: &mut Object<'_>, change: &Change) {
    line.maybe(change.old_path.as_deref(), |o, old| o.path("old_path", "old_path_b64", old));
    line.maybe(change.file_type, |o, file_type| o.word("file_type", file_type.as_str()));
    line.maybe(change.id, |o, id| {
        o.number("ino", id.ino);
        o.maybe((id.gen_ != 0).then_some(id.gen_), |o, generation| o.number("gen", generation.into()));
    });
    line.maybe(change.size, |o, size| o.number("size", size));
    if change.writes > 0 {
        line.number("writes", change.writes);
        line.number("bytes", change.bytes);
    }
    line.maybe(change.layer, |o, layer| o.word("layer", layer.as_str()));
    line.maybe(change.actor.as_ref(), |o, who| o.object("actor", |o| actor(o, who)));
}

fn actor(o: &mut Object<'_>, actor: &Actor) {
    o.number("pid", actor.pid.into());
    o.number("tid", actor.tid.into());
    o.number("uid", actor.uid.into());
    o.text("comm", &actor.comm);
    o.maybe(actor.exe.as_deref(), |o, exe| o.path("exe", "exe_b64", exe));
    o.maybe(actor.cgroup.as_deref(), |o, cgroup| o.text("cgroup", cgroup.as_bytes()));
}

fn missed(buf: &mut Vec<u8>, missed: &Missed) {
    Object::whole(buf, |o| {
        o.word("channel", missed.channel.as_str());
        o.word("cause", missed.cause);
        o.text("why", missed.why.as_bytes());
    });
}

fn raw_line(line: &mut Object<'_>, raw: &Raw) {
    line.word("type", "raw");
    match raw {
        Raw::Inotify { time, path, mask, cookie, wd, name } => {
            line.word("channel", "inotify");
            line.path("path", "path_b64", path);
            line.list("mask", &mask::names(*mask), |buf, name| quote_word(buf, name));
            line.number("cookie", u64::from(*cookie));
            line.signed("wd", i64::from(*wd));
            line.time("time", *time);
            line.maybe(name.as_deref(), |o, name| o.bytes("name", "name_b64", name));
        }
        Raw::Ebpf { time, hook, tier, change } => {
            line.word("channel", "ebpf");
            line.word("hook", hook);
            line.word("tier", tier);
            line.word("op", change.op.as_str());
            line.path("path", "path_b64", &change.path);
            line.time("time", *time);
            details(line, change);
            what(line, change);
        }
    }
}

fn reload_line(line: &mut Object<'_>, reload: &Reload) {
    line.word("type", "reload");
    line.number("seq", reload.seq);
    line.time("time", reload.time);
    line.word("state", reload.state.as_str());
    line.word("trigger", reload.trigger.as_str());
    if reload.state == ReloadState::Started {
        line.list("changes", &reload.changes, |buf, change| Object::whole(buf, |o| confirmed(o, change)));
    }
    line.maybe(reload.status, |o, status| o.signed("status", status.into()));
    line.maybe(reload.duration, |o, took| {
        o.number("duration_ms", u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
    });
    line.maybe(reload.why.as_deref(), |o, why| o.text("why", why.as_bytes()));
}

/// A confirmed change, as in a reload and as handed to a command on its stdin.
pub(crate) fn confirmed(o: &mut Object<'_>, change: &Confirmed) {
    o.word("kind", change.kind.as_str());
    o.path("path", "path_b64", &change.path);
    o.word("by", change.by.as_str());
    o.maybe(change.size, |o, size| o.number("size", size));
    o.list("seen_by", &change.seen_by, |buf, channel| quote_word(buf, channel.as_str()));
}

fn kernel_totals(o: &mut Object<'_>, totals: &KernelTotals) {
    o.number("seen", totals.seen);
    o.number("submitted", totals.submitted);
    o.number("coalesced", totals.coalesced);
    o.number("filtered", totals.filtered);
    o.number("ring_full", totals.ring_full);
    o.number("oversize", totals.oversize);
    o.number("recursion_misses", totals.recursion_misses);
}

#[cfg(test)]
mod tests;
