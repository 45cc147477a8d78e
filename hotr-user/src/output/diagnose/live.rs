//! A live diagnosis: changes as a trace prints them, and for each instance a line that says what became of it there; at
//! the end a table of what did not arrive.

mod human;
pub(super) mod json;

use std::io::{self, Write};

use crate::diagnose::live::LiveReport;
use crate::output::{printer, stdout};
use hotr_events::Report;
use hotr_events::ReportSink;
use hotr_events::{Change, Channel};

/// Prints one run.
pub struct LivePrinter {
    json: bool,
    color: bool,
    changes: Box<dyn ReportSink>,
    out: stdout::Stdout,
}

impl LivePrinter {
    /// On stdout.
    #[must_use]
    pub fn new(json: bool, color: bool) -> Self {
        Self { json, color, changes: printer(json, color), out: stdout::Stdout::new() }
    }

    /// Prints a report; a remark is left to the caller.
    ///
    /// # Errors
    /// Any error of stdout.
    pub fn print(&mut self, told: &LiveReport<'_>) -> io::Result<()> {
        if let LiveReport::Change(change) = told {
            self.changes.print(&Report::Change(Box::new(as_printed(change))))?;
            return self.changes.flush();
        }
        let mut text = Vec::new();
        if self.json {
            json::line(&mut text, told);
        } else {
            human::live_report(&mut text, self.color, told);
        }
        self.out.write_all(&text)?;
        self.out.flush()
    }
}

/// A change as it is printed: the kernel programs alone are asked.
pub(super) fn as_printed(change: &Change) -> Change {
    Change { seen_by: vec![Channel::Ebpf], ..change.clone() }
}

pub(in crate::output) use human::micros;
