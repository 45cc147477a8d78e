//! What the thread does for each job.
//!
//! In: [`Job`]s, and the baseline's states. Out: [`Answer`]s.

mod expand;
mod paths;
pub(in crate::watch) mod verify;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::oneshot;

use super::{Answer, FIRST_LOOK, HOLD_LOOK, Job, PATIENCE, When};
use crate::beneath::NamedPath;
use crate::pipeline::confirm::baseline::{Baseline, Message};
use crate::pipeline::confirm::{Confirmed, Confirmer, Evidence, Kind, State};
use crate::watch::WatchOptions;
use crate::watch::batch_blocker::BatchBlocker;
use crate::watch::early_look::Judged;
use crate::watch::filter::PathFilter;
use crate::watch::link_targets::{Found, LinkPoints, LinkTargets, Look};
use crate::watch::pending::{MOST_IN_BATCH, Pending};
use crate::watch::rollback::Rollback;
use crate::watch::touched::Touched;
use hotr_events::Channel;
use paths::Adding;
use verify::Verify;

/// Names of a batch whose memory is worth giving back.
const MANY: usize = 4096;

pub(super) struct Work {
    options: WatchOptions,
    filter: PathFilter,
    confirmer: Confirmer,
    rollback: Rollback,
    behind: LinkTargets,
    since_ns: i64,
    baseline: Option<Baseline>,
    /// Until the next look at what holds a batch.
    again: Duration,
    /// States of a batch that was not decided about: their content need not be read again.
    looked: HashMap<PathBuf, State>,
    /// Paths that could not be read the last time, which was reported.
    blind: HashSet<PathBuf>,
    /// What was known of the paths of a batch before the early look.
    early: Vec<(PathBuf, Option<State>)>,
    verify: Verify,
    /// Added paths whose states are read, or will be.
    adding: Adding,
    answers: UnboundedSender<Answer>,
    stop: Arc<AtomicBool>,
    gone: oneshot::Receiver<()>,
}

impl Work {
    /// Knows nothing yet. It ends when `stop` is set, and does not wait for a baseline once `gone` is set.
    pub(super) fn new(
        options: WatchOptions,
        filter: PathFilter,
        rollback: Rollback,
        answers: UnboundedSender<Answer>,
        stop: Arc<AtomicBool>,
        gone: oneshot::Receiver<()>,
    ) -> Self {
        Self {
            confirmer: Confirmer::new(options.confirm, options.trace.paths.clone().into()),
            filter,
            rollback,
            behind: LinkTargets::default(),
            since_ns: 0,
            baseline: None,
            again: FIRST_LOOK,
            looked: HashMap::new(),
            blind: HashSet::new(),
            early: Vec::new(),
            verify: Verify::new(options.polling.enabled),
            adding: Adding::default(),
            options,
            answers,
            stop,
            gone,
        }
    }

    /// Works until the jobs end.
    pub(super) async fn run(mut self, mut jobs: UnboundedReceiver<Job>) {
        while !self.stop.load(Ordering::Relaxed) {
            tokio::select! {
                biased;
                job = jobs.recv() => match job {
                    Some(job) => self.work(job).await,
                    None => return,
                },
                message = next_of(&mut self.baseline) => self.learn(message),
                // Between the jobs, and not before the states to compare with are known.
                () = std::future::ready(()), if self.baseline.is_none() && self.verify.is_due() => self.verify_some(),
            }
        }
    }

    fn answer(&self, answer: Answer) {
        // Only at the very end nobody receives it.
        let _ = self.answers.send(answer);
    }

    async fn work(&mut self, job: Job) {
        let answers = self.answers.clone();
        let say = |text: &str| drop(answers.send(Answer::Say(text.to_owned())));
        match job {
            Job::Begin { since_ns } => self.begin(since_ns).await,
            Job::Look { pending, when, read_ns, forget_rules, undo } => {
                if forget_rules {
                    self.filter.forget_rules();
                }
                for (path, state) in self.early.drain(..).filter(|_| undo) {
                    self.confirmer.take_back(&path, state);
                }
                if when == When::EarlyLook {
                    let found = self.look_early(&pending, read_ns, &say);
                    self.answer(Answer::EarlyLook(found));
                } else {
                    self.look(pending, when, read_ns, &say);
                }
            }
            Job::Paths { paths, added } => self.set_paths(paths, added),
            Job::Good(mut changes) => {
                changes.retain(|change| !self.behind.has(&change.path));
                self.rollback.good(changes);
            }
            Job::Bad { mut changes, roll_back } => {
                changes.retain(|change| {
                    let is_behind = self.behind.has(&change.path);
                    if is_behind && roll_back {
                        say(&format!(
                            "roll back {}: it is behind a symbolic link; left alone",
                            change.path.display()
                        ));
                    }
                    !is_behind
                });
                self.rollback.bad(changes);
                if roll_back {
                    let restored = self.rollback.restore(&mut self.confirmer, &say);
                    restored.iter().for_each(|change| self.verify.decided(&change.path));
                    self.answer(Answer::Restored(restored));
                }
            }
            Job::Verify(heard) => self.audited(heard),
        }
    }

    async fn begin(&mut self, since_ns: i64) {
        self.confirmer.clear();
        self.looked.clear();
        self.blind.clear();
        self.early.clear();
        self.verify.clear();
        self.behind.clear();
        self.since_ns = since_ns;
        self.filter.forget_rules();
        self.rollback.begin();
        let mut filter = self.filter.clone();
        let recursive = self.options.trace.recursive;
        let wanted = move |path: &Path, is_dir: bool| (recursive || !is_dir) && filter.wants(path, is_dir);
        let roots = self.options.trace.paths.clone();
        match Baseline::start(roots, since_ns, self.options.confirm, wanted) {
            Ok(baseline) => self.baseline = Some(baseline),
            Err(error) => return self.answer(Answer::NoThread(error)),
        }
        let patience = if self.options.whole_baseline { Duration::MAX } else { PATIENCE };
        let over = tokio::time::sleep(patience);
        let mut over = std::pin::pin!(over);
        while let Some(baseline) = &mut self.baseline {
            tokio::select! {
                biased;
                _ = &mut self.gone => return,
                message = baseline.next() => self.learn(message),
                () = &mut over => {
                    baseline.relax();
                    break;
                }
            }
        }
        self.answer(Answer::Begun);
    }

    fn learn(&mut self, message: Message) {
        match message {
            Message::States(states) => {
                for (path, state) in states {
                    if !self.is_watched(&path) {
                        continue;
                    }
                    self.behind.note_hard(&path, &state);
                    let kept = self.rollback.is_on().then(|| state.clone());
                    if self.confirmer.learn(&path, state)
                        && let Some(state) = kept
                        && let Some(why) = self.rollback.learn(&path, &state)
                    {
                        self.answer(Answer::Say(why));
                    }
                    if self.stop.load(Ordering::Relaxed) {
                        return;
                    }
                }
            }
            Message::End { complete, links } if self.adding.is_running() => self.remembered(complete, links),
            Message::End { complete, links } => {
                links.into_iter().for_each(|link| self.behind.add_link(link));
                let found = self.look_behind();
                let ways = self.behind.learn(found, self.since_ns);
                self.tell_ways(Some(ways));
                if complete {
                    self.confirmer.baseline_complete();
                }
                self.baseline = None;
                if let Some(rest) = self.rollback.learned() {
                    self.answer(Answer::Say(rest));
                }
                // Paths and content passed through two threads.
                crate::memory::give_back();
                self.answer(Answer::Known(self.confirmer.len()));
                self.remember_next();
            }
        }
    }

    fn look_behind(&mut self) -> Found {
        let mut look = Look {
            roots: &self.options.trace.paths,
            filter: &mut self.filter,
            options: self.options.confirm,
            stop: &self.stop,
        };
        self.behind.look(&mut look)
    }

    fn tell_ways(&mut self, ways: Option<LinkPoints>) {
        for text in self.behind.take_news() {
            self.answer(Answer::Say(text));
        }
        if let Some(ways) = ways {
            self.answer(Answer::LinkPoints(ways));
        }
    }

    /// What is behind links, if that must be checked; none while it is written.
    fn found_behind(&mut self, pending: &mut Pending, overdue: bool) -> Result<Option<Found>, PathBuf> {
        for link in std::mem::take(&mut pending.links) {
            self.behind.add_link(link);
        }
        if !pending.behind || self.baseline.is_some() {
            return Ok(None);
        }
        let found = self.look_behind();
        match self.behind.unfinished(&found) {
            Some(path) if !overdue => Err(path),
            _ => Ok(Some(found)),
        }
    }

    /// What a batch is if no more is reported of it. None while the states before are not known, or must be kept.
    fn look_early(&mut self, pending: &Pending, read_ns: i64, say: &dyn Fn(&str)) -> Option<Judged> {
        let paths = || pending.touched.keys();
        if self.baseline.is_some()
            || pending.behind
            || !pending.left_out.is_empty()
            || self.rollback.is_on()
            || pending.perhaps.iter().any(|path| self.is_or_was_dir(path))
            || BatchBlocker::of(&self.options.trace.paths, paths().map(PathBuf::as_path), read_ns).is_some()
        {
            return None;
        }
        let (states, is_torn) = self.states(pending)?;
        if is_torn.is_some() || states.iter().any(|state| matches!(state, State::Unknown(_))) {
            return None;
        }
        self.early = paths().map(|path| (path.clone(), self.confirmer.state(path).cloned())).collect();
        Some(self.judge(pending.clone(), states, None, say))
    }

    fn look(&mut self, mut pending: Pending, when: When, read_ns: i64, say: &dyn Fn(&str)) {
        let overdue = matches!(when, When::Overdue | When::Full);
        while let Some(message) = self.baseline.as_mut().and_then(Baseline::next_now) {
            self.learn(message);
        }
        let most = pending.most_together();
        self.expand_dirs(&mut pending, most);
        self.expand_links(&mut pending);
        let rest = pending.split_off(most);
        let limit = match when {
            When::Full => format!("with {MOST_IN_BATCH} changed files"),
            _ => format!("after {}", humantime::format_duration(self.options.settle_max)),
        };
        if let Some(hold) =
            BatchBlocker::of(&self.options.trace.paths, pending.touched.keys().map(PathBuf::as_path), read_ns)
        {
            if !overdue {
                let again = self.again;
                self.again = (again * 2).min(HOLD_LOOK);
                pending.join(rest);
                return self.answer(Answer::Held { pending, again });
            }
            say(&hold.overdue(&limit));
        }
        let Some((states, torn)) = self.states(&pending) else { return };
        if let Some(path) = torn {
            if !overdue {
                self.looked = pending.touched.keys().cloned().zip(states).collect();
                pending.join(rest);
                return self.answer(Answer::Held { pending, again: self.options.debounce });
            }
            say(&format!("{} still changes {limit}: taken as it is", path.display()));
        }
        let found = match self.found_behind(&mut pending, overdue) {
            Ok(found) => found,
            Err(_) => {
                self.looked = pending.touched.keys().cloned().zip(states).collect();
                let again = self.again;
                self.again = (again * 2).min(HOLD_LOOK);
                pending.join(rest);
                return self.answer(Answer::Held { pending, again });
            }
        };
        let judged = self.judge(pending, states, found, say);
        self.answer(Answer::Judged { judged, rest: rest.map(Box::new) });
    }

    /// The states of a batch now, and the first path that was changed while it was read; none when hotr ends.
    fn states<'a>(&mut self, pending: &'a Pending) -> Option<(Vec<State>, Option<&'a PathBuf>)> {
        let mut states = Vec::with_capacity(pending.touched.len());
        let mut torn = None;
        for path in pending.touched.keys() {
            let named = self.options.trace.paths.contains(path);
            let state = self.confirmer.look(path, named, self.looked.get(path), &self.stop);
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            if state.is_torn() {
                torn.get_or_insert(path);
            }
            states.push(state);
        }
        Some((states, torn))
    }

    /// Says which paths cannot be read, once for as long as that is so, and has them checked again later.
    fn tell_unknown(&mut self, touched: &BTreeMap<PathBuf, Touched>, states: &[State], say: &dyn Fn(&str)) {
        let mut unknown = BTreeMap::new();
        let mut first = None;
        let mut new = 0_usize;
        for ((path, told), state) in touched.iter().zip(states) {
            let State::Unknown(error) = state else {
                self.blind.remove(path);
                continue;
            };
            unknown.insert(path.clone(), told.clone());
            if self.blind.insert(path.clone()) {
                first.get_or_insert((path, *error));
                new += 1;
            }
        }
        if let Some((path, error)) = first {
            let more = if new > 1 { format!(" and {} more", new - 1) } else { String::new() };
            let (path, error) = (path.display(), std::io::Error::from(error));
            say(&format!("look at {path}{more}: {error}; whether it changed is unknown, trying again"));
        }
        if !unknown.is_empty() {
            self.answer(Answer::Unknown(unknown));
        }
    }

    fn judge(
        &mut self,
        mut pending: Pending,
        states: Vec<State>,
        found: Option<Found>,
        say: &dyn Fn(&str),
    ) -> Judged {
        self.again = FIRST_LOOK;
        self.looked.clear();
        let touched = std::mem::take(&mut pending.touched);
        let count = touched.len();
        let Pending { touched: renamed, relinked, .. } = &mut pending;
        self.rollback.relinked(relinked);
        let links = relinked.len();
        let mut batch: Vec<Confirmed> = relinked.iter().cloned().map(to_relinked).collect();
        let mut nothing = Vec::new();
        self.tell_unknown(&touched, &states, say);
        // There may be as many as files, and each path takes hundreds of bytes: none is kept twice.
        for ((path, mut told), state) in touched.into_iter().zip(states) {
            if let Some(name) = told.take_name() {
                renamed.insert(path.clone(), name);
            }
            if matches!(state, State::Unknown(_)) {
                continue;
            }
            self.behind.note_hard(&path, &state);
            self.verify.decided(&path);
            if self.changes_hands(&path, &state, found.as_ref()) {
                continue;
            }
            match self.confirmer.decide(&path, state, told.born, &told.seen_by.to_vec()) {
                // A directory is nothing but its files, and was none that was not known.
                Some(change)
                    if told.is_dir && (change.kind, change.by) == (Kind::Removed, Evidence::Unknown) => {}
                Some(mut change) => {
                    change.actors = told.into_actors();
                    batch.push(change);
                }
                None => nothing.push(path),
            }
        }
        for at in renames(&batch, &pending) {
            Arc::make_mut(&mut batch[at].change).kind = Kind::Renamed;
        }
        let Pending { relinked, behind_by, .. } = &pending;
        // Content may be gone by the time it is known to be good.
        self.rollback.stage(&batch[links..], say);
        // What a link brought or took is reported by the link.
        let is_by_link = |path: &Path| relinked.iter().any(|link| path.starts_with(link));
        let mut at = 0..;
        batch.retain(|change| at.next().is_some_and(|at| at < links) || !is_by_link(&change.path));
        let mut ways = self.behind.new_hard();
        if let Some(found) = found {
            let paths = batch.iter().map(|change| change.path.clone()).collect();
            let (changes, new_ways) = self.behind.take(found, &paths, behind_by);
            batch.extend(changes);
            ways = new_ways.or(ways);
        }
        self.tell_ways(ways);
        if count > MANY {
            crate::memory::give_back();
        }
        Judged { batch, nothing }
    }
}

/// New names that are renames: their old names disappeared in the same batch.
fn renames(batch: &[Confirmed], pending: &Pending) -> Vec<usize> {
    let created = || batch.iter().enumerate().filter(|(_, change)| change.kind == Kind::Created);
    let former: Vec<(usize, PathBuf)> =
        created().filter_map(|(at, change)| Some((at, pending.former(&change.path)?))).collect();
    if former.is_empty() {
        return Vec::new();
    }
    let gone: HashSet<&Path> = batch
        .iter()
        .filter(|change| change.kind == Kind::Removed)
        .map(|change| change.path.as_path())
        .collect();
    former.into_iter().filter(|(_, old)| gone.contains(old.as_path())).map(|(at, _)| at).collect()
}

async fn next_of(baseline: &mut Option<Baseline>) -> Message {
    match baseline {
        Some(baseline) => baseline.next().await,
        None => std::future::pending().await,
    }
}

fn to_relinked(path: PathBuf) -> Confirmed {
    let target = NamedPath::follow(&path).real().unwrap_or_default();
    Confirmed::new(Kind::Link, path, Evidence::Target, vec![Channel::Inotify], State::Link(target))
}
