//! Which channel is relied on: the state machine of the safety net, without a clock and without a thread of its own.
//!
//! In: heartbeats received or missed, losses, audits, each with the [`Moment`] of the report. Out: one `channel` report
//! for each transition, and when the next audit and the next heartbeat are due.
//!
//! EMERGENCY (something was lost: check all files now) comes before EVENT (a channel is healthy: audits are rare), and
//! that before POLLING (none is: every file is checked every five seconds).

mod health;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::source::poll::interval::{self, AUDIT_START, DEGRADED, Mode};
use crate::timer;
use health::{Expected, Health, HealthChange};
use hotr_events::Channel;
use hotr_events::LossReason;
use hotr_events::{ChannelState, Report};

/// Between two heartbeats while changes come, or a channel recovers.
const BUSY: Duration = Duration::from_secs(1);
/// The same while none come.
const IDLE: Duration = Duration::from_secs(2);
/// The same after one that was missed.
const SUSPECT: Duration = Duration::from_millis(250);
/// Later than due by this much: hotr itself did not run.
const STALL: Duration = Duration::from_secs(5);
/// A smaller step of the time of day is a clock being slewed.
const STEP_NS: u64 = 100_000_000;
/// Between two audits that losses ask for.
const EMERGENCY_PAUSE: Duration = Duration::from_secs(1);

/// Two clocks at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    /// Since some fixed time; never set.
    pub(super) mono: Duration,
    /// Time of day, nanoseconds since 1970; may be set.
    pub(super) real_ns: i64,
}

/// What hotr relies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// No event channel: every file is checked every few seconds.
    Polling,
    /// An event channel is healthy; audits check it.
    Event,
    /// Something was lost: an audit runs, or will at once.
    Emergency,
}

/// The audits.
#[derive(Debug)]
struct Audits {
    /// As the user set it: does not adapt.
    fixed: Option<Duration>,
    interval: Duration,
    /// That interval is of a time without a healthy channel.
    was_polling: bool,
    /// When the next one is due.
    next: Duration,
    /// What asks for one at once.
    urgent: Option<String>,
    /// One runs; with what requested it.
    running: Option<Option<String>>,
    /// The last one ended, and its findings are not judged yet.
    unjudged: Option<(Duration, Duration)>,
    ended: Option<Duration>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Arbiter {
    channels: Vec<(Channel, Health)>,
    audits: Option<Audits>,
    told: Level,
    last: Option<Moment>,
}

impl Arbiter {
    /// For these event channels, each with what it cannot receive from the start, which is not reported again; with
    /// audits or without; `fixed` is an interval that the user set.
    pub(super) fn new(
        channels: Vec<(Channel, Option<String>)>,
        audits: bool,
        fixed: Option<Duration>,
        now: Moment,
    ) -> Self {
        let fixed = fixed.map(|fixed| fixed.min(timer::FAR));
        let is_event = channels.iter().any(|(_, gap)| gap.is_none());
        let interval = match (is_event, fixed) {
            (true, fixed) => fixed.unwrap_or(AUDIT_START),
            (false, fixed) => fixed.map_or(DEGRADED, |fixed| fixed.min(DEGRADED)),
        };
        let audits = audits.then(|| Audits {
            fixed,
            interval,
            was_polling: !is_event,
            next: now.mono + interval,
            urgent: None,
            running: None,
            unjudged: None,
            ended: None,
        });
        let channels = channels.into_iter().map(|(channel, gap)| (channel, Health::new(gap))).collect();
        let told = if is_event { Level::Event } else { Level::Polling };
        Self { channels, audits, told, last: None }
    }

    /// What is relied on.
    pub(super) fn level(&self) -> Level {
        let urgent =
            |audits: &Audits| audits.urgent.is_some() || audits.running.as_ref().is_some_and(Option::is_some);
        if self.audits.as_ref().is_some_and(urgent) {
            Level::Emergency
        } else if self.channels.iter().any(|(_, health)| !health.is_degraded()) {
            Level::Event
        } else {
            Level::Polling
        }
    }

    /// Between two audits.
    pub(super) fn interval(&self) -> Option<Duration> {
        self.audits.as_ref().map(|audits| audits.interval)
    }

    /// Whether a channel cannot be relied on now.
    pub(super) fn is_degraded(&self, channel: Channel) -> bool {
        self.health(channel).is_some_and(Health::is_degraded)
    }

    /// Whether a channel fails its heartbeats, the last one as well.
    pub(super) fn is_deaf(&self, channel: Channel) -> bool {
        self.health(channel).is_some_and(|health| health.is_failing() && health.is_suspect())
    }

    /// A channel was restarted.
    pub(super) fn restarted(&mut self, channel: Channel) {
        if let Some((_, health)) = self.channels.iter_mut().find(|(one, _)| *one == channel) {
            health.restart();
        }
    }

    fn health(&self, channel: Channel) -> Option<&Health> {
        self.channels.iter().find(|(one, _)| *one == channel).map(|(_, health)| health)
    }

    /// Until the next heartbeat.
    pub(super) fn beat_period(&self, busy: bool) -> Duration {
        let suspect = |(_, health): &(Channel, Health)| health.is_suspect() && !health.is_failing();
        if self.channels.iter().any(suspect) {
            SUSPECT
        } else if busy || self.channels.iter().any(|(_, health)| health.is_failing()) {
            BUSY
        } else {
            IDLE
        }
    }

    /// A heartbeat was made, and all that was queued by then was read.
    pub(super) fn beat(&mut self, now: Moment, channel: Channel, heard: bool) -> Vec<Report> {
        self.expect(now, channel, Expected::Heartbeat, heard)
    }

    /// An audit found what a channel should have reported, but did not.
    pub(super) fn not_received(&mut self, now: Moment, channel: Channel) -> Vec<Report> {
        self.expect(now, channel, Expected::Change, false)
    }

    fn expect(&mut self, now: Moment, channel: Channel, what: Expected, heard: bool) -> Vec<Report> {
        let Some((_, health)) = self.channels.iter_mut().find(|(one, _)| *one == channel) else {
            return Vec::new();
        };
        let turn = health.expect(what, heard);
        self.turn(now, channel, turn)
    }

    /// What a channel cannot receive now.
    pub(super) fn gap(&mut self, now: Moment, channel: Channel, gap: Option<String>) -> Vec<Report> {
        let Some((_, health)) = self.channels.iter_mut().find(|(one, _)| *one == channel) else {
            return Vec::new();
        };
        let turn = health.set_gap(gap);
        self.turn(now, channel, turn)
    }

    fn turn(&mut self, now: Moment, channel: Channel, turn: Option<HealthChange>) -> Vec<Report> {
        let Some(turn) = turn else { return Vec::new() };
        let (state, why) = match turn {
            HealthChange::Degraded(why) => {
                // What it did not report until this was noticed.
                self.ask(format!("{} is degraded", channel.as_str()));
                (ChannelState::Degraded, why)
            }
            HealthChange::Recovered(why) => (ChannelState::Active, why),
        };
        let mut reports = vec![Report::Channel { channel, state, why }];
        reports.extend(self.settle(now));
        reports
    }

    /// Something was lost: changes may have been made that no channel reports.
    pub(super) fn lost(&mut self, now: Moment, channel: Channel, reason: LossReason) -> Vec<Report> {
        // Frequent where it happens, and of little weight: another channel received what these programs missed.
        let other = |(one, health): &(Channel, Health)| *one != channel && !health.is_degraded();
        if reason == LossReason::ProgramSkipped && self.channels.iter().any(other) {
            return Vec::new();
        }
        self.ask(format!("{} lost changes ({reason})", channel.as_str()));
        self.settle(now).into_iter().collect()
    }

    /// Looks at the clocks. `late`: by how much this call comes after it was due.
    pub(super) fn tick(&mut self, now: Moment, late: Duration) -> Vec<Report> {
        if let Some(step) = self.last.and_then(|last| step(last, now)) {
            self.ask(step);
        }
        self.last = Some(now);
        if late >= STALL {
            self.ask(format!("hotr did not run for {} s", late.as_secs()));
        }
        self.settle(now).into_iter().collect()
    }

    /// Whether the time of day was set since the last [`Self::tick`].
    pub(super) fn is_stepped(&self, now: Moment) -> bool {
        self.last.is_some_and(|last| step(last, now).is_some())
    }

    /// Requests an audit at once, for this reason; the first of several is reported.
    fn ask(&mut self, why: String) {
        if let Some(audits) = &mut self.audits {
            audits.urgent.get_or_insert(why);
        }
    }

    /// When an audit is due, if one may be started at all.
    pub(super) fn next_audit(&self) -> Option<Duration> {
        let audits = self.audits.as_ref()?;
        if audits.running.is_some() || audits.unjudged.is_some() {
            return None;
        }
        Some(match (&audits.urgent, audits.ended) {
            (Some(_), Some(ended)) => (ended + EMERGENCY_PAUSE).min(audits.next),
            (Some(_), None) => Duration::ZERO,
            (None, _) => audits.next,
        })
    }

    /// An audit begins. `true`: at full speed, for something was lost or there is no other channel.
    pub(super) fn audit_begins(&mut self) -> bool {
        let level = self.level();
        if let Some(audits) = &mut self.audits {
            audits.running = Some(audits.urgent.take());
        }
        level != Level::Event
    }

    /// It has ended, and took this much processor time.
    pub(super) fn audit_ends(&mut self, now: Moment, cpu: Duration) -> Vec<Report> {
        if let Some(audits) = &mut self.audits {
            audits.running = None;
            audits.ended = Some(now.mono);
            audits.unjudged = Some((now.mono, cpu));
        }
        self.settle(now).into_iter().collect()
    }

    /// What it found that no channel had reported; the next one may be planned.
    pub(super) fn audit_judged(&mut self, found: usize) {
        let mode = self.mode();
        let Some(audits) = &mut self.audits else { return };
        let Some((ended, cpu)) = audits.unjudged.take() else { return };
        audits.interval = match (mode, audits.fixed) {
            (Mode::Degraded, fixed) => fixed.map_or(DEGRADED, |fixed| fixed.min(DEGRADED)),
            (_, Some(fixed)) => fixed,
            (mode, None) => interval::next(audits.interval, found, mode),
        };
        let pause = match audits.fixed {
            Some(_) => audits.interval,
            None => interval::pause(audits.interval, cpu, mode),
        };
        audits.next = ended + pause;
    }

    fn mode(&self) -> Mode {
        let degraded = self.channels.iter().all(|(_, health)| health.is_degraded());
        if degraded { Mode::Degraded } else { Mode::Audit }
    }

    /// Reports a new level, and plans for it.
    fn settle(&mut self, now: Moment) -> Option<Report> {
        let level = self.level();
        let audits = self.audits.as_mut()?;
        if level == self.told {
            return None;
        }
        let before = std::mem::replace(&mut self.told, level);
        let (state, why) = match level {
            Level::Emergency => {
                let reason = audits.urgent.clone().unwrap_or_default();
                (ChannelState::Active, format!("{reason}: all files are checked now"))
            }
            Level::Polling => {
                audits.was_polling = true;
                audits.interval = audits.fixed.map_or(DEGRADED, |fixed| fixed.min(DEGRADED));
                // The audit that ended the emergency was one of these.
                let from = if before == Level::Emergency { now.mono + audits.interval } else { now.mono };
                audits.next = audits.next.min(from);
                let every = humantime::format_duration(audits.interval);
                (
                    ChannelState::Active,
                    format!("every event channel is degraded: all files are checked every {every}"),
                )
            }
            Level::Event => {
                if audits.was_polling {
                    audits.was_polling = false;
                    audits.interval = audits.fixed.unwrap_or(AUDIT_START);
                }
                let every = humantime::format_duration(whole(audits.interval));
                let done = if before == Level::Polling {
                    // Changes since the last audit, before the channel received again.
                    audits.next = now.mono;
                    "an event channel is healthy: all files are checked once more, then"
                } else {
                    audits.next = now.mono + audits.interval;
                    "all files were checked; the next audit is"
                };
                (ChannelState::Idle, format!("{done} in {every}"))
            }
        };
        Some(Report::Channel { channel: Channel::Poll, state, why })
    }
}

/// For humans: no fractions of milliseconds.
fn whole(time: Duration) -> Duration {
    Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

/// By how much the time of day was set between two moments, as a sentence.
fn step(last: Moment, now: Moment) -> Option<String> {
    let passed = i64::try_from(now.mono.saturating_sub(last.mono).as_nanos()).unwrap_or(i64::MAX);
    let step = now.real_ns.saturating_sub(last.real_ns).saturating_sub(passed);
    if step.unsigned_abs() < STEP_NS {
        return None;
    }
    let by = humantime::format_duration(Duration::from_millis(step.unsigned_abs() / 1_000_000));
    let way = if step > 0 { "forward" } else { "back" };
    Some(format!("the clock was set {way} by {by}"))
}
