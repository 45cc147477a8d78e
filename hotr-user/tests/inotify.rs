//! The inotify channel against this machine's kernel: every case waits on the descriptor or on a condition.

#[path = "inotify/roots.rs"]
mod roots;
#[path = "inotify/support.rs"]
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use hotr_events::LossReason;
use hotr_events::Op;
use hotr_user::pipeline::inotify_changes::EventTranslator;
use hotr_user::source::difference::Kind;
use hotr_user::source::inotify::{InotifyEvent, InotifyOptions, mask};
use hotr_user::source::poll::{PollOptions, Poller, Progress};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use support::{Scratch, drain, drain_until, heard, inode_clock, is_watched, source, told};

#[test]
fn the_operations_of_a_file_are_told_in_order() {
    let scratch = Scratch::new();
    let (file, other) = (scratch.0.join("f"), scratch.0.join("g"));
    let mut source = source(&scratch.0, InotifyOptions::default());
    fs::write(&file, "x").unwrap();
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    fs::rename(&file, &other).unwrap();
    fs::remove_file(&other).unwrap();
    assert_eq!(
        told(&mut source),
        [
            (Op::Create, file.clone(), None),
            (Op::Write, file.clone(), None),
            (Op::Attrib, file.clone(), None),
            (Op::Rename, other.clone(), Some(file)),
            (Op::Remove, other, None),
        ]
    );
    assert_eq!(source.take_lost(), None);
}

#[test]
fn a_file_written_in_a_directory_made_a_moment_ago_is_always_found() {
    let scratch = Scratch::new();
    let mut source = source(&scratch.0, InotifyOptions::default());
    let root = scratch.0.clone();
    let files: BTreeSet<PathBuf> = (0..200).map(|n| root.join(format!("d{n}/a/b/f"))).collect();
    let wanted = files.clone();
    let writer = std::thread::spawn(move || {
        for file in files {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "x").unwrap();
        }
    });
    let found = |events: &[InotifyEvent]| {
        let created = events.iter().filter(|event| event.is(mask::CREATE)).map(|event| &event.path);
        created.filter(|path| wanted.contains(*path)).collect::<BTreeSet<_>>().len() == 200
    };
    let events = drain_until(&mut source, found);
    writer.join().unwrap();
    let mut created: Vec<_> = events.iter().filter(|event| event.is(mask::CREATE)).map(|e| &e.path).collect();
    created.sort();
    let total = created.len();
    created.dedup();
    assert_eq!(total, created.len(), "nothing is told as created twice");
    assert_eq!(total, 200 * 4);
    assert_eq!(source.take_lost(), None);
}

#[test]
fn a_new_directory_is_read_after_it_is_watched() {
    let scratch = Scratch::new();
    let mut source = source(&scratch.0, InotifyOptions::default());
    let deep = scratch.dir("a/b");
    fs::write(deep.join("f"), "x").unwrap();
    let events = drain(&mut source);
    let synthetic: Vec<_> = events.iter().filter(|event| event.synthetic).map(|event| &event.path).collect();
    assert_eq!(synthetic, [&scratch.0.join("a/b"), &deep.join("f")]);
    fs::write(deep.join("f"), "y").unwrap();
    assert!(told(&mut source).iter().any(|(op, path, _)| *op == Op::Write && *path == deep.join("f")));
}

#[test]
fn a_name_that_was_found_and_is_made_again_is_created_twice() {
    let scratch = Scratch::new();
    let mut source = source(&scratch.0, InotifyOptions::default());
    let dir = scratch.dir("d");
    let files: Vec<PathBuf> = (0..9000).map(|n| dir.join(n.to_string())).collect();
    files.iter().for_each(|file| fs::write(file, "").unwrap());
    // More than one read takes.
    (0..4000).for_each(|n| fs::write(scratch.0.join(n.to_string()), "").unwrap());
    let mut events = Vec::new();
    let drained = source.drain(&mut events).unwrap();
    assert!(drained.is_part, "what it found is still compared with what is queued: {drained:?}");
    let (again, moved) = (&files[0], &files[1]);
    fs::remove_file(again).unwrap();
    fs::write(again, "again").unwrap();
    fs::rename(moved, scratch.0.join("aside")).unwrap();
    fs::write(moved, "again").unwrap();
    events.extend(drain(&mut source));
    let changes = heard(events);
    for file in [again, moved] {
        let of_it =
            |op| changes.iter().filter(|heard| heard.change.op == op && heard.change.path == **file).count();
        assert_eq!(of_it(Op::Create), 2, "{}", file.display());
    }
}

#[test]
fn a_full_queue_is_told_and_a_rescan_finds_the_real_differences_only() {
    let scratch = Scratch::new();
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let limit: usize = limit.trim().parse().unwrap();
    let (one, two) = (scratch.0.join("one"), scratch.0.join("two"));
    fs::write(&one, "").unwrap();
    fs::write(&two, "").unwrap();
    let mut source = source(&scratch.0, InotifyOptions::default());
    let options = PollOptions { budget: None, ..PollOptions::default() };
    let mut poller = Poller::new(std::slice::from_ref(&scratch.0), options).unwrap();
    let mut differences = || {
        let audit = poller.audit(&AtomicBool::new(false), &Progress::default()).unwrap();
        let plain = audit.differences.into_iter().map(|difference| (difference.kind, difference.path));
        plain.collect::<Vec<_>>()
    };
    // Two names in turn: equal events that follow each other would be merged.
    for _ in 0..=limit / 2 {
        fs::hard_link(&one, scratch.0.join("link")).unwrap();
        fs::remove_file(scratch.0.join("link")).unwrap();
    }
    let late = scratch.dir("late/below");
    fs::write(late.join("f"), "x").unwrap();
    fs::write(&two, "longer").unwrap();
    drain(&mut source);
    assert_eq!(source.take_lost().map(|lost| lost.reason), Some(LossReason::QueueOverflow));
    assert!(!is_watched(&source, &late), "the queue had no room to tell of it");

    assert!(source.rebuild().unwrap().is_empty());
    assert_eq!(
        differences(),
        [
            (Kind::Created, scratch.0.join("late")),
            (Kind::Created, late.clone()),
            (Kind::Created, late.join("f")),
            (Kind::Content, two),
            // Links came and went: the change time is another, and that is a real difference.
            (Kind::Attrib, one),
        ]
    );
    assert!(is_watched(&source, &late));
    assert_eq!(differences(), []);
    fs::write(late.join("f"), "more").unwrap();
    assert!(told(&mut source).iter().any(|(_, path, _)| *path == late.join("f")));
}

#[test]
fn a_renamed_tree_keeps_its_watches_and_gets_its_new_paths() {
    let scratch = Scratch::new();
    let deep = scratch.dir("old/x/y");
    let mut source = source(&scratch.0, InotifyOptions::default());
    fs::rename(scratch.0.join("old"), scratch.0.join("new")).unwrap();
    fs::write(scratch.0.join("new/x/y/f"), "z").unwrap();
    let told = told(&mut source);
    assert_eq!(told[0], (Op::Rename, scratch.0.join("new"), Some(scratch.0.join("old"))));
    assert_eq!(told[1], (Op::Create, scratch.0.join("new/x/y/f"), None));
    assert!(!is_watched(&source, &deep));
    assert!(is_watched(&source, &scratch.0.join("new/x/y")));
    assert_eq!((source.watches(), source.take_lost()), (4, None));
}

#[test]
fn renames_that_follow_each_other_before_anything_is_read_end_at_the_right_paths() {
    let scratch = Scratch::new();
    scratch.dir("a/in");
    scratch.dir("b/in");
    let at = |name: &str| scratch.0.join(name);
    let mut source = source(&scratch.0, InotifyOptions::default());
    fs::rename(at("a"), at("t")).unwrap();
    fs::rename(at("b"), at("a")).unwrap();
    fs::rename(at("t"), at("b")).unwrap();
    renameat_with(CWD, at("a"), CWD, at("b"), RenameFlags::EXCHANGE).unwrap();
    fs::create_dir(at("b/late")).unwrap();
    fs::rename(at("b"), at("c")).unwrap();
    drain(&mut source);
    for file in ["a/in/f", "c/in/f", "c/late/f"] {
        fs::write(at(file), "x").unwrap();
        let (op, path, _) = told(&mut source).remove(0);
        assert_eq!((op, path), (Op::Create, at(file)));
    }
    assert_eq!((source.watches(), source.take_lost()), (6, None));
}

#[test]
fn a_directory_moved_out_is_heard_no_more() {
    let (scratch, outside) = (Scratch::new(), Scratch::new());
    scratch.dir("d/e");
    let mut source = source(&scratch.0, InotifyOptions::default());
    fs::rename(scratch.0.join("d"), outside.0.join("d")).unwrap();
    let events = drain(&mut source);
    let [left] = &heard(events)[..] else { panic!("one change") };
    assert_eq!((left.change.op, left.change.detail[0].as_ref()), (Op::Remove, "moved-out"));
    assert_eq!(source.watches(), 1);
    fs::write(outside.0.join("d/e/f"), "x").unwrap();
    assert_eq!(drain(&mut source), []);
    assert_eq!(source.take_lost(), None);
}

#[test]
fn a_directory_that_leaves_and_comes_back_before_anything_is_read_stays_watched() {
    let (scratch, outside) = (Scratch::new(), Scratch::new());
    let deep = scratch.dir("d/e");
    let mut source = source(&scratch.0, InotifyOptions::default());
    for _ in 0..3 {
        fs::rename(scratch.0.join("d"), outside.0.join("d")).unwrap();
        fs::rename(outside.0.join("d"), scratch.0.join("d")).unwrap();
    }
    drain(&mut source);
    fs::write(deep.join("f"), "x").unwrap();
    assert_eq!(told(&mut source)[0], (Op::Create, deep.join("f"), None));
    assert_eq!((source.watches(), source.take_lost()), (3, None));
}

#[test]
fn a_directory_moved_in_is_watched_and_only_its_fresh_files_are_told() {
    let (scratch, outside) = (Scratch::new(), Scratch::new());
    let new = outside.dir("d/e");
    fs::write(new.join("before"), "x").unwrap();
    let before = fs::metadata(new.join("before")).unwrap();
    let mut source = source(&scratch.0, InotifyOptions::default());
    // What is fresh is decided by the coarse clock of inode times: wait until it has moved past the file's.
    let deadline = Instant::now() + Duration::from_secs(10);
    while inode_clock() <= before.ctime() * 1_000_000_000 + before.ctime_nsec() {
        assert!(Instant::now() < deadline, "the inode clock stands still");
        std::thread::yield_now();
    }
    drain(&mut source);
    fs::rename(outside.0.join("d"), scratch.0.join("d")).unwrap();
    fs::write(scratch.0.join("d/e/after"), "x").unwrap();
    let heard = heard(drain(&mut source));
    assert_eq!(heard[0].change.detail[0], "moved-in");
    let synthetic: Vec<_> =
        heard.iter().filter(|heard| heard.synthetic).map(|heard| &heard.change.path).collect();
    assert!(synthetic.contains(&&scratch.0.join("d/e/after")), "{synthetic:?}");
    assert!(!synthetic.contains(&&scratch.0.join("d/e/before")), "{synthetic:?}");
    assert!(is_watched(&source, &scratch.0.join("d/e")));
}

#[test]
fn names_of_any_bytes_and_paths_longer_than_the_kernel_takes_are_told() {
    use std::os::unix::ffi::OsStrExt;
    let scratch = Scratch::new();
    let mut source = source(&scratch.0, InotifyOptions::default());
    let name = std::ffi::OsStr::from_bytes(b"new\nline \"quoted\" \xff");
    fs::write(scratch.0.join(name), "x").unwrap();
    assert_eq!(told(&mut source)[0].1, scratch.0.join(name));
    // Each directory is made in the one before, by its handle: the whole path is too long for one call.
    let part = "d".repeat(250);
    let mut dir = rustix::fs::open(&scratch.0, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    for _ in 0..20 {
        rustix::fs::mkdirat(&dir, &*part, rustix::fs::Mode::RWXU).unwrap();
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY;
        dir = rustix::fs::openat(&dir, &*part, flags, rustix::fs::Mode::empty()).unwrap();
    }
    drain(&mut source);
    assert_eq!(source.watches(), 21);
    rustix::fs::mkdirat(&dir, "last", rustix::fs::Mode::RWXU).unwrap();
    let events = drain(&mut source);
    assert_eq!(events[0].path.as_os_str().len(), scratch.0.as_os_str().len() + 20 * 251 + 5);
    assert_eq!((source.watches(), source.take_lost()), (22, None));
}

#[test]
fn half_a_rename_waits_for_the_other_half_and_then_is_a_removal() {
    let (scratch, outside) = (Scratch::new(), Scratch::new());
    fs::write(scratch.0.join("f"), "x").unwrap();
    let mut source = source(&scratch.0, InotifyOptions::default());
    fs::rename(scratch.0.join("f"), outside.0.join("f")).unwrap();
    let (mut hearing, mut out) = (EventTranslator::new(), Vec::new());
    hearing.receive(drain(&mut source), &mut out);
    let deadline = hearing.next_deadline().expect("something is held");
    hearing.due(deadline - 1, &mut out);
    assert_eq!(out, []);
    hearing.due(deadline, &mut out);
    assert_eq!((out[0].change.op, &out[0].change.path), (Op::Remove, &scratch.0.join("f")));
    assert_eq!((out.len(), hearing.next_deadline()), (1, None));
}
