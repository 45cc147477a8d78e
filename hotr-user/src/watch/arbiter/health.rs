//! Health of one event channel, from what it was expected to hear and what it heard.
//!
//! In: expectations (heartbeats, and changes that only an audit found), each heard or not; gaps in what the channel
//! can hear at all. Out: [`Turn`]s.

use std::collections::VecDeque;

/// Expectations that are remembered.
pub(super) const WINDOW: usize = 40;
/// Expectations before a share of them means something.
pub(super) const ENOUGH: usize = 20;
/// Below this share, in percent, a channel is degraded.
const BAD_PERCENT: usize = 95;
/// At this share, in percent, it may be healthy again.
const GOOD_PERCENT: usize = 98;
/// Unheard heartbeats in a row that degrade.
pub(super) const MISSED_IN_A_ROW: u32 = 3;
/// Heard expectations in a row before a channel is healthy again.
pub(super) const GOOD_IN_A_ROW: u32 = 10;

/// A change of health, and its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Turn {
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
    /// A change by somebody else, of which an audit knows.
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
    /// It failed by its heartbeats: what audits find meanwhile says nothing new.
    is_silent: bool,
    /// Part of what it should hear it cannot hear.
    gap: Option<String>,
}

impl Health {
    /// With what it cannot hear from the start.
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

    /// It was started anew: what the former one missed does not count.
    pub(super) fn restart(&mut self) {
        self.window.clear();
        self.good_in_a_row = 0;
    }

    /// Whether its last heartbeat was not heard.
    pub(super) fn is_suspect(&self) -> bool {
        self.missed_in_a_row > 0
    }

    /// An expectation was heard, or not.
    pub(super) fn expect(&mut self, what: Expected, heard: bool) -> Option<Turn> {
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

    fn fail(&mut self) -> Option<Turn> {
        let why = if self.missed_in_a_row >= MISSED_IN_A_ROW {
            format!("{MISSED_IN_A_ROW} heartbeats in a row were not heard")
        } else if self.window.len() >= ENOUGH && self.is_below(BAD_PERCENT) {
            format!("heard {} of the last {} changes it had to hear", self.heard(), self.window.len())
        } else {
            return None;
        };
        let was = self.is_degraded();
        self.is_failing = true;
        self.is_silent = self.missed_in_a_row >= MISSED_IN_A_ROW;
        // Recovery is judged by what comes from now on.
        self.window.clear();
        (!was).then_some(Turn::Degraded(why))
    }

    fn recover(&mut self) -> Option<Turn> {
        if self.good_in_a_row < GOOD_IN_A_ROW || self.is_below(GOOD_PERCENT) {
            return None;
        }
        self.is_failing = false;
        self.is_silent = false;
        (!self.is_degraded())
            .then(|| Turn::Recovered(format!("heard {} heartbeats in a row", self.good_in_a_row)))
    }

    /// What it cannot hear by now, or that there is no such thing.
    pub(super) fn set_gap(&mut self, gap: Option<String>) -> Option<Turn> {
        let was = self.is_degraded();
        let why = gap.clone();
        self.gap = gap;
        match (was, self.is_degraded(), why) {
            (false, true, Some(why)) => Some(Turn::Degraded(why)),
            (true, false, _) => Some(Turn::Recovered("it covers everything again".to_owned())),
            _ => None,
        }
    }

    fn heard(&self) -> usize {
        self.window.iter().filter(|heard| **heard).count()
    }

    fn is_below(&self, percent: usize) -> bool {
        self.heard() * 100 < self.window.len() * percent
    }
}
