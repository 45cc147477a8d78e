//! From reports to batches of confirmed changes: what one save touched comes out as one batch.
//!
//! In: the reports of a [`Session`], what audits found (`guard`), and the links on the way to the watched paths. Out:
//! [`Fed`]. A batch is given when nothing came for the debounce time. It is looked at shortly before (`early`), or then,
//! by a thread of its own (`content`), which may give it back to wait; after `settle_max` it is taken as it is.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::WatchOptions;
use super::alarm::Alarm;
use super::content::{Answer, Content, Job, When};
use super::early::{Early, Judged, Then};
use super::filter::PathFilter;
use super::guard::Guard;
use super::links::Links;
use super::pending::Pending;
use crate::error::Error;
use crate::event::{Change, Channel, FileType, Op};
use crate::pipeline::confirm::Confirmed;
use crate::report::Report;
use crate::source::inode_clock_ns;
use crate::trace::Session;

/// What a feed gives.
#[derive(Debug)]
pub(super) enum Fed {
    /// A report of the channels.
    Report(Report),
    /// Confirmed changes, at least one.
    Batch(Vec<Confirmed>),
    /// These changes were looked at and changed nothing.
    Nothing(Vec<PathBuf>),
    /// Good content was put back at these paths, at least one.
    Restored(Vec<Confirmed>),
    /// The state before the first change is known of this many files, and of all that will be.
    Known(usize),
    /// A sentence for stderr.
    Say(String),
}

/// See the module.
pub(super) struct Feed {
    options: WatchOptions,
    session: Session,
    guard: Guard,
    links: Links,
    filter: PathFilter,
    content: Content,
    pending: Pending,
    /// The thread looks at a batch.
    looking: bool,
    /// The rules in `.gitignore` files have changed since the last look.
    forget_rules: bool,
    due: Option<Instant>,
    /// An inode time before all channels were read to the end.
    read_ns: i64,
    early: Early,
    alarm: Alarm,
    out: VecDeque<Fed>,
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
        // Not before: what was changed while the channels started is part of the baseline, and nobody was told
        // `ready` yet.
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
            content,
            pending: Pending::default(),
            looking: false,
            forget_rules: false,
            due: None,
            read_ns: 0,
            early: Early::default(),
            alarm: Alarm::new(),
            out: VecDeque::new(),
        };
        feed.begin(&mut reports).await?;
        feed.absorb(reports);
        Ok(feed)
    }

    /// Waits for the baseline, or for as long as a start waits for it; the channels are read meanwhile.
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
    pub(super) async fn next(&mut self) -> Result<Fed, Error> {
        loop {
            if let Some(fed) = self.out.pop_front() {
                return Ok(fed);
            }
            let next_look = self.next_look();
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
                () = self.links.changed() => self.follow_links(),
            }
        }
    }

    fn answered(&mut self, answer: Option<Answer>) -> Result<(), Error> {
        match answer {
            Some(Answer::Begun) => {}
            Some(Answer::Known(files)) => self.out.push_back(Fed::Known(files)),
            Some(Answer::Say(text)) => self.out.push_back(Fed::Say(text)),
            Some(Answer::Held { pending, again }) => self.hold(pending, again),
            Some(Answer::Judged(judged)) => self.give(judged),
            Some(Answer::Early(found)) => {
                if let Some(then) = self.early.answered(found) {
                    self.go_on(then);
                }
            }
            Some(Answer::Restored(changes)) => {
                // No audit need tell them.
                self.guard.own_changes(changes.iter().map(|change| change.path.clone()));
                if !changes.is_empty() {
                    self.out.push_back(Fed::Restored(changes));
                }
            }
            None => return Err(super::no_thread(std::io::ErrorKind::BrokenPipe.into())),
        }
        Ok(())
    }

    /// A batch that was looked at has to be looked at again, with what was told since.
    fn hold(&mut self, pending: Pending, again: Duration) {
        self.looking = false;
        self.pending.put_before(pending);
        self.wait(again);
        self.early.held();
    }

    fn give(&mut self, Judged { batch, nothing }: Judged) {
        self.looking = false;
        if !batch.is_empty() {
            self.out.push_back(Fed::Batch(batch));
        } else if !nothing.is_empty() {
            self.out.push_back(Fed::Nothing(nothing));
        }
    }

    /// The last reports.
    pub(super) fn finish(&mut self) -> Result<Vec<Report>, Error> {
        self.content.end();
        let mut reports = self.session.finish()?;
        if let Some(Report::Summary { changes, .. }) = reports.last_mut() {
            *changes += self.guard.found();
        }
        Ok(reports)
    }

    /// The reload for these changes went well.
    pub(super) fn good(&self, changes: Vec<Confirmed>) {
        self.content.order(Job::Good(changes));
    }

    /// It did not.
    pub(super) fn bad(&self, changes: Vec<Confirmed>, roll_back: bool) {
        self.content.order(Job::Bad { changes, roll_back });
    }

    /// Heartbeats, and what audits found: told or not, it is looked at like any other change.
    fn look_around(&mut self) -> Result<(), Error> {
        let reports = self.guard.pulse(&mut self.session)?;
        self.absorb(reports);
        let found = self.guard.look(&mut self.filter);
        found.touched.iter().for_each(|change| self.touch(change));
        for change in found.told {
            self.touch(&change);
            self.out.push_back(Fed::Report(Report::Change(Box::new(change))));
        }
        self.out.extend(self.guard.take_news());
        Ok(())
    }

    fn absorb(&mut self, reports: Vec<Report>) {
        for report in reports {
            self.guard.hear(&report);
            match &report {
                Report::Change(change) => self.touch(change),
                Report::Loss { .. } if !self.guard.finds_losses() => self.touch_all(),
                _ => {}
            }
            self.out.push_back(Fed::Report(report));
            self.out.extend(self.guard.take_news());
        }
    }

    fn touch(&mut self, change: &Change) {
        let is_dir = change.file_type == Some(FileType::Dir);
        let paths = [Some(&change.path), change.old_path.as_ref()];
        let mut any = false;
        for (i, path) in paths.into_iter().flatten().enumerate() {
            if path.file_name().is_some_and(|name| name == ".gitignore") {
                self.filter.forget_rules();
                self.forget_rules = true;
            }
            if !self.filter.wants(path, is_dir) {
                continue;
            }
            any = true;
            if is_dir && change.op != Op::Attrib {
                self.pending.dirs.push(path.clone());
            }
            // A directory that came or went is nothing but the files it brought or took. What was exchanged may have
            // left a file at its name.
            if !(is_dir && matches!(change.op, Op::Create | Op::Remove)) {
                self.pending.touch(path, change, i == 0);
            }
        }
        if any {
            self.wait(self.options.debounce.saturating_sub(age(change)));
        }
    }

    /// After a loss anything may have changed, and no audit can tell what: what is known is looked at again, and what is
    /// new is looked for.
    fn touch_all(&mut self) {
        self.pending.dirs.extend(self.options.trace.paths.iter().cloned());
        self.wait(self.options.debounce);
    }

    /// The batch is due after this time, or when it may be held no longer.
    fn wait(&mut self, time: Duration) {
        self.early.more();
        let now = Instant::now();
        let first = *self.pending.first.get_or_insert(now);
        let latest = first + self.options.settle_max.max(self.options.debounce);
        self.due = Some((now + time).min(latest.max(now)));
    }

    fn follow_links(&mut self) {
        let moved = self.links.resolve();
        if moved.is_empty() {
            return;
        }
        // The channels are on what the links led to before. `finish` is not asked: its summary would be the run's.
        match Session::start(self.options.trace.clone()) {
            Ok(session) => self.session = session,
            Err(error) => {
                // It leads nowhere again already: the next change of the link will tell.
                self.out.push_back(Fed::Say(format!("follow a changed link: {error}")));
                return;
            }
        }
        self.out.push_back(Fed::Say(format!("{} leads elsewhere now: watching that", moved[0].display())));
        self.session.pending();
        // What changed before this moment is covered by the reload for the link.
        let relinked = std::mem::take(&mut self.pending.relinked).into_iter().chain(moved).collect();
        self.pending = Pending { relinked, ..Pending::default() };
        self.filter.forget_rules();
        self.content.order(Job::Begin { since_ns: inode_clock_ns() });
        self.wait(self.options.debounce);
    }

    /// When the batch is to be looked at.
    fn next_look(&self) -> Option<Instant> {
        let due = self.due.filter(|_| !self.looking)?;
        let lead = self.early.lead(&self.pending, self.options.debounce);
        Some(lead.and_then(|lead| due.checked_sub(lead)).unwrap_or(due))
    }

    /// The time to look has come. On a busy machine that may be noticed before what was queued meanwhile was read: that
    /// first.
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
            self.look(self.pending.clone(), When::Early);
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
                let overdue = pending.first.is_some_and(|first| first.elapsed() >= self.options.settle_max);
                self.look(pending, if overdue { When::Overdue } else { When::Due });
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
/// nobody knows when the kernel made it.
fn age(change: &Change) -> Duration {
    if change.writes > 1 || !change.seen_by.contains(&Channel::Ebpf) {
        return Duration::ZERO;
    }
    SystemTime::now().duration_since(change.time).unwrap_or_default()
}
