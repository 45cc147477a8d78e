//! A live diagnosis for people.

use crate::diagnose::finding::{Proof, Target};
use crate::diagnose::live::{Histogram, LiveReport, Row, State, Summary, Verdict};
use crate::output::diagnose::human::{counted, line, one};
use crate::output::human::style::Paint;
use crate::output::text::push_visible;
use hotr_events::mask::names;

/// Appends the lines of a report; nothing for a change, which a trace's printer prints, and for a remark.
pub(super) fn live_report(text: &mut Vec<u8>, color: bool, told: &LiveReport<'_>) {
    Page { text, color }.live_report(told);
}

struct Page<'a> {
    text: &'a mut Vec<u8>,
    color: bool,
}

impl Page<'_> {
    fn plain(&mut self, text: &str) {
        self.text.extend_from_slice(text.as_bytes());
    }

    fn live_report(&mut self, told: &LiveReport<'_>) {
        match told {
            LiveReport::Ready { tier, instances, paths } => {
                let count = counted(instances.len() as u64, "instance", "instances");
                self.plain(&format!("following {count} ({})\n", tier.as_str()));
                for (target, watches) in instances {
                    self.plain("  ");
                    self.target(target);
                    self.plain(&format!("  {}\n", counted(*watches as u64, "watch", "watches")));
                }
                for path in paths {
                    self.plain("  in ");
                    push_visible(self.text, path.as_os_str().as_encoded_bytes());
                    self.plain("\n");
                }
            }
            LiveReport::Verdict(verdict) => self.verdict(verdict),
            LiveReport::Finding(finding) => one(finding, self.color, self.text),
            LiveReport::Lost { reason, count } => {
                let text = format!("lost {count} records ({reason}): changes that lack one are not judged\n");
                Paint::Yellow.push(self.text, self.color, text.as_bytes());
            }
            LiveReport::Summary(summary) => self.summary(summary),
            LiveReport::Note(_) | LiveReport::Change(_) | LiveReport::Used(_) => {}
        }
    }

    fn target(&mut self, target: &Target) {
        push_visible(self.text, &target.comm);
        if let Some(pid) = target.pid {
            self.plain(&format!("[{pid}]"));
        }
        if let Some(fd) = target.fd {
            self.plain(&format!(" fd {fd}"));
        }
        if let Some(wd) = target.wd {
            self.plain(&format!(" wd {wd}"));
        }
    }

    fn verdict(&mut self, verdict: &Verdict) {
        let paint = match verdict.state {
            State::Delivered => Paint::Green,
            State::Merged => Paint::Dim,
            State::Unread => Paint::Yellow,
            State::Dropped | State::NeverSent => Paint::Red,
        };
        self.plain("    ");
        paint.push(self.text, self.color, format!("{:10}", verdict.state.as_str()).as_bytes());
        self.plain(" ");
        self.target(&verdict.target);
        self.plain("  ");
        let name = verdict.path.file_name().unwrap_or(verdict.path.as_os_str());
        push_visible(self.text, name.as_encoded_bytes());
        if verdict.events != 0 {
            self.plain(&format!("  {}", names(verdict.events).join(" ")));
        }
        if let Some(micros) = verdict.read_us {
            self.plain(&format!(", read after {micros} µs"));
        }
        if let Some(cause) = verdict.cause {
            let how = if verdict.proof == Proof::Inferred { " (inferred)" } else { "" };
            self.plain(&format!("  {}{how}: {}", cause.as_str(), cause.sentence()));
        }
        self.plain("\n");
    }

    fn summary(&mut self, summary: &Summary) {
        self.plain(&counted(summary.changes, "change", "changes"));
        for state in State::ALL {
            let count = summary.counts.get(&state).copied().unwrap_or(0);
            if count != 0 {
                self.plain(&format!(", {count} {}", state.as_str()));
            }
        }
        if summary.reread != 0 {
            self.plain(&format!(", {} not sent but read when the watch was set again", summary.reread));
        }
        if summary.undecided != 0 {
            self.plain(&format!(", {} undecided", summary.undecided));
        }
        self.plain("\n");
        self.causes(&summary.rows);
        self.waits(&summary.read_us);
    }

    /// Cause × count × example × remedy.
    fn causes(&mut self, rows: &[Row]) {
        if rows.is_empty() {
            return;
        }
        self.plain("\n");
        Paint::Bold.push(self.text, self.color, b"  count  state       cause           example");
        self.plain("\n");
        for row in rows {
            let cause = row.cause.map_or("unknown", |cause| cause.as_str());
            self.plain(&format!("{:>7}  {:10}  {cause:14}  ", row.count, row.state.as_str()));
            push_visible(self.text, row.example.as_os_str().as_encoded_bytes());
            self.plain("\n");
            if let Some(remedy) = row.cause.and_then(|cause| cause.remedy()) {
                line(self.text, &format!("→ {remedy}"));
            }
        }
    }

    /// How long events waited to be read.
    fn waits(&mut self, histogram: &Histogram) {
        const WIDTH: u64 = 40;
        let (Some(half), Some(most), Some(max)) =
            (histogram.percentile(50), histogram.percentile(99), histogram.max())
        else {
            return;
        };
        let (half, most, max) = (micros(half), micros(most), micros(max));
        self.plain(&format!(
            "\nfrom the queue to the program: half within {half}, 99% within {most}, all within {max}\n"
        ));
        let rows = histogram.rows();
        let highest = rows.iter().map(|row| row.1).max().unwrap_or(1).max(1);
        for (below, count) in rows {
            // Whatever is there is seen.
            let width = (count * WIDTH).div_ceil(highest) as usize;
            let bar = "█".repeat(width);
            self.plain(&format!("  {:>9}  ", format!("< {}", micros(below))));
            Paint::Green.push(self.text, self.color, bar.as_bytes());
            self.plain(&format!("{}{count}\n", if width == 0 { "" } else { " " }));
        }
    }
}

/// A time that people read at once.
pub(in crate::output) fn micros(micros: u64) -> String {
    match micros {
        0..10_000 => format!("{micros} µs"),
        10_000..10_000_000 => format!("{}.{} ms", micros / 1000, micros % 1000 / 100),
        _ => format!("{}.{} s", micros / 1_000_000, micros % 1_000_000 / 100_000),
    }
}
