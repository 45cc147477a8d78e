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
