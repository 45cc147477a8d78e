//! From reports to batches of confirmed changes: what one save touched comes out as one batch.
//!
//! In: the reports of a [`Session`], what audits found (`guard`), and the links on the way to the watched paths. Out:
//! [`FeedOutput`]. A batch is given when nothing came for the debounce time. A thread of its own (`content`) looks at it
//! shortly before (`early`), or then, and may give it back to wait; after `settle_max`, or with
//! [`MOST_IN_BATCH`] names, it is taken as it is.

mod edits;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::WatchOptions;
use super::affected_names::Names;
use super::alarm::Alarm;
use super::content::{Answer, Content, Job, Unconfirmed, When};
use super::early_look::{EarlyLook, Judged, Then};
use super::feed_output::FeedOutput;
use super::filter::PathFilter;
use super::guard::{Differences, Guard};
use super::handle::covers;
use super::link_targets::outside::{Outside, OutsideChanges};
use super::links::Links;
use super::pending::{MOST_IN_BATCH, Pending};
use super::unknown::Unknown;
use crate::ending;
use crate::error::Error;
use crate::pipeline::confirm::Confirmed;
use crate::session::Session;
use crate::source::inode_clock_ns;
use crate::timer;
use edits::Adding;
use hotr_events::Report;
use hotr_events::{Change, Channel, Op};

/// A mount rarely comes alone, and files are often written into it first: hotr looks at it after this time, or with the
/// next batch.
const MOUNTS_SETTLE: Duration = Duration::from_secs(2);

/// Names of a batch that waits, after which more of an audit does: what channels report cannot.
const MOST_PENDING: usize = 16_384;

/// See the module.
pub(super) struct Feed {
    options: WatchOptions,
    session: Session,
    guard: Guard,
    links: Links,
    outside: Outside,
    filter: PathFilter,
    content: Content,
    pending: Pending,
    unknown: Unknown,
    /// The thread looks at a batch.
    looking: bool,
    /// The rules in `.gitignore` files have changed since the last look.
    forget_rules: bool,
    due: Option<Instant>,
    /// An inode time before all channels were read to the end.
    read_ns: i64,
    early: EarlyLook,
    alarm: Alarm,
    out: VecDeque<FeedOutput>,
    /// Paths whose present state is being read.
    adding: Vec<Adding>,
    /// Paths added so far, or refused.
    additions: u64,
    /// A path was removed: what comes back from the thread may be of it.
    is_reduced: bool,
}

impl Feed {
    /// Starts the channels, then takes the baseline. `rollback`: keep good content, in this directory if one is named.
    pub(super) async fn start(
        mut options: WatchOptions,
        rollback: Option<Option<PathBuf>>,
    ) -> Result<Self, Error> {
        options.trace.audited = options.polling.enabled;
        options.trace.at_once = true;
        let links = Links::new(options.trace.paths.clone());
        let mut session = Session::start(options.trace.clone())?;
        // Not before: what was changed while the channels started is part of the baseline, and `ready` was not reported
        // yet.
        let since_ns = inode_clock_ns();
        let mut reports = session.pending();
        let filter = PathFilter::new(options.filter.clone(), options.trace.paths.clone());
        let content = Content::start(&options, filter.clone(), rollback)?;
        content.order(Job::Begin { since_ns });
        let guard =
            Guard::start(&mut session, &options.trace, &options.polling, since_ns, &mut reports).await;
        let mut feed = Self {
            filter,
            options,
            session,
            guard,
            links,
            outside: Outside::new(),
            content,
            pending: Pending::default(),
            unknown: Unknown::new(),
            looking: false,
            forget_rules: false,
            due: None,
            read_ns: 0,
            early: EarlyLook::default(),
            alarm: Alarm::new(),
            out: VecDeque::new(),
            adding: Vec::new(),
            additions: 0,
            is_reduced: false,
        };
        feed.begin(&mut reports).await?;
        feed.absorb(reports);
        Ok(feed)
    }

    /// Waits for the baseline, or for as long as a start waits for it; the channels are read in the meantime.
    async fn begin(&mut self, reports: &mut Vec<Report>) -> Result<(), Error> {
        loop {
            tokio::select! {
                answer = self.content.next() => match answer {
                    Some(Answer::Begun) => return Ok(()),
                    answer => self.answered(answer)?,
                },
                more = self.session.next() => reports.extend(more?),
            }
        }
    }

    /// The next of what there is; may be dropped and called again.
    pub(super) async fn next(&mut self) -> Result<FeedOutput, Error> {
        loop {
            if let Some(fed) = self.out.pop_front() {
                return Ok(fed);
            }
            let next_look = self.next_look();
            self.guard.hold_up(self.pending.touched.len() > MOST_PENDING);
            tokio::select! {
                // What is due comes first: a storm of changes must hold neither batches nor audits back.
                biased;
                () = self.alarm.wait(next_look.unwrap_or_else(Instant::now)), if next_look.is_some() => {
                    self.settle()?;
                }
                () = self.guard.wait() => self.look_around()?,
                reports = self.session.next() => {
                    let reports = reports?;
                    self.absorb(reports);
                }
                answer = self.content.next() => self.answered(answer)?,
                () = self.unknown.wait() => self.look_again(),
                () = self.links.changed() => self.follow_links(),
                heard = self.outside.changed() => self.hear_outside(heard),
            }
        }
    }

    fn answered(&mut self, answer: Option<Answer>) -> Result<(), Error> {
        self.out.extend(self.filter.take_notices().into_iter().map(FeedOutput::Say));
        match answer {
            Some(Answer::Begun) => {}
            Some(Answer::Known(files)) => self.out.push_back(FeedOutput::Known(files)),
            Some(Answer::Remembered(number)) => self.remembered(number),
            Some(Answer::Say(text)) => self.out.push_back(FeedOutput::Say(text)),
            Some(Answer::LinkPoints(ways)) => {
                // What changed before was not received.
                self.pending.behind |= !ways.points.is_empty();
                let hard: Vec<PathBuf> = self.outside.new_hard(&ways).collect();
                self.out.extend(self.outside.listen(ways).map(FeedOutput::Say));
                if self.pending.behind || !hard.is_empty() {
                    hard.into_iter().for_each(|path| self.pending.touch_by(path, Channel::Inotify));
                    self.wait(self.options.debounce);
                }
            }
            Some(Answer::Held { pending, again }) => self.hold(pending, again),
            Some(Answer::Unknown(paths)) => self.unknown.add(paths),
            Some(Answer::Unconfirmed(found)) => self.touch_unconfirmed(found),
            Some(Answer::Judged { judged, rest }) => {
                self.give(judged);
                if let Some(rest) = rest {
                    self.hold(*rest, Duration::ZERO);
                }
            }
            Some(Answer::EarlyLook(found)) => {
                if let Some(then) = self.early.answered(found) {
                    self.go_on(then);
                }
            }
            Some(Answer::Restored(changes)) => {
                // No audit need report them.
                self.guard.own_changes(changes.iter().map(|change| change.path.clone()));
                if !changes.is_empty() {
                    self.out.push_back(FeedOutput::Restored(changes));
                }
            }
            Some(Answer::NoThread(error)) => return Err(super::no_thread(error)),
            None => return Err(super::no_thread(std::io::ErrorKind::BrokenPipe.into())),
        }
        Ok(())
    }

    /// hotr must look at a batch again, with what was reported since.
    fn hold(&mut self, mut pending: Pending, again: Duration) {
        self.looking = false;
        self.reduce(&mut pending);
        self.pending.put_before(pending);
        self.wait(again);
        self.early.held();
    }

    /// What could not be read joins the batch that waits, or is one of its own.
    fn look_again(&mut self) {
        let mut again = self.unknown.take();
        self.reduce(&mut again);
        self.pending.put_before(again);
        if self.due.is_none() {
            self.wait(Duration::ZERO);
        } else {
            self.early.more();
        }
    }

    fn give(&mut self, Judged { mut batch, nothing }: Judged) {
        self.looking = false;
        self.unknown.judged();
        if self.is_reduced {
            let trace = &self.options.trace;
            batch.retain(|change| covers(&trace.paths, trace.recursive, &change.path));
        }
        let is_wanted =
            |change: &Confirmed| self.options.kinds.is_empty() || self.options.kinds.contains(&change.kind);
        // There may be many, and mostly none is left out: they stay where they are.
        let left_out: Vec<Confirmed> = batch.extract_if(.., |change| !is_wanted(change)).collect();
        let left_out_paths: Vec<PathBuf> = left_out.iter().map(|change| change.path.clone()).collect();
        if !left_out.is_empty() {
            // No reload finds fault with it.
            self.good(left_out);
        }
        if !batch.is_empty() {
            self.out.push_back(FeedOutput::Batch(batch));
        } else if !left_out_paths.is_empty() {
            self.out.push_back(FeedOutput::LeftOut(left_out_paths));
        } else if !nothing.is_empty() {
            self.out.push_back(FeedOutput::Nothing(nothing));
        }
    }

    /// The last reports.
    pub(super) fn finish(&mut self, mut tell: impl FnMut(Report) -> Result<(), Error>) -> Result<(), Error> {
        self.content.end();
        let found = self.guard.found();
        self.session.finish(|reports| {
            reports.into_iter().try_for_each(|mut report| {
                if let Report::Summary { changes, .. } = &mut report {
                    *changes += found;
                }
                tell(report)
            })
        })
    }

    /// The reload for these changes succeeded.
    pub(super) fn good(&self, changes: Vec<Confirmed>) {
        self.content.order(Job::Good(changes));
    }

    /// It did not.
    pub(super) fn bad(&self, changes: Vec<Confirmed>, roll_back: bool) {
        self.content.order(Job::Bad { changes, roll_back });
    }

    /// Heartbeats, and what audits found: reported or not, it is handled like any other change.
    fn look_around(&mut self) -> Result<(), Error> {
        let reports = self.guard.step(&mut self.session)?;
        self.absorb(reports);
        let found = self.guard.look(&mut self.filter);
        let touched = found.touched.into_iter().flat_map(Differences::into_changes);
        touched.take_while(|_| !ending::gives_up()).for_each(|change| self.touch(&change));
        for change in found.told.into_iter().take_while(|_| !ending::gives_up()) {
            self.touch(&change);
            self.out.push_back(FeedOutput::Report(Report::Change(Box::new(change))));
        }
        if let Some(heard) = found.heard {
            self.content.order(Job::Verify(heard));
        }
        self.out.extend(self.guard.take_news());
        self.answer_added();
        Ok(())
    }

    /// These were reported, but are not what was confirmed.
    fn touch_unconfirmed(&mut self, found: Unconfirmed) {
        if found.paths.is_empty() {
            return;
        }
        self.pending.touch_behind(!found.links.is_empty(), &[Channel::Poll]);
        self.pending.links.extend(found.links);
        // What waits for a look was found by who reported it.
        let mut paths = found.paths;
        paths.retain(|path| !self.pending.touched.contains_key(path));
        paths.into_iter().for_each(|path| self.pending.touch_by(path, Channel::Poll));
        if self.due.is_none() {
            self.wait(self.options.debounce);
        } else {
            self.early.more();
        }
    }

    fn absorb(&mut self, reports: Vec<Report>) {
        for report in reports {
            if ending::is_asked() {
                // No batch follows.
                self.out.push_back(FeedOutput::Report(report));
                continue;
            }
            self.guard.receive(&report);
            match &report {
                Report::Change(change) => self.touch(change),
                Report::Loss { .. } if !self.guard.finds_losses() => self.touch_all(),
                _ => {}
            }
            self.out.push_back(FeedOutput::Report(report));
            self.out.extend(self.guard.take_news());
        }
        let remounted = self.session.take_remounted();
        if !remounted.is_empty() {
            // What is there now was not made there: nothing reports the files.
            for path in remounted {
                self.pending.dirs.push(path.clone());
                if !path.is_dir() && self.filter.wants(&path, false) {
                    self.pending.touched.entry(path).or_default();
                }
            }
            if self.due.is_none() {
                self.wait(self.options.debounce.max(MOUNTS_SETTLE));
            }
        }
    }

    fn touch(&mut self, change: &Change) {
        let was = Names::of(change);
        let names = [Some(&change.path), change.old_path.as_ref()];
        let mut any = false;
        if let (true, Op::Rename, Some(old)) = (was.dir && !was.exchanged, change.op, &change.old_path) {
            self.pending.moved(old, &change.path);
        }
        for (i, path) in names.into_iter().flatten().enumerate() {
            if path.file_name().is_some_and(|name| name == ".gitignore") {
                self.filter.forget_rules();
                self.forget_rules = true;
            } else if was.dir && matches!(change.op, Op::Create | Op::Rename | Op::Remove) {
                self.filter.forget_rules_below(path);
                self.forget_rules = true;
            }
            let is_behind = self.outside.concerns(path);
            let in_tree = self.filter.wants(path, true);
            if was.link && in_tree {
                self.pending.links.push(path.clone());
                self.pending.touch_behind(true, &change.seen_by);
                any = true;
            }
            self.pending.touch_behind(is_behind, &change.seen_by);
            any |= is_behind;
            if was.unknown && in_tree {
                self.pending.perhaps.push(path.clone());
                any = true;
            }
            let (as_dir, as_file) = (was.dir && in_tree, was.file && self.filter.wants(path, false));
            if !as_dir && !as_file {
                // It does not hold back what is due.
                if self.pending.leave_out(path, change) && self.due.is_none() && !any {
                    self.wait(self.options.debounce);
                }
                continue;
            }
            any = true;
            if as_dir && change.op != Op::Attrib {
                self.pending.dirs.push(path.clone());
            }
            if as_file {
                if self.options.trace.recursive {
                    self.pending.make_room(&self.options.trace.paths);
                }
                let old = names[1 - i].filter(|_| change.op == Op::Rename && (i == 0 || was.exchanged));
                self.pending.touch(path, change, old, i == 0);
            }
        }
        if any {
            self.wait(self.options.debounce.saturating_sub(age(change)));
        }
    }

    fn hear_outside(&mut self, heard: OutsideChanges) {
        self.pending.touch_behind(heard.behind, &[heard.by]);
        for path in heard.files {
            self.pending.touch_by(path, Channel::Inotify);
        }
        self.wait(self.options.debounce);
    }

    /// After a loss anything may have changed, and no audit can say what: hotr looks again at what is known, and
    /// searches for what is new.
    fn touch_all(&mut self) {
        self.pending.dirs.extend(self.options.trace.paths.iter().cloned());
        self.pending.behind = true;
        self.wait(self.options.debounce);
    }

    /// The batch is due after this time, or when it may be held no longer.
    fn wait(&mut self, time: Duration) {
        self.early.more();
        let now = Instant::now();
        let first = *self.pending.first.get_or_insert(now);
        let latest = timer::after(first, self.options.settle_max.max(self.options.debounce));
        let is_full = self.pending.touched.len() >= MOST_IN_BATCH;
        self.due = Some(if is_full { now } else { timer::after(now, time).min(latest.max(now)) });
    }

    fn follow_links(&mut self) {
        let moved = self.links.resolve();
        self.relink(moved);
    }

    /// These named paths lead elsewhere.
    fn relink(&mut self, moved: Vec<PathBuf>) {
        if moved.is_empty() {
            return;
        }
        self.out
            .push_back(FeedOutput::Say(format!("{} now leads elsewhere: watching that", moved[0].display())));
        // The channels continue with the other paths as they are.
        self.session.look_at_roots();
        for link in moved {
            if !self.pending.relinked.contains(&link) {
                self.pending.relinked.push(link.clone());
            }
            self.pending.dirs.push(link.clone());
            // Where it is a file.
            self.pending.touched.entry(link).or_default();
        }
        self.filter.forget_rules();
        self.forget_rules = true;
        self.wait(self.options.debounce);
    }

    /// When hotr should look at the batch.
    fn next_look(&self) -> Option<Instant> {
        let due = self.due.filter(|_| !self.looking)?;
        let lead = self.early.lead(&self.pending, self.options.debounce);
        Some(lead.and_then(|lead| due.checked_sub(lead)).unwrap_or(due))
    }

    /// The time to look has come. On a busy machine that may be noticed before what was queued in the meantime was
    /// read: that comes first.
    fn settle(&mut self) -> Result<(), Error> {
        self.read_ns = inode_clock_ns();
        let reports = self.session.turn()?;
        self.absorb(reports);
        let now = Instant::now();
        if self.next_look().is_none_or(|at| at > now) {
            return Ok(());
        }
        if self.due.is_some_and(|due| due <= now) {
            self.due = None;
            let pending = std::mem::take(&mut self.pending);
            let then = self.early.due(pending);
            self.go_on(then);
        } else {
            self.look(self.pending.clone(), When::EarlyLook);
            self.early.ask();
        }
        Ok(())
    }

    fn go_on(&mut self, then: Then) {
        match then {
            Then::Take(judged) => self.give(judged),
            Then::Wait => self.looking = true,
            Then::Again(pending) => self.hold(pending, Duration::ZERO),
            Then::Look(pending) => {
                self.looking = true;
                let is_overdue =
                    pending.first.is_some_and(|first| first.elapsed() >= self.options.settle_max);
                let is_full = pending.touched.len() >= MOST_IN_BATCH;
                let when = match (is_overdue, is_full) {
                    (true, _) => When::Overdue,
                    (false, true) => When::Full,
                    (false, false) => When::Due,
                };
                self.look(pending, when);
            }
        }
    }

    fn look(&mut self, pending: Pending, when: When) {
        let forget_rules = std::mem::take(&mut self.forget_rules);
        let undo = self.early.take_undo();
        self.content.order(Job::Look { pending, when, read_ns: self.read_ns, forget_rules, undo });
    }
}

/// Time since a change: it was quiet since then, as far as has been read. None where a report stands for several, or
/// the time of the kernel's change is not known.
fn age(change: &Change) -> Duration {
    if change.written.writes > 1 || !change.seen_by.contains(&Channel::Ebpf) {
        return Duration::ZERO;
    }
    SystemTime::now().duration_since(change.time).unwrap_or_default()
}
