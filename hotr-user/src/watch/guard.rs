//! The safety net beside the event channels: heartbeats, audits, and who receives their results.
//!
//! In: the reports of a [`Session`], which it makes heartbeats in, and the audits of the poller's thread. Out:
//! [`Found`], what an audit found and no channel reported; and news for the output. [`Arbiter`] decides; this carries
//! out.

use std::collections::VecDeque;
use std::mem::take;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep_until};

use super::affected_names::{Names, ReportedNames};
use super::arbiter::{Arbiter, Level, Moment};
use super::channel_restarts::ChannelRestarts;
use super::feed_output::FeedOutput;
use super::filter::PathFilter;
use super::poller::{Handle, News, Polling};
use super::recent_reports::{RecentReports, ReportedBy};
use crate::beneath::NamedPath;
use crate::error::Error;
use crate::options::TraceOptions;
use crate::session::Session;
use crate::source::difference::Difference;
use crate::source::mono_ns;
use crate::source::poll::{Audit, PollOptions};
use hotr_events::Cause;
use hotr_events::{Change, Channel, FileType, Missed, Op};
use hotr_events::{ChannelInfo, ChannelState, Report};

/// How long a channel has to report what an audit has found: what only inotify reported is held for 1.5 s, see
/// [`crate::pipeline::correlate`].
const GRACE: Duration = Duration::from_secs(2);

/// Differences that wait for the channels at most; the rest of an audit waits for them.
const MOST_OPEN: usize = 16_384;

/// Between two looks at a channel that is being restarted.
const RESTART_LOOK: Duration = Duration::from_millis(50);

/// What audits found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// No channel reported it.
    pub(super) told: Vec<Change>,
    /// To be checked, whoever reported it.
    pub(super) touched: Vec<Differences>,
    /// The channels had reported these when the audit ended: to be compared with what was confirmed. None: no audit was
    /// judged.
    pub(super) heard: Option<ReportedNames>,
}

/// What an audit found. There may be as many as files, and a [`Change`] takes three times the room: each is made when it
/// is looked at.
#[derive(Debug)]
pub(super) struct Differences {
    list: Vec<Difference>,
    /// When they were found.
    moment: SystemTime,
}

impl Differences {
    /// As changes.
    pub(super) fn into_changes(self) -> impl Iterator<Item = Change> {
        let moment = self.moment;
        self.list.into_iter().map(move |one| one.into_change(Channel::Poll, moment))
    }
}

/// See the module.
pub(super) struct Guard {
    arbiter: Arbiter,
    ledger: RecentReports,
    poller: Option<Handle>,
    /// The poller knows the trees: what is lost from now on, it finds.
    is_known: bool,
    /// So many times the paths were changed and the poller has not followed yet.
    following: usize,
    auditing: bool,
    arrived: Option<News>,
    /// Found by the last audit, and when it must be said which channel reported it; the first is due first.
    unjudged: VecDeque<(Instant, Differences)>,
    /// What the last audit found and the channels had reported.
    heard: ReportedNames,
    /// What the last audit found and no channel had reported.
    missed: usize,
    /// So much is to be looked at that more of an audit must wait.
    is_held_up: bool,
    channels: Vec<Channel>,
    revival: ChannelRestarts,
    beat_at: Instant,
    /// Changes came since the last heartbeat.
    is_busy: bool,
    /// Due times of the last call of [`Self::wait`].
    due: Instant,
    /// Files that hotr writes to.
    own: Vec<(u64, u64)>,
    news: Vec<FeedOutput>,
    found: u64,
}

impl Guard {
    /// Starts the poller; the channels receive changes since the inode time `since_ns`. Completes the report `ready`.
    /// Where no channel receives everything, this waits until the trees are known: what changed before that, no audit
    /// would find.
    pub(super) async fn start(
        session: &mut Session,
        trace: &TraceOptions,
        polling: &Polling,
        since_ns: i64,
        reports: &mut [Report],
    ) -> Self {
        let mut guard = Self {
            arbiter: Arbiter::new(Vec::new(), false, None, now()),
            ledger: RecentReports::default(),
            poller: None,
            is_known: false,
            following: 0,
            auditing: false,
            arrived: None,
            unjudged: VecDeque::new(),
            heard: ReportedNames::default(),
            missed: 0,
            is_held_up: false,
            channels: running(reports),
            revival: ChannelRestarts::default(),
            beat_at: Instant::now(),
            is_busy: true,
            due: Instant::now(),
            own: crate::session::own_outputs(),
            news: Vec::new(),
            found: 0,
        };
        let mut off = (!polling.enabled).then(|| "turned off (--no-poll)".to_owned());
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
        guard.news.extend(session.make_heartbeat().map(FeedOutput::Say));
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
            watcher: None,
        });
    }

    /// The paths are these from now on; the audits follow. Since the inode time `since_ns` the channels receive changes of
    /// those that are new.
    pub(super) fn set_paths(&mut self, trace: &TraceOptions, since_ns: i64) {
        if let Some(poller) = &self.poller {
            poller.set_roots(to_be_audited(trace), since_ns);
            self.following += 1;
        }
    }

    /// Whether only audits find changes.
    pub(super) fn is_alone(&self) -> bool {
        self.poller.is_some() && self.arbiter.level() == Level::Polling
    }

    /// Whether the audits know all paths.
    pub(super) fn knows_paths(&self) -> bool {
        self.poller.is_none() || self.is_known && self.following == 0
    }

    /// Whether an audit looks for a loss, so that nothing else needs to.
    pub(super) fn finds_losses(&self) -> bool {
        self.is_known && self.following == 0
    }

    /// A report of the session.
    pub(super) fn receive(&mut self, report: &Report) {
        match report {
            Report::Change(change) => {
                self.is_busy = true;
                self.ledger.receive(change);
            }
            Report::Loss { channel, reason, .. } => {
                let reports = self.arbiter.lost(now(), *channel, *reason);
                self.send(reports);
            }
            _ => {}
        }
    }

    fn send(&mut self, reports: Vec<Report>) {
        self.news.extend(reports.into_iter().map(FeedOutput::Report));
    }

    /// What must be reported.
    pub(super) fn take_news(&mut self) -> Vec<FeedOutput> {
        take(&mut self.news)
    }

    /// Number of changes that only audits found.
    pub(super) fn found(&self) -> u64 {
        self.found
    }

    /// Waits until [`Self::step`] has something to do; may be dropped and called again.
    pub(super) async fn wait(&mut self) {
        if self.arrived.is_some() {
            return;
        }
        let mut due = self.beat_at;
        if let Some((at, _)) = self.unjudged.front() {
            due = due.min(*at);
        }
        if let Some(at) = self.audit_at() {
            due = due.min(at);
        }
        self.due = due;
        let open: usize = self.unjudged.iter().map(|(_, open)| open.list.len()).sum();
        let takes_more = !self.is_held_up && open < MOST_OPEN;
        let news = async {
            match &mut self.poller {
                Some(poller) if takes_more => poller.news.recv().await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(news) = news => self.arrived = Some(news),
            () = sleep_until(due) => {}
        }
    }

    /// More of an audit must wait, because so much is to be looked at.
    pub(super) fn hold_up(&mut self, is_so: bool) {
        self.is_held_up = is_so;
    }

    fn audit_at(&self) -> Option<Instant> {
        if !self.is_known || self.auditing || !self.unjudged.is_empty() {
            return None;
        }
        if self.ledger.is_full() {
            return Some(Instant::now());
        }
        let wait = self.arbiter.next_audit()?.saturating_sub(now().mono);
        Some(crate::timer::later(wait))
    }

    /// Makes a heartbeat when it is due, and reads what is queued in any case.
    pub(super) fn step(&mut self, session: &mut Session) -> Result<Vec<Report>, Error> {
        let moment = now();
        if self.arbiter.is_stepped(moment) {
            self.ledger.step();
        }
        let late = Instant::now().saturating_duration_since(self.due);
        if late >= GRACE {
            self.postpone();
        }
        let reports = self.arbiter.tick(moment, late);
        self.send(reports);
        if Instant::now() < self.beat_at {
            return session.turn();
        }
        match self.revival.ended(session) {
            Some((channel, Ok(()))) => {
                self.arbiter.restarted(channel);
                // The former one reported nothing.
                self.postpone();
            }
            Some((_, Err(said))) => self.news.extend(said.map(FeedOutput::Say)),
            None => {}
        }
        let (outcome, mut heard) = session.beat()?;
        for channel in self.channels.clone() {
            let beat = outcome.and_then(|outcome| match channel {
                Channel::Ebpf => outcome.ebpf,
                Channel::Inotify => outcome.inotify,
                Channel::Poll => None,
            });
            if let Some(beat) = beat {
                let reports = self.arbiter.beat(now(), channel, beat);
                self.send(reports);
            }
            let gap = session.gap(channel);
            let is_gap = gap.is_some();
            let reports = self.arbiter.gap(now(), channel, gap);
            self.send(reports);
            let needs = self.arbiter.is_deaf(channel) || is_gap && channel == Channel::Inotify;
            self.revival.attend(session, channel, needs);
        }
        heard.extend(session.pending());
        let period = self.arbiter.beat_period(take(&mut self.is_busy));
        self.beat_at = Instant::now() + if self.revival.runs() { RESTART_LOOK.min(period) } else { period };
        Ok(heard)
    }

    /// After what was queued has been read: ends, judges and begins audits.
    pub(super) fn look(&mut self, filter: &mut PathFilter) -> Found {
        let mut found = Found::default();
        match self.arrived.take() {
            None => {}
            // No later look finds what this one has seen already.
            Some(News::Part(differences)) => self.compare(differences, filter, &mut found),
            Some(News::Known) => {
                self.is_known = true;
                if self.unjudged.is_empty() {
                    found.heard = Some(take(&mut self.heard));
                }
            }
            Some(News::Followed) => self.following = self.following.saturating_sub(1),
            Some(News::Failed(why)) => {
                self.poller = None;
                self.is_known = false;
                let state = ChannelState::Off;
                self.send(vec![Report::Channel { channel: Channel::Poll, state, why }]);
            }
            Some(News::Audited(audit)) => self.audited(&audit),
        }
        while self.unjudged.front().is_some_and(|(at, _)| *at <= Instant::now()) {
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

    fn audited(&mut self, audit: &Audit) {
        self.auditing = false;
        // What was reported when it ended has the same time to be confirmed.
        let moment = SystemTime::now();
        self.unjudged.push_back((Instant::now() + GRACE, Differences { list: Vec::new(), moment }));
        let reports = self.arbiter.audit_ends(now(), audit.cpu);
        self.send(reports);
    }

    /// Takes what no channel has reported yet; they get some time to do so.
    fn compare(&mut self, differences: Vec<Difference>, filter: &mut PathFilter, found: &mut Found) {
        let level = self.arbiter.level();
        let moment = SystemTime::now();
        let mut list = differences;
        list.retain(|difference| {
            if crate::ending::gives_up() {
                return false;
            }
            let change = difference.clone().into_change(Channel::Poll, moment);
            let is_dir = change.file_type == Some(FileType::Dir);
            // A directory's times change with its names, which are reported separately.
            if is_dir && change.op == Op::Write
                || change.id.is_some_and(|id| self.own.contains(&(id.dev, id.ino)))
                || !Names::of(&change).are_wanted(&change, filter)
            {
                return false;
            }
            let is_open = self.ledger.reported_by(&change) != ReportedBy::Yes;
            if !is_open {
                self.heard.add(change);
            }
            is_open
        });
        if list.is_empty() {
            return;
        }
        if level != Level::Event {
            // There may be nobody else to wait for.
            found.touched.push(Differences { list: list.clone(), moment });
        }
        list.shrink_to_fit();
        self.unjudged.push_back((Instant::now() + GRACE, Differences { list, moment }));
    }

    /// Judges what is due. After the last of an audit, the audit is.
    fn judge(&mut self, found: &mut Found) {
        let Some((_, Differences { mut list, moment })) = self.unjudged.pop_front() else { return };
        let (mut heard, before) = (take(&mut self.heard), found.told.len());
        list.retain(|difference| {
            if crate::ending::gives_up() {
                return false;
            }
            let mut change = difference.clone().into_change(Channel::Poll, moment);
            match self.ledger.reported_by(&change) {
                ReportedBy::Yes => heard.add(change),
                ReportedBy::Perhaps => return true,
                ReportedBy::No => {
                    change.detail.push("audit".into());
                    change.missed_by = self.channels.iter().map(|channel| self.missed(*channel)).collect();
                    found.told.push(change);
                }
            }
            false
        });
        found.touched.push(Differences { list, moment });
        self.heard = heard;
        let count = found.told.len() - before;
        self.found += count as u64;
        self.missed += count;
        if self.auditing || !self.is_known || !self.unjudged.is_empty() {
            return;
        }
        found.heard = Some(take(&mut self.heard));
        let count = take(&mut self.missed);
        if count > 0 {
            for channel in self.channels.clone() {
                let reports = self.arbiter.not_received(now(), channel);
                self.send(reports);
            }
        }
        self.arbiter.audit_judged(count);
    }

    /// Gives the channels their whole time again: hotr did not read them in the meantime.
    fn postpone(&mut self) {
        for (at, _) in &mut self.unjudged {
            *at = Instant::now() + GRACE;
        }
    }

    fn missed(&self, channel: Channel) -> Missed {
        let (cause, why) = if self.arbiter.is_degraded(channel) {
            (
                Cause::Degraded,
                "the channel missed changes that it should have received when an audit found this",
            )
        } else if channel == Channel::Ebpf {
            (
                Cause::NoRecord,
                "found by an audit; no hook saw it: made elsewhere (network, another kernel path)",
            )
        } else {
            (Cause::NoEvent, "found by an audit; the kernel sent no notification, or not to this watch")
        };
        Missed { channel, cause, why: why.into() }
    }

    /// Paths that hotr itself changed.
    pub(super) fn own_changes(&mut self, paths: impl Iterator<Item = PathBuf>) {
        let time = SystemTime::now();
        paths.for_each(|path| self.ledger.hear_own(&path, time));
    }
}

/// The paths without those that lie in a tree which is audited anyway.
fn to_be_audited(trace: &TraceOptions) -> Vec<PathBuf> {
    let real = |path: &Path| NamedPath::follow(path).real();
    let is_inside = |path: &Path, other: &Path| {
        let Ok(relative) = path.strip_prefix(other) else { return false };
        let is_excluded = || relative.ancestors().any(|part| trace.exclude.is_match(part));
        // No link on the way: an audit follows none.
        let is_beneath =
            || real(other).zip(real(path)).is_some_and(|(other, path)| other.join(relative) == path);
        trace.recursive && path != other && !is_excluded() && is_beneath()
    };
    let is_top = |path: &&PathBuf| !trace.paths.iter().any(|other| is_inside(path, other));
    trace.paths.iter().filter(is_top).cloned().collect()
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
