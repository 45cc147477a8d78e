//! What a watch itself does: its mask, its flags, its queue, and what it costs.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::WatchFlags;

use crate::verify::bench::{Bench, During, Stop, holds, old_file, overwrite};
use crate::verify::evidence::{Evidence, Listener};
use crate::verify::experiment::{Experiment, Group};
use crate::verify::rulings::{receives_nothing, words_at};
use crate::verify::verdict::Ruling;

const INOTIFY: &[Listener] = &[Listener::Inotify];
const LIMIT: &str = "/proc/sys/fs/inotify/max_queued_events";
/// A queue that is longer takes too long to fill.
const LONGEST_QUEUE: u64 = 200_000;
/// Directories of a tree of 8 in 8 in 8.
const WIDTH: u64 = 8;
const DIRECTORIES: u64 = 1 + WIDTH + WIDTH * WIDTH + WIDTH * WIDTH * WIDTH;

pub(super) const ALL: &[Experiment] = &[
    Experiment {
        name: "queue-overflow",
        group: Group::Watches,
        claim: "A full queue swallows IN_DELETE_SELF and IN_IGNORED too; one IN_Q_OVERFLOW stands for all.",
        source: "fs/notify/notification.c, fsnotify_insert_event",
        method: "Fill the queue without reading it, remove another watched file, and read.",
        rests_on: INOTIFY,
        run: overflow,
        decide: swallowed,
    },
    Experiment {
        name: "merged-events",
        group: Group::Watches,
        claim: "Equal events in a row are received as one.",
        source: "inotify(7)",
        method: "Write three times to a watched file before the queue is read.",
        rests_on: INOTIFY,
        run: |bench| {
            let path = watched_file(bench, WatchFlags::MODIFY)?;
            bench.operate(|bench| {
                let mut file = File::options().write(true).open(&path)?;
                (0..3).try_for_each(|_| file.write_all(b"22\n")).during("write")?;
                bench.fact("writes", 3);
                Ok(())
            })?;
            bench.done(holds(&path, b"22\n22\n22\n"));
            Ok(())
        },
        decide: |evidence| {
            let (events, writes) = (evidence.heard("f", "MODIFY"), evidence.fact("writes"));
            let why = format!("{writes} writes, {events} MODIFY");
            match events {
                1 => Ruling::confirmed(why),
                0 => Ruling::refuted(why),
                _ if events < writes => Ruling::partly(why),
                _ => Ruling::refuted(why),
            }
        },
    },
    Experiment {
        name: "new-directory-race",
        group: Group::Watches,
        claim: "A file that is made in a new directory before the directory is watched is received by no watch.",
        source: "inotify(7): limitations and caveats",
        method: "Make a directory and a file in it, then add the watch that IN_CREATE of the directory calls for.",
        rests_on: INOTIFY,
        run: raced,
        decide: |evidence| receives_nothing(evidence, "d/new"),
    },
    Experiment {
        name: "mask-mismatch",
        group: Group::Watches,
        claim: "A watch for IN_CLOSE_WRITE only does not receive a truncation by path.",
        source: "inotify(7): only what the mask asks for",
        method: "Call truncate on a file that is watched for IN_CLOSE_WRITE.",
        rests_on: INOTIFY,
        run: |bench| {
            let path = watched_file(bench, WatchFlags::CLOSE_WRITE)?;
            bench.operate(|_| truncate(&path))?;
            bench.done(holds(&path, b""));
            bench.control("f", || overwrite(&path, b"3"))
        },
        decide: |evidence| receives_nothing(evidence, "f"),
    },
    Experiment {
        name: "oneshot",
        group: Group::Watches,
        claim: "A watch with IN_ONESHOT ends after one event, with IN_IGNORED.",
        source: "inotify(7)",
        method: "Change a file twice that is watched with IN_ONESHOT.",
        rests_on: INOTIFY,
        run: |bench| {
            let path = watched_file(bench, WatchFlags::MODIFY | WatchFlags::ATTRIB | WatchFlags::ONESHOT)?;
            bench.operate(|_| {
                overwrite(&path, b"22\n")?;
                rustix::fs::chmod(&path, rustix::fs::Mode::RUSR).during("change the mode")
            })?;
            bench.done(holds(&path, b"22\n"));
            Ok(())
        },
        decide: |evidence| {
            let received = words_at(evidence, "f");
            match (
                evidence.heard("f", "MODIFY"),
                evidence.heard("f", "IGNORED"),
                evidence.heard("f", "ATTRIB"),
            ) {
                (1, 1, 0) => Ruling::confirmed(format!("the watch on f received {received}")),
                (1, 0, 0) => Ruling::partly("the watch ended without IN_IGNORED"),
                _ => Ruling::refuted(format!("the watch on f received {received}")),
            }
        },
    },
    Experiment {
        name: "excl-unlink",
        group: Group::Watches,
        claim: "A watch with IN_EXCL_UNLINK on a directory receives no write to a file that was removed there.",
        source: "inotify(7)",
        method: "Write to an open file after its removal; one directory has IN_EXCL_UNLINK, the other has not.",
        rests_on: INOTIFY,
        run: excluded,
        decide: |evidence| match (evidence.heard("with", "MODIFY"), evidence.heard("without", "MODIFY")) {
            (0, 1..) => Ruling::confirmed("without the flag MODIFY was received, with it not"),
            (0, 0) => Ruling::partly("neither watch received MODIFY: the flag makes no difference"),
            _ => Ruling::refuted("the watch with IN_EXCL_UNLINK received MODIFY"),
        },
    },
    Experiment {
        name: "second-add-watch",
        group: Group::Watches,
        claim: "A second inotify_add_watch on the same file gives the same descriptor and replaces the mask.",
        source: "inotify(7)",
        method: "Watch a file for IN_MODIFY, then its hard link for IN_ATTRIB, and write.",
        rests_on: INOTIFY,
        run: added_twice,
        decide: |evidence| match (evidence.fact("same_descriptor"), evidence.heard("f", "MODIFY")) {
            (1, 0) => Ruling::confirmed("one descriptor; the write was not received"),
            (1, _) => Ruling::refuted("one descriptor; the write was received"),
            _ => Ruling::refuted("two descriptors"),
        },
    },
    Experiment {
        name: "recursive-watch",
        group: Group::Watches,
        claim: "A recursive watch needs one file descriptor for each directory.",
        source: "articles about limits of open files",
        method: "Watch each directory of a tree of 8 in 8 in 8, count descriptors and watches, and make a file in the last.",
        rests_on: INOTIFY,
        run: recursive,
        decide: |evidence| {
            let (watches, fds) = (evidence.fact("watches"), evidence.fact("new_descriptors"));
            let why = format!("{watches} watches, {fds} more descriptors");
            if watches != DIRECTORIES || evidence.heard("tree", "CREATE") == 0 {
                return Ruling::not_testable(format!("{why}, {DIRECTORIES} directories"));
            }
            if fds >= DIRECTORIES { Ruling::confirmed(why) } else { Ruling::refuted(why) }
        },
    },
];

/// A file in the laboratory that is watched with this mask, and compared.
fn watched_file(bench: &mut Bench<'_>, mask: WatchFlags) -> Result<PathBuf, Stop> {
    let path = bench.dir("d")?.join("f");
    old_file(&path, b"1\n")?;
    bench.inotify_watch("f", &path, mask)?;
    bench.compare("f", &path);
    Ok(path)
}

fn truncate(path: &Path) -> Result<(), Stop> {
    use std::os::unix::ffi::OsStrExt;
    let path =
        std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(|error| Stop(error.to_string()))?;
    // SAFETY: a live string that ends in NUL.
    let result = unsafe { libc::truncate(path.as_ptr(), 0) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()).during("truncate a file") }
}

fn raced(bench: &mut Bench<'_>) -> Result<(), Stop> {
    let dir = bench.dir("d")?;
    let new = dir.join("new");
    bench.watch("d", &dir)?;
    bench.compare("d/new", &new);
    let result = bench.operate(|bench| {
        fs::create_dir(&new).during("make a directory")?;
        fs::write(new.join("f"), b"1\n").during("write a file")?;
        bench.inotify_watch("d/new", &new, WatchFlags::CREATE | WatchFlags::MODIFY)
    })?;
    bench.done(result.is_some() && holds(&new.join("f"), b"1\n"));
    if result.is_none() {
        return Ok(());
    }
    bench.control("d/new", || fs::write(new.join("g"), b"1\n").during("write a file"))
}

fn overflow(bench: &mut Bench<'_>) -> Result<(), Stop> {
    let limit = fs::read_to_string(LIMIT).during("read max_queued_events")?;
    let limit: u64 = limit.trim().parse().map_err(|_| Stop(format!("{LIMIT} holds no number")))?;
    if limit > LONGEST_QUEUE {
        return Err(Stop(format!("max_queued_events is {limit}: too long a queue to fill")));
    }
    let dir = bench.dir("d")?;
    let [a, b, victim] = ["a", "b", "victim"].map(|name| dir.join(name));
    for path in [&a, &b, &victim] {
        old_file(path, b"1\n")?;
    }
    // The barriers' watch is there as well.
    bench.inotify_watch("d", &dir, WatchFlags::MODIFY)?;
    bench.inotify_watch("victim", &victim, WatchFlags::DELETE_SELF)?;
    bench.compare("victim", &victim);
    bench.fact("queue", limit);
    let result = bench.operate(|bench| {
        let open = |path| File::options().write(true).open(path);
        let (mut one, mut other) = (open(&a)?, open(&b)?);
        // By turns: equal events in a row would be merged.
        for _ in 0..=limit / 2 {
            one.write_all(b"1").during("write")?;
            other.write_all(b"1").during("write")?;
        }
        fs::remove_file(&victim).during("remove a file")?;
        bench.fact("watches_left", bench.live_watches());
        Ok(())
    })?;
    bench.done(result.is_some() && !victim.exists());
    Ok(())
}

fn swallowed(evidence: &Evidence) -> Ruling {
    let overflows = evidence.total(Listener::Inotify, "Q_OVERFLOW");
    let (received, queue) = (evidence.heard("d", "MODIFY"), evidence.fact("queue"));
    let of_victim = evidence.heard_any("victim");
    let why =
        format!("{received} of {queue} events, {overflows} Q_OVERFLOW, {of_victim} of the removed file");
    match (overflows, of_victim, evidence.fact("watches_left")) {
        (1, 0, 1) => Ruling::confirmed(why),
        (0, ..) => Ruling::refuted(why),
        _ => Ruling::partly(why),
    }
}

fn excluded(bench: &mut Bench<'_>) -> Result<(), Stop> {
    let mut files = Vec::new();
    for (at, flag) in [("with", WatchFlags::EXCL_UNLINK), ("without", WatchFlags::empty())] {
        let dir = bench.dir(at)?;
        let path = dir.join("f");
        old_file(&path, b"1\n")?;
        bench.inotify_watch(at, &dir, WatchFlags::MODIFY | flag)?;
        bench.compare(at, &path);
        files.push((File::options().write(true).open(&path)?, path));
    }
    bench.operate(|_| {
        for (file, path) in &mut files {
            fs::remove_file(path).during("remove a file")?;
            file.write_all(b"22\n").during("write")?;
        }
        Ok(())
    })?;
    bench.done(
        files
            .iter()
            .all(|(file, path)| !path.exists() && file.metadata().is_ok_and(|metadata| metadata.len() == 3)),
    );
    Ok(())
}

fn added_twice(bench: &mut Bench<'_>) -> Result<(), Stop> {
    let path = bench.dir("d")?.join("f");
    let link = path.with_file_name("link");
    old_file(&path, b"1\n")?;
    fs::hard_link(&path, &link).during("link a file")?;
    let first = bench.inotify_watch("f", &path, WatchFlags::MODIFY)?;
    bench.compare("f", &path);
    bench.operate(|bench| {
        let second = bench.inotify_watch("link", &link, WatchFlags::ATTRIB)?;
        bench.fact("same_descriptor", u64::from(first == second));
        overwrite(&path, b"22\n")
    })?;
    bench.done(holds(&path, b"22\n"));
    Ok(())
}

fn recursive(bench: &mut Bench<'_>) -> Result<(), Stop> {
    let tree = bench.dir("tree")?;
    let mut dirs = vec![tree];
    let mut next = 0;
    while dirs.len() as u64 != DIRECTORIES {
        for number in 0..WIDTH {
            let dir = dirs[next].join(number.to_string());
            fs::create_dir(&dir).during("make a directory")?;
            dirs.push(dir);
        }
        next += 1;
    }
    let last = dirs[dirs.len() - 1].join("f");
    bench.compare("last", &last);
    bench.operate(|bench| {
        let before = descriptors()?;
        for dir in &dirs {
            bench.inotify_watch("tree", dir, WatchFlags::CREATE)?;
        }
        bench.fact("new_descriptors", descriptors()? - before);
        bench.fact("watches", bench.live_watches());
        fs::write(&last, b"1\n").during("write a file")
    })?;
    bench.done(last.exists());
    Ok(())
}

/// Open descriptors of this process.
fn descriptors() -> Result<u64, Stop> {
    Ok(fs::read_dir("/proc/self/fd").during("count descriptors")?.count() as u64)
}
