//! How far a long scan is, on a terminal: one line on stderr that disappears when the scan ends.
//!
//! In: the poller's counters. Out: nothing where stderr is no terminal.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hotr_user::watch::Scanning;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::{MissedTickBehavior, interval};

/// Scans that take less are not shown.
const SHOWN_AFTER: u32 = 3;
/// Between two looks at the counters.
const EVERY: Duration = Duration::from_millis(400);

/// Shows the scans; ends with the runtime that it is spawned on.
pub(super) async fn show(scanning: Arc<Scanning>) {
    if !std::io::stderr().is_terminal() {
        return;
    }
    let mut looks = interval(EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut bar: Option<ProgressBar> = None;
    let mut running = 0;
    loop {
        looks.tick().await;
        if !scanning.runs.load(Ordering::Relaxed) {
            running = 0;
            if let Some(bar) = bar.take() {
                bar.finish_and_clear();
            }
            continue;
        }
        running += 1;
        if running < SHOWN_AFTER {
            continue;
        }
        let done = scanning.progress.done.load(Ordering::Relaxed);
        let of = scanning.progress.of.load(Ordering::Relaxed);
        let bar = bar.get_or_insert_with(new_bar);
        // The first scan does not know how many there are.
        if of > 0 {
            bar.set_length(of.max(done));
            bar.set_style(style("hotr: checking all files {bar:30} {human_pos} of {human_len}"));
        }
        bar.set_position(done);
    }
}

fn new_bar() -> ProgressBar {
    ProgressBar::new_spinner().with_style(style("hotr: checking all files: {human_pos}"))
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}
