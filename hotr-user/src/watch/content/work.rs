//! What the thread does for each job.
//!
//! In: [`Job`]s, and the baseline's states. Out: [`Answer`]s.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::oneshot;

use super::{Answer, FIRST_LOOK, HOLD_LOOK, Job, PATIENCE, When};
use crate::event::Channel;
use crate::pipeline::confirm::baseline::{Baseline, Message};
use crate::pipeline::confirm::{Confirmed, Confirmer, Evidence, Kind, State};
use crate::watch::WatchOptions;
use crate::watch::early::Judged;
use crate::watch::filter::PathFilter;
use crate::watch::hold::Hold;
use crate::watch::pending::Pending;
use crate::watch::rollback::Rollback;

pub(super) struct Work {
    options: WatchOptions,
    filter: PathFilter,
    confirmer: Confirmer,
    rollback: Rollback,
    baseline: Option<Baseline>,
    /// Until the next look at what holds a batch.
    again: Duration,
    /// States of a batch that was not decided about: their content need not be read again.
    looked: HashMap<PathBuf, State>,
    /// What was known of the paths of a batch that was looked at early.
    early: Vec<(PathBuf, Option<State>)>,
    answers: UnboundedSender<Answer>,
    stop: Arc<AtomicBool>,
    gone: oneshot::Receiver<()>,
}

impl Work {
    /// Knows nothing yet. It ends when `stop` is set, and does not wait for a baseline once `gone` is told.
    pub(super) fn new(
        options: WatchOptions,
        filter: PathFilter,
        rollback: Rollback,
        answers: UnboundedSender<Answer>,
        stop: Arc<AtomicBool>,
        gone: oneshot::Receiver<()>,
    ) -> Self {
        Self {
            confirmer: Confirmer::new(options.confirm),
            options,
            filter,
            rollback,
            baseline: None,
            again: FIRST_LOOK,
            looked: HashMap::new(),
            early: Vec::new(),
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
            }
        }
    }

    fn answer(&self, answer: Answer) {
        // Nobody listens only at the very end.
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
                if when == When::Early {
                    let found = self.look_early(&pending, read_ns, &say);
                    self.answer(Answer::Early(found));
                } else {
                    self.look(pending, when == When::Overdue, read_ns, &say);
                }
            }
            Job::Good(changes) => self.rollback.good(changes),
            Job::Bad { changes, roll_back } => {
                self.rollback.bad(changes);
                if roll_back {
                    let restored = self.rollback.restore(&mut self.confirmer, &say);
                    self.answer(Answer::Restored(restored));
                }
            }
        }
    }

    async fn begin(&mut self, since_ns: i64) {
        self.confirmer.clear();
        self.looked.clear();
        self.early.clear();
        self.filter.forget_rules();
        self.rollback.begin();
        let mut filter = self.filter.clone();
        let recursive = self.options.trace.recursive;
        let wanted = move |path: &Path, is_dir: bool| (recursive || !is_dir) && filter.wants(path, is_dir);
        let roots = self.options.trace.paths.clone();
        self.baseline = Some(Baseline::start(roots, since_ns, self.options.confirm, wanted));
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
            Message::End { complete } => {
                if complete {
                    self.confirmer.baseline_complete();
                }
                self.baseline = None;
                if let Some(rest) = self.rollback.learned() {
                    self.answer(Answer::Say(rest));
                }
                // Paths and content went through the hands of two threads.
                crate::memory::give_back();
                self.answer(Answer::Known(self.confirmer.len()));
            }
        }
    }

    /// What a batch is if no more is told of it. None while the states before are not known, or must be kept.
    fn look_early(&mut self, pending: &Pending, read_ns: i64, say: &dyn Fn(&str)) -> Option<Judged> {
        let paths = || pending.touched.keys();
        if self.baseline.is_some()
            || self.rollback.is_on()
            || Hold::of(paths().map(PathBuf::as_path), read_ns).is_some()
        {
            return None;
        }
        let (states, is_torn) = self.states(pending)?;
        if is_torn.is_some() {
            return None;
        }
        self.early = paths().map(|path| (path.clone(), self.confirmer.state(path).cloned())).collect();
        Some(self.judge(pending.clone(), states, say))
    }

    fn look(&mut self, mut pending: Pending, overdue: bool, read_ns: i64, say: &dyn Fn(&str)) {
        while let Some(message) = self.baseline.as_mut().and_then(Baseline::next_now) {
            self.learn(message);
        }
        self.expand_dirs(&mut pending);
        let limit = humantime::format_duration(self.options.settle_max).to_string();
        if let Some(hold) = Hold::of(pending.touched.keys().map(PathBuf::as_path), read_ns) {
            if !overdue {
                let again = self.again;
                self.again = (again * 2).min(HOLD_LOOK);
                return self.answer(Answer::Held { pending, again });
            }
            say(&hold.overdue(&limit));
        }
        let Some((states, torn)) = self.states(&pending) else { return };
        if let Some(path) = torn {
            if !overdue {
                self.looked = pending.touched.keys().cloned().zip(states).collect();
                return self.answer(Answer::Held { pending, again: self.options.debounce });
            }
            say(&format!("{} still changes after {limit}: taken as it is", path.display()));
        }
        let judged = self.judge(pending, states, say);
        self.answer(Answer::Judged(judged));
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

    fn judge(&mut self, pending: Pending, states: Vec<State>, say: &dyn Fn(&str)) -> Judged {
        self.again = FIRST_LOOK;
        self.looked.clear();
        let Pending { touched, relinked, .. } = pending;
        let mut batch: Vec<Confirmed> = relinked.into_iter().map(to_relinked).collect();
        let mut nothing = Vec::new();
        for ((path, told), state) in touched.iter().zip(states) {
            match self.confirmer.decide(path, state, told.born, &told.seen_by) {
                Some(change) => batch.push(change),
                None => nothing.push(path.clone()),
            }
        }
        let gone: HashSet<PathBuf> = batch
            .iter()
            .filter(|change| change.kind == Kind::Removed)
            .map(|change| change.path.clone())
            .collect();
        // A new name is a rename when its old name has gone in the same batch.
        for change in batch.iter_mut().filter(|change| change.kind == Kind::Created) {
            let old = touched.get(&change.path).and_then(|touched| touched.old.as_ref());
            if old.is_some_and(|old| gone.contains(old)) {
                change.kind = Kind::Renamed;
            }
        }
        // Content may be gone by the time it is known to be good.
        self.rollback.stage(&batch, say);
        Judged { batch, nothing }
    }

    /// A directory that came or went brought or took its files, of which nobody told.
    fn expand_dirs(&mut self, pending: &mut Pending) {
        let mut dirs = std::mem::take(&mut pending.dirs);
        dirs.sort_unstable();
        dirs.dedup_by(|below, above| below.starts_with(above));
        if dirs.is_empty() {
            return;
        }
        for path in self.confirmer.below(&dirs) {
            pending.touched.entry(path).or_default();
        }
        while let Some(dir) = dirs.pop() {
            let Ok(entries) = std::fs::read_dir(&dir) else { continue };
            for entry in entries.flatten() {
                let (path, is_dir) = (entry.path(), entry.file_type().is_ok_and(|kind| kind.is_dir()));
                if !self.filter.wants(&path, is_dir) {
                    continue;
                }
                if is_dir {
                    dirs.push(path);
                } else {
                    pending.touched.entry(path).or_default();
                }
            }
        }
    }
}

async fn next_of(baseline: &mut Option<Baseline>) -> Message {
    match baseline {
        Some(baseline) => baseline.next().await,
        None => std::future::pending().await,
    }
}

fn to_relinked(path: PathBuf) -> Confirmed {
    let target = path.canonicalize().unwrap_or_default();
    Confirmed {
        kind: Kind::Link,
        path,
        by: Evidence::Target,
        size: None,
        seen_by: vec![Channel::Inotify],
        state: State::Link(target),
    }
}
