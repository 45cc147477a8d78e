//! Ending a run on a signal: long work checks this, and stops.
//!
//! In: one call in a signal handler. Out: whether the end was requested, and how much time is left for the last
//! reports. Nobody waits for an end longer than about a second, whatever was to be done: what is left undone is
//! reported.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// How long changes may still be read and looked for once the run is to end.
const WORK_NS: u64 = 450_000_000;
/// How long the reader of the reports may still take its time, in all, once the run is to end: longer than [`WORK_NS`], so that
/// a slow reader receives how many changes there was no time for, and the summary.
pub(crate) const GRACE: Duration = Duration::from_millis(800);

pub(crate) static ASKED: AtomicBool = AtomicBool::new(false);
/// When the end was asked for first, `CLOCK_MONOTONIC` nanoseconds; 0 before.
static ASKED_NS: AtomicU64 = AtomicU64::new(0);
static CUT: AtomicU64 = AtomicU64::new(0);

/// From now on nothing that takes long is begun or gone on with. May be called in a signal handler.
pub fn ask() {
    // Reading the clock is async-signal-safe. A second signal gives no more time.
    let _ = ASKED_NS.compare_exchange(0, now_ns(), Ordering::Relaxed, Ordering::Relaxed);
    ASKED.store(true, Ordering::Relaxed);
}

/// Something was given up because the end was asked for: at least so many changes that it would have found are not reported.
pub(crate) fn cut(count: u64) {
    CUT.fetch_add(count, Ordering::Relaxed);
}

/// How many changes were given up, at least; see [`cut`].
pub(crate) fn cut_count() -> u64 {
    CUT.load(Ordering::Relaxed)
}

/// Whether the end was requested.
#[must_use]
pub fn is_asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// Whether the end was asked for, and the time for the last work is over. Loops over what storms make ask this each round.
pub(crate) fn is_over() -> bool {
    is_asked() && now_ns().saturating_sub(ASKED_NS.load(Ordering::Relaxed)) >= WORK_NS
}

/// As [`is_over`], for a loop that then gives up the rest of what it found.
pub(crate) fn gives_up() -> bool {
    let is_over = is_over();
    if is_over {
        cut(1);
    }
    is_over
}

fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}
