//! Descriptors that are not taken: each gets one sentence, and the agent lives.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::run::{Bare, ONE, Scratch, agent, can_run, subscribe};

#[test]
fn what_proves_nothing_or_cannot_be_watched_is_refused_with_a_sentence() {
    if !can_run() {
        return;
    }
    let scratch = Scratch::new("refused");
    let mut running = agent(&scratch);
    let file = scratch.w("f");
    fs::write(&file, "x").unwrap();
    let path = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(scratch.w("")).unwrap();
    let (pipe, _writer) = std::io::pipe().unwrap();
    let deleted = {
        let dir = scratch.dir("w/deleted", 0o755, 0);
        let held = File::open(&dir).unwrap();
        fs::remove_dir(dir).unwrap();
        held
    };
    let unmounted = {
        let at = scratch.dir("m", 0o755, 0);
        mount("tmpfs", &at, "tmpfs", MountFlags::empty(), None).unwrap();
        let held = File::open(&at).unwrap();
        unmount(&at, UnmountFlags::DETACH).unwrap();
        held
    };
    let open = |path: &str| File::open(path).unwrap();
    let mut bare = Bare::greeted(&scratch);
    for (number, (fd, why)) in [
        (path.as_fd(), "O_PATH"),
        (File::open(&file).unwrap().as_fd(), "no directory"),
        (pipe.as_fd(), "no directory"),
        (open("/proc").as_fd(), "proc"),
        (open("/sys").as_fd(), "sysfs"),
        (deleted.as_fd(), "deleted"),
        (unmounted.as_fd(), "mounted neither"),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = bare.add(u32::try_from(number).unwrap(), &[fd]);
        assert_eq!(answer["type"], "refused", "{why}: {answer}");
        assert!(answer["why"].as_str().unwrap().contains(why), "{why}: {answer}");
        assert!(!answer["why"].as_str().unwrap().contains('\n'), "{answer}");
    }
    let answer = bare.add(40, &[]);
    assert!(answer["why"].as_str().unwrap().contains("no descriptor"), "{answer}");
    let w = File::open(scratch.w("")).unwrap();
    assert_eq!(bare.add(41, &[w.as_fd()])["type"], "added");
    assert!(bare.add(41, &[w.as_fd()])["why"].as_str().unwrap().contains("another directory"));
    let mut subscriber = subscribe(&scratch, ONE, &scratch.w(""));
    fs::write(&file, "y").unwrap();
    subscriber.change("write", "f");
    assert!(running.child.try_wait().unwrap().is_none());
}

/// A descriptor that was passed on by somebody who may read it, of a directory that the subscriber may not.
#[test]
fn a_directory_that_was_passed_on_shows_only_what_its_receiver_may_read() {
    if !can_run() {
        return;
    }
    let scratch = Scratch::new("passed");
    let secret = scratch.dir("w/secret", 0o700, 0);
    let _agent = agent(&scratch);
    let held = File::open(&secret).unwrap();
    let fd = held.as_fd();
    let socket = scratch.socket();
    let events = std::thread::spawn({
        let held = fd.try_clone_to_owned().unwrap();
        let (secret, scratch) = (secret.clone(), Scratch(scratch.0.clone()));
        move || {
            // This thread alone is another user from here on.
            // SAFETY: numbers only.
            let result = unsafe { libc::syscall(libc::SYS_setresuid, ONE, ONE, ONE) };
            assert_eq!(result, 0);
            let mut bare = Bare::greeted(&scratch);
            assert_eq!(bare.add(0, &[held.as_fd()])["type"], "added");
            // It is a copy of the owner's.
            std::mem::forget(scratch);
            (bare, secret)
        }
    });
    let (mut bare, secret) = events.join().unwrap();
    assert_eq!(bare.next().unwrap()["type"], "uncovered");
    fs::write(secret.join("classified"), "x").unwrap();
    fs::write(scratch.w("f"), "x").unwrap();
    // Another subscriber has received what came later.
    let mut other = subscribe(&scratch, 0, &scratch.w(""));
    fs::write(secret.join("classified-too"), "x").unwrap();
    other.change("write", "secret/classified-too");
    bare.0.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(bare.next(), None, "nothing was reported");
    assert!(socket.exists());
}
