use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::path::PathBuf;

use super::super::journal::{DIGEST, LENGTH, NOTE, begin, end, made, make};
use super::super::new_name::create;
use super::*;

const TEMPORARY: &str = ".hotr-restore-0123456789abcdef";

/// A watched directory, the file `f` in it, one beside it that nothing may happen to, and the directory of kept content of
/// a hotr that was killed.
struct Scene(PathBuf);

impl Scene {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("hotr-journal-{number}-{}", std::process::id()));
        for name in ["w", "w/d", "canary", "left"] {
            fs::create_dir_all(dir.join(name)).unwrap();
        }
        fs::write(dir.join("w/d/f"), "bad").unwrap();
        Self(dir.canonicalize().unwrap())
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join("w/d").join(name)
    }

    fn temporary(&self) -> PathBuf {
        self.at(TEMPORARY)
    }

    fn spot(&self) -> Spot {
        Spot::new(Dir::open(&self.0.join("w/d")).unwrap(), OsStr::new("f"))
    }

    /// The journal of one that was killed before it ended.
    fn noted(&self, what: For) -> Dir {
        let _again = fs::remove_file(self.0.join("left").join(NAME));
        let left = Dir::open(&self.0.join("left")).unwrap();
        make(&left, &mut Vec::new());
        let found = self.spot().stat().ok();
        begin(&left, what, &self.spot(), OsStr::new(TEMPORARY), found.as_ref()).unwrap();
        left
    }

    /// The same, with a file that was made.
    fn made(&self) {
        let left = self.noted(For::New);
        fs::write(self.temporary(), "half").unwrap();
        made(&left, &rustix::fs::lstat(self.temporary()).unwrap()).unwrap();
    }

    fn clear(&self) -> Vec<String> {
        clear(&Dir::open(&self.0.join("left")).unwrap())
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.0.join("w/d"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn what_was_made_is_removed_and_what_is_alike_stays() {
    let scene = Scene::new();
    let alike = ".hotr-restore-fedcba9876543210";
    scene.made();
    fs::write(scene.at(alike), "somebody's").unwrap();
    assert_eq!(scene.clear(), Vec::<String>::new());
    assert_eq!(scene.names(), [alike, "f"]);
    // Once more: it has the name, but is not what was made.
    scene.made();
    fs::write(scene.at("other"), "somebody's").unwrap();
    fs::rename(scene.at("other"), scene.temporary()).unwrap();
    scene.clear();
    assert_eq!(fs::read_to_string(scene.temporary()).unwrap(), "somebody's");
    fs::remove_file(scene.temporary()).unwrap();
    fs::create_dir(scene.temporary()).unwrap();
    scene.clear();
    assert!(scene.temporary().is_dir());
}

#[test]
fn what_was_not_noted_yet_is_removed_only_while_it_is_new() {
    let scene = Scene::new();
    scene.noted(For::New);
    drop(create(scene.spot().dir.as_fd(), OsStr::new(TEMPORARY)).unwrap());
    scene.clear();
    assert_eq!(scene.names(), ["f"]);
    symlink("anywhere", scene.temporary()).unwrap();
    scene.clear();
    assert_eq!(scene.names(), ["f"]);
    drop(create(scene.spot().dir.as_fd(), OsStr::new(TEMPORARY)).unwrap());
    fs::hard_link(scene.temporary(), scene.at("g")).unwrap();
    scene.clear();
    assert_eq!(scene.names(), [TEMPORARY, "f", "g"], "it has another name");
    fs::remove_file(scene.at("g")).unwrap();
    fs::write(scene.temporary(), "x").unwrap();
    scene.clear();
    assert_eq!(scene.names(), [TEMPORARY, "f"], "somebody wrote to it");
}

#[test]
fn bad_content_that_had_left_its_place_is_kept() {
    for what in [For::New, For::Found] {
        let scene = Scene::new();
        let left = scene.noted(what);
        if what == For::New {
            fs::write(scene.temporary(), "good").unwrap();
            made(&left, &rustix::fs::lstat(scene.temporary()).unwrap()).unwrap();
            renameat_with(CWD, scene.at("f"), CWD, scene.temporary(), RenameFlags::EXCHANGE).unwrap();
        } else {
            fs::rename(scene.at("f"), scene.temporary()).unwrap();
        }
        let said = scene.clear();
        let kept = scene.at(".hotr-bad-f");
        assert!(said.len() == 1 && said[0].ends_with(&format!("is kept: {}", kept.display())), "{said:?}");
        assert_eq!(fs::read_to_string(kept).unwrap(), "bad");
        assert!(!scene.temporary().exists());
        assert_eq!(scene.at("f").exists(), what == For::New);
    }
    // Where there is no exchange, it had two names.
    let scene = Scene::new();
    for name in [TEMPORARY, ".hotr-bad-f"] {
        fs::hard_link(scene.at("f"), scene.at(name)).unwrap();
    }
    scene.noted(For::Found);
    scene.clear();
    assert_eq!(scene.names(), [".hotr-bad-f", "f"]);
}

#[test]
fn an_ended_or_half_written_journal_removes_nothing() {
    let scene = Scene::new();
    scene.made();
    let journal = scene.0.join("left").join(NAME);
    let whole = fs::read(&journal).unwrap();
    let removes = |bytes: &[u8]| {
        fs::write(&journal, bytes).unwrap();
        scene.clear();
        !scene.temporary().exists()
    };
    for cut in [0, 10, LENGTH + 8, NOTE, NOTE + 40, 2 * SIZE - 1] {
        assert!(!removes(&whole[..cut]), "{cut}");
    }
    for at in [LENGTH, LENGTH + 7, DIGEST, NOTE, NOTE + 33, NOTE + 70] {
        let mut other = whole.clone();
        other[at] ^= 0xff;
        assert!(!removes(&other), "{at}");
    }
    // It is somebody else's, or a link to it.
    fs::write(scene.0.join("copy"), &whole).unwrap();
    fs::remove_file(&journal).unwrap();
    symlink(scene.0.join("copy"), &journal).unwrap();
    scene.clear();
    assert!(scene.temporary().exists());
    fs::remove_file(&journal).unwrap();
    if geteuid().is_root() {
        fs::write(&journal, &whole).unwrap();
        std::os::unix::fs::chown(&journal, Some(65534), None).unwrap();
        scene.clear();
        assert!(scene.temporary().exists());
        fs::remove_file(&journal).unwrap();
    }
    assert!(removes(&whole));
    // An orderly end.
    end(&scene.noted(For::New));
    fs::write(scene.temporary(), "").unwrap();
    scene.clear();
    assert!(scene.temporary().exists());
}

#[test]
fn in_another_directory_nothing_is_removed() {
    for swapped in ["w", "w/d"] {
        let scene = Scene::new();
        scene.made();
        let (dir, moved) = (scene.0.join(swapped), scene.0.join("moved"));
        fs::rename(&dir, &moved).unwrap();
        // The very inode, under the very name: only the directory is another one, or lies behind a link.
        let made = if swapped == "w" { moved.join("d") } else { moved.clone() }.join(TEMPORARY);
        fs::create_dir_all(scene.0.join("canary/d")).unwrap();
        for there in ["canary", "canary/d"] {
            fs::hard_link(&made, scene.0.join(there).join(TEMPORARY)).unwrap();
        }
        let leads = if swapped == "w" { "canary" } else { "canary/d" };
        for target in [scene.0.join(leads), moved.clone()] {
            symlink(target, &dir).unwrap();
            scene.clear();
            fs::remove_file(&dir).unwrap();
        }
        fs::rename(scene.0.join(leads), &dir).unwrap();
        scene.clear();
        fs::rename(&dir, scene.0.join(leads)).unwrap();
        assert!(made.exists());
        assert!(["canary", "canary/d"].iter().all(|there| scene.0.join(there).join(TEMPORARY).exists()));
        // Under its own name again.
        fs::rename(&moved, &dir).unwrap();
        scene.clear();
        assert_eq!(scene.names(), ["f"]);
    }
}

/// The owner of the tree swaps a directory for a link all the time.
#[test]
fn a_directory_that_is_swapped_all_the_time_leads_nowhere() {
    const OTHER: u32 = 65534;
    for swapped in ["w", "w/d"] {
        let scene = Scene::new();
        if geteuid().is_root() {
            for name in ["", "w", "w/d"] {
                std::os::unix::fs::chown(scene.0.join(name), Some(OTHER), None).unwrap();
            }
        }
        scene.made();
        fs::create_dir(scene.0.join("canary/d")).unwrap();
        let canary = ["canary", "canary/d"].map(|there| scene.0.join(there).join(TEMPORARY));
        let spare = scene.0.join("left/spare");
        fs::hard_link(scene.temporary(), &spare).unwrap();
        canary.iter().for_each(|path| fs::hard_link(&spare, path).unwrap());
        let (dir, link) = (scene.0.join(swapped), scene.0.join("link"));
        symlink(scene.0.join(if swapped == "w" { "canary" } else { "canary/d" }), &link).unwrap();
        let real = Dir::open(&scene.0.join("w/d")).unwrap();
        let (stop, swaps) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let (ended, count) = (Arc::clone(&stop), Arc::clone(&swaps));
        let owner = std::thread::spawn(move || {
            if geteuid().is_root() {
                // SAFETY: integer arguments; the system call, unlike the library's, is about this thread alone.
                assert_eq!(unsafe { libc::syscall(libc::SYS_setresuid, OTHER, OTHER, OTHER) }, 0);
            }
            while !ended.load(Ordering::Relaxed) {
                renameat_with(CWD, &dir, CWD, &link, RenameFlags::EXCHANGE).expect("the owner may do that");
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        let (mut rounds, mut removed) = (0, 0);
        let busy = |rounds, removed| rounds < 10_000 || rounds < 300_000 && removed == 0;
        while (busy(rounds, removed) || swaps.load(Ordering::Relaxed) < 300) && !owner.is_finished() {
            scene.clear();
            rounds += 1;
            match rustix::fs::linkat(CWD, &spare, &real, TEMPORARY, AtFlags::empty()) {
                Ok(()) => removed += 1,
                Err(errno) => assert_eq!(errno, Errno::EXIST),
            }
        }
        stop.store(true, Ordering::Relaxed);
        owner.join().unwrap();
        assert!(removed > 0);
        assert!(canary.iter().all(|path| path.exists()), "{swapped}: {removed} of {rounds} times removed");
    }
}
