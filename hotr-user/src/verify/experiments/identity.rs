//! Inode numbers that are used again, and what becomes of the watch of the former file.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::verify::bench::{Bench, During, Stop, holds, old_file, overwrite};
use crate::verify::evidence::{Evidence, Listener};
use crate::verify::experiment::{Experiment, Group};
use crate::verify::make_filesystem::Disk;
use crate::verify::rulings::words_at;
use crate::verify::verdict::Ruling;

const INOTIFY: &[Listener] = &[Listener::Inotify];
const SOURCE: &str = "an article about delayed allocation and inode reuse on xfs";
const METHOD: &str =
    "Remove a watched file, make files until one has its inode number, and write to that one.";
/// A filesystem that has not reused a number by then hands out new ones. xfs frees an inode in the background, and needs more.
const fn most_tries(disk: Disk) -> u64 {
    if matches!(disk, Disk::Xfs) { 3000 } else { 100 }
}

pub(super) const ALL: &[Experiment] = &[
    Experiment {
        name: "inode-reuse-ext4",
        group: Group::Identity,
        claim: "On ext4, the reuse of an inode number silences a watcher without IN_IGNORED.",
        source: SOURCE,
        method: METHOD,
        rests_on: INOTIFY,
        run: |bench| reuse(bench, Disk::Ext4),
        decide: silenced,
    },
    Experiment {
        name: "inode-reuse-xfs",
        group: Group::Identity,
        claim: "On xfs, the reuse of an inode number silences a watcher without IN_IGNORED.",
        source: SOURCE,
        method: METHOD,
        rests_on: INOTIFY,
        run: |bench| reuse(bench, Disk::Xfs),
        decide: silenced,
    },
    Experiment {
        name: "inode-reuse-btrfs",
        group: Group::Identity,
        claim: "On btrfs, the reuse of an inode number silences a watcher without IN_IGNORED.",
        source: SOURCE,
        method: METHOD,
        rests_on: INOTIFY,
        run: |bench| reuse(bench, Disk::Btrfs),
        decide: silenced,
    },
];

fn reuse(bench: &mut Bench<'_>, disk: Disk) -> Result<(), Stop> {
    let dir = bench.dir_on(disk)?;
    let path = dir.join("f");
    old_file(&path, &[b'1'; 1 << 16])?;
    let ino = fs::metadata(&path).during("look at a file")?.ino();
    let before = generation(&path);
    bench.watch("f", &path)?;
    let result = bench.operate(|bench| {
        fs::remove_file(&path).during("remove a file")?;
        let (tries, again) = make_until(&dir, ino, most_tries(disk))?;
        bench.fact("tries", tries);
        bench.fact("reused", u64::from(again));
        let after = generation(&dir.join(tries.to_string()));
        if let (Some(before), Some(after)) = (before, after) {
            bench.fact("generation", before.into());
            bench.fact("generation_of_new", after.into());
        }
        if again {
            overwrite(&dir.join(tries.to_string()), b"2\n")?;
        }
        Ok(tries)
    })?;
    bench.done(result.is_some_and(|tries| !path.exists() && dir.join(tries.to_string()).exists()));
    Ok(())
}

/// Makes files until one has this inode number; how many, and whether the last one has it.
fn make_until(dir: &Path, ino: u64, most: u64) -> Result<(u64, bool), Stop> {
    let root = File::open(dir)?;
    for number in 1..=most {
        // xfs frees an inode in the background (fs/xfs/xfs_icache.c, `xfs_inodegc_worker`).
        rustix::fs::syncfs(&root).during("sync a filesystem")?;
        let path = dir.join(number.to_string());
        fs::write(&path, b"").during("make a file")?;
        if fs::metadata(&path).during("look at a file")?.ino() == ino {
            return Ok((number, holds(&path, b"")));
        }
    }
    Ok((most, false))
}

/// The generation of an inode, where the filesystem tells it.
fn generation(path: &Path) -> Option<u32> {
    const GETVERSION: libc::c_ulong = 0x8008_7601;
    let file = File::open(path).ok()?;
    // The request has the size of a long; the filesystems write an int (fs/ext4/ioctl.c, `ext4_ioctl`).
    let mut generation = [0_u32; 2];
    // SAFETY: the destination is a local of the size in the request.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), GETVERSION, &raw mut generation) };
    (result == 0).then_some(generation[0])
}

fn silenced(evidence: &Evidence) -> Ruling {
    let tries = evidence.fact("tries");
    if evidence.heard("f", "IGNORED") == 0 {
        let reused = if evidence.fact("reused") == 1 { "was" } else { "was not" };
        return Ruling::confirmed(format!("no IN_IGNORED; the number {reused} reused"));
    }
    let received = words_at(evidence, "f");
    match evidence.fact("reused") {
        1 if evidence.heard("f", "MODIFY") > 0 => {
            Ruling::refuted(format!("the watch even received MODIFY of the new file: {received}"))
        }
        1 if evidence.fact("generation") != evidence.fact("generation_of_new") => Ruling::refuted(format!(
            "reused at try {tries} with another generation; the watch on f received {received}"
        )),
        1 => Ruling::refuted(format!("reused at try {tries}; the watch on f received {received}")),
        _ => Ruling::not_testable(format!("the number was not reused in {tries} tries")),
    }
}
