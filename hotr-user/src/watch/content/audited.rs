//! The model of audits: whatever the channels reported, and whatever of it was lost on the way to the confirmer, after
//! an audit the command was run for what is on disk.
//!
//! Random changes are made in a small tree. Each is reported to the thread that reads files, or lost. The poller audits
//! between them, and the channels count as having reported everything it finds: the worst that a ledger can say.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::*;
use crate::source::inode_clock_ns;
use crate::source::poll::{PollOptions, Poller, Progress};
use hotr_events::{Change, Channel};

/// Changes of a run; a longer one by hand.
fn rounds() -> u32 {
    std::env::var("HOTR_MODEL_ROUNDS").ok().and_then(|word| word.parse().ok()).unwrap_or(150)
}

/// Numbers that depend on nothing but the seed.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }
}

/// What one change concerns, as the feed would have it.
#[derive(Default)]
struct Concerned {
    files: Vec<PathBuf>,
    dirs: Vec<PathBuf>,
}

struct Model {
    dir: PathBuf,
    content: Content,
    poller: Poller,
    numbers: Numbers,
    pending: Pending,
    /// What the command was last run for.
    ran: BTreeMap<PathBuf, String>,
    next: u32,
}

impl Drop for Model {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.dir);
    }
}

/// What is on disk.
fn tree(dir: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            found.extend(tree(&entry.path()));
        } else {
            found.insert(entry.path(), fs::read_to_string(entry.path()).unwrap());
        }
    }
    found
}

impl Model {
    async fn new(seed: u64) -> Self {
        let dir = std::env::temp_dir().join(format!("hotr-audited-{seed}-{}", std::process::id()));
        for (name, text) in [("d0/a", "0a"), ("d0/b", "0b"), ("d1/a", "1a"), ("d1/c", "1c"), ("a", "a")] {
            fs::create_dir_all(dir.join(name).parent().unwrap()).unwrap();
            fs::write(dir.join(name), text).unwrap();
        }
        let options = WatchOptions::new(vec![dir.clone()]);
        let filter = PathFilter::new(options.filter.clone(), options.trace.paths.clone());
        let mut content = Content::start(&options, filter, None).unwrap();
        content.order(Job::Begin { since_ns: inode_clock_ns() + 1_000_000_000 });
        while !matches!(content.next().await, Some(Answer::Known(5))) {}
        let poller =
            Poller::new(std::slice::from_ref(&dir), PollOptions { budget: None, ..PollOptions::default() });
        let (ran, poller) = (tree(&dir), poller.unwrap());
        Self { dir, content, poller, numbers: Numbers(seed), pending: Pending::default(), ran, next: 0 }
    }

    fn path(&mut self) -> PathBuf {
        let names = ["a", "b", "c", "d0", "d1", "d2", "d0/a", "d0/b", "d1/a", "d1/c", "d2/a", "d2/b"];
        self.dir.join(names[self.numbers.below(names.len())])
    }

    /// Makes a change, if it can be made.
    fn change(&mut self) -> Concerned {
        let (one, other) = (self.path(), self.path());
        let what = self.numbers.below(6);
        let is_done = match what {
            0 | 1 => {
                self.next += 1;
                fs::write(&one, self.next.to_string()).is_ok()
            }
            2 => fs::remove_file(&one).is_ok(),
            3 => fs::create_dir(&one).is_ok() || fs::remove_dir(&one).is_ok(),
            4 => fs::rename(&one, &other).is_ok(),
            _ => renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE).is_ok(),
        };
        let names: Vec<PathBuf> = match is_done {
            true if what < 4 => vec![one],
            true => vec![one, other],
            false => Vec::new(),
        };
        Concerned { files: names.clone(), dirs: names }
    }

    fn apply(&mut self, told: Concerned) {
        for file in told.files {
            self.pending.touch_by(file, Channel::Ebpf);
        }
        self.pending.dirs.extend(told.dirs);
    }

    /// The batch is due, and the command is run for what it says.
    async fn look(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        self.content.order(Job::Look {
            pending,
            when: When::Overdue,
            read_ns: i64::MAX,
            forget_rules: false,
            undo: false,
        });
        loop {
            match self.content.next().await.expect("the thread goes on") {
                Answer::Judged { judged, .. } => {
                    let disk = tree(&self.dir);
                    for change in judged.batch {
                        match disk.get(&change.path) {
                            Some(text) => self.ran.insert(change.path.clone(), text.clone()),
                            None => self.ran.remove(&change.path),
                        };
                    }
                    return;
                }
                answer => self.received(answer),
            }
        }
    }

    fn received(&mut self, answer: Answer) {
        if let Answer::Unconfirmed(found) = answer {
            found.paths.into_iter().for_each(|path| self.pending.touch_by(path, Channel::Poll));
        }
    }

    fn audit(&mut self) -> Vec<Change> {
        let audit = self.poller.audit(&AtomicBool::new(false), &Progress::default()).unwrap();
        let changes = audit.differences.into_iter();
        changes.map(|difference| difference.into_change(Channel::Poll, SystemTime::now())).collect()
    }

    /// Everything that an audit found counts as reported, and as not lost.
    async fn verify(&mut self, found: Vec<Change>) {
        let mut names = ReportedNames::default();
        found.into_iter().for_each(|change| names.add(change));
        self.content.order(Job::Verify(names));
        loop {
            match self.content.next().await.expect("the thread goes on") {
                answer @ Answer::Unconfirmed(_) => return self.received(answer),
                answer => self.received(answer),
            }
        }
    }
}

#[tokio::test]
async fn after_an_audit_the_command_was_run_for_what_is_there() {
    let mut lost = 0;
    for seed in 0..4 {
        let mut model = Model::new(seed).await;
        for round in 0..rounds() {
            for _ in 0..=model.numbers.below(4) {
                let told = model.change();
                if model.numbers.below(2) == 0 {
                    model.apply(told);
                }
                if model.numbers.below(3) == 0 {
                    model.look().await;
                }
            }
            if model.numbers.below(3) == 0 {
                // Changes between the look of an audit and its end.
                let found = model.audit();
                let told = model.change();
                if model.numbers.below(2) == 0 {
                    model.apply(told);
                    model.look().await;
                }
                model.verify(found).await;
            }
            if model.numbers.below(3) > 0 {
                continue;
            }
            model.look().await;
            lost += usize::from(model.ran != tree(&model.dir));
            let found = model.audit();
            model.verify(found).await;
            model.look().await;
            let (ran, disk) = (&model.ran, tree(&model.dir));
            assert_eq!(*ran, disk, "seed {seed}, round {round}");
        }
    }
    assert!(lost > 20, "the audits had something to find: {lost}");
}

#[tokio::test]
async fn what_was_confirmed_and_went_back_unheard_is_found_though_the_poller_sees_no_difference() {
    let mut model = Model::new(100).await;
    let (d0, d1, aside) = (model.dir.join("d0"), model.dir.join("d1"), model.dir.join("aside"));
    let swap = || {
        fs::rename(&d0, &aside).unwrap();
        fs::rename(&d1, &d0).unwrap();
        fs::rename(&aside, &d1).unwrap();
    };
    let found = model.audit();
    model.verify(found).await;
    swap();
    model.apply(Concerned { files: Vec::new(), dirs: vec![d0.clone(), d1.clone()] });
    model.look().await;
    assert_eq!(model.ran, tree(&model.dir));
    swap();
    let found = model.audit();
    let files: BTreeSet<&PathBuf> = found
        .iter()
        .filter(|change| change.op != hotr_events::Op::Attrib)
        .map(|change| &change.path)
        .collect();
    assert!(files.iter().all(|path| !path.ends_with("a")), "no file differs from the last look: {files:?}");
    model.verify(found).await;
    model.look().await;
    assert_eq!(model.ran, tree(&model.dir));
}

#[tokio::test]
async fn what_changed_between_the_two_first_looks_is_found() {
    let mut model = Model::new(101).await;
    fs::remove_file(model.dir.join("d0/a")).unwrap();
    fs::write(model.dir.join("d1/a"), "other").unwrap();
    fs::write(model.dir.join("new"), "new").unwrap();
    let options = PollOptions { budget: None, ..PollOptions::default() };
    model.poller = Poller::new(std::slice::from_ref(&model.dir), options).unwrap();
    let found = model.audit();
    assert!(found.is_empty(), "{found:?}");
    model.verify(found).await;
    model.look().await;
    assert_eq!(model.ran, tree(&model.dir));
}
