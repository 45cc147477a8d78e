//! Printing: the only module that knows how a report looks.
//!
//! In: [`Report`]s from the engine. Out: bytes on stdout, as JSON Lines ([`json`]) or for a person ([`human`]).

pub mod human;
pub mod json;
mod mask;
pub(crate) mod object;
pub mod stdout;
pub mod text;

#[cfg(test)]
mod samples;

use std::io;

use crate::report::Report;

/// Where reports go.
pub trait Printer {
    /// Prints one report. An error of kind `BrokenPipe` means that the reader has gone.
    ///
    /// # Errors
    /// Any error of the underlying writer.
    fn print(&mut self, report: &Report) -> io::Result<()>;

    /// Hands everything printed so far to the reader; called when the engine is about to wait.
    ///
    /// # Errors
    /// Any error of the underlying writer.
    fn flush(&mut self) -> io::Result<()>;
}

/// The printer of a run on stdout: JSON Lines, or lines for a person, with colour or without.
#[must_use]
pub fn printer(json: bool, color: bool) -> Box<dyn Printer> {
    let out = stdout::Stdout::new();
    if json {
        Box::new(json::JsonPrinter::new(out))
    } else {
        Box::new(human::HumanPrinter::for_stdout(out, color))
    }
}

/// A printer's buffer: what one report adds is either wholly in it or not at all, and it goes out in large writes.
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
