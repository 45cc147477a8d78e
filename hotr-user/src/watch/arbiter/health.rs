//! Health of one event channel, from what it should have received and what it received.
//!
//! In: expectations (heartbeats, and changes that only an audit found), each received or not; gaps in what the channel
//! can receive at all. Out: [`HealthChange`]s.

use std::collections::VecDeque;

/// Expectations that are remembered.
pub(super) const WINDOW: usize = 40;
/// Expectations before a share of them means something.
pub(super) const ENOUGH: usize = 20;
/// Below this share, in percent, a channel is degraded.
const BAD_PERCENT: usize = 95;
/// At this share, in percent, it may be healthy again.
const GOOD_PERCENT: usize = 98;
/// Missed heartbeats in a row that degrade a channel.
pub(super) const MISSED_IN_A_ROW: u32 = 3;
/// Expected changes received in a row before a channel is healthy again.
pub(super) const GOOD_IN_A_ROW: u32 = 10;

/// A change of health, and its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HealthChange {
    /// It cannot be relied on any more.
    Degraded(String),
    /// It can again.
    Recovered(String),
}

/// What an expectation was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// A change that hotr made.
    Heartbeat,
    /// A change by somebody else, found by an audit.
    Change,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// Newest last.
    window: VecDeque<bool>,
    missed_in_a_row: u32,
    good_in_a_row: u32,
    /// Did not keep its expectations.
    is_failing: bool,
    /// It failed by its heartbeats: what audits find in the meantime says nothing new.
    is_silent: bool,
    /// It cannot receive part of what it should receive.
    gap: Option<String>,
}

impl Health {
    /// With what it cannot receive from the start.
    pub(super) fn new(gap: Option<String>) -> Self {
        Self { gap, ..Self::default() }
    }

    /// Whether it cannot be relied on.
    pub(super) fn is_degraded(&self) -> bool {
        self.is_failing || self.gap.is_some()
    }

    /// Whether it fails its heartbeats, and is not merely short of something.
    pub(super) fn is_failing(&self) -> bool {
        self.is_failing
    }

    /// It was restarted: what the former one missed does not count.
    pub(super) fn restart(&mut self) {
        self.window.clear();
        self.good_in_a_row = 0;
    }

    /// Whether it missed its last heartbeat.
    pub(super) fn is_suspect(&self) -> bool {
        self.missed_in_a_row > 0
    }

    /// It received an expected change, or missed it.
    pub(super) fn expect(&mut self, what: Expected, heard: bool) -> Option<HealthChange> {
        if what == Expected::Change && self.is_silent {
            return None;
        }
        if self.window.len() == WINDOW {
            self.window.pop_front();
        }
        self.window.push_back(heard);
        self.good_in_a_row = if heard { self.good_in_a_row.saturating_add(1) } else { 0 };
        if what == Expected::Heartbeat {
            self.missed_in_a_row = if heard { 0 } else { self.missed_in_a_row.saturating_add(1) };
        }
        if self.is_failing { self.recover() } else { self.fail() }
    }

    fn fail(&mut self) -> Option<HealthChange> {
        let why = if self.missed_in_a_row >= MISSED_IN_A_ROW {
            format!("{MISSED_IN_A_ROW} heartbeats in a row were missed")
        } else if self.window.len() >= ENOUGH && self.is_below(BAD_PERCENT) {
            format!(
                "received {} of the last {} changes that it should have received",
                self.received(),
                self.window.len()
            )
        } else {
            return None;
        };
        let was = self.is_degraded();
        self.is_failing = true;
        self.is_silent = self.missed_in_a_row >= MISSED_IN_A_ROW;
        // Recovery is judged by what comes from now on.
        self.window.clear();
        (!was).then_some(HealthChange::Degraded(why))
    }

    fn recover(&mut self) -> Option<HealthChange> {
        if self.good_in_a_row < GOOD_IN_A_ROW || self.is_below(GOOD_PERCENT) {
            return None;
        }
        self.is_failing = false;
        self.is_silent = false;
        (!self.is_degraded())
            .then(|| HealthChange::Recovered(format!("received {} heartbeats in a row", self.good_in_a_row)))
    }

    /// What it cannot receive now, or that there is no such thing.
    pub(super) fn set_gap(&mut self, gap: Option<String>) -> Option<HealthChange> {
        let was = self.is_degraded();
        let why = gap.clone();
        self.gap = gap;
        match (was, self.is_degraded(), why) {
            (false, true, Some(why)) => Some(HealthChange::Degraded(why)),
            (true, false, _) => Some(HealthChange::Recovered("it covers everything again".to_owned())),
            _ => None,
        }
    }

    fn received(&self) -> usize {
        self.window.iter().filter(|heard| **heard).count()
    }

    fn is_below(&self, percent: usize) -> bool {
        self.received() * 100 < self.window.len() * percent
    }
}
