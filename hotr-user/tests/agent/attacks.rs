//! A subscriber that owns the tree tries to learn of what is made in a directory that it may not read.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, openat, renameat_with, unlinkat};

use super::run::{ONE, Scratch, agent, can_run, subscribe};

/// While `attack` is repeated, makes and removes files in a secret directory that is held open.
fn attacked(name: &str, attack: impl Fn(&Scratch) + Sync) {
    let scratch = Scratch::new(name);
    scratch.dir("w", 0o755, ONE);
    let secret = scratch.dir("w/s", 0o700, 0);
    scratch.dir("w/p", 0o755, ONE);
    let _agent = agent(&scratch);
    let mut subscriber = subscribe(&scratch, ONE, &scratch.w(""));
    let held = File::open(&secret).unwrap();
    let rounds = AtomicU64::new(0);
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
    for part in 0..30 {
        let (is_over, made) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut own = 0;
                while !is_over.load(Ordering::Relaxed) {
                    // Not more than a subscriber can read: it would be disconnected.
                    if own <= 20 * made.load(Ordering::Relaxed) {
                        attack(&scratch);
                        own += 1;
                    }
                }
                rounds.fetch_add(own, Ordering::Relaxed);
            });
            for number in 0..100 {
                made.fetch_add(1, Ordering::Relaxed);
                let file = format!("classified-{part}-{number}");
                let made = openat(held.as_fd(), file.as_str(), flags, Mode::RUSR).unwrap();
                rustix::io::write(&made, b"x").unwrap();
                unlinkat(held.as_fd(), file.as_str(), AtFlags::empty()).unwrap();
            }
            is_over.store(true, Ordering::Relaxed);
        });
        // All that came before was decided, and is not too much for it.
        let last = format!("last-{part}");
        fs::write(scratch.w(&last), "x").unwrap();
        subscriber.change("write", &last);
    }
    assert!(rounds.load(Ordering::Relaxed) > 100, "the attack ran");
    assert!(!subscriber.text().contains("classified"), "a name was shown");
}

#[test]
fn an_exchange_with_a_public_directory_shows_no_secret_name() {
    if !can_run() {
        return;
    }
    attacked("exchange", |scratch| {
        renameat_with(CWD, scratch.w("s"), CWD, scratch.w("p"), RenameFlags::EXCHANGE).unwrap();
    });
}

#[test]
fn a_public_directory_in_the_place_of_the_secret_one_shows_no_name() {
    if !can_run() {
        return;
    }
    attacked("replace", |scratch| {
        fs::rename(scratch.w("s"), scratch.w("away")).unwrap();
        fs::rename(scratch.w("p"), scratch.w("s")).unwrap();
        fs::rename(scratch.w("s"), scratch.w("p")).unwrap();
        fs::rename(scratch.w("away"), scratch.w("s")).unwrap();
    });
}

#[test]
fn a_link_in_the_place_of_the_secret_directory_shows_no_name() {
    if !can_run() {
        return;
    }
    attacked("link", |scratch| {
        fs::rename(scratch.w("s"), scratch.w("away")).unwrap();
        symlink("p", scratch.w("s")).unwrap();
        fs::remove_file(scratch.w("s")).unwrap();
        fs::rename(scratch.w("away"), scratch.w("s")).unwrap();
    });
}

/// Whoever works through a link of the attacker's shows him no name of where it led.
#[test]
fn a_link_that_somebody_works_through_shows_no_name() {
    if !can_run() {
        return;
    }
    let scratch = Scratch::new("through");
    scratch.dir("w", 0o755, ONE);
    scratch.dir("private", 0o700, 0);
    scratch.dir("w/p", 0o755, ONE);
    let _agent = agent(&scratch);
    let mut subscriber = subscribe(&scratch, ONE, &scratch.w(""));
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                symlink("../private", scratch.w("l")).unwrap();
                fs::remove_file(scratch.w("l")).unwrap();
                fs::rename(scratch.w("p"), scratch.w("l")).unwrap();
                fs::rename(scratch.w("l"), scratch.w("p")).unwrap();
            }
        });
        for number in 0..3000 {
            // By the link, as often as it is one: never in the public directory, where there are no such files.
            let path = scratch.0.join("private").join(format!("classified-{number}"));
            fs::write(&path, "x").unwrap();
            let _ = fs::remove_file(scratch.w("l").join(format!("classified-{number}")));
        }
        is_over.store(true, Ordering::Relaxed);
    });
    fs::write(scratch.w("last"), "x").unwrap();
    let test = subscriber.wait("the last change", |line| line["path"] == "last" && line["type"] == "change");
    assert_eq!(test["root"], 0);
    assert!(!subscriber.text().contains("classified"), "a name was shown");
}
