//! What a recursive watch costs the kernel: descriptors and memory, for trees of 5 levels of 3 directories to 8 levels of 5.
//!
//! The memory is that of the slab caches of marks and of their connectors (fs/notify/inotify, fs/notify/mark.c), as
//! /sys/kernel/slab counts it. A cache may be shared with others of its size, so small differences say nothing.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
use rustix::io::Errno;
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::limits::{descriptors, read_events};
use crate::verify::bench::{Bench, During, Stop};
use crate::verify::child::measured_in_child;
use crate::verify::evidence::{Evidence, Listener};
use crate::verify::experiment::{Experiment, Group};
use crate::verify::verdict::Ruling;

const INOTIFY: &[Listener] = &[Listener::Inotify];
/// Most watches at once: the limit of a user namespace of the laboratory's own, far from that of the machine.
const MOST_WATCHES: u64 = 8_000;
/// Directories that the last tree has beyond that.
const BEYOND: u64 = 200;
/// Fewer marks than that cannot be told from those of others in a shared cache.
const ENOUGH: u64 = 1_500;
/// The kernel frees marks some time after their instance is closed.
const FREED: Duration = Duration::from_secs(3);

/// Levels, and directories in each directory, with the names of what is measured.
const TREES: [(u32, u64, [&str; 4]); 3] = [
    (5, 3, ["watches_5x3", "descriptors_5x3", "refused_5x3", "bytes_5x3"]),
    (6, 4, ["watches_6x4", "descriptors_6x4", "refused_6x4", "bytes_6x4"]),
    // 488,281 directories, of which only those are made that the limit needs: at the tracepoint tier hotr looks at each call.
    (8, 5, ["watches_8x5", "descriptors_8x5", "refused_8x5", "bytes_8x5"]),
];

pub(super) const ALL: &[Experiment] = &[
    Experiment {
        name: "recursive-descriptors",
        group: Group::Watches,
        claim: "A recursive watch leaks a file descriptor for each directory of a deep tree.",
        source: "articles about limits of open files",
        method: "Watch trees of 5 levels of 3 directories to 8 of 5, past a limit of the laboratory's own, and count descriptors.",
        rests_on: INOTIFY,
        run: recursive,
        decide: |evidence| {
            let sum = |at: usize| TREES.iter().map(|tree| evidence.fact(tree.2[at])).sum::<u64>();
            let (watches, more, refused) = (sum(0), sum(1), sum(2));
            let why = format!("{watches} watches, {more} more descriptors, {refused} refused past the limit");
            match more {
                _ if evidence.fact("events") != TREES.len() as u64 => {
                    Ruling::not_testable("the last watch did not receive a new file")
                }
                0 => Ruling::refuted(why),
                _ if more >= watches => Ruling::confirmed(why),
                _ => Ruling::partly(why),
            }
        },
    },
    Experiment {
        name: "recursive-memory",
        group: Group::Watches,
        claim: "A watch takes 1 KiB of kernel memory.",
        source: "articles about fs.inotify.max_user_watches",
        method: "As recursive-descriptors; compare the slab caches of marks before and with the watches of the largest tree.",
        rests_on: INOTIFY,
        run: recursive,
        decide: memory_of_a_watch,
    },
    Experiment {
        name: "recursive-memory-leak",
        group: Group::Watches,
        claim: "Kernel memory of a recursive watch stays taken after its instance is closed.",
        source: "bug reports about memory that grows with each restart of a watcher",
        method: "As recursive-memory; then close the instance and look again.",
        rests_on: INOTIFY,
        run: recursive,
        decide: |evidence| {
            let (taken, left) = (evidence.fact("marks_taken"), evidence.fact("marks_left"));
            if taken < ENOUGH {
                return unmeasured(evidence);
            }
            let why = format!(
                "{taken} marks were in memory, {left} more than before after the instance was closed"
            );
            match left {
                _ if left < taken / 4 => Ruling::refuted(why),
                _ if left > taken / 4 * 3 => Ruling::confirmed(why),
                _ => Ruling::partly(why),
            }
        },
    },
];

fn memory_of_a_watch(evidence: &Evidence) -> Ruling {
    const ABOUT_1_KIB: std::ops::Range<u64> = 768..1536;
    let (watches, bytes) = (evidence.fact("watches_8x5"), evidence.fact("bytes_8x5"));
    if evidence.fact("marks_taken") < ENOUGH {
        return unmeasured(evidence);
    }
    let each = bytes / watches.max(1);
    let inode = evidence.fact("inode_bytes");
    let why =
        format!("{each} bytes a watch: {bytes} more bytes in the caches of marks for {watches} watches");
    if ABOUT_1_KIB.contains(&each) {
        return Ruling::confirmed(why);
    }
    if ABOUT_1_KIB.contains(&(each + inode)) {
        let why = format!("{why}; the inode of a directory, which a watch keeps, takes {inode} more");
        return Ruling::partly(why);
    }
    Ruling::refuted(why)
}

/// Of a kernel that does not say what its caches hold, or allows few watches.
fn unmeasured(evidence: &Evidence) -> Ruling {
    Ruling::not_testable(format!(
        "/sys/kernel/slab shows {} more marks for {} watches, which is too few to tell",
        evidence.fact("marks_taken"),
        evidence.fact("watches_8x5")
    ))
}

fn recursive(bench: &mut Bench<'_>) -> Result<(), Stop> {
    let allowed =
        fs::read_to_string("/proc/sys/fs/inotify/max_user_watches").during("read max_user_watches")?;
    // A quarter of the machine's: others need watches as well.
    let limit = (allowed.trim().parse::<u64>().unwrap_or(0) / 4).min(MOST_WATCHES);
    let events = bench.operate(|bench| {
        bench.fact("limit", limit);
        TREES.iter().map(|tree| measure_tree(bench, tree, limit)).sum::<Result<u64, Stop>>()
    })?;
    if let Ok(bytes) = slab("shmem_inode_cache", "slab_size") {
        bench.fact("inode_bytes", bytes);
    }
    bench.fact("events", events.unwrap_or(0));
    bench.done(events.is_some_and(|events| events > 0));
    Ok(())
}

/// Records what is measured of one tree; how many events were received of its last directory.
fn measure_tree(
    bench: &mut Bench<'_>,
    (levels, width, names): &(u32, u64, [&'static str; 4]),
    limit: u64,
) -> Result<u64, Stop> {
    let tree = bench.hidden_tree(*levels, *width, limit + BEYOND)?;
    let measured = measured_in_child(|| measure(&tree.root, &tree.dirs, limit))?;
    let [watches, descriptors, refused, bytes, events, taken, left] = measured[..] else {
        return Err(Stop("the process in the other namespace ended".to_owned()));
    };
    for (name, value) in names.iter().zip([watches, descriptors, refused, bytes]) {
        bench.fact(name, value);
    }
    if *names == TREES[TREES.len() - 1].2 {
        bench.fact("marks_taken", taken);
        bench.fact("marks_left", left);
    }
    Ok(events)
}

/// In a user namespace with this limit: watches, new descriptors, refused directories, bytes, events of the last directory, marks with
/// the watches, and marks after them that were not there before.
fn measure(root: &OwnedFd, dirs: &[String], limit: u64) -> Result<Vec<u64>, Stop> {
    // SAFETY: this process has one thread, and its descriptors stay its own.
    unsafe { unshare_unsafe(UnshareFlags::NEWUSER) }.during("make a user namespace")?;
    fs::write("/proc/sys/user/max_inotify_watches", limit.to_string())
        .during("set the namespace's own limit of watches")?;
    let inotify = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).during("start inotify")?;
    let (before, descriptors_before) = (Marks::now(), descriptors()?);
    let root = format!("/proc/self/fd/{}", root.as_raw_fd());
    let (mut watches, mut refused, mut last) = (0, 0, ".");
    for dir in dirs {
        match add_watch(&inotify, format!("{root}/{dir}"), WatchFlags::CREATE) {
            Ok(_) => (watches, last) = (watches + 1, dir),
            Err(Errno::NOSPC) => refused += 1,
            Err(errno) => return Err(errno).during("add a watch"),
        }
    }
    let with = Marks::now();
    let more = descriptors()?.saturating_sub(descriptors_before);
    let file = format!("{root}/{last}/f");
    fs::write(&file, b"1\n").during("write a file")?;
    let events = u64::from(read_events(&inotify)? == 1);
    // The next experiment has the same tree.
    fs::remove_file(&file).during("remove a file")?;
    drop(inotify);
    let taken = with.count.saturating_sub(before.count);
    let over = Instant::now() + FREED;
    let left = loop {
        let left = Marks::now().count.saturating_sub(before.count);
        if taken < ENOUGH || left < taken / 4 || Instant::now() >= over {
            break left;
        }
        std::thread::yield_now();
    };
    Ok(vec![watches, more, refused, with.bytes.saturating_sub(before.bytes), events, taken, left])
}

/// What is in the caches of marks; nothing where the kernel does not say.
struct Marks {
    count: u64,
    bytes: u64,
}

impl Marks {
    fn now() -> Self {
        let count = |cache| slab(cache, "objects").unwrap_or(0);
        let bytes = |cache| count(cache) * slab(cache, "slab_size").unwrap_or(0);
        let marks = "inotify_inode_mark";
        Self { count: count(marks), bytes: bytes(marks) + bytes("fsnotify_mark_connector") }
    }
}

/// The first number of a file about a slab cache.
fn slab(cache: &str, file: &str) -> Result<u64, Stop> {
    let text = fs::read_to_string(format!("/sys/kernel/slab/{cache}/{file}")).during("read a slab cache")?;
    let number = text.split_whitespace().next().and_then(|word| word.parse().ok());
    number.ok_or_else(|| Stop(format!("the slab cache {cache} has no number in {file}")))
}
