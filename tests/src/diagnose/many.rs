//! Many deliveries at a time: three writers, one reader, and every verdict counted. The events that were really read say
//! how many there have to be.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use rustix::fs::inotify::WatchFlags;
use serde_json::{Value, json};

use super::live::{Live, Watched};

/// Writers.
const WRITERS: u64 = 3;
/// Changes of each between two rests, at which the verdicts are waited for: a storm that outlasts the room for records
/// would measure that room.
const BURST: u64 = 330;
/// Each so many writes, a file is replaced: it appears, is written, and renamed.
const REPLACED: u64 = 11;

/// What every change of the writers is an event of.
pub(super) const MASK: WatchFlags = WatchFlags::MODIFY.union(WatchFlags::CREATE).union(WatchFlags::MOVED_TO);

/// What became of the changes.
#[derive(Debug, Default)]
pub(super) struct Figures {
    /// Made by the writers.
    changes: u64,
    delivered: u64,
    merged: u64,
    other: u64,
    /// Read from the instance.
    events: u64,
    /// The first verdict that is neither.
    example: Option<Value>,
    /// Records that hotr says it lost, after which nobody waits for all verdicts.
    lost: u64,
}

impl Figures {
    /// As a line.
    pub(super) fn line(&self) -> Value {
        json!({
            "changes": self.changes, "delivered": self.delivered, "merged": self.merged,
            "false_losses": self.other, "events_read": self.events, "writers": WRITERS, "lost": self.lost,
        })
    }

    /// Every change has a verdict unless records were lost, none is called lost, and as many are delivered as events were read.
    pub(super) fn check(&self) -> Result<()> {
        ensure!(self.other == 0, "a false loss: {self:?}");
        if self.lost > 0 {
            return Ok(());
        }
        ensure!(self.delivered + self.merged == self.changes, "a change without a verdict: {self:?}");
        ensure!(self.delivered == self.events, "{} events were read: {self:?}", self.events);
        ensure!(self.merged > 0, "no two equal events: {self:?}");
        Ok(())
    }
}

/// Makes at least so many changes below a watched directory.
pub(super) fn measure(live: &mut Live, watched: &Watched, changes: u64) -> Result<Figures> {
    let mut figures = Figures::default();
    fs::write(watched.dir.join("shared"), "")?;
    // The event of its appearance, and its verdict.
    let mut expected = 1;
    figures.events += watched.read() as u64;
    while figures.changes < changes {
        let made = burst(watched, &mut figures)?;
        figures.changes += made;
        expected += made;
        let over = Instant::now() + live.deadlines.line;
        while figures.delivered + figures.merged + figures.other < expected {
            if live.lost + live.lost_changes > 0 {
                (figures.lost, figures.changes) = (live.lost + live.lost_changes, expected);
                return Ok(figures);
            }
            let line = live.line(over).with_context(|| format!("{figures:?} of {expected}"))?;
            if line["type"] == "delivery" && is_below(&line, &watched.dir) {
                live.said.pop();
                match line["state"].as_str() {
                    Some("delivered") => figures.delivered += 1,
                    Some("merged") => figures.merged += 1,
                    _ => {
                        figures.other += 1;
                        figures.example.get_or_insert(line);
                    }
                }
            }
        }
    }
    figures.changes = expected;
    Ok(figures)
}

fn is_below(line: &Value, dir: &Path) -> bool {
    line["path"].as_str().is_some_and(|path| Path::new(path).starts_with(dir))
}

/// Every writer makes its changes, and meanwhile events are read. How many changes there were.
fn burst(watched: &Watched, figures: &mut Figures) -> Result<u64> {
    let (made, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let (made, is_over) = (&made, &is_over);
        let writers: Vec<_> =
            (0..WRITERS).map(|writer| scope.spawn(move || writes(&watched.dir, writer, made))).collect();
        let reader = scope.spawn(move || {
            let mut events = 0;
            loop {
                // Looked at before the last reading.
                let last = is_over.load(Ordering::Acquire);
                events += watched.read() as u64;
                if last {
                    return events;
                }
                std::thread::yield_now();
            }
        });
        let results: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        is_over.store(true, Ordering::Release);
        figures.events += reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))?;
        for result in results {
            result.map_err(|_| anyhow::anyhow!("a writer panicked"))??;
        }
        Ok(made.load(Ordering::Relaxed))
    })
}

fn writes(dir: &Path, writer: u64, made: &AtomicU64) -> Result<()> {
    let append = |path: PathBuf| fs::OpenOptions::new().append(true).create(true).open(path);
    let own = dir.join(format!("own-{writer}"));
    let is_new = !own.exists();
    let mut files = [append(dir.join("shared"))?, append(own.clone())?];
    let mut count = u64::from(is_new);
    while count < BURST {
        if count % REPLACED == 0 {
            let new = dir.join(format!(".new-{writer}"));
            fs::write(&new, "3\n")?;
            fs::rename(&new, &own)?;
            files[1] = append(own.clone())?;
            count += 3;
        }
        // Twice in each, so that two equal events may follow each other.
        files[(count / 2 % 2) as usize].write_all(b"2\n")?;
        count += 1;
    }
    made.fetch_add(count, Ordering::Relaxed);
    Ok(())
}
