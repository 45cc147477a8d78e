//! How long to wait until the next round, as pure functions.
//!
//! In: the interval so far, what the last round found, in which mode. Out: the next interval.

use std::time::Duration;

/// The first interval of an audit beside healthy event channels.
pub const AUDIT_START: Duration = Duration::from_secs(30);
/// The longest interval.
pub const LONGEST: Duration = Duration::from_secs(300);
/// The shortest interval.
pub const SHORTEST: Duration = Duration::from_secs(1);
/// The interval while the event channels are degraded.
pub const DEGRADED: Duration = Duration::from_secs(5);
/// Part of one core that audits beside healthy channels may take in the long run.
const IDLE_SHARE: f64 = 0.005;

/// What polling is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Event channels are healthy; the poller checks them.
    Audit,
    /// There is no channel to rely on, and there never was: the poller adapts to the rate of change.
    Polling,
    /// The event channels failed: every [`DEGRADED`], whatever was found.
    Degraded,
}

/// The interval after a round that found `changes`: 1.5 times as long when it was quiet, 0.7 times at three or more
/// changes, else the same; never shorter than [`SHORTEST`] nor longer than [`LONGEST`].
pub fn next(current: Duration, changes: usize, mode: Mode) -> Duration {
    let next = match (mode, changes) {
        (Mode::Degraded, _) => return DEGRADED,
        (_, 0) => current.saturating_mul(3) / 2,
        (_, 1 | 2) => current,
        (_, _) => current.saturating_mul(7) / 10,
    };
    next.clamp(SHORTEST, LONGEST)
}

/// The pause to make after a round that took `cpu` of processor time: the interval, and in an audit at least as much
/// as keeps the long-run share of one core at half a percent (a round of 1 s: 200 s), but never above [`LONGEST`].
///
/// The budget of a poller bounds the load *during* a round, this bounds it over all rounds.
pub fn pause(interval: Duration, cpu: Duration, mode: Mode) -> Duration {
    match mode {
        Mode::Audit => interval.max(cpu.div_f64(IDLE_SHARE)).min(LONGEST),
        Mode::Polling | Mode::Degraded => interval,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_follows_what_is_found() {
        let table = [
            // (now, changes, mode, then), in milliseconds
            (1_000, 0, Mode::Polling, 1_500),
            (1_000, 1, Mode::Polling, 1_000),
            (1_000, 2, Mode::Polling, 1_000),
            (1_000, 3, Mode::Polling, 1_000),
            (10_000, 3, Mode::Polling, 7_000),
            (10_000, 1_000_000, Mode::Audit, 7_000),
            (30_000, 0, Mode::Audit, 45_000),
            (30_000, 2, Mode::Audit, 30_000),
            (250_000, 0, Mode::Audit, 300_000),
            (300_000, 0, Mode::Audit, 300_000),
            (1_200, 9, Mode::Audit, 1_000),
            (100, 0, Mode::Polling, 1_000),
            (900_000, 1, Mode::Polling, 300_000),
            (300_000, 0, Mode::Degraded, 5_000),
            (1_000, 7, Mode::Degraded, 5_000),
        ];
        for (now, changes, mode, then) in table {
            let found = next(Duration::from_millis(now), changes, mode);
            assert_eq!(found, Duration::from_millis(then), "{now} ms, {changes} changes, {mode:?}");
        }
    }

    #[test]
    fn a_costly_audit_is_made_less_often() {
        let table = [
            // (interval, cpu, mode, pause), in milliseconds
            (30_000, 10, Mode::Audit, 30_000),
            (30_000, 1_000, Mode::Audit, 200_000),
            (30_000, 9_000, Mode::Audit, 300_000),
            (300_000, 1, Mode::Audit, 300_000),
            (1_000, 9_000, Mode::Polling, 1_000),
            (5_000, 9_000, Mode::Degraded, 5_000),
        ];
        for (interval, cpu, mode, expected) in table {
            let found = pause(Duration::from_millis(interval), Duration::from_millis(cpu), mode);
            assert_eq!(found, Duration::from_millis(expected), "{interval} ms, {cpu} ms, {mode:?}");
        }
    }

    /// With rounds of 1.2 s (a million files), starting at 30 s, over five minutes without a change.
    #[test]
    fn five_quiet_minutes_stay_below_one_percent_of_a_core() {
        let cpu = Duration::from_millis(1_200);
        let (mut interval, mut now, mut used) = (AUDIT_START, AUDIT_START, Duration::ZERO);
        while now < Duration::from_secs(300) {
            used += cpu;
            interval = next(interval, 0, Mode::Audit);
            now += cpu + pause(interval, cpu, Mode::Audit);
        }
        assert!(used < Duration::from_secs(3), "{used:?}");
    }
}
