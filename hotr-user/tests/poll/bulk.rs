//! Files that are read in bulk, on filesystems of their own.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hotr_user::options::TierChoice;
use hotr_user::source::difference::Kind;
use hotr_user::source::ebpf::{ChildReader, EbpfOptions, EbpfSource};
use hotr_user::source::poll::{PollOptions, Poller};

use super::naive::Naive;
use super::{Dice, Scratch, audit, next_tick, options, plain};

/// A filesystem of its own.
struct Image {
    scratch: Scratch,
    children: Option<Arc<ChildReader>>,
}

impl Image {
    /// Those whose files are read in bulk; none without root, their mkfs or loop devices.
    fn each() -> impl Iterator<Item = Self> {
        ["xfs", "ext4", "tmpfs"].into_iter().filter_map(Self::new)
    }

    fn new(kind: &str) -> Option<Self> {
        let scratch = Scratch::new();
        let (image, at) = (scratch.0.join("image"), scratch.0.join("mounted"));
        fs::File::create(&image).and_then(|file| file.set_len(400 << 20)).expect("room for an image");
        fs::create_dir(&at).expect("a readable scratch directory");
        let run = |command: &mut Command| command.output().is_ok_and(|output| output.status.success());
        let made = if kind == "tmpfs" {
            run(Command::new("mount").args(["-t", "tmpfs", "hotr-poll"]).arg(&at))
        } else {
            run(Command::new(format!("mkfs.{kind}")).arg("-q").arg(&image))
                && run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&at))
        };
        if !made {
            eprintln!("not run: root, mkfs.{kind} and loop devices are needed");
        }
        let children = if kind == "tmpfs" { child_reader() } else { None };
        made.then_some(Self { scratch, children })
    }

    fn poller(&self) -> Poller {
        let options = PollOptions { children: self.children.clone(), ..options() };
        Poller::new(&[self.dir()], options).expect("a readable scratch directory")
    }

    /// Makes so many files; the path of each.
    fn files(&self, count: usize) -> impl Fn(usize) -> PathBuf + Sync + use<> {
        let root = self.dir();
        let file = move |number: usize| root.join(format!("file-{number:03}"));
        (0..count).for_each(|number| fs::write(file(number), "x").expect("room on the image"));
        file
    }

    /// Looks for changes of an unchanged directory with so many files, all of which are read in bulk.
    fn nothing_new(&self, poller: &mut Poller, files: u64) {
        let Some(children) = &self.children else {
            assert!(audit(poller).differences.is_empty());
            return;
        };
        let (before, deadline) = (children.files_returned(), Instant::now() + Duration::from_secs(20));
        // What was written in the tick of a look is queried by name in the next one.
        while children.files_returned() == before {
            assert!(Instant::now() < deadline, "no file was returned");
            assert!(audit(poller).differences.is_empty());
        }
        assert_eq!(children.files_returned() - before, files);
    }

    fn dir(&self) -> PathBuf {
        self.scratch.0.join("mounted")
    }
}

/// Of a tmpfs, whose files are read from the kernel's memory.
fn child_reader() -> Option<Arc<ChildReader>> {
    let options = EbpfOptions { tier: TierChoice::Auto, ring_bytes: 1 << 12, window_ns: 0, sizes: &[] };
    match EbpfSource::load(options) {
        Ok((mut source, _)) => Some(source.child_reader().expect("the kernel takes the program")),
        Err(error) => {
            eprintln!("not run with eBPF: {error}");
            None
        }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.dir()).status();
    }
}

/// Enough files in one directory that they are read in bulk.
#[test]
fn files_that_are_asked_for_in_bulk_are_told_as_a_full_comparison_tells_them() {
    for image in Image::each() {
        let root = image.dir();
        let file = |number: usize| root.join(format!("file-{number:03}"));
        (0..300).for_each(|number| fs::write(file(number), [number as u8]).expect("room on the image"));
        next_tick(&root);
        let mut before = Naive::read(&root);
        let (mut poller, mut dice) = (image.poller(), Dice(7));
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
        let file = image.files(100);
        fs::hard_link(file(50), file(200)).expect("hard links");
        next_tick(&root);
        let mut poller = image.poller();
        image.nothing_new(&mut poller, 101);
        fs::write(file(50), "more").expect("room on the image");
        let told = plain(audit(&mut poller).differences, &root);
        assert_eq!(told, [("Content".to_owned(), file(50)), ("Content".to_owned(), file(200))]);
    }
}

/// An inode does not show that another file was mounted over it.
#[test]
fn a_mount_on_a_file_is_found_although_files_are_asked_for_in_bulk() {
    for image in Image::each() {
        let root = image.dir();
        let file = image.files(100);
        next_tick(&root);
        let mut poller = image.poller();
        image.nothing_new(&mut poller, 100);
        let cover = image.scratch.0.join("image");
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

/// Names appear and disappear while their directory is read; each of the files that stay is written once in that time.
#[test]
fn what_changes_while_files_are_asked_for_in_bulk_is_told() {
    const STAYING: usize = 400;
    for image in Image::each() {
        let root = image.dir();
        let file = image.files(STAYING);
        next_tick(&root);
        let mut poller = image.poller();
        image.nothing_new(&mut poller, STAYING as u64);
        let mut written = BTreeSet::new();
        let mut look = |poller: &mut Poller| {
            let told = audit(poller).differences.into_iter();
            written.extend(told.filter(|one| one.kind == Kind::Content).map(|one| one.path));
        };
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for number in 0..STAYING {
                    let (one, other) = (root.join(format!("a-{number}")), root.join(format!("z-{number}")));
                    fs::write(&one, "x").expect("room on the image");
                    fs::rename(&one, &other).expect("a rename");
                    fs::write(file(number), "more").expect("room on the image");
                    fs::remove_file(&other).expect("a removal");
                }
            });
            while !writer.is_finished() {
                look(&mut poller);
            }
        });
        look(&mut poller);
        let missed: Vec<_> = (0..STAYING).map(&file).filter(|path| !written.contains(path)).collect();
        assert!(missed.is_empty(), "{missed:?}");
    }
}
