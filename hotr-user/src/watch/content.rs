//! The thread that reads files: it confirms batches, and keeps and puts back good content.
//!
//! In: [`Job`]s, done one after the other. Out: an [`Answer`] for each that has one. The feed's loop never waits for
//! the content of a file, nor for a disk: it reads channels and makes heartbeats while a large file is read here. What
//! is told meanwhile is the next batch, and that is not begun before this one is answered.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use super::filter::PathFilter;
use super::hold::Hold;
use super::pending::Pending;
use super::rollback::Rollback;
use super::{WatchOptions, no_thread};
use crate::error::Error;
use crate::event::Channel;
use crate::pipeline::confirm::baseline::{Baseline, Message};
use crate::pipeline::confirm::{Confirmed, Confirmer, Evidence, Kind, State};

/// How long a start waits for the baseline.
const PATIENCE: Duration = Duration::from_millis(500);
/// When what holds a batch is looked at again: most writers close their file at once. The time doubles up to the last.
const FIRST_LOOK: Duration = Duration::from_millis(1);
const HOLD_LOOK: Duration = Duration::from_millis(20);

/// What the thread is to do.
#[derive(Debug)]
pub(super) enum Job {
    /// Read the states before the first change; since this inode time every change is told. What was known is of
    /// other trees.
    Begin { since_ns: i64 },
    /// Look at a batch. `overdue`: now, whatever holds it.
    Look { pending: Pending, overdue: bool, forget_rules: bool },
    /// The reload for these changes went well.
    Good(Vec<Confirmed>),
    /// It did not.
    Bad { changes: Vec<Confirmed>, roll_back: bool },
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Answer {
    /// The states before the first change are known, or will be later.
    Begun,
    /// They are known, of this many files.
    Known(usize),
    /// A batch has to be looked at again, after this time at the earliest.
    Held { pending: Pending, again: Duration },
    /// A batch: what it changed, and which of its paths did not change.
    Judged { batch: Vec<Confirmed>, nothing: Vec<PathBuf> },
    /// These were put back.
    Restored(Vec<Confirmed>),
    /// A sentence for stderr.
    Say(String),
}

/// The thread.
pub(super) struct Content {
    jobs: Option<UnboundedSender<Job>>,
    answers: UnboundedReceiver<Answer>,
    stop: Arc<AtomicBool>,
    /// Dropped to say that nobody waits any more.
    alive: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    /// It has files to clean up.
    keeps: bool,
}

impl Content {
    /// Starts the thread. `rollback`: keep good content, in this directory if one is named.
    ///
    /// # Errors
    /// When content cannot be kept there, or there can be no thread.
    pub(super) fn start(
        options: &WatchOptions,
        filter: PathFilter,
        rollback: Option<Option<PathBuf>>,
    ) -> Result<Self, Error> {
        let (jobs, inbox) = unbounded_channel();
        let (outbox, answers) = unbounded_channel();
        let (alive, gone) = oneshot::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let keeps = rollback.is_some();
        let roots = options.trace.paths.clone();
        let rollback = rollback
            .map(|place| Rollback::start(place, roots, options.confirm, &stop))
            .transpose()?
            .unwrap_or_default();
        let work = Work {
            confirmer: Confirmer::new(options.confirm),
            options: options.clone(),
            filter,
            rollback,
            baseline: None,
            again: FIRST_LOOK,
            looked: HashMap::new(),
            answers: outbox,
            stop: Arc::clone(&stop),
            gone,
        };
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(no_thread)?;
        let thread = std::thread::Builder::new()
            .name("hotr-content".to_owned())
            .spawn(move || runtime.block_on(work.run(inbox)))
            .map_err(no_thread)?;
        Ok(Self { jobs: Some(jobs), answers, stop, alive: Some(alive), thread: Some(thread), keeps })
    }

    /// One more job, to be done after the others.
    pub(super) fn order(&self, job: Job) {
        if let Some(jobs) = &self.jobs {
            // A thread that has ended is told by `next`.
            let _ = jobs.send(job);
        }
    }

    /// The next answer; `None`: the thread has failed. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Option<Answer> {
        self.answers.recv().await
    }

    /// Ends the thread: what it reads is left, what it puts back is put back first.
    pub(super) fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.jobs = None;
        self.alive = None;
        // Without files to clean up it is nobody's loss: a disk that does not answer must not hold the end back.
        if let Some(thread) = self.thread.take().filter(|_| self.keeps) {
            let _ = thread.join();
        }
    }
}

impl Drop for Content {
    fn drop(&mut self) {
        self.end();
    }
}

struct Work {
    options: WatchOptions,
    filter: PathFilter,
    confirmer: Confirmer,
    rollback: Rollback,
    baseline: Option<Baseline>,
    /// Until the next look at what holds a batch.
    again: Duration,
    /// States of a batch that was not decided about: their content need not be read again.
    looked: HashMap<PathBuf, State>,
    answers: UnboundedSender<Answer>,
    stop: Arc<AtomicBool>,
    gone: oneshot::Receiver<()>,
}

impl Work {
    async fn run(mut self, mut jobs: UnboundedReceiver<Job>) {
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
            Job::Look { pending, overdue, forget_rules } => {
                if forget_rules {
                    self.filter.forget_rules();
                }
                self.look(pending, overdue, &say);
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
                    let kept = self.rollback.is_on().then(|| (path.clone(), state.clone()));
                    if self.confirmer.learn(path, state)
                        && let Some((path, state)) = kept
                        && let Err(why) = self.rollback.learn(&path, &state)
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
                self.answer(Answer::Known(self.confirmer.len()));
            }
        }
    }

    fn look(&mut self, mut pending: Pending, overdue: bool, say: &dyn Fn(&str)) {
        while let Some(message) = self.baseline.as_mut().and_then(Baseline::next_now) {
            self.learn(message);
        }
        self.expand_dirs(&mut pending);
        let limit = humantime::format_duration(self.options.settle_max).to_string();
        if let Some(hold) = Hold::of(pending.touched.keys().map(PathBuf::as_path)) {
            if !overdue {
                let again = self.again;
                self.again = (again * 2).min(HOLD_LOOK);
                return self.answer(Answer::Held { pending, again });
            }
            say(&hold.overdue(&limit));
        }
        let mut states = Vec::with_capacity(pending.touched.len());
        let mut torn = None;
        for path in pending.touched.keys() {
            let named = self.options.trace.paths.contains(path);
            let state = self.confirmer.look(path, named, self.looked.get(path), &self.stop);
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            if state.is_torn() {
                torn.get_or_insert(path);
            }
            states.push(state);
        }
        if let Some(path) = torn {
            if !overdue {
                self.looked = pending.touched.keys().cloned().zip(states).collect();
                return self.answer(Answer::Held { pending, again: self.options.debounce });
            }
            say(&format!("{} still changes after {limit}: taken as it is", path.display()));
        }
        self.looked.clear();
        self.decide(pending, states, say);
    }

    fn decide(&mut self, pending: Pending, states: Vec<State>, say: &dyn Fn(&str)) {
        self.again = FIRST_LOOK;
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
        self.answer(Answer::Judged { batch, nothing });
    }

    /// A directory that came or went brought or took its files, of which nobody told.
    fn expand_dirs(&mut self, pending: &mut Pending) {
        let mut dirs = std::mem::take(&mut pending.dirs);
        dirs.sort_unstable();
        dirs.dedup_by(|below, above| below.starts_with(above));
        for dir in dirs {
            let mut found: Vec<PathBuf> = self.confirmer.below(&dir).map(Path::to_owned).collect();
            let mut todo = vec![dir];
            while let Some(dir) = todo.pop() {
                let Ok(entries) = std::fs::read_dir(&dir) else { continue };
                for entry in entries.flatten() {
                    let (path, is_dir) = (entry.path(), entry.file_type().is_ok_and(|kind| kind.is_dir()));
                    if !self.filter.wants(&path, is_dir) {
                        continue;
                    }
                    if is_dir { todo.push(path) } else { found.push(path) }
                }
            }
            for path in found {
                pending.touched.entry(path).or_default();
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
