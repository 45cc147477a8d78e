//! The poller against real directories: its differences are those of a full comparison, whatever was done to the tree.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use hotr_user::source::difference::{Difference, Kind};
use hotr_user::source::poll::{Audit, PollOptions, Poller, Progress};

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

/// A filesystem of its own.
struct Image(Scratch);

impl Image {
    /// Those whose files are asked for in bulk; none without root, their mkfs or loop devices.
    fn each() -> impl Iterator<Item = Self> {
        ["xfs", "ext4"].into_iter().filter_map(Self::new)
    }

    fn new(kind: &str) -> Option<Self> {
        let scratch = Scratch::new();
        let (image, at) = (scratch.0.join("image"), scratch.0.join("mounted"));
        fs::File::create(&image).and_then(|file| file.set_len(400 << 20)).expect("room for an image");
        fs::create_dir(&at).expect("a readable scratch directory");
        let run = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
        let made = run(Command::new(format!("mkfs.{kind}")).arg("-q").arg(&image))
            && run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&at));
        if !made {
            eprintln!("not run: root, mkfs.{kind} and loop devices are needed");
        }
        made.then_some(Self(scratch))
    }

    fn dir(&self) -> PathBuf {
        self.0.0.join("mounted")
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.dir()).status();
    }
}

/// Enough files in one directory that they are asked for in bulk.
#[test]
fn files_that_are_asked_for_in_bulk_are_told_as_a_full_comparison_tells_them() {
    for image in Image::each() {
        let root = image.dir();
        let file = |number: usize| root.join(format!("file-{number:03}"));
        (0..300).for_each(|number| fs::write(file(number), [number as u8]).expect("room on the image"));
        next_tick(&root);
        let mut before = Naive::read(&root);
        let (mut poller, mut dice) = (poller(&root), Dice(7));
        let mut told = 0;
        for round in 0..40 {
            for _ in 0..dice.roll(6) {
                let (one, other) = (file(dice.roll(300)), file(dice.roll(300)));
                let done = match dice.roll(6) {
                    0 => fs::write(&one, [0]),
                    1 => fs::File::options()
                        .append(true)
                        .open(&one)
                        .and_then(|mut file| file.write_all(b"more")),
                    2 => fs::set_permissions(&one, fs::Permissions::from_mode(0o600 + round % 8)),
                    3 => fs::File::open(&one).and_then(|file| file.set_modified(std::time::UNIX_EPOCH)),
                    4 => fs::rename(&one, &other),
                    _ => fs::remove_file(&other).and_then(|()| fs::copy(&one, &other).map(drop)),
                };
                // One of them may be gone: then nothing is done.
                let _ = done;
            }
            next_tick(&root);
            let now = Naive::read(&root);
            let expected = now.differences(&before, &root);
            told += expected.len();
            assert_eq!(plain(audit(&mut poller).differences, &root), expected, "round {round}");
            before = now;
        }
        assert!(told > 40, "{told} differences");
    }
}

/// One inode of a bulk answers for all its names.
#[test]
fn every_name_of_a_file_is_told_although_files_are_asked_for_in_bulk() {
    for image in Image::each() {
        let root = image.dir();
        let file = |number: usize| root.join(format!("file-{number:03}"));
        (0..100).for_each(|number| fs::write(file(number), "x").expect("room on the image"));
        fs::hard_link(file(50), file(200)).expect("hard links");
        next_tick(&root);
        let mut poller = poller(&root);
        assert!(audit(&mut poller).differences.is_empty());
        fs::write(file(50), "more").expect("room on the image");
        let told = plain(audit(&mut poller).differences, &root);
        assert_eq!(told, [("Content".to_owned(), file(50)), ("Content".to_owned(), file(200))]);
    }
}

/// An inode does not tell that another file was mounted over it.
#[test]
fn a_mount_on_a_file_is_found_although_files_are_asked_for_in_bulk() {
    for image in Image::each() {
        let root = image.dir();
        let file = |number: usize| root.join(format!("file-{number:03}"));
        (0..100).for_each(|number| fs::write(file(number), "x").expect("room on the image"));
        next_tick(&root);
        let mut poller = poller(&root);
        assert!(audit(&mut poller).differences.is_empty());
        let cover = image.0.0.join("image");
        let mounted = Command::new("mount").arg("--bind").args([&cover, &file(50)]).status();
        assert!(mounted.expect("mount runs").success());
        let covered = audit(&mut poller).differences;
        let again = audit(&mut poller).differences;
        let gone = Command::new("umount").arg(file(50)).status();
        assert!(gone.expect("umount runs").success());
        let bare = audit(&mut poller).differences;
        for differences in [covered, bare] {
            assert!(!differences.is_empty());
            assert!(differences.iter().all(|difference| difference.path == file(50)), "{differences:?}");
        }
        assert!(again.is_empty(), "{again:?}");
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
