//! The poller against real directories: its differences are those of a full comparison, whatever was done to the tree.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use hotr_user::source::difference::{Difference, Kind};
use hotr_user::source::poll::{Audit, PollOptions, Poller, Progress};

#[path = "poll/bulk.rs"]
mod bulk;
#[path = "poll/cases.rs"]
mod cases;
#[path = "poll/naive.rs"]
mod naive;

use naive::Naive;

struct Scratch(PathBuf);

impl Scratch {
    fn below(folder: &Path) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!("hotr-poll-{}-{number}", std::process::id()));
        fs::create_dir(&path).expect("a scratch directory");
        Self(path)
    }

    fn new() -> Self {
        Self::below(&std::env::temp_dir())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn options() -> PollOptions {
    PollOptions { budget: None, idle: false, threads: 2, ..PollOptions::default() }
}

fn poller(root: &Path) -> Poller {
    Poller::new(&[root.to_owned()], options()).expect("a readable scratch directory")
}

fn audit(poller: &mut Poller) -> Audit {
    poller.audit(&AtomicBool::new(false), &Progress::default()).expect("a readable scratch directory")
}

fn plain(differences: Vec<Difference>, root: &Path) -> Vec<(String, PathBuf)> {
    let mut plain: Vec<_> = (differences.into_iter().filter(|difference| difference.path != *root))
        .map(|difference| (format!("{:?}", difference.kind), difference.path))
        .collect();
    plain.sort();
    plain
}

/// Waits until a new change gets another time than all before it.
fn next_tick(root: &Path) {
    let probe = root.with_extension("tick");
    let time = || {
        fs::write(&probe, "x").expect("a readable scratch directory");
        let meta = fs::metadata(&probe).expect("a readable scratch directory");
        (meta.ctime(), meta.ctime_nsec() / 10_000_000)
    };
    let first = time();
    while time() == first {}
    fs::remove_file(probe).expect("a readable scratch directory");
}

/// xorshift64*: the same operations for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize) % sides
    }

    fn path(&mut self, root: &Path) -> PathBuf {
        let depth = 1 + self.roll(4);
        (0..depth).fold(root.to_owned(), |path, _| path.join(["a", "b", "c", "d", "e"][self.roll(5)]))
    }

    /// Many of them fail: the name is taken, or not there.
    fn operation(&mut self, root: &Path) {
        let (one, other) = (self.path(root), self.path(root));
        let text = "x".repeat(self.roll(3));
        let _ = match self.roll(10) {
            0 | 1 => fs::create_dir_all(one),
            2 | 3 => fs::write(one, text),
            4 | 5 => fs::rename(one, other),
            6 => fs::remove_file(one),
            7 => fs::remove_dir_all(one),
            8 => fs::set_permissions(one, fs::Permissions::from_mode(0o700 | self.roll(8) as u32)),
            _ => symlink(other, one),
        };
    }
}

fn random_operations(folder: &Path, seed: u64) {
    let scratch = Scratch::below(folder);
    let root = &scratch.0;
    let mut dice = Dice(seed);
    (0..60).for_each(|_| dice.operation(root));
    next_tick(root);
    let mut before = Naive::read(root);
    let mut poller = poller(root);
    for round in 0..12 {
        let count = dice.roll(12);
        (0..count).for_each(|_| dice.operation(root));
        next_tick(root);
        let now = Naive::read(root);
        let expected = now.differences(&before, root);
        let found = audit(&mut poller);
        assert!(found.is_complete && found.unreadable.is_empty());
        assert_eq!(plain(found.differences, root), expected, "seed {seed}, round {round}");
        assert_eq!(found.files, now.len() as u64, "seed {seed}, round {round}");
        assert_eq!(found.files, poller.files());
        before = now;
    }
}

#[test]
fn random_operations_are_told_as_a_full_comparison_tells_them() {
    for seed in 1..40 {
        random_operations(&std::env::temp_dir(), seed * 0x9e37_79b9);
    }
}

#[test]
fn random_operations_on_tmpfs_as_well() {
    for seed in 100..140 {
        random_operations(Path::new("/dev/shm"), seed * 0x9e37_79b9);
    }
}

#[test]
fn a_file_replaced_by_one_with_the_same_inode_number_size_and_mtime_is_found() {
    let scratch = Scratch::new();
    let path = scratch.0.join("f");
    fs::write(&path, "old").unwrap();
    let before = fs::metadata(&path).unwrap();
    let mut poller = poller(&scratch.0);
    // Nothing waits here: both may be of one tick.
    fs::remove_file(&path).unwrap();
    fs::write(&path, "new").unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(before.modified().unwrap()).unwrap();
    let after = fs::metadata(&path).unwrap();
    assert_eq!(
        (before.mtime(), before.mtime_nsec(), before.len()),
        (after.mtime(), after.mtime_nsec(), after.len())
    );
    let found = plain(audit(&mut poller).differences, &scratch.0);
    assert_eq!(found, [("Created".to_owned(), path)], "inode {} then {}", before.ino(), after.ino());
}

#[test]
fn excluded_names_are_not_there_and_other_directories_are_not_entered_unless_asked() {
    let scratch = Scratch::new();
    fs::create_dir_all(scratch.0.join("keep/skip")).unwrap();
    let exclude =
        globset::GlobSetBuilder::new().add(globset::Glob::new("keep/skip").unwrap()).build().unwrap();
    let roots = [scratch.0.clone()];
    let mut without = Poller::new(&roots, PollOptions { exclude, ..options() }).unwrap();
    let mut flat = Poller::new(&roots, PollOptions { recursive: false, ..options() }).unwrap();
    fs::write(scratch.0.join("keep/skip/f"), "x").unwrap();
    fs::write(scratch.0.join("keep/g"), "x").unwrap();
    let created = |path: &str| ("Created".to_owned(), scratch.0.join(path));
    assert_eq!(plain(audit(&mut without).differences, &scratch.0), [created("keep/g")]);
    assert_eq!(plain(audit(&mut flat).differences, &scratch.0), []);
    fs::write(scratch.0.join("h"), "x").unwrap();
    assert_eq!(plain(audit(&mut flat).differences, &scratch.0), [created("h")]);
}

#[test]
fn a_root_may_vanish_come_back_as_a_file_and_as_a_directory() {
    let scratch = Scratch::new();
    let root = scratch.0.join("root");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("f"), "x").unwrap();
    let mut poller = poller(&root);
    let told = |poller: &mut Poller| -> Vec<(Kind, PathBuf)> {
        audit(poller).differences.into_iter().map(|difference| (difference.kind, difference.path)).collect()
    };
    fs::remove_dir_all(&root).unwrap();
    assert_eq!(told(&mut poller), [(Kind::Removed, root.join("f")), (Kind::Removed, root.clone())]);
    assert_eq!(told(&mut poller), []);
    fs::write(&root, "file").unwrap();
    assert_eq!(told(&mut poller), [(Kind::Created, root.clone())]);
    fs::remove_file(&root).unwrap();
    fs::create_dir(&root).unwrap();
    fs::write(root.join("g"), "x").unwrap();
    let expected =
        [(Kind::Removed, root.clone()), (Kind::Created, root.clone()), (Kind::Created, root.join("g"))];
    assert_eq!(told(&mut poller), expected);
}

#[test]
fn a_cancelled_audit_loses_nothing() {
    let scratch = Scratch::new();
    for dir in 0..4 {
        fs::create_dir(scratch.0.join(dir.to_string())).unwrap();
    }
    let mut poller = poller(&scratch.0);
    for dir in 0..4 {
        fs::write(scratch.0.join(format!("{dir}/f")), "x").unwrap();
    }
    let cancelled = poller.audit(&AtomicBool::new(true), &Progress::default()).unwrap();
    assert!(!cancelled.is_complete);
    let mut all = plain(cancelled.differences, &scratch.0);
    all.extend(plain(audit(&mut poller).differences, &scratch.0));
    all.sort();
    let expected: Vec<_> =
        (0..4).map(|dir| ("Created".to_owned(), scratch.0.join(format!("{dir}/f")))).collect();
    assert_eq!(all, expected);
}

#[test]
fn a_renewed_state_is_that_of_an_audit() {
    let scratch = Scratch::new();
    fs::create_dir_all(scratch.0.join("gone/below")).unwrap();
    fs::create_dir(scratch.0.join("here")).unwrap();
    let mut poller = poller(&scratch.0);
    fs::rename(scratch.0.join("gone"), scratch.0.join("here/moved")).unwrap();
    fs::write(scratch.0.join("here/f"), "x").unwrap();
    next_tick(&scratch.0);
    poller.renew(&AtomicBool::new(false), &Progress::default());
    assert_eq!(poller.files(), 5, "the root, and four names");
    assert_eq!(plain(audit(&mut poller).differences, &scratch.0), []);
    fs::write(scratch.0.join("here/g"), "x").unwrap();
    let new = plain(audit(&mut poller).differences, &scratch.0);
    assert_eq!(new, [("Created".to_owned(), scratch.0.join("here/g"))]);
}

#[test]
fn a_part_can_be_looked_at_alone() {
    let scratch = Scratch::new();
    fs::create_dir_all(scratch.0.join("a/b")).unwrap();
    fs::create_dir(scratch.0.join("c")).unwrap();
    let mut poller = poller(&scratch.0);
    for path in ["a/b/f", "a/g", "c/h"] {
        fs::write(scratch.0.join(path), "x").unwrap();
    }
    let cancel = AtomicBool::new(false);
    let mut part = |path: &str| {
        let audit = poller.audit_paths(&[scratch.0.join(path)], &cancel).unwrap();
        plain(audit.differences, &scratch.0)
            .into_iter()
            .filter(|(kind, _)| kind == "Created")
            .map(|(_, path)| path)
            .collect::<Vec<_>>()
    };
    assert_eq!(part("a"), [scratch.0.join("a/g")]);
    assert_eq!(part("c/h"), [scratch.0.join("c/h")]);
    assert_eq!(part("a"), [] as [PathBuf; 0]);
    let rest = plain(audit(&mut poller).differences, &scratch.0);
    assert_eq!(rest, [("Created".to_owned(), scratch.0.join("a/b/f"))]);
}

/// File system access of this thread, and of those it starts, as a user without rights; a no-op for such a user.
fn as_nobody<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: takes and gives numbers only, and concerns this thread alone.
    let before = unsafe { libc::setfsuid(65534) };
    let result = work();
    // SAFETY: as above.
    unsafe { libc::setfsuid(before.cast_unsigned()) };
    result
}

#[test]
fn an_unreadable_directory_is_told_and_stays_as_it_was() {
    let scratch = Scratch::new();
    let closed = scratch.0.join("closed");
    fs::create_dir(&closed).unwrap();
    fs::write(closed.join("f"), "x").unwrap();
    let mut poller = poller(&scratch.0);
    let mode = |mode| fs::set_permissions(&closed, fs::Permissions::from_mode(mode)).unwrap();
    mode(0o000);
    fs::write(closed.join("g"), "x").or_else(|_| fs::write(scratch.0.join("g"), "x")).unwrap();
    let found = as_nobody(|| audit(&mut poller));
    let told: Vec<_> = found.unreadable.iter().map(|one| (one.path.clone(), one.error.kind())).collect();
    assert_eq!(told, [(closed.clone(), std::io::ErrorKind::PermissionDenied)]);
    assert!(found.differences.iter().all(|one| one.kind != Kind::Removed), "{:?}", found.differences);
    mode(0o755);
    fs::write(closed.join("h"), "x").unwrap();
    let found = audit(&mut poller);
    assert!(found.unreadable.is_empty());
    let created: Vec<_> = found.differences.iter().filter(|one| one.kind == Kind::Created).collect();
    assert!(created.iter().any(|one| one.path == closed.join("h")), "{created:?}");
    assert!(found.differences.iter().all(|one| one.kind != Kind::Removed), "{:?}", found.differences);
}

#[test]
fn roots_come_and_go_and_the_others_stay_known() {
    let scratch = Scratch::new();
    let [one, two, three] = ["one", "two", "three"].map(|name| scratch.0.join(name));
    for dir in [&one, &two, &three] {
        fs::create_dir_all(dir.join("sub")).unwrap();
        fs::write(dir.join("sub/f"), "1").unwrap();
    }
    let mut poller = poller(&one);
    let set = |poller: &mut Poller, roots: &[&PathBuf]| {
        let roots: Vec<PathBuf> = roots.iter().map(|root| (*root).clone()).collect();
        poller.set_roots(&roots, &AtomicBool::new(false), &Progress::default()).unwrap();
    };
    let changed = |poller: &mut Poller| {
        let differences = audit(poller).differences.into_iter();
        let mut paths: Vec<PathBuf> =
            differences.filter(|one| one.kind == Kind::Content).map(|one| one.path).collect();
        paths.sort();
        paths
    };
    let write = |text: &str| [&one, &two, &three].map(|dir| fs::write(dir.join("sub/f"), text).unwrap());
    // A difference of a root that stays is found by the audit after roots came, before it and behind it.
    write("two, longer");
    set(&mut poller, &[&three, &one, &two]);
    assert_eq!(poller.files(), 9);
    assert_eq!(changed(&mut poller), [one.join("sub/f")]);
    write("three");
    set(&mut poller, &[&two, &three]);
    assert_eq!(poller.files(), 6);
    assert_eq!(changed(&mut poller), [three.join("sub/f"), two.join("sub/f")]);
    set(&mut poller, &[]);
    write("four, longer");
    assert_eq!((poller.files(), audit(&mut poller).differences), (0, Vec::new()));
    set(&mut poller, &[&one]);
    assert_eq!(audit(&mut poller).differences, Vec::new());
    write("five");
    assert_eq!(changed(&mut poller), [one.join("sub/f")]);
}
