//! The limit of watches, a low one in a user namespace of its own: that of the machine stays as it is.
//!
//! `user.max_inotify_watches` is counted for each user namespace and each one above it (kernel/ucount.c, `inc_ucount`);
//! `fs.inotify.max_user_watches` would be the machine's, and is not touched.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
use rustix::io::Errno;
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::verify::bench::{Bench, During, Stop};
use crate::verify::child::measured_in_child;
use crate::verify::evidence::{Evidence, Listener};
use crate::verify::experiment::{Experiment, Group};
use crate::verify::verdict::Ruling;

const INOTIFY: &[Listener] = &[Listener::Inotify];
const SOURCE: &str = "articles about recursive watches and their limits";
/// The low limit.
const LIMIT: u64 = 100;
/// Directories of the tree: more than the limit.
const DIRECTORIES: u64 = 120;

pub(super) const ALL: &[Experiment] = &[
    Experiment {
        name: "watch-limit",
        group: Group::Watches,
        claim: "A recursive watch stops with ENOSPC at exactly the limit of watches.",
        source: SOURCE,
        method: "In a user namespace with user.max_inotify_watches at 100, watch each of 120 directories.",
        rests_on: INOTIFY,
        run: limited,
        decide: |evidence| {
            let why = said(evidence);
            match (evidence.fact("watches"), evidence.fact("refused_enospc")) {
                (LIMIT, refused) if refused == DIRECTORIES - LIMIT => Ruling::confirmed(why),
                (_, 0) => Ruling::refuted(why),
                _ => Ruling::partly(why),
            }
        },
    },
    Experiment {
        name: "watch-limit-descriptors",
        group: Group::Watches,
        claim: "A recursive watch that reaches its limit leaks one file descriptor for each directory.",
        source: SOURCE,
        method: "As watch-limit; count the descriptors before and after.",
        rests_on: INOTIFY,
        run: limited,
        decide: |evidence| {
            let more = evidence.fact("new_descriptors");
            let why = format!("{}, {more} more descriptors", said(evidence));
            match more {
                0 => Ruling::refuted(why),
                LIMIT.. => Ruling::confirmed(why),
                _ => Ruling::partly(why),
            }
        },
    },
    Experiment {
        name: "watch-limit-others",
        group: Group::Watches,
        claim: "Past the limit, watches that are there already receive no more events.",
        source: SOURCE,
        method: "As watch-limit; then make a file in the first directory and one in the last.",
        rests_on: INOTIFY,
        run: limited,
        decide: |evidence| {
            let why = format!(
                "{} events of the first directory, {} of the last",
                evidence.fact("events_of_first"),
                evidence.fact("events_of_last")
            );
            match (evidence.fact("refused_enospc"), evidence.fact("events_of_first")) {
                (0, _) => Ruling::not_testable("the limit was not reached"),
                (_, 0) => Ruling::confirmed(why),
                _ => Ruling::refuted(why),
            }
        },
    },
    Experiment {
        name: "watch-limit-freed",
        group: Group::Watches,
        claim: "A watch that is removed counts against the limit until its instance is closed.",
        source: SOURCE,
        method: "As watch-limit; then remove one watch and add another one.",
        rests_on: INOTIFY,
        run: limited,
        decide: |evidence| match (evidence.fact("refused_enospc"), evidence.fact("added_after_removal")) {
            (0, _) => Ruling::not_testable("the limit was not reached"),
            (_, 0) => Ruling::confirmed("the next watch was refused as well"),
            _ => Ruling::refuted("the next watch was accepted"),
        },
    },
];

fn said(evidence: &Evidence) -> String {
    format!(
        "limit {LIMIT}: {} watches, {} refused with ENOSPC, {DIRECTORIES} directories",
        evidence.fact("watches"),
        evidence.fact("refused_enospc")
    )
}

/// What is measured in the other namespace, in this order.
const MEASURED: [&str; 6] = [
    "watches",
    "refused_enospc",
    "new_descriptors",
    "events_of_first",
    "events_of_last",
    "added_after_removal",
];

fn limited(bench: &mut Bench<'_>) -> Result<(), Stop> {
    let tree = bench.dir("tree")?;
    let dirs: Vec<PathBuf> = (0..DIRECTORIES).map(|number| tree.join(number.to_string())).collect();
    dirs.iter().try_for_each(fs::create_dir).during("make a directory")?;
    let (first, last) = (dirs[0].join("f"), dirs[dirs.len() - 1].join("f"));
    bench.compare("first/f", &first);
    bench.compare("last/f", &last);
    bench.operate(|bench| {
        let measured = measured_in_child(|| measure(&dirs))?;
        if measured.len() != MEASURED.len() {
            return Err(Stop("the process in the other namespace ended".to_owned()));
        }
        for (name, value) in MEASURED.into_iter().zip(measured) {
            bench.fact(name, value);
        }
        Ok(())
    })?;
    bench.done(first.exists() && last.exists());
    Ok(())
}

fn measure(dirs: &[PathBuf]) -> Result<Vec<u64>, Stop> {
    // SAFETY: this process has one thread, and its descriptors stay its own.
    unsafe { unshare_unsafe(UnshareFlags::NEWUSER) }.during("make a user namespace")?;
    fs::write("/proc/sys/user/max_inotify_watches", LIMIT.to_string())
        .during("set the namespace's own limit of watches")?;
    let inotify = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).during("start inotify")?;
    let before = descriptors()?;
    let (mut watches, mut refused) = (Vec::new(), 0);
    for dir in dirs {
        match add_watch(&inotify, dir, WatchFlags::CREATE) {
            Ok(wd) => watches.push(wd),
            Err(Errno::NOSPC) => refused += 1,
            Err(errno) => return Err(errno).during("add a watch"),
        }
    }
    let more = descriptors()?.saturating_sub(before);
    let events = |dir: &Path| -> Result<u64, Stop> {
        fs::write(dir.join("f"), b"1\n").during("write a file")?;
        read_events(&inotify)
    };
    let of_first = events(&dirs[0])?;
    let of_last = events(&dirs[dirs.len() - 1])?;
    let count = watches.len() as u64;
    let mut accepted = 0;
    if let Some(wd) = watches.pop() {
        rustix::fs::inotify::remove_watch(&inotify, wd).during("remove a watch")?;
        accepted = u64::from(add_watch(&inotify, &dirs[dirs.len() - 1], WatchFlags::CREATE).is_ok());
    }
    Ok(vec![count, refused, more, of_first, of_last, accepted])
}

/// Events that are queued; each has a name, so that it takes some bytes.
pub(super) fn read_events(inotify: &OwnedFd) -> Result<u64, Stop> {
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
    let mut reader = rustix::fs::inotify::Reader::new(inotify, &mut buffer);
    let mut count = 0;
    loop {
        match reader.next() {
            Ok(_) => count += 1,
            Err(Errno::AGAIN) => return Ok(count),
            Err(errno) => return Err(errno).during(&format!("read descriptor {}", inotify.as_raw_fd())),
        }
    }
}

/// Open descriptors of this process.
pub(super) fn descriptors() -> Result<u64, Stop> {
    Ok(fs::read_dir("/proc/self/fd").during("count descriptors")?.count() as u64)
}
