//! Reports as JSON Lines, exactly as the output contract in docs/output.md orders the fields.
//!
//! In: [`Report`]s. Out: one object per line; a field is absent rather than null, and a list that can be empty is
//! present when it is empty. Lines are written straight into one reused buffer, which a long
//! one passes in parts. The form of a line is that of [`Line`].

use std::io::{self, Write};

use super::Buffered;
use hotr_events::{Line, Report, ReportSink, json};

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

impl<W: Write> ReportSink for JsonPrinter<W> {
    fn print(&mut self, report: &Report) -> io::Result<()> {
        if matches!(report, Report::Change(_)) {
            self.seq += 1;
        }
        let line = Line::of(report, self.seq, env!("CARGO_PKG_VERSION"));
        if matches!(report, Report::Reload(_)) {
            // It names every file that changed: tens of megabytes after a storm.
            json::write(self.out.long_line(), &line)?;
        } else {
            json::append(&mut self.out.bytes, &line)?;
        }
        self.out.bytes.push(b'\n');
        self.out.line_done()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests;
