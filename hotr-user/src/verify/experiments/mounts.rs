//! Mounts over, under and beside a watched directory, and mount namespaces.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::inotify::WatchFlags;
use rustix::fs::{Mode, mkdirat};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, unmount,
};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::verify::bench::{Bench, During, Stop, holds, old_file, overwrite};
use crate::verify::evidence::Listener;
use crate::verify::experiment::{Experiment, Group};
use crate::verify::rulings::{receives, receives_nothing, words_at};
use crate::verify::verdict::Ruling;

const INOTIFY: &[Listener] = &[Listener::Inotify];
/// How long a mount may be busy.
const BUSY: Duration = Duration::from_secs(2);

pub(super) const ALL: &[Experiment] = &[
    Experiment {
        name: "mount-over",
        group: Group::Mounts,
        claim: "A watch on a directory receives nothing of the files of a filesystem mounted over it.",
        source: "inotify(7): a watch is on the inode",
        method: "Mount a tmpfs on a watched directory and write a file there.",
        rests_on: INOTIFY,
        run: |bench| {
            let dir = bench.dir("d")?;
            bench.watch("d", &dir)?;
            // Whether hotr finds the mount before the write is a matter of luck.
            bench.leave_uncovered(&dir);
            // Leads below the new mount, as the watch does.
            let below = File::open(&dir)?;
            bench.operate(|bench| {
                mount("tmpfs", &dir, "tmpfs", MountFlags::empty(), None).during("mount a tmpfs")?;
                bench.remember_mount(&dir);
                fs::write(dir.join("f"), b"1\n").during("write a file")
            })?;
            bench.done(holds(&dir.join("f"), b"1\n"));
            bench.control("d", || mkdirat(&below, "g", Mode::RWXU).during("make a directory below the mount"))
        },
        decide: |evidence| receives_nothing(evidence, "d"),
    },
    Experiment {
        name: "unmount",
        group: Group::Mounts,
        claim: "Unmounting a filesystem ends a watch on it with IN_UNMOUNT and IN_IGNORED.",
        source: "inotify(7)",
        method: "Unmount a tmpfs with a watched directory.",
        rests_on: INOTIFY,
        run: |bench| unmounted(bench, false),
        decide: |evidence| match (evidence.heard("d", "UNMOUNT"), evidence.heard("d", "IGNORED")) {
            (1.., 1..) => Ruling::confirmed(format!("the watch on d received {}", words_at(evidence, "d"))),
            (0, 0) => Ruling::refuted("the watch on d received nothing"),
            _ => Ruling::partly(format!("the watch on d received {}", words_at(evidence, "d"))),
        },
    },
    Experiment {
        name: "lazy-unmount",
        group: Group::Mounts,
        claim: "A lazy unmount sends IN_UNMOUNT at once, also while a file of the filesystem is open.",
        source: "umount2(2), MNT_DETACH",
        method: "Detach a tmpfs with a watched directory and an open file.",
        rests_on: INOTIFY,
        run: |bench| unmounted(bench, true),
        decide: |evidence| receives(evidence, "d", "UNMOUNT"),
    },
    Experiment {
        name: "namespace-bind-mount",
        group: Group::Mounts,
        claim: "Mount namespaces isolate inotify: a change that is made in another one is not received.",
        source: "articles about inotify and containers",
        method: "Write through a bind mount of the watched directory that only another namespace has.",
        rests_on: INOTIFY,
        run: |bench| elsewhere(bench, Elsewhere::Bind),
        decide: |evidence| match evidence.heard("d", "MODIFY") {
            0 => receives_nothing(evidence, "d"),
            _ => Ruling::refuted("the watch on d received MODIFY"),
        },
    },
    Experiment {
        name: "namespace-bind-fanotify",
        group: Group::Mounts,
        claim: "A fanotify mark on a directory receives a change that is made in another mount namespace.",
        source: "fanotify(7), as a remedy in articles about containers",
        method: "As namespace-bind-mount; only fanotify counts.",
        rests_on: &[Listener::Fanotify],
        run: |bench| elsewhere(bench, Elsewhere::Bind),
        decide: |evidence| match evidence.total(Listener::Fanotify, "MODIFY") {
            0 => Ruling::refuted("fanotify received no MODIFY"),
            _ => Ruling::confirmed("fanotify received MODIFY"),
        },
    },
    Experiment {
        name: "namespace-private-tmpfs",
        group: Group::Mounts,
        claim: "A write to a tmpfs that another mount namespace has at the watched path is not received.",
        source: "articles about inotify and containers",
        method: "In another mount namespace, mount a tmpfs on the watched path and write there.",
        rests_on: INOTIFY,
        run: |bench| elsewhere(bench, Elsewhere::Tmpfs),
        decide: |evidence| receives_nothing(evidence, "d"),
    },
    Experiment {
        name: "bind-mount",
        group: Group::Mounts,
        claim: "A write through a bind mount is received by a watch on the mounted directory.",
        source: "inotify(7): a watch is on the inode",
        method: "Write through a bind mount of the watched directory.",
        rests_on: INOTIFY,
        run: |bench| {
            let (dir, other) = (bench.dir("d")?, bench.dir("other")?);
            old_file(&dir.join("f"), b"1\n")?;
            mount_bind(&dir, &other).during("make a bind mount")?;
            bench.remember_mount(&other);
            bench.watch("d", &dir)?;
            bench.compare("d/f", &dir.join("f"));
            bench.operate(|_| overwrite(&other.join("f"), b"22\n"))?;
            bench.done(holds(&dir.join("f"), b"22\n"));
            Ok(())
        },
        decide: |evidence| receives(evidence, "d", "MODIFY"),
    },
];

fn unmounted(bench: &mut Bench<'_>, is_held: bool) -> Result<(), Stop> {
    let at = bench.dir("m")?;
    bench.mount("tmpfs", &at, "size=1m")?;
    let dir = at.join("d");
    fs::create_dir(&dir).during("make a directory")?;
    let held = if is_held {
        let path = at.join("open");
        old_file(&path, b"1\n")?;
        Some(File::open(&path)?)
    } else {
        None
    };
    bench.inotify_watch("d", &dir, WatchFlags::CREATE)?;
    bench.compare("m", &at);
    bench.leave_uncovered(&at);
    let flags = if is_held { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    bench.operate(|_| unmount_soon(&at, flags).during("unmount a tmpfs"))?;
    bench.done(!dir.exists());
    drop(held);
    Ok(())
}

/// Unmounts; hotr may be looking at the new mount for a moment, and keeps it busy as long.
fn unmount_soon(at: &Path, flags: UnmountFlags) -> Result<(), Errno> {
    let over = Instant::now() + BUSY;
    loop {
        match unmount(at, flags) {
            Err(Errno::BUSY) if Instant::now() < over => std::thread::yield_now(),
            result => return result,
        }
    }
}

/// What another namespace has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Elsewhere {
    Bind,
    Tmpfs,
}

fn elsewhere(bench: &mut Bench<'_>, kind: Elsewhere) -> Result<(), Stop> {
    let (dir, other) = (bench.dir("d")?, bench.dir("other")?);
    old_file(&dir.join("f"), b"1\n")?;
    bench.watch("d", &dir)?;
    bench.compare("d/f", &dir.join("f"));
    let result = bench.operate(|_| in_new_namespace(kind, dir.clone(), other.clone()))?;
    let written = holds(&dir.join("f"), b"22\n");
    let is_done = match kind {
        Elsewhere::Bind => written && !other.join("f").exists(),
        Elsewhere::Tmpfs => result == Some(true) && !written,
    };
    bench.done(is_done);
    bench.control("d", || overwrite(&dir.join("f"), b"3\n"))
}

/// Writes from a thread in a mount namespace of its own, which ends with the thread; whether the file was written there.
fn in_new_namespace(kind: Elsewhere, dir: PathBuf, other: PathBuf) -> Result<bool, Stop> {
    let write = move || -> Result<bool, Stop> {
        // SAFETY: descriptors stay shared; only where paths lead is this thread's own, which opens what it uses itself.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.during("make a mount namespace")?;
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private).during("make mounts private")?;
        let path: &Path = match kind {
            Elsewhere::Bind => {
                mount_bind(&dir, &other).during("make a bind mount")?;
                &other
            }
            Elsewhere::Tmpfs => {
                mount("tmpfs", &dir, "tmpfs", MountFlags::empty(), None).during("mount a tmpfs")?;
                old_file(&dir.join("f"), b"1\n")?;
                &dir
            }
        };
        overwrite(&path.join("f"), b"22\n")?;
        Ok(holds(&path.join("f"), b"22\n"))
    };
    std::thread::spawn(write).join().unwrap_or_else(|_| Err(Stop("the other thread ended".to_owned())))
}
