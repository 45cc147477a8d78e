//! Renames, exchanges, links: what becomes of names.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, linkat, open, renameat_with};

use crate::verify::bench::{Bench, During, Stop, holds, old_file, overwrite};
use crate::verify::evidence::{Evidence, Listener};
use crate::verify::experiment::{Experiment, Group};
use crate::verify::make_filesystem::Disk;
use crate::verify::rulings::{receives, receives_nothing};
use crate::verify::verdict::Ruling;

const INOTIFY: &[Listener] = &[Listener::Inotify];
/// How many; with the events before and after, less than half of a queue.
const RENAMES: u64 = 1000;

pub(super) const ALL: &[Experiment] = &[
    Experiment {
        name: "rename-pairs-tmpfs",
        group: Group::Names,
        claim: "Every rename in a watched directory is received as IN_MOVED_FROM and IN_MOVED_TO with one cookie.",
        source: "inotify(7)",
        method: "Rename a file 1000 times in a watched directory of a tmpfs.",
        rests_on: INOTIFY,
        run: |bench| {
            let dir = bench.dir("d")?;
            renames(bench, &dir)
        },
        decide: |evidence| match paired(evidence) {
            Pairs { complete: RENAMES, created: 0, .. } => {
                Ruling::confirmed(format!("{RENAMES} renames, {RENAMES} complete pairs"))
            }
            pairs => Ruling::refuted(pairs.say()),
        },
    },
    Experiment {
        name: "rename-pairs-ext4",
        group: Group::Names,
        claim: "Under frequent renames, ext4 in its usual mode cuts IN_MOVED_TO to IN_CREATE.",
        source: "an article about a stale dentry cache under data=ordered",
        method: "Rename a file 1000 times in a watched directory of an ext4.",
        rests_on: INOTIFY,
        run: |bench| {
            let dir = bench.dir_on(Disk::Ext4)?;
            renames(bench, &dir)
        },
        decide: |evidence| match paired(evidence) {
            Pairs { complete: RENAMES, created: 0, .. } => {
                Ruling::refuted(format!("{RENAMES} renames, {RENAMES} complete pairs, no IN_CREATE"))
            }
            pairs @ Pairs { created: 1.., .. } => Ruling::confirmed(pairs.say()),
            pairs => Ruling::partly(pairs.say()),
        },
    },
    Experiment {
        name: "rename-exchange",
        group: Group::Names,
        claim: "An exchange of two names is received as two pairs with two cookies.",
        source: "fs/namei.c, vfs_rename",
        method: "Exchange a and b in a watched directory (renameat2 with RENAME_EXCHANGE).",
        rests_on: INOTIFY,
        run: exchange,
        decide: |evidence| match paired(evidence) {
            Pairs { complete: 2, halves: 0, .. } => Ruling::confirmed("2 complete pairs"),
            pairs => Ruling::refuted(pairs.say()),
        },
    },
    Experiment {
        name: "hardlink-alias",
        group: Group::Names,
        claim: "A write through a hard link in another directory is not received by a watch on the directory.",
        source: "inotify(7): events are for the path that was used",
        method: "Write to b/g, which is the same file as a/f, while a/ is watched.",
        rests_on: INOTIFY,
        run: |bench| {
            let (a, b) = (bench.dir("a")?, bench.dir("b")?);
            old_file(&a.join("f"), b"1\n")?;
            fs::hard_link(a.join("f"), b.join("g")).during("link a file")?;
            bench.watch("a", &a)?;
            bench.compare("a/f", &a.join("f"));
            bench.operate(|_| overwrite(&b.join("g"), b"22\n"))?;
            bench.done(holds(&a.join("f"), b"22\n"));
            bench.control("a", || overwrite(&a.join("f"), b"3\n"))
        },
        decide: |evidence| receives_nothing(evidence, "a"),
    },
    Experiment {
        name: "tmpfile-linkat",
        group: Group::Names,
        claim: "A file made by O_TMPFILE and linkat is received as IN_CREATE of its final name.",
        source: "open(2)",
        method: "Write to a file without a name and link it into a watched directory.",
        rests_on: INOTIFY,
        run: tmpfile,
        decide: |evidence| receives(evidence, "d", "CREATE"),
    },
];

/// Events of renames.
pub(super) struct Pairs {
    /// IN_MOVED_FROM and IN_MOVED_TO with one cookie.
    pub(super) complete: u64,
    /// Cookies of another number of events.
    pub(super) halves: u64,
    /// IN_CREATE.
    pub(super) created: u64,
}

impl Pairs {
    pub(super) fn say(&self) -> String {
        let Self { complete, halves, created } = self;
        format!("{complete} complete pairs, {halves} halves, {created} IN_CREATE")
    }
}

/// Events of renames by their cookies.
pub(super) fn paired(evidence: &Evidence) -> Pairs {
    let mut cookies: HashMap<u32, (u64, u64)> = HashMap::new();
    for event in evidence.at("d").filter(|event| event.cookie != 0) {
        let counts = cookies.entry(event.cookie).or_default();
        counts.0 += u64::from(event.is("MOVED_FROM"));
        counts.1 += u64::from(event.is("MOVED_TO"));
    }
    let complete = cookies.values().filter(|counts| **counts == (1, 1)).count() as u64;
    let halves = cookies.len() as u64 - complete;
    Pairs { complete, halves, created: evidence.heard("d", "CREATE") }
}

fn renames(bench: &mut Bench<'_>, dir: &Path) -> Result<(), Stop> {
    let name = |number: u64| dir.join(format!("f{number}"));
    old_file(&name(0), b"1\n")?;
    bench.watch("d", dir)?;
    bench.operate(|_| {
        (0..RENAMES).try_for_each(|n| fs::rename(name(n), name(n + 1))).during("rename a file")
    })?;
    bench.done(holds(&name(RENAMES), b"1\n"));
    Ok(())
}

fn exchange(bench: &mut Bench<'_>) -> Result<(), Stop> {
    let dir = bench.dir("d")?;
    let (a, b) = (dir.join("a"), dir.join("b"));
    old_file(&a, b"a\n")?;
    old_file(&b, b"b\n")?;
    bench.watch("d", &dir)?;
    bench.compare("d/a", &a);
    bench.operate(|_| renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE).during("exchange two names"))?;
    bench.done(holds(&a, b"b\n"));
    Ok(())
}

fn tmpfile(bench: &mut Bench<'_>) -> Result<(), Stop> {
    let dir = bench.dir("d")?;
    bench.watch("d", &dir)?;
    bench.compare("d/f", &dir.join("f"));
    bench.operate(|_| {
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        let mut file = fs::File::from(open(&dir, flags, Mode::RUSR | Mode::WUSR).during("use O_TMPFILE")?);
        file.write_all(b"1\n").during("write")?;
        let nameless = format!("/proc/self/fd/{}", file.as_raw_fd());
        linkat(CWD, nameless, CWD, dir.join("f"), AtFlags::SYMLINK_FOLLOW).during("link a file")
    })?;
    bench.done(holds(&dir.join("f"), b"1\n"));
    Ok(())
}
