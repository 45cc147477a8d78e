//! Good content in directories that somebody else owns: whatever the owner does, nothing outside the tree changes.

#![expect(clippy::unwrap_used, reason = "a panic of a helper is the report of its test as well")]

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use hotr_user::action::backup::{Restored, Vault};
use hotr_user::beneath::Roots;
use hotr_user::pipeline::confirm::baseline::{Baseline, Message};
use hotr_user::pipeline::confirm::{ConfirmOptions, State};
use rustix::fs::{CWD, FileType, Mode, RenameFlags, mknodat, renameat_with};
use rustix::process::geteuid;

/// The owner of the tree.
const OTHER: u32 = 65534;

/// A tree of somebody else's, one beside it that nothing may happen to, and a vault.
struct Scene {
    dir: PathBuf,
    vault: Vault,
    before: Vec<String>,
}

impl Scene {
    /// None without root.
    fn new() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if !geteuid().is_root() {
            eprintln!("not run: root is needed");
            return None;
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("hotr-vault-{number}-{}", std::process::id()));
        // Of somebody else from the top: every name in it can be swapped.
        for path in ["", "w", "w/d", "canary", "canary/d"] {
            fs::create_dir(dir.join(path)).unwrap();
        }
        for path in ["", "w", "w/d"] {
            chown(dir.join(path), Some(OTHER), Some(OTHER)).unwrap();
        }
        for path in ["canary/f", "canary/d/f", "canary/new", "canary/d/new"] {
            fs::write(dir.join(path), "bad").unwrap();
        }
        let before = listing(&dir.join("canary"));
        let vault = Vault::new(&dir.join("w"), true, options(), Arc::default()).unwrap();
        let mut scene = Self { dir, vault, before };
        scene.write("d/f", "good");
        scene.write("f", "good");
        scene.vault.hold(&[scene.w()]);
        Some(scene)
    }

    fn w(&self) -> PathBuf {
        self.dir.join("w")
    }

    fn at(&self, name: &str) -> PathBuf {
        self.w().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.at(name), text).unwrap();
        chown(self.at(name), Some(OTHER), Some(OTHER)).unwrap();
    }

    fn good(&mut self, name: &str) {
        let (path, state) = (self.at(name), self.state(name));
        self.vault.stage(&path, &state).unwrap();
        self.vault.promote(&path, &state);
    }

    fn state(&self, name: &str) -> State {
        State::of(&self.at(name), None, options())
    }

    fn restore(&mut self, name: &str) -> Result<Restored, String> {
        let (path, bad) = (self.at(name), self.state(name));
        self.vault.restore(&path, &bad)
    }

    /// Nothing happened to what is outside, and no name of hotr's is left inside but of bad content.
    fn nothing_else(&self) {
        assert_eq!(listing(&self.dir.join("canary")), self.before);
        let left = listing(&self.dir);
        assert!(!left.iter().any(|line| line.contains("/.hotr-r")), "{left:?}");
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.dir);
    }
}

fn options() -> ConfirmOptions {
    ConfirmOptions::default()
}

/// Every path below, with what it is, whose, and what it holds.
fn listing(dir: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let data = fs::symlink_metadata(&path).unwrap();
        let text = if data.is_file() { fs::read_to_string(&path).unwrap() } else { String::new() };
        lines.push(format!("{} {:o} {} {} {text}", path.display(), data.mode(), data.uid(), data.gid()));
        if data.is_dir() {
            lines.extend(listing(&path));
        }
    }
    lines.sort();
    lines
}

#[test]
fn content_goes_back_in_the_owners_directory_and_the_vault_is_not_in_it() {
    let Some(mut scene) = Scene::new() else { return };
    fs::set_permissions(scene.at("f"), fs::Permissions::from_mode(0o640)).unwrap();
    scene.good("f");
    scene.nothing_else();
    scene.write("f", "bad");
    assert!(matches!(scene.restore("f"), Ok(Restored::Good(..))));
    let data = fs::metadata(scene.at("f")).unwrap();
    assert_eq!(fs::read_to_string(scene.at("f")).unwrap(), "good");
    assert_eq!((data.uid(), data.gid(), data.mode() & 0o7777), (OTHER, OTHER, 0o640));
    scene.nothing_else();
}

#[test]
fn a_directory_swapped_for_a_link_leads_nowhere() {
    for swapped in ["", "d"] {
        let Some(mut scene) = Scene::new() else { return };
        scene.good("d/f");
        scene.vault.keep_absent(&scene.at("d/new"));
        let moved = scene.dir.join("moved");
        fs::rename(scene.at(swapped), &moved).unwrap();
        symlink(
            scene.dir.join("canary").join(swapped),
            scene.dir.join("w").join(swapped).components().as_path(),
        )
        .unwrap();
        // What was good, to be put where the link leads; what was not there, to be removed there.
        for name in ["d/f", "d/new"] {
            let error = scene.restore(name).unwrap_err();
            assert!(error.contains("repair it by hand"), "{error}");
        }
        // Nor is anything taken from there as good.
        let state = scene.state("d/f");
        assert!(scene.vault.stage(&scene.at("d/f"), &state).is_err());
        scene.nothing_else();
    }
}

#[test]
fn bad_content_is_kept_beside_the_good_and_replaces_only_what_it_may() {
    let Some(mut scene) = Scene::new() else { return };
    let long = "n".repeat(255);
    scene.write(&long, "good");
    for name in ["f", &long] {
        let aside = format!(".hotr-bad-{}", &name[..name.len().min(245)]);
        scene.good(name);
        for text in ["bad 1", "bad 2"] {
            scene.write(name, text);
            let inode = fs::metadata(scene.at(name)).unwrap().ino();
            let (_, kept) = good(scene.restore(name));
            assert_eq!(kept.unwrap(), *aside);
            let data = fs::metadata(scene.at(&aside)).unwrap();
            assert_eq!((data.ino(), data.uid()), (inode, OTHER));
            assert_eq!(fs::read_to_string(scene.at(&aside)).unwrap(), text);
            assert_eq!(fs::read_to_string(scene.at(name)).unwrap(), "good");
        }
        scene.nothing_else();
    }
    // Something else has the name: it stays, and so does the bad content.
    fs::remove_file(scene.at(".hotr-bad-f")).unwrap();
    fs::create_dir(scene.at(".hotr-bad-f")).unwrap();
    scene.write("f", "bad 3");
    let (_, kept) = good(scene.restore("f"));
    assert_eq!(fs::read_to_string(scene.w().join(kept.unwrap())).unwrap(), "bad 3");
    assert!(scene.at(".hotr-bad-f").is_dir());
}

fn good(restored: Result<Restored, String>) -> (State, Option<std::ffi::OsString>) {
    match restored {
        Ok(Restored::Good(state, kept)) => (state, kept),
        other => panic!("{other:?}"),
    }
}

/// Runs `swap` as the other user, again and again, while `root` is done.
fn against(swap: impl Fn() -> bool + Send + 'static, mut root: impl FnMut()) {
    let (stop, swaps) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let (ended, count) = (Arc::clone(&stop), Arc::clone(&swaps));
    let attacker = thread::spawn(move || {
        // SAFETY: integer arguments; the system call, unlike the library's, is about this thread alone.
        let left = unsafe { libc::syscall(libc::SYS_setresuid, OTHER, OTHER, OTHER) };
        assert_eq!(left, 0);
        while !ended.load(Ordering::Relaxed) {
            assert!(swap(), "the owner may do that");
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    let mut rounds = 0;
    while (rounds < 300 || swaps.load(Ordering::Relaxed) < 300) && !attacker.is_finished() {
        root();
        rounds += 1;
    }
    stop.store(true, Ordering::Relaxed);
    attacker.join().unwrap();
}

#[test]
fn a_directory_that_is_swapped_all_the_time_leads_nowhere() {
    for swapped in ["w", "w/d"] {
        let Some(mut scene) = Scene::new() else { return };
        scene.good("d/f");
        scene.vault.keep_absent(&scene.at("d/new"));
        scene.write("d/f", "bad");
        let bad = scene.state("d/f");
        let (dir, link) = (scene.dir.join(swapped), scene.dir.join("link"));
        let leads = if swapped == "w" { "canary" } else { "canary/d" };
        symlink(scene.dir.join(leads), &link).unwrap();
        // The watched directory, wherever it is: it is made bad again before each attempt.
        let held = fs::File::open(scene.at("d")).unwrap();
        let real = PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd()));
        let swap = move || renameat_with(CWD, &dir, CWD, &link, RenameFlags::EXCHANGE).is_ok();
        let names = ["f", "new"];
        let mut back = [0; 2];
        let vault = &mut scene.vault;
        let w = scene.dir.join("w");
        against(swap, || {
            for (name, back) in names.iter().zip(&mut back) {
                fs::write(real.join(name), "bad").unwrap();
                chown(real.join(name), Some(OTHER), Some(OTHER)).unwrap();
                if matches!(vault.restore(&w.join("d").join(name), &bad), Ok(Restored::Good(..))) {
                    *back += 1;
                    let now = fs::read_to_string(real.join(name)).unwrap_or_default();
                    assert_eq!(now, if *name == "f" { "good" } else { "" }, "it is said to be back");
                }
            }
        });
        drop(held);
        assert!(back.iter().all(|back| *back > 0), "{swapped}: {back:?} times put back");
        assert_eq!(listing(&scene.dir.join("canary")), scene.before, "{swapped}: {back:?} times put back");
    }
}

/// What is confirmed, and what is read at the start, is what lies below the root.
#[test]
fn while_directories_are_swapped_no_other_content_is_looked_at() {
    for swapped in ["w", "w/d"] {
        let Some(scene) = Scene::new() else { return };
        let root = scene.at("d/e");
        fs::create_dir(&root).unwrap();
        chown(&root, Some(OTHER), Some(OTHER)).unwrap();
        scene.write("d/e/f", "good");
        let (good, path) = (scene.state("d/e/f"), scene.at("d/e/f"));
        for dir in ["canary/e", "canary/d/e"] {
            fs::create_dir(scene.dir.join(dir)).unwrap();
            fs::write(scene.dir.join(dir).join("f"), "secret").unwrap();
        }
        let (dir, link) = (scene.dir.join(swapped), scene.dir.join("link"));
        symlink(scene.dir.join(if swapped == "w" { "canary" } else { "canary/d" }), &link).unwrap();
        let swap = move || renameat_with(CWD, &dir, CWD, &link, RenameFlags::EXCHANGE).is_ok();
        let named = scene.dir.clone();
        let roots = Roots::from(vec![named.clone()]);
        let (stop, mut seen) = (AtomicBool::new(false), [0; 3]);
        against(swap, || {
            match State::look(&roots, &path, None, options(), &stop) {
                State::Absent => seen[0] += 1,
                state if state == good => seen[1] += 1,
                state => panic!("{state:?}"),
            }
            let canary = named.join("canary");
            let wanted = move |path: &Path, _: bool| !path.starts_with(&canary);
            let mut baseline = Baseline::start(vec![named.clone()], i64::MAX, options(), wanted).unwrap();
            loop {
                match baseline.next_now() {
                    Some(Message::States(states)) => {
                        for (path, state) in states.iter().filter(|(path, _)| path.ends_with("d/e/f")) {
                            assert_eq!(*state, good, "{}", path.display());
                            seen[2] += 1;
                        }
                    }
                    Some(Message::End { .. }) => break,
                    None => thread::yield_now(),
                }
            }
        });
        assert!(seen.iter().all(|count| *count > 0), "{swapped}: {seen:?}");
    }
}

#[test]
fn where_a_third_may_write_nothing_is_put() {
    let Some(mut scene) = Scene::new() else { return };
    scene.good("d/f");
    scene.write("d/f", "bad");
    for (mode, owner, why) in [
        (0o777, OTHER, "everybody may write"),
        (0o775, OTHER, "its group may write"),
        (0o755, OTHER - 1, "belongs to user 65533"),
        (0o1777, OTHER - 1, "belongs to user 65533"),
    ] {
        chown(scene.at("d"), Some(owner), None).unwrap();
        fs::set_permissions(scene.at("d"), fs::Permissions::from_mode(mode)).unwrap();
        let said = scene.restore("d/f").unwrap_err();
        assert!(said.contains(why) && said.lines().count() == 1, "{said}");
        assert_eq!(fs::read_to_string(scene.at("d/f")).unwrap(), "bad");
    }
    scene.nothing_else();
}

#[test]
fn powers_go_back_to_the_same_owner_only() {
    let Some(mut scene) = Scene::new() else { return };
    // `cap_net_bind_service=ep`, as setcap writes it.
    let mut capability = [0_u8; 20];
    capability[..8].copy_from_slice(&[1, 0, 0, 2, 0, 4, 0, 0]);
    for mode in [0o4755, 0o2755, 0o6755] {
        for (owner, group) in [(OTHER, OTHER), (0, OTHER), (OTHER, 0)] {
            scene.write("f", "good");
            fs::set_permissions(scene.at("f"), fs::Permissions::from_mode(mode)).unwrap();
            xattr::set(scene.at("f"), "security.capability", &capability).unwrap();
            scene.good("f");
            scene.write("f", "bad");
            chown(scene.at("f"), Some(owner), Some(group)).unwrap();
            assert!(matches!(scene.restore("f"), Ok(Restored::Good(..))));
            let is_same = (owner, group) == (OTHER, OTHER);
            let now = fs::metadata(scene.at("f")).unwrap().mode() & 0o7777;
            assert_eq!(now, if is_same { mode } else { 0o755 }, "{owner}:{group}");
            let power = xattr::get(scene.at("f"), "security.capability").unwrap();
            assert_eq!(power.as_deref(), is_same.then_some(&capability[..]), "{owner}:{group}");
        }
    }
    scene.nothing_else();
}

#[test]
fn a_link_keeps_its_owner_and_a_directory_in_its_place_stays() {
    let Some(mut scene) = Scene::new() else { return };
    symlink("d", scene.at("l")).unwrap();
    lchown(scene.at("l"), Some(OTHER), Some(OTHER)).unwrap();
    scene.good("l");
    fs::remove_file(scene.at("l")).unwrap();
    assert!(matches!(scene.restore("l"), Ok(Restored::Good(..))));
    let data = fs::symlink_metadata(scene.at("l")).unwrap();
    assert_eq!((data.is_symlink(), data.uid(), data.gid()), (true, OTHER, OTHER));
    fs::remove_file(scene.at("l")).unwrap();
    fs::create_dir(scene.at("l")).unwrap();
    fs::write(scene.at("l/x"), "x").unwrap();
    let said = scene.restore("l").unwrap_err();
    assert!(said.contains("a directory has its name now"), "{said}");
    assert!(scene.at("l/x").exists());
    scene.nothing_else();
}

#[test]
fn only_regular_files_with_the_confirmed_content_are_kept() {
    let Some(mut scene) = Scene::new() else { return };
    let (path, state) = (scene.at("f"), scene.state("f"));
    // Other content than was confirmed is not good.
    scene.write("f", "evil");
    scene.vault.stage(&path, &state).unwrap();
    scene.vault.promote(&path, &state);
    assert_eq!(scene.restore("f"), Ok(Restored::Unknown));
    fs::remove_file(&path).unwrap();
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR, 0).unwrap();
    assert!(scene.vault.stage(&path, &state).unwrap_err().contains("not a regular file"));
    fs::remove_file(&path).unwrap();
    symlink(scene.dir.join("canary/f"), &path).unwrap();
    assert!(scene.vault.stage(&path, &state).is_err());
    scene.nothing_else();
}

#[test]
fn a_named_file_that_was_not_there_is_taken_away_again() {
    let Some(mut scene) = Scene::new() else { return };
    let path = scene.at("d/late");
    scene.vault.hold(std::slice::from_ref(&path));
    scene.vault.keep_absent(&path);
    scene.write("d/late", "bad");
    assert_eq!(scene.restore("d/late"), Ok(Restored::Good(State::Absent, Some(".hotr-bad-late".into()))));
    assert_eq!(fs::read_to_string(scene.at("d/.hotr-bad-late")).unwrap(), "bad");
    assert!(!path.exists());
    // What no root holds is not said to be as it was.
    scene.vault.keep_absent(&scene.at("f"));
    assert!(scene.restore("f").unwrap_err().contains("did not exist when the watch started"));
    scene.nothing_else();
}
