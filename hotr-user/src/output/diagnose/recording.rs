//! A live diagnosis in a file, from which its lines can be printed again.
//!
//! In: what a run reports. Out: JSON Lines: a header with the number of the format and the facts of the machine, then the
//! lines that `--json` prints, and `note` lines. Each line of a file must be the very bytes that hotr would write for what
//! was read from it, so whatever is damaged, or of another format, is noticed.

mod lines;
mod read;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Write};

use crate::diagnose::live::{LiveReport, Machine};
use crate::json::Object;
use hotr_events::{Line, json};

pub use read::{Damaged, Reader};

/// Number of the format; another one is another format.
const FORMAT: u64 = 1;
/// Longest line, in bytes.
const MOST_LINE: usize = 8 << 20;

/// Appends the header.
fn header(line: &mut Vec<u8>, machine: &Machine) {
    Object::whole(line, |o| {
        o.word("type", "recording");
        o.number("format", FORMAT);
        o.text("version", machine.version.as_bytes());
        o.time("time", machine.time);
        o.text("kernel", machine.kernel.as_bytes());
        o.boolean("btf", machine.btf);
        o.maybe(machine.lockdown.as_deref(), |o, mode| o.text("lockdown", mode.as_bytes()));
        o.maybe(machine.max_user_watches, |o, most| o.number("max_user_watches", most));
        o.maybe(machine.max_user_instances, |o, most| o.number("max_user_instances", most));
        o.maybe(machine.max_queued_events, |o, most| o.number("max_queued_events", most));
        o.list("mounts", &machine.mounts, |buf, mount| {
            Object::whole(buf, |o| {
                o.path("path", "path_b64", &mount.path);
                o.path("mount_point", "mount_point_b64", &mount.mount_point);
                o.text("fs", mount.fs.as_bytes());
            });
        });
    });
    line.push(b'\n');
}

/// Appends the line of a report. `seq` counts changes.
fn line(line: &mut Vec<u8>, seq: &mut u64, told: &LiveReport<'_>) {
    match told {
        LiveReport::Change(change) => {
            *seq += 1;
            // Only a map without string keys cannot be JSON.
            let _ = json::append(
                line,
                &Line::Change { seq: *seq, change: Cow::Owned(super::live::as_printed(change)) },
            );
            line.push(b'\n');
        }
        LiveReport::Note(note) => {
            Object::whole(line, |o| {
                o.word("type", "note");
                o.text("text", note.as_bytes());
            });
            line.push(b'\n');
        }
        other => super::live::json::line(line, other),
    }
}

/// Writes a recording.
#[derive(Debug)]
pub struct Recorder {
    file: File,
    /// Bytes of whole lines in it.
    length: u64,
    seq: u64,
}

impl Recorder {
    /// Into an empty file.
    #[must_use]
    pub const fn new(file: File) -> Self {
        Self { file, length: 0, seq: 0 }
    }

    /// Whether nothing was written.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Writes the header; nothing may be written before.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn begin(&mut self, machine: &Machine) -> io::Result<()> {
        let mut text = Vec::new();
        header(&mut text, machine);
        self.write(&text)
    }

    /// Writes the line of a report.
    ///
    /// # Errors
    /// Any error of the file, which then has whole lines only.
    pub fn take(&mut self, told: &LiveReport<'_>) -> io::Result<()> {
        let mut text = Vec::new();
        line(&mut text, &mut self.seq, told);
        self.write(&text)
    }

    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        if text.len() > MOST_LINE {
            return Err(io::Error::other("a line would have more than 8 MiB; choose fewer processes"));
        }
        if let Err(error) = self.file.write_all(text) {
            // Takes half a line off again; that needs no room.
            let _ = self.file.set_len(self.length);
            return Err(error);
        }
        self.length += text.len() as u64;
        Ok(())
    }

    /// Makes sure that everything is stored.
    ///
    /// # Errors
    /// What a filesystem says only now, such as that it is full.
    pub fn finish(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}
