//! Printing: the only module that knows how a report looks.
//!
//! In: [`Report`](hotr_events::Report)s from the engine. Out: bytes on stdout, as JSON Lines ([`json`]) or for humans ([`human`]).

pub mod diagnose;
pub mod doctor;
pub mod human;
pub mod json;
pub mod notices;
mod page;
pub mod stdout;
pub mod template;
#[cfg(feature = "verify")]
pub mod verify;

#[cfg(test)]
mod samples;

pub use crate::text;
use std::io;

use hotr_events::ReportSink;

/// The printer of a run on stdout: JSON Lines, or lines for humans, with colour or without.
#[must_use]
pub fn printer(json: bool, color: bool) -> Box<dyn ReportSink> {
    let out = stdout::Stdout::new();
    if json {
        Box::new(json::JsonPrinter::new(out))
    } else {
        Box::new(human::HumanPrinter::for_stdout(out, color))
    }
}

/// The same to a file.
#[must_use]
pub fn printer_to(file: impl io::Write + 'static, json: bool, color: bool) -> Box<dyn ReportSink> {
    if json {
        Box::new(json::JsonPrinter::new(file))
    } else {
        Box::new(human::HumanPrinter::for_file(file, color))
    }
}

/// A printer's buffer: what one report adds is either wholly in it or not at all, and it goes out in large writes. The one
/// exception is [`Self::long_line`].
#[derive(Debug)]
struct Buffered<W> {
    out: W,
    bytes: Vec<u8>,
}

impl<W: io::Write> Buffered<W> {
    /// Written through when there is this much; one more line may come on top.
    const FULL: usize = 64 * 1024;

    fn new(out: W) -> Self {
        Self { out, bytes: Vec::with_capacity(Self::FULL + 4096) }
    }

    /// Called after each line: bounds the memory of a storm between two flushes.
    fn line_done(&mut self) -> io::Result<()> {
        if self.bytes.len() < Self::FULL { Ok(()) } else { self.write_out() }
    }

    /// A line that may be of any length: it goes out in parts.
    fn long_line(&mut self) -> impl io::Write + '_ {
        LongLine(self)
    }

    fn write_out(&mut self) -> io::Result<()> {
        let result = self.out.write_all(&self.bytes);
        self.bytes.clear();
        result
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_out()?;
        self.out.flush()
    }
}

/// See [`Buffered::long_line`].
struct LongLine<'a, W>(&'a mut Buffered<W>);

impl<W: io::Write> io::Write for LongLine<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.bytes.extend_from_slice(bytes);
        self.0.line_done().map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
