//! Watches on a file whose name then belongs to another file.
//!
//! A watch is on the inode. It ends with the inode: when its last name and its last user are gone (fs/inode.c, `iput_final`).

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::verify::bench::{Bench, During, Stop, holds, old_file, overwrite};
use crate::verify::evidence::{Evidence, Listener};
use crate::verify::experiment::{Experiment, Group};
use crate::verify::rulings::words_at;
use crate::verify::verdict::Ruling;

const INOTIFY: &[Listener] = &[Listener::Inotify];
const NAME: &str = "programs that expect a watch on a file to be a watch on its name";

pub(super) const ALL: &[Experiment] = &[
    Experiment {
        name: "replaced-file",
        group: Group::Names,
        claim: "A watch on a file that is replaced by rename ends with IN_DELETE_SELF and IN_IGNORED.",
        source: "inotify(7)",
        method: "Rename a new file over the watched one, and write to the new one.",
        rests_on: INOTIFY,
        run: |bench| replace(bench, Old::Free),
        decide: ends,
    },
    Experiment {
        name: "replaced-file-held-open",
        group: Group::Names,
        claim: "A watch on a file that is replaced by rename ends with IN_DELETE_SELF, also while the file is open.",
        source: NAME,
        method: "As replaced-file, while a program has the old file open.",
        rests_on: INOTIFY,
        run: |bench| replace(bench, Old::HeldOpen),
        decide: ends,
    },
    Experiment {
        name: "replaced-file-hardlinked",
        group: Group::Names,
        claim: "A watch on a file that is replaced by rename ends with IN_DELETE_SELF, also if it has another name.",
        source: NAME,
        method: "As replaced-file, with a hard link to the old file.",
        rests_on: INOTIFY,
        run: |bench| replace(bench, Old::Hardlinked),
        decide: ends,
    },
    Experiment {
        name: "replaced-file-later-write",
        group: Group::Names,
        claim: "A watch on a file receives no write that is made after the file was replaced by rename.",
        source: "bug reports about configuration files and editors",
        method: "As replaced-file; only events of the write count.",
        rests_on: INOTIFY,
        run: |bench| replace(bench, Old::Free),
        decide: |evidence| match evidence.heard("f", "MODIFY") {
            0 => Ruling::confirmed(format!("the watch on f received {}", words_at(evidence, "f"))),
            _ => Ruling::refuted("the watch on f received MODIFY"),
        },
    },
    Experiment {
        name: "data-swap",
        group: Group::Names,
        claim: "A watch on a file of a ConfigMap receives the swap of ..data as IN_MODIFY.",
        source: "expectation in bug reports about reloads in Kubernetes",
        method: "Swap ..data as the kubelet does while conf, a link through ..data, is watched.",
        rests_on: INOTIFY,
        run: swap_data,
        decide: |evidence| match (evidence.heard("conf", "MODIFY"), evidence.heard_any("conf")) {
            (1.., _) => Ruling::confirmed("the watch on conf received MODIFY"),
            (0, 0) => Ruling::refuted("the watch on conf received nothing"),
            _ => Ruling::refuted(format!("the watch on conf received {}", words_at(evidence, "conf"))),
        },
    },
];

/// What else leads to the old file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Old {
    Free,
    HeldOpen,
    Hardlinked,
}

fn replace(bench: &mut Bench<'_>, old: Old) -> Result<(), Stop> {
    let dir = bench.dir("d")?;
    let (file, new) = (dir.join("f"), dir.join("new"));
    old_file(&file, b"1\n")?;
    old_file(&new, b"2\n")?;
    let held = if old == Old::HeldOpen { Some(File::open(&file)?) } else { None };
    if old == Old::Hardlinked {
        fs::hard_link(&file, dir.join("other")).during("link a file")?;
    }
    bench.watch("f", &file)?;
    bench.operate(|_| {
        fs::rename(&new, &file).during("rename a file")?;
        overwrite(&file, b"3\n")
    })?;
    drop(held);
    bench.done(holds(&file, b"3\n"));
    Ok(())
}

fn ends(evidence: &Evidence) -> Ruling {
    let received = words_at(evidence, "f");
    match (evidence.heard("f", "DELETE_SELF"), evidence.heard("f", "IGNORED")) {
        (1.., 1..) => Ruling::confirmed(format!("the watch on f received {received}")),
        (0, 0) if received.is_empty() => Ruling::refuted("the watch on f received nothing"),
        (0, 0) => Ruling::refuted(format!("the watch on f received only {received}, and is still there")),
        _ => Ruling::partly(format!("the watch on f received {received}")),
    }
}

fn swap_data(bench: &mut Bench<'_>) -> Result<(), Stop> {
    let dir = bench.dir("volume")?;
    let version = |name: &str, content: &[u8]| -> Result<(), Stop> {
        fs::create_dir(dir.join(name)).during("make a directory")?;
        old_file(&dir.join(name).join("conf"), content)
    };
    version("..1", b"1\n")?;
    symlink("..1", dir.join("..data")).during("make a link")?;
    symlink("..data/conf", dir.join("conf")).during("make a link")?;
    let conf = dir.join("conf");
    bench.watch("conf", &conf)?;
    bench.compare("..data", &dir.join("..data"));
    bench.operate(|_| {
        version("..2", b"2\n")?;
        swap_link(&dir, "..2")?;
        fs::remove_dir_all(dir.join("..1")).during("remove a directory")
    })?;
    bench.done(holds(&conf, b"2\n"));
    Ok(())
}

fn swap_link(dir: &Path, version: &str) -> Result<(), Stop> {
    symlink(version, dir.join("..data_tmp")).during("make a link")?;
    fs::rename(dir.join("..data_tmp"), dir.join("..data")).during("rename a link")
}
