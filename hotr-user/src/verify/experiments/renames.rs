//! Many renames on ext4 in each of its journal modes, and while the dentry cache is emptied.

use std::fs;
use std::path::Path;

use super::names::{Pairs, paired};
use crate::verify::bench::{Bench, During, Stop, holds, old_file};
use crate::verify::evidence::{Evidence, Listener};
use crate::verify::experiment::{Experiment, Group};
use crate::verify::make_filesystem::Disk;
use crate::verify::verdict::Ruling;

const INOTIFY: &[Listener] = &[Listener::Inotify];
const SOURCE: &str = "an article about a stale dentry cache under data=ordered";
/// How many; with the events before and after, less than half of a queue. `--repeat` makes more of them.
const RENAMES: u64 = 2000;
/// How many are made between two times that the cache is emptied.
const BETWEEN: u64 = 400;

pub(super) const ALL: &[Experiment] = &[
    Experiment {
        name: "renames-ext4-ordered",
        group: Group::Names,
        claim: "Under frequent renames, ext4 with data=ordered cuts IN_MOVED_TO to IN_CREATE.",
        source: SOURCE,
        method: "Rename a file 2000 times in a watched directory of an ext4 with data=ordered.",
        rests_on: INOTIFY,
        run: |bench| renamed(bench, Disk::Ext4Ordered, false),
        decide: cut,
    },
    Experiment {
        name: "renames-ext4-journal",
        group: Group::Names,
        claim: "Under frequent renames, ext4 with data=journal does not cut IN_MOVED_TO to IN_CREATE.",
        source: SOURCE,
        method: "As renames-ext4-ordered, with data=journal.",
        rests_on: INOTIFY,
        run: |bench| renamed(bench, Disk::Ext4Journal, false),
        decide: |evidence| match paired(evidence) {
            pairs @ Pairs { complete: RENAMES, halves: 0, created: 0 } => Ruling::confirmed(said(&pairs)),
            pairs @ Pairs { created: 1.., .. } => Ruling::refuted(said(&pairs)),
            pairs => Ruling::partly(said(&pairs)),
        },
    },
    Experiment {
        name: "renames-ext4-writeback",
        group: Group::Names,
        claim: "Under frequent renames, ext4 with data=writeback cuts IN_MOVED_TO to IN_CREATE.",
        source: SOURCE,
        method: "As renames-ext4-ordered, with data=writeback.",
        rests_on: INOTIFY,
        run: |bench| renamed(bench, Disk::Ext4Writeback, false),
        decide: cut,
    },
    Experiment {
        name: "renames-ext4-pressure",
        group: Group::Names,
        claim: "When the dentry cache is emptied meanwhile, ext4 with data=ordered cuts IN_MOVED_TO to IN_CREATE.",
        source: SOURCE,
        method: "As renames-ext4-ordered, and write 2 to /proc/sys/vm/drop_caches 4 times; it frees caches and changes no setting.",
        rests_on: INOTIFY,
        run: |bench| renamed(bench, Disk::Ext4Ordered, true),
        decide: cut,
    },
];

fn renamed(bench: &mut Bench<'_>, disk: Disk, drops: bool) -> Result<(), Stop> {
    let dir = bench.dir_on(disk)?;
    let name = |number: u64| dir.join(format!("f{number}"));
    old_file(&name(0), b"1\n")?;
    bench.watch("d", &dir)?;
    let result = bench.operate(|_| {
        let mut dropped = 0;
        for number in 0..RENAMES {
            if drops && number > 0 && number % BETWEEN == 0 {
                fs::write("/proc/sys/vm/drop_caches", "2").during("empty the dentry cache")?;
                dropped += 1;
            }
            fs::rename(name(number), name(number + 1)).during("rename a file")?;
        }
        Ok(dropped)
    })?;
    if let Some(dropped) = result.filter(|_| drops) {
        bench.fact("caches_dropped", dropped);
    }
    bench.done(is_renamed(&name(RENAMES)));
    Ok(())
}

fn is_renamed(last: &Path) -> bool {
    holds(last, b"1\n")
}

fn said(pairs: &Pairs) -> String {
    format!("{RENAMES} renames: {}", pairs.say())
}

/// Of a claim that IN_CREATE comes instead of IN_MOVED_TO.
fn cut(evidence: &Evidence) -> Ruling {
    match paired(evidence) {
        pairs @ Pairs { complete: RENAMES, halves: 0, created: 0 } => Ruling::refuted(said(&pairs)),
        pairs @ Pairs { created: 1.., .. } => Ruling::confirmed(said(&pairs)),
        pairs => Ruling::partly(said(&pairs)),
    }
}
