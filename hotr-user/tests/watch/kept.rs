//! How good content is kept: as shared extents where the filesystem can, and not longer than hotr lives.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::run::{Scratch, Watch, root, tool, until};

/// A filesystem in a file, mounted until the end of the test.
struct Image(PathBuf);

impl Image {
    fn new(scratch: &Scratch, package: &str, mkfs: &str) -> Self {
        let (image, at) = (scratch.0.join("image"), scratch.0.join("mnt"));
        fs::File::create(&image).unwrap().set_len(512 << 20).unwrap();
        fs::create_dir(&at).unwrap();
        tool(package, mkfs, &["-q", image.to_str().unwrap()], &scratch.0);
        tool("mount", "mount", &["-o", "loop", image.to_str().unwrap(), at.to_str().unwrap()], &scratch.0);
        Self(at)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

fn vaults(dir: &Path) -> Vec<PathBuf> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    names.filter(|path| path.to_string_lossy().contains("/.hotr-rollback-")).collect()
}

const SAFE: [&str; 4] = ["-p", "--health", "true", "--rollback"];

#[test]
fn contents_share_their_extents() {
    if !root() {
        return;
    }
    for (package, mkfs) in [("xfsprogs", "mkfs.xfs"), ("btrfs-progs", "mkfs.btrfs")] {
        let scratch = Scratch::new(mkfs);
        let mount = Image::new(&scratch, package, mkfs);
        let conf = mount.0.join("conf");
        // Too large to lie inside an inode.
        fs::write(&conf, "good".repeat(1 << 18)).unwrap();
        let watch = Watch::start(&SAFE, &mount.0, &["true"]);
        let kept: Vec<PathBuf> = vaults(&mount.0).iter().map(|dir| dir.join("0")).collect();
        assert_eq!(kept.len(), 1, "{}", watch.said());
        for file in [&conf, &kept[0]] {
            let extents = Command::new("filefrag").arg("-sv").arg(file).output().unwrap();
            let extents = String::from_utf8(extents.stdout).unwrap();
            assert!(extents.contains("shared"), "{mkfs}: {extents}");
        }
        watch.end();
        assert!(vaults(&mount.0).is_empty());
    }
}

#[test]
fn what_a_killed_hotr_kept_goes_at_the_next_start() {
    let scratch = Scratch::new("killed");
    scratch.file("conf", "good");
    let first = Watch::start(&SAFE, &scratch.w(), &["true"]);
    let second = Watch::start(&SAFE, &scratch.w(), &["true"]);
    assert_eq!(vaults(&scratch.w()).len(), 2, "each has its own: {}", second.said());
    second.kill();
    assert_eq!(vaults(&scratch.w()).len(), 2, "there was no time to clean up");
    let mut third = Watch::start(&SAFE, &scratch.w(), &["true"]);
    assert_eq!(vaults(&scratch.w()).len(), 2, "the killed one's has gone, the living one's stays");
    // And neither appears as a change.
    third.nothing_but_a_marker();
    third.end();
    first.end();
    until("all have gone", || vaults(&scratch.w()).is_empty());
}

/// Names in the directory that a restore makes.
fn temporaries(dir: &Path) -> Vec<PathBuf> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    names.filter(|path| path.to_string_lossy().contains("/.hotr-restore-")).collect()
}

/// Kills one while it restores content, which takes some time. Returns what it left, if it was not done already.
fn killed_amid(scratch: &Scratch, owner: Option<u32>) -> Option<PathBuf> {
    let conf = scratch.file("conf", &"good".repeat(8 << 20));
    std::os::unix::fs::chown(&conf, owner, owner).unwrap();
    let args = ["-p", "--health", "false", "--health-timeout", "20ms", "--rollback"];
    let watch = Watch::start(&args, &scratch.w(), &["true"]);
    fs::write(&conf, "bad").unwrap();
    let over = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while temporaries(&scratch.w()).is_empty() && !scratch.w().join(".hotr-bad-conf").exists() {
        assert!(std::time::Instant::now() < over, "{}", watch.said());
    }
    watch.kill();
    let mut left = temporaries(&scratch.w());
    let _gone = fs::remove_file(scratch.w().join(".hotr-bad-conf"));
    assert!(left.len() <= 1, "{left:?}");
    left.pop()
}

#[test]
fn what_a_killed_hotr_was_putting_back_goes_at_the_next_start() {
    // Kept beside the files, and in `/run/hotr`.
    for owner in [None, Some(65534)] {
        if owner.is_some() && !root() {
            return;
        }
        let scratch = Scratch::new("amid");
        std::os::unix::fs::chown(scratch.w(), owner, owner).unwrap();
        let left = (0..20).find_map(|_| killed_amid(&scratch, owner)).expect("one is killed in time");
        let alike = scratch.file(".hotr-restore-0123456789abcdef", "somebody's");
        assert_eq!(fs::read_to_string(scratch.w().join("conf")).unwrap(), "bad");
        let watch = Watch::start(&SAFE, &scratch.w(), &["true"]);
        assert!(!left.exists(), "{}", watch.said());
        assert!(alike.exists());
        watch.end();
        assert_eq!(fs::read_to_string(scratch.w().join("conf")).unwrap(), "bad");
        assert!(vaults(&scratch.w()).is_empty());
    }
}
