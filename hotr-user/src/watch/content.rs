//! The thread that reads files: it confirms batches, and keeps and restores good content.
//!
//! In: [`Job`]s, done one after the other. Out: an [`Answer`] for each that has one. The feed's loop never waits for
//! the content of a file, nor for a disk: it reads channels and makes heartbeats while a large file is read here. What
//! is reported in the meantime is the next batch, which is not begun before this one is answered.

#[cfg(test)]
mod audited;
mod work;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use super::affected_names::ReportedNames;
use super::early_look::Judged;
use super::filter::PathFilter;
use super::link_targets::LinkPoints;
use super::pending::Pending;
use super::rollback::Rollback;
use super::touched::Touched;
use super::{WatchOptions, no_thread};
use crate::error::Error;
use crate::pipeline::confirm::Confirmed;
use work::Work;
pub(super) use work::verify::Unconfirmed;

/// How long a start waits for the baseline.
const PATIENCE: Duration = Duration::from_millis(500);
/// When what holds a batch is checked again: most writers close their file at once. The time doubles up to the last.
const FIRST_LOOK: Duration = Duration::from_millis(1);
const HOLD_LOOK: Duration = Duration::from_millis(20);

/// What the thread is to do.
#[derive(Debug)]
pub(super) enum Job {
    /// Read the states before the first change; since this inode time every change is reported. What was known is of
    /// other trees.
    Begin { since_ns: i64 },
    /// Look at a batch. All changes before `read_ns`, an inode time, have been reported. `undo`: what the look before
    /// found early is void.
    Look { pending: Pending, when: When, read_ns: i64, forget_rules: bool, undo: bool },
    /// The named paths are these from now on. The present state of a new one is read.
    Paths { paths: Vec<PathBuf>, added: Option<Added> },
    /// The reload for these changes succeeded.
    Good(Vec<Confirmed>),
    /// It did not.
    Bad { changes: Vec<Confirmed>, roll_back: bool },
    /// An audit has ended. What it found and the channels had reported is compared with what was confirmed, and so is
    /// what was confirmed since: this finds a change that was reported and never confirmed, and one that was undone
    /// between two audits without a report of the undoing.
    Verify(ReportedNames),
}

/// A path that is watched from now on.
#[derive(Debug)]
pub(super) struct Added {
    pub(super) path: PathBuf,
    /// Which addition it is.
    pub(super) number: u64,
    /// Since this inode time every change of it is reported.
    pub(super) since_ns: i64,
}

/// When hotr looks at a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// Shortly before it is due.
    EarlyLook,
    Due,
    /// It is taken now, whatever holds it: it was held for long.
    Overdue,
    /// The same: there is no room for more.
    Full,
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Answer {
    /// The states before the first change are known, or will be later.
    Begun,
    /// No thread for it could be had.
    NoThread(std::io::Error),
    /// They are known, of this many files.
    Known(usize),
    /// The present state of the path that was added with this number is known.
    Remembered(u64),
    /// hotr must look at a batch again, after this time at the earliest.
    Held { pending: Pending, again: Duration },
    /// These paths of a batch could not be read.
    Unknown(BTreeMap<PathBuf, Touched>),
    /// These are not what was confirmed.
    Unconfirmed(Unconfirmed),
    /// A batch; and what is left of one that was too large, to be looked at next.
    Judged { judged: Judged, rest: Option<Box<Pending>> },
    /// The same early; none when it cannot be known yet.
    EarlyLook(Option<Judged>),
    /// What lies behind links, and must be watched.
    LinkPoints(LinkPoints),
    /// These were restored.
    Restored(Vec<Confirmed>),
    /// A sentence for stderr.
    Say(String),
}

/// The thread.
pub(super) struct Content {
    jobs: Option<UnboundedSender<Job>>,
    answers: UnboundedReceiver<Answer>,
    stop: Arc<AtomicBool>,
    /// Dropped to say that nobody waits any longer.
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
        let mut rollback = rollback
            .map(|place| Rollback::start(place, roots, options.confirm, &stop))
            .transpose()?
            .unwrap_or_default();
        for text in rollback.take_news() {
            let _ = outbox.send(Answer::Say(text));
        }
        let work = Work::new(options.clone(), filter, rollback, outbox.clone(), Arc::clone(&stop), gone);
        // The runtime is made by the thread: dropped here, where no thread can be had, it would panic.
        let run = move || match tokio::runtime::Builder::new_current_thread().enable_time().build() {
            Ok(runtime) => runtime.block_on(work.run(inbox)),
            Err(error) => drop(outbox.send(Answer::NoThread(error))),
        };
        let thread =
            std::thread::Builder::new().name("hotr-content".to_owned()).spawn(run).map_err(no_thread)?;
        Ok(Self { jobs: Some(jobs), answers, stop, alive: Some(alive), thread: Some(thread), keeps })
    }

    /// One more job, to be done after the others.
    pub(super) fn order(&self, job: Job) {
        if let Some(jobs) = &self.jobs {
            // A thread that has ended is reported by `next`.
            let _ = jobs.send(job);
        }
    }

    /// The next answer; `None`: the thread has failed. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Option<Answer> {
        self.answers.recv().await
    }

    /// Ends the thread: what it reads is left, what it restores is restored first.
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use super::*;
    use crate::pipeline::confirm::Kind;
    use crate::source::inode_clock_ns;
    use crate::watch::pending::MOST_IN_BATCH;

    /// A folder, and a thread that knows what it holds.
    struct Scene(PathBuf, Content);

    impl Drop for Scene {
        fn drop(&mut self) {
            let _gone = fs::remove_dir_all(&self.0);
        }
    }

    impl Scene {
        async fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("hotr-content-{name}-{}", std::process::id()));
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("f"), "one").unwrap();
            let options = WatchOptions::new(vec![dir.clone()]);
            let filter = PathFilter::new(options.filter.clone(), options.trace.paths.clone());
            let mut content = Content::start(&options, filter, None).unwrap();
            // As if the file had been there for long.
            content.order(Job::Begin { since_ns: inode_clock_ns() + 1_000_000_000 });
            while !matches!(content.next().await, Some(Answer::Known(1))) {}
            Self(dir, content)
        }

        fn write(&self, text: &str) {
            fs::write(self.0.join("f"), text).unwrap();
        }

        /// What the file's change is found to be.
        async fn look(&mut self, when: When, undo: bool) -> Option<Vec<Kind>> {
            let touched = [(self.0.join("f"), Default::default())].into();
            let pending = Pending { touched, ..Pending::default() };
            self.1.order(Job::Look { pending, when, read_ns: i64::MAX, forget_rules: false, undo });
            loop {
                let found = match self.1.next().await {
                    Some(Answer::Judged { judged, .. }) => Some(judged),
                    Some(Answer::EarlyLook(found)) => found,
                    Some(_) => continue,
                    None => panic!("the thread has ended"),
                };
                return found.map(|judged| judged.batch.iter().map(|change| change.kind).collect());
            }
        }
    }

    #[tokio::test]
    async fn an_early_look_holds_unless_it_is_made_void() {
        let mut scene = Scene::new("early").await;
        scene.write("two");
        assert_eq!(scene.look(When::EarlyLook, false).await, Some(vec![Kind::Written]));
        assert_eq!(scene.look(When::Due, false).await, Some(vec![]), "it was told already");
        scene.write("three");
        assert_eq!(scene.look(When::EarlyLook, false).await, Some(vec![Kind::Written]));
        scene.write("two");
        assert_eq!(scene.look(When::EarlyLook, true).await, Some(vec![]), "as it was before the first look");
        scene.write("four");
        assert_eq!(scene.look(When::Due, true).await, Some(vec![Kind::Written]));
    }

    #[tokio::test]
    async fn a_large_tree_is_several_batches_and_each_file_is_in_one() {
        let mut scene = Scene::new("large").await;
        let mut made = BTreeSet::new();
        for dir in ["new", "new/a", "new/a/b", "new/c", "new/d", "new/e", "new/f"] {
            fs::create_dir(scene.0.join(dir)).unwrap();
            for file in 0..41 {
                let file = scene.0.join(dir).join(file.to_string());
                fs::write(&file, "text").unwrap();
                made.insert(file);
            }
        }
        let mut rest = Some(Box::new(Pending { dirs: vec![scene.0.join("new")], ..Pending::default() }));
        let (mut found, mut batches) = (BTreeSet::new(), 0);
        while let Some(pending) = rest.take() {
            let when = When::Overdue;
            let pending = *pending;
            scene.1.order(Job::Look { pending, when, read_ns: i64::MAX, forget_rules: false, undo: false });
            let (judged, more) = loop {
                match scene.1.next().await {
                    Some(Answer::Judged { judged, rest }) => break (judged, rest),
                    Some(_) => {}
                    None => panic!("the thread has ended"),
                }
            };
            assert!(judged.batch.len() <= MOST_IN_BATCH, "{}", judged.batch.len());
            for change in judged.batch {
                assert!(found.insert(change.path.clone()), "{} twice", change.path.display());
            }
            (rest, batches) = (more, batches + 1);
        }
        assert_eq!(found, made);
        assert!(batches >= made.len() / MOST_IN_BATCH, "{batches}");
    }

    #[tokio::test]
    async fn what_is_open_for_writing_is_not_told_early() {
        let mut scene = Scene::new("open").await;
        let writer = fs::File::options().append(true).open(scene.0.join("f")).unwrap();
        assert_eq!(scene.look(When::EarlyLook, false).await, None);
        drop(writer);
        scene.write("two");
        assert_eq!(scene.look(When::Due, false).await, Some(vec![Kind::Written]));
    }
}
