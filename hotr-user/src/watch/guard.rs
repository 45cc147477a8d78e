//! The safety net beside the event channels: heartbeats, audits, and who is told of what they say.
//!
//! In: the reports of a [`Session`], which it makes heartbeats in, and the audits of the poller's thread. Out:
//! [`Found`], what an audit found and no channel told; and news for the output. [`Arbiter`] decides; this carries out.

use std::mem::take;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep_until};

use super::arbiter::{Arbiter, Level, Moment};
use super::feed::Fed;
use super::filter::PathFilter;
use super::ledger::{Ledger, Told};
use super::poller::{Handle, News, Polling};
use super::revive::Revival;
use crate::error::Error;
use crate::event::{Change, Channel, FileType, Missed, Op};
use crate::options::TraceOptions;
use crate::report::{ChannelInfo, ChannelState, Report};
use crate::source::difference::Difference;
use crate::source::mono_ns;
use crate::source::poll::{Audit, PollOptions};
use crate::trace::Session;

/// How long a channel has to tell what an audit has found: inotify alone is held for 1.5 s, see
/// [`crate::pipeline::correlate`].
const GRACE: Duration = Duration::from_secs(2);

/// Between two looks at a channel that is being started anew.
const RESTART_LOOK: Duration = Duration::from_millis(50);

/// What audits found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// No channel told it.
    pub(super) told: Vec<Change>,
    /// To be looked at, whoever told it.
    pub(super) touched: Vec<Change>,
}

/// See the module.
pub(super) struct Guard {
    arbiter: Arbiter,
    ledger: Ledger,
    poller: Option<Handle>,
    /// The poller knows the trees: what is lost from now on, it finds.
    is_known: bool,
    auditing: bool,
    arrived: Option<News>,
    /// Found by the last audit, and when it is to be said who told it.
    unjudged: Option<(Instant, Vec<Change>)>,
    channels: Vec<Channel>,
    revival: Revival,
    beat_at: Instant,
    /// Changes came since the last heartbeat.
    is_busy: bool,
    /// Due times of the last call of [`Self::wait`].
    due: Instant,
    /// Files that hotr writes to.
    own: Vec<(u64, u64)>,
    news: Vec<Fed>,
    found: u64,
}

impl Guard {
    /// Starts the poller; the channels listen since the inode time `since_ns`. Completes the report `ready`. Where no
    /// channel hears all, this waits until the trees are known: what changed before that, no audit would find.
    pub(super) async fn start(
        session: &mut Session,
        trace: &TraceOptions,
        polling: &Polling,
        since_ns: i64,
        reports: &mut [Report],
    ) -> Self {
        let mut guard = Self {
            arbiter: Arbiter::new(Vec::new(), false, None, now()),
            ledger: Ledger::default(),
            poller: None,
            is_known: false,
            auditing: false,
            arrived: None,
            unjudged: None,
            channels: running(reports),
            revival: Revival::default(),
            beat_at: Instant::now(),
            is_busy: true,
            due: Instant::now(),
            own: crate::trace::own_outputs(),
            news: Vec::new(),
            found: 0,
        };
        let mut off = (!polling.enabled).then(|| "not wanted (--no-poll)".to_owned());
        if polling.enabled {
            let options = PollOptions {
                recursive: trace.recursive,
                exclude: trace.exclude.clone(),
                budget: Some(polling.budget),
                children: session.child_reader(),
                ..PollOptions::default()
            };
            match Handle::start(trace.paths.clone(), since_ns, options, polling.scanning.clone()) {
                Ok(handle) => guard.poller = Some(handle),
                Err(error) => off = Some(format!("its thread cannot be started: {error}")),
            }
        }
        let gaps = guard.channels.iter().map(|channel| (*channel, session.gap(*channel))).collect();
        guard.arbiter = Arbiter::new(gaps, guard.poller.is_some(), polling.interval, now());
        guard.complete(reports, off);
        if let Some(poller) = guard.poller.as_mut().filter(|_| guard.arbiter.level() == Level::Polling) {
            guard.arrived = poller.news.recv().await;
        }
        guard.news.extend(session.take_heart().map(Fed::Say));
        guard.arbiter.tick(now(), Duration::ZERO);
        guard
    }

    fn complete(&self, reports: &mut [Report], off: Option<String>) {
        let Some(Report::Ready { channels, .. }) = reports.first_mut() else { return };
        let state = match (&off, self.arbiter.level()) {
            (Some(_), _) => ChannelState::Off,
            (None, Level::Event) => ChannelState::Idle,
            (None, _) => ChannelState::Active,
        };
        let interval =
            self.arbiter.interval().map(|interval| u64::try_from(interval.as_millis()).unwrap_or(u64::MAX));
        channels.push(ChannelInfo {
            channel: Channel::Poll,
            state,
            tier: None,
            watches: None,
            uncovered: None,
            interval_ms: interval,
            why: off,
        });
    }

    /// Whether a loss is looked for by an audit, so that nobody else needs to.
    pub(super) fn finds_losses(&self) -> bool {
        self.is_known
    }

    /// A report of the session.
    pub(super) fn hear(&mut self, report: &Report) {
        match report {
            Report::Change(change) => {
                self.is_busy = true;
                self.ledger.hear(change);
            }
            Report::Loss { channel, reason, .. } => {
                let reports = self.arbiter.lost(now(), *channel, reason);
                self.tell(reports);
            }
            _ => {}
        }
    }

    fn tell(&mut self, reports: Vec<Report>) {
        self.news.extend(reports.into_iter().map(Fed::Report));
    }

    /// What is to be told.
    pub(super) fn take_news(&mut self) -> Vec<Fed> {
        take(&mut self.news)
    }

    /// Number of changes that only audits found.
    pub(super) fn found(&self) -> u64 {
        self.found
    }

    /// Waits until [`Self::pulse`] has something to do; may be dropped and called again.
    pub(super) async fn wait(&mut self) {
        if self.arrived.is_some() {
            return;
        }
        let mut due = self.beat_at;
        if let Some((at, _)) = &self.unjudged {
            due = due.min(*at);
        }
        if let Some(at) = self.audit_at() {
            due = due.min(at);
        }
        self.due = due;
        let news = async {
            match &mut self.poller {
                Some(poller) => poller.news.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(news) = news => self.arrived = Some(news),
            () = sleep_until(due) => {}
        }
    }

    fn audit_at(&self) -> Option<Instant> {
        if !self.is_known || self.auditing || self.unjudged.is_some() {
            return None;
        }
        if self.ledger.is_full() {
            return Some(Instant::now());
        }
        let wait = self.arbiter.next_audit()?.saturating_sub(now().mono);
        Some(Instant::now() + wait)
    }

    /// Makes a heartbeat when it is due, and reads what is queued in any case.
    pub(super) fn pulse(&mut self, session: &mut Session) -> Result<Vec<Report>, Error> {
        let moment = now();
        if self.arbiter.is_stepped(moment) {
            self.ledger.step();
        }
        let late = Instant::now().saturating_duration_since(self.due);
        if late >= GRACE {
            self.postpone();
        }
        let reports = self.arbiter.tick(moment, late);
        self.tell(reports);
        if Instant::now() < self.beat_at {
            return session.turn();
        }
        match self.revival.ended(session) {
            Some((channel, Ok(()))) => {
                self.arbiter.restarted(channel);
                // Its former self told nothing.
                self.postpone();
            }
            Some((_, Err(said))) => self.news.extend(said.map(Fed::Say)),
            None => {}
        }
        let (pulse, mut heard) = session.beat()?;
        for channel in self.channels.clone() {
            let beat = pulse.and_then(|pulse| match channel {
                Channel::Ebpf => pulse.ebpf,
                Channel::Inotify => pulse.inotify,
                Channel::Poll => None,
            });
            if let Some(beat) = beat {
                let reports = self.arbiter.beat(now(), channel, beat);
                self.tell(reports);
            }
            let gap = session.gap(channel);
            let is_gap = gap.is_some();
            let reports = self.arbiter.gap(now(), channel, gap);
            self.tell(reports);
            let needs = self.arbiter.is_deaf(channel) || is_gap && channel == Channel::Inotify;
            self.revival.attend(session, channel, needs);
        }
        heard.extend(session.pending());
        let period = self.arbiter.beat_period(take(&mut self.is_busy));
        self.beat_at = Instant::now() + if self.revival.runs() { RESTART_LOOK.min(period) } else { period };
        Ok(heard)
    }

    /// After what was queued has been heard: ends, judges and begins audits.
    pub(super) fn look(&mut self, filter: &mut PathFilter) -> Found {
        let mut found = Found::default();
        match self.arrived.take() {
            None => {}
            Some(News::Known(differences)) => {
                self.is_known = true;
                // No later look finds what this one has seen already.
                self.compare(differences, filter, &mut found);
                self.unjudged = self.unjudged.take().filter(|(_, open)| !open.is_empty());
            }
            Some(News::Failed(why)) => {
                self.poller = None;
                self.is_known = false;
                let state = ChannelState::Off;
                self.tell(vec![Report::Channel { channel: Channel::Poll, state, why }]);
            }
            Some(News::Audited(audit)) => self.audited(audit, filter, &mut found),
        }
        if self.unjudged.as_ref().is_some_and(|(at, _)| *at <= Instant::now()) {
            self.judge(&mut found);
        }
        if self.audit_at().is_some_and(|at| at <= Instant::now()) {
            let fast = self.arbiter.audit_begins();
            self.ledger.turn_page();
            self.auditing = true;
            if let Some(poller) = &self.poller {
                poller.audit(fast);
            }
        }
        found
    }

    fn audited(&mut self, audit: Audit, filter: &mut PathFilter, found: &mut Found) {
        self.auditing = false;
        self.compare(audit.differences, filter, found);
        let reports = self.arbiter.audit_ends(now(), audit.cpu);
        self.tell(reports);
    }

    /// Takes what no channel has told yet; they get some time to do so.
    fn compare(&mut self, differences: Vec<Difference>, filter: &mut PathFilter, found: &mut Found) {
        let level = self.arbiter.level();
        let moment = SystemTime::now();
        let mut open = Vec::new();
        for difference in differences {
            let change = difference.into_change(Channel::Poll, moment);
            let is_dir = change.file_type == Some(FileType::Dir);
            // A directory's times change with its names, which are told by themselves.
            if is_dir && change.op == Op::Write
                || change.id.is_some_and(|id| self.own.contains(&(id.dev, id.ino)))
                || self.ledger.tells(&change) == Told::Yes
                || !filter.wants(&change.path, is_dir)
            {
                continue;
            }
            open.push(change);
        }
        if level != Level::Event {
            // There may be nobody else to wait for.
            found.touched.extend(open.iter().cloned());
        }
        self.unjudged = Some((Instant::now() + GRACE, open));
    }

    fn judge(&mut self, found: &mut Found) {
        let Some((_, open)) = self.unjudged.take() else { return };
        let before = found.told.len();
        for mut change in open {
            match self.ledger.tells(&change) {
                Told::Yes => {}
                Told::Perhaps => found.touched.push(change),
                Told::No => {
                    change.detail.push("audit".into());
                    change.missed_by = self.channels.iter().map(|channel| self.missed(*channel)).collect();
                    found.told.push(change);
                }
            }
        }
        let count = found.told.len() - before;
        self.found += count as u64;
        if count > 0 {
            for channel in self.channels.clone() {
                let reports = self.arbiter.unheard(now(), channel);
                self.tell(reports);
            }
        }
        self.arbiter.audit_judged(count);
    }

    /// Gives the channels their whole time anew: hotr did not read them meanwhile.
    fn postpone(&mut self) {
        if let Some((at, _)) = &mut self.unjudged {
            *at = Instant::now() + GRACE;
        }
    }

    fn missed(&self, channel: Channel) -> Missed {
        let (cause, why) = if self.arbiter.is_degraded(channel) {
            ("degraded", "the channel did not hear what it had to when this was found by an audit")
        } else if channel == Channel::Ebpf {
            ("no-record", "found by an audit; no hook saw it: made elsewhere (network, another kernel path)")
        } else {
            ("no-event", "found by an audit; the kernel notified nobody, or not this watch")
        };
        Missed { channel, cause, why: why.into() }
    }

    /// Paths that hotr itself changed.
    pub(super) fn own_changes(&mut self, paths: impl Iterator<Item = PathBuf>) {
        let time = SystemTime::now();
        paths.for_each(|path| self.ledger.hear_own(path, time));
    }
}

fn now() -> Moment {
    let real = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Moment {
        mono: Duration::from_nanos(mono_ns()),
        real_ns: i64::try_from(real.as_nanos()).unwrap_or(i64::MAX),
    }
}

/// The event channels that `ready` says run.
fn running(reports: &[Report]) -> Vec<Channel> {
    let Some(Report::Ready { channels, .. }) = reports.first() else { return Vec::new() };
    let runs = |info: &&ChannelInfo| matches!(info.state, ChannelState::Active | ChannelState::Degraded);
    channels.iter().filter(runs).map(|info| info.channel).collect()
}
