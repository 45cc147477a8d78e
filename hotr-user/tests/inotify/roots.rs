//! What is watched and what is not: roots, limits, exclusion.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use globset::{Glob, GlobSet};
use hotr_events::LossReason;
use hotr_events::Op;
use hotr_user::source::inotify::{Coverage, InotifyOptions, InotifySource};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::support::{Scratch, drain, is_watched, source, told};

#[test]
fn directories_beyond_the_limit_are_counted_and_named() {
    let scratch = Scratch::new();
    for name in ["a", "b/c"] {
        scratch.dir(name);
    }
    let options = InotifyOptions { max_watches: Some(1), ..InotifyOptions::default() };
    let mut source = source(&scratch.0, options);
    assert_eq!((source.watches(), source.uncovered().count), (1, 3));
    let mut names: Vec<_> = source.uncovered().examples.iter().map(|(path, _)| path.clone()).collect();
    names.sort();
    assert_eq!(names, [scratch.0.join("a"), scratch.0.join("b"), scratch.0.join("b/c")]);
    assert_eq!(source.covers(&scratch.0.join("b/c")), Coverage::Limit);
    assert!(is_watched(&source, &scratch.0));
    fs::create_dir(scratch.0.join("new")).unwrap();
    drain(&mut source);
    assert_eq!((source.watches(), source.uncovered().count), (1, 4));
    fs::write(scratch.0.join("new/f"), "x").unwrap();
    drain(&mut source);
    assert_eq!(source.take_lost(), None, "no watch is left behind that nobody knows");
}

#[test]
fn a_file_root_survives_replacement_and_its_neighbours_are_not_told() {
    let scratch = Scratch::new();
    let (file, temporary) = (scratch.0.join("app.conf"), scratch.0.join("app.conf.tmp"));
    fs::write(&file, "1").unwrap();
    let mut source = source(&file, InotifyOptions::default());
    for _ in 0..2 {
        fs::write(&temporary, "2").unwrap();
        fs::rename(&temporary, &file).unwrap();
        assert_eq!(told(&mut source), [(Op::Rename, file.clone(), None)]);
    }
    fs::remove_file(&file).unwrap();
    fs::write(&file, "3").unwrap();
    let ops: Vec<_> = told(&mut source).into_iter().map(|(op, path, _)| (op, path == file)).collect();
    assert_eq!(ops, [(Op::Remove, true), (Op::Create, true), (Op::Write, true)]);
    assert_eq!(source.take_lost(), None);
}

#[test]
fn each_link_that_leads_to_a_file_root_is_watched_by_its_name() {
    let scratch = Scratch::new();
    let [named, middle, next] = ["etc/named", "store/middle", "store/next"].map(|name| scratch.0.join(name));
    ["etc", "store", "data"].iter().for_each(|dir| drop(scratch.dir(dir)));
    fs::write(scratch.0.join("data/file"), "1").unwrap();
    fs::write(scratch.0.join("data/beside"), "1").unwrap();
    symlink("../store/middle", &named).unwrap();
    symlink("../data/file", &middle).unwrap();
    let mut source = source(&named, InotifyOptions::default());
    // As it is saved by way of a link that is neither the first name nor the last.
    symlink("../data/file", &next).unwrap();
    fs::rename(&next, &middle).unwrap();
    fs::write(scratch.0.join("data/beside"), "2").unwrap();
    assert_eq!(told(&mut source), [(Op::Rename, named.clone(), None)]);
    fs::write(scratch.0.join("data/file"), "2").unwrap();
    assert_eq!(told(&mut source).last(), Some(&(Op::Write, named.clone(), None)));
}

#[test]
fn a_deleted_root_is_told_and_comes_back_with_a_rebuild() {
    let scratch = Scratch::new();
    let root = scratch.dir("root");
    let mut source = source(&root, InotifyOptions::default());
    fs::remove_dir(&root).unwrap();
    assert_eq!(told(&mut source), [(Op::Remove, root.clone(), None)]);
    let lost = source.take_lost().expect("a root without a directory is a loss");
    assert_eq!((lost.reason, lost.path), (LossReason::RootDeleted, Some(root.clone())));
    assert_eq!(source.rebuild().unwrap().len(), 1);
    fs::create_dir(&root).unwrap();
    assert!(source.rebuild().unwrap().is_empty());
    fs::write(root.join("f"), "x").unwrap();
    assert_eq!(told(&mut source)[0], (Op::Create, root.join("f"), None));
}

#[test]
fn a_renamed_root_is_a_loss() {
    let scratch = Scratch::new();
    let root = scratch.dir("root");
    let mut source = source(&root, InotifyOptions::default());
    fs::rename(&root, scratch.0.join("other")).unwrap();
    drain(&mut source);
    assert_eq!(source.take_lost().map(|lost| lost.reason), Some(LossReason::RootMoved));
}

#[test]
fn excluded_directories_and_what_symbolic_links_lead_to_get_no_watch() {
    let (scratch, outside) = (Scratch::new(), Scratch::new());
    scratch.dir("target/x");
    scratch.dir("src");
    outside.dir("o");
    symlink(&outside.0, scratch.0.join("link")).unwrap();
    let exclude = GlobSet::builder().add(Glob::new("target").unwrap()).build().unwrap();
    let mut source = source(&scratch.0, InotifyOptions { exclude, ..InotifyOptions::default() });
    assert_eq!(source.watches(), 2);
    fs::remove_dir_all(scratch.0.join("target")).unwrap();
    scratch.dir("target/y");
    drain(&mut source);
    assert_eq!((source.watches(), source.take_lost()), (2, None));
}

#[test]
fn without_recursion_only_the_root_is_watched() {
    let scratch = Scratch::new();
    scratch.dir("a");
    let mut source = source(&scratch.0, InotifyOptions { recursive: false, ..InotifyOptions::default() });
    scratch.dir("b/c");
    assert_eq!(told(&mut source), [(Op::Create, scratch.0.join("b"), None)]);
    assert_eq!(source.watches(), 1);
}

#[test]
fn a_root_that_cannot_be_watched_says_why() {
    let scratch = Scratch::new();
    let link = scratch.0.join("link");
    symlink(scratch.0.join("nowhere"), &link).unwrap();
    let mut source = InotifySource::new(InotifyOptions::default()).unwrap();
    for (path, text) in [
        (scratch.0.join("none"), "it does not exist"),
        (link, "a symbolic link that leads nowhere"),
        (PathBuf::from("/proc/self"), "it is on proc"),
        (PathBuf::from("/sys/kernel"), "it is on sysfs"),
    ] {
        let error = source.add_root(&path).expect_err("it cannot be watched").to_string();
        assert!(error.contains(text), "{error}");
    }
    assert_eq!(source.watches(), 0);
}

#[test]
fn an_unmount_is_told_of_the_mount_point_whichever_directory_is_heard_first() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not run: root is needed");
        return;
    }
    let scratch = Scratch::new();
    let point = scratch.dir("above/mnt");
    mount(c"hotr-inotify", &point, c"tmpfs", MountFlags::empty(), c"nr_inodes=0").unwrap();
    // So many that the first is read while the kernel still goes on, and so few that the queue has room for two
    // events of each.
    for number in 0..8000 {
        fs::create_dir(point.join(number.to_string())).unwrap();
    }
    let mut source = source(&scratch.0, InotifyOptions::default());
    let is_unmounting = std::thread::spawn({
        let point = point.clone();
        move || unmount(&point, UnmountFlags::empty())
    });
    let lost = loop {
        source.drain(&mut Vec::new()).unwrap();
        if let Some(lost) = source.take_lost() {
            break lost;
        }
    };
    assert_eq!((lost.reason, lost.path), (LossReason::Unmounted, Some(point)));
    assert_eq!(is_unmounting.join().unwrap(), Ok(()));
}
