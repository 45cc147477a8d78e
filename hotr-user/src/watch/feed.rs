//! From reports to batches of confirmed changes: what one save touched comes out as one batch.
//!
//! In: the reports of a [`Session`], what audits found (`guard`), and the links on the way to the watched paths. Out:
//! [`Fed`]. A batch is looked at when nothing came for the debounce time and nothing holds it ([`Hold`]); it is held for
//! `settle_max` at most.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::WatchOptions;
use super::alarm::Alarm;
use super::filter::PathFilter;
use super::guard::Guard;
use super::hold::Hold;
use super::links::Links;
use crate::error::Error;
use crate::event::{Change, Channel, FileType, Op};
use crate::pipeline::confirm::baseline::Baseline;
use crate::pipeline::confirm::{Confirmed, Confirmer, Evidence, Kind, State};
use crate::report::Report;
use crate::source::inode_clock_ns;
use crate::trace::Session;

/// How long the start waits for the baseline.
const PATIENCE: Duration = Duration::from_millis(500);
/// When what holds a batch is looked at again: most writers close their file at once. The time doubles up to the last.
const FIRST_LOOK: Duration = Duration::from_millis(1);
const HOLD_LOOK: Duration = Duration::from_millis(20);

/// What a feed gives.
#[derive(Debug)]
pub(super) enum Fed {
    /// A report of the channels.
    Report(Report),
    /// Confirmed changes, at least one.
    Batch(Vec<Confirmed>),
    /// These changes were looked at and changed nothing.
    Nothing(Vec<PathBuf>),
    /// The state before the first change is known of this many files, and of all that will be.
    Known(usize),
    /// A sentence for stderr.
    Say(String),
}

/// What is known of a path of the batch.
#[derive(Debug, Default)]
struct Touched {
    /// The first that was told is that the name appeared.
    born: bool,
    old: Option<PathBuf>,
    seen_by: Vec<Channel>,
}

/// See the module.
pub(super) struct Feed {
    options: WatchOptions,
    session: Session,
    guard: Guard,
    links: Links,
    filter: PathFilter,
    pub(super) confirmer: Confirmer,
    baseline: Option<Baseline>,
    touched: BTreeMap<PathBuf, Touched>,
    /// Directories that appeared, went or got another name.
    dirs: Vec<PathBuf>,
    relinked: Vec<PathBuf>,
    first: Option<Instant>,
    due: Option<Instant>,
    alarm: Alarm,
    /// Until the next look at what holds a batch.
    look: Duration,
    out: VecDeque<Fed>,
}

impl Feed {
    /// Starts the channels, then takes the baseline.
    pub(super) async fn start(mut options: WatchOptions) -> Result<Self, Error> {
        options.trace.audited = options.polling.enabled;
        options.trace.at_once = true;
        let links = Links::new(options.trace.paths.clone());
        let mut session = Session::start(options.trace.clone())?;
        // Not before: what was changed while the channels started is part of the baseline, and nobody was told
        // `ready` yet.
        let since_ns = inode_clock_ns();
        let mut reports = session.pending();
        let guard = Guard::start(&mut session, &options.trace, &options.polling, &mut reports).await;
        let mut feed = Self {
            filter: PathFilter::new(options.filter.clone(), options.trace.paths.clone()),
            confirmer: Confirmer::new(options.confirm),
            options,
            session,
            guard,
            links,
            baseline: None,
            touched: BTreeMap::new(),
            dirs: Vec::new(),
            relinked: Vec::new(),
            first: None,
            due: None,
            alarm: Alarm::new(),
            look: FIRST_LOOK,
            out: VecDeque::new(),
        };
        feed.take_baseline(since_ns).await;
        feed.absorb(reports);
        Ok(feed)
    }

    async fn take_baseline(&mut self, since_ns: i64) {
        let mut filter = self.filter.clone();
        let recursive = self.options.trace.recursive;
        let roots = self.options.trace.paths.clone();
        let wanted = move |path: &Path, is_dir: bool| (recursive || !is_dir) && filter.wants(path, is_dir);
        let mut baseline = Baseline::start(roots, since_ns, self.options.confirm, wanted);
        let patience = if self.options.whole_baseline { Duration::MAX } else { PATIENCE };
        let ended = baseline.settle(&mut self.confirmer, patience).await;
        self.baseline = Some(baseline);
        if ended {
            self.baseline_ended();
        }
    }

    fn baseline_ended(&mut self) {
        self.baseline = None;
        self.out.push_back(Fed::Known(self.confirmer.len()));
    }

    /// The next of what there is; may be dropped and called again.
    pub(super) async fn next(&mut self) -> Result<Fed, Error> {
        loop {
            if let Some(fed) = self.out.pop_front() {
                return Ok(fed);
            }
            let due = self.due;
            tokio::select! {
                // What is due comes first: a storm of changes must hold neither batches nor audits back.
                biased;
                () = self.alarm.wait(due.unwrap_or_else(Instant::now)), if due.is_some() => self.settle()?,
                () = self.guard.wait() => self.look_around()?,
                reports = self.session.next() => {
                    let reports = reports?;
                    self.absorb(reports);
                }
                () = self.links.changed() => self.follow_links().await?,
                more = step(&mut self.baseline, &mut self.confirmer) => if !more { self.baseline_ended() },
            }
        }
    }

    /// The last reports.
    pub(super) fn finish(&mut self) -> Result<Vec<Report>, Error> {
        let mut reports = self.session.finish()?;
        if let Some(Report::Summary { changes, .. }) = reports.last_mut() {
            *changes += self.guard.found();
        }
        Ok(reports)
    }

    /// hotr itself put these files back: no audit need tell it.
    pub(super) fn own_changes(&mut self, changes: &[Confirmed]) {
        self.guard.own_changes(changes.iter().map(|change| change.path.clone()));
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
            }
            if !self.filter.wants(path, is_dir) {
                continue;
            }
            any = true;
            if is_dir && change.op != Op::Attrib {
                self.dirs.push(path.clone());
            }
            let is_new = !self.touched.contains_key(path);
            let touched = self.touched.entry(path.clone()).or_default();
            touched.born |= is_new && i == 0 && change.op == Op::Create;
            touched.old = change.old_path.clone().filter(|_| i == 0 && change.op == Op::Rename);
            touched.seen_by.extend(
                change
                    .seen_by
                    .iter()
                    .filter(|one| !touched.seen_by.contains(one))
                    .copied()
                    .collect::<Vec<_>>(),
            );
        }
        if any {
            self.wait_for_quiet(age(change));
        }
    }

    /// After a loss anything may have changed, and no audit can tell what: what is known is looked at again, and what is new is looked for.
    fn touch_all(&mut self) {
        self.dirs.extend(self.options.trace.paths.iter().cloned());
        self.wait_for_quiet(Duration::ZERO);
    }

    /// `age`: how long ago the change was made. It was quiet since then, as far as has been read.
    fn wait_for_quiet(&mut self, age: Duration) {
        let now = Instant::now();
        let first = *self.first.get_or_insert(now);
        let latest = first + self.options.settle_max.max(self.options.debounce);
        self.due = Some((now + self.options.debounce.saturating_sub(age)).min(latest.max(now)));
    }

    async fn follow_links(&mut self) -> Result<(), Error> {
        let moved = self.links.resolve();
        if moved.is_empty() {
            return Ok(());
        }
        // The channels are on what the links led to before. `finish` is not asked: its summary would be the run's.
        match Session::start(self.options.trace.clone()) {
            Ok(session) => self.session = session,
            Err(error) => {
                // It leads nowhere again already: the next change of the link will tell.
                self.out.push_back(Fed::Say(format!("follow a changed link: {error}")));
                return Ok(());
            }
        }
        self.out.push_back(Fed::Say(format!("{} leads elsewhere now: watching that", moved[0].display())));
        self.session.pending();
        self.relinked.extend(moved);
        self.touched.clear();
        self.dirs.clear();
        self.filter.forget_rules();
        self.confirmer.clear();
        // What changed before this moment is covered by the reload for the link.
        self.take_baseline(inode_clock_ns()).await;
        self.wait_for_quiet(Duration::ZERO);
        Ok(())
    }

    /// The time of the batch has come. On a busy machine that may be noticed before what was queued meanwhile was
    /// read: that first.
    fn settle(&mut self) -> Result<(), Error> {
        let reports = self.session.turn()?;
        self.absorb(reports);
        if self.due.is_some_and(|due| due <= Instant::now()) {
            self.judge();
        }
        Ok(())
    }

    /// The batch is due: looks at its paths, unless something holds it.
    fn judge(&mut self) {
        self.expand_dirs();
        let now = Instant::now();
        let waited = self.first.is_some_and(|first| now >= first + self.options.settle_max);
        if let Some(hold) = Hold::of(self.touched.keys().map(PathBuf::as_path)) {
            if !waited {
                self.due = Some(now + self.look);
                self.look = (self.look * 2).min(HOLD_LOOK);
                return;
            }
            let limit = humantime::format_duration(self.options.settle_max);
            self.out.push_back(Fed::Say(hold.overdue(&limit.to_string())));
        }
        self.first = None;
        self.due = None;
        self.look = FIRST_LOOK;
        let touched = std::mem::take(&mut self.touched);
        let mut batch: Vec<Confirmed> = self.relinked.drain(..).map(relinked).collect();
        let mut nothing = Vec::new();
        for (path, Touched { born, seen_by, .. }) in &touched {
            match self.confirmer.confirm(path, *born, seen_by) {
                Some(change) => batch.push(change),
                None => nothing.push(path.clone()),
            }
        }
        name_renames(&mut batch, &touched);
        if !batch.is_empty() {
            self.out.push_back(Fed::Batch(batch));
        } else if !nothing.is_empty() {
            self.out.push_back(Fed::Nothing(nothing));
        }
    }

    /// A directory that came or went brought or took its files, of which nobody told.
    fn expand_dirs(&mut self) {
        let mut dirs = std::mem::take(&mut self.dirs);
        dirs.sort_unstable();
        dirs.dedup_by(|below, above| below.starts_with(above));
        for dir in dirs {
            let known: Vec<PathBuf> = self.confirmer.below(&dir).map(Path::to_owned).collect();
            let mut pending = vec![dir];
            let mut found = known;
            while let Some(dir) = pending.pop() {
                let Ok(entries) = std::fs::read_dir(&dir) else { continue };
                for entry in entries.flatten() {
                    let (path, is_dir) = (entry.path(), entry.file_type().is_ok_and(|kind| kind.is_dir()));
                    if !self.filter.wants(&path, is_dir) {
                        continue;
                    }
                    if is_dir { pending.push(path) } else { found.push(path) }
                }
            }
            for path in found {
                self.touched.entry(path).or_default();
            }
        }
    }
}

async fn step(baseline: &mut Option<Baseline>, confirmer: &mut Confirmer) -> bool {
    match baseline {
        Some(baseline) => baseline.step(confirmer).await,
        None => std::future::pending().await,
    }
}

/// Time since a change; none where a report stands for several, or nobody knows when the kernel made it.
fn age(change: &Change) -> Duration {
    if change.writes > 1 || !change.seen_by.contains(&Channel::Ebpf) {
        return Duration::ZERO;
    }
    SystemTime::now().duration_since(change.time).unwrap_or_default()
}

fn relinked(path: PathBuf) -> Confirmed {
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

/// A new name is a rename when its old name has gone in the same batch.
fn name_renames(batch: &mut [Confirmed], touched: &BTreeMap<PathBuf, Touched>) {
    let gone: Vec<PathBuf> = batch
        .iter()
        .filter(|change| change.kind == Kind::Removed)
        .map(|change| change.path.clone())
        .collect();
    for change in batch.iter_mut().filter(|change| change.kind == Kind::Created) {
        let old = touched.get(&change.path).and_then(|touched| touched.old.as_ref());
        if old.is_some_and(|old| gone.contains(old)) {
            change.kind = Kind::Renamed;
        }
    }
}
