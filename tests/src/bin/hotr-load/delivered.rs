//! What `hotr diagnose --live` adds to a write whose event another process receives, to one that nobody watches, and to
//! the read(2) by which that process takes the event.
//!
//! Made for a guest whose clock counts instructions, as [`crate::cost`]. The process that is diagnosed is this one: it has
//! the inotify instance, and reads it between the loops of a writer.

use std::{
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
use rustix::io::Errno;
use rustix::time::ClockId;

use crate::cost::{REPEATS, WARM, loop_apart, now, settle};
use crate::empty;
use crate::figures::{Figures, median};
use crate::watcher::{self, PATIENCE, Watcher};

/// What to measure, and where.
#[derive(Args)]
pub(crate) struct DeliveredArgs {
    /// hotr
    #[arg(long)]
    hotr: PathBuf,
    /// The object with the empty program
    #[arg(long)]
    empty: PathBuf,
    /// Folder on the superblock that is watched
    #[arg(long)]
    watched: PathBuf,
    /// Folder on another superblock
    #[arg(long)]
    other: PathBuf,
    /// Writes in a loop; with those before the clock starts no more than an instance holds (16,384)
    #[arg(long, default_value_t = 10_000)]
    count: u64,
}

/// Bytes of an event with a name of up to 15.
const EVENT: usize = 32;

/// The files that are written, two at each place: of one alone the kernel would merge the events.
struct Places([(&'static str, [PathBuf; 2]); 3]);

/// Entry point of the benchmark.
pub(crate) fn run(args: &DeliveredArgs, out: &mut Figures) -> Result<()> {
    let (tree, outside) = (args.watched.join("tree"), args.watched.join("outside"));
    let files = |folder: &Path| -> Result<[PathBuf; 2]> {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        Ok(["one", "two"].map(|name| folder.join(name)))
    };
    let places =
        Places([("other", files(&args.other)?), ("outside", files(&outside)?), ("watched", files(&tree)?)]);
    let target = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).context("make an inotify instance")?;
    settle(&places.0[0].1[0], args.count)?;
    // Made before anybody watches: what follows are writes alone.
    for file in places.0.iter().flat_map(|(_, files)| files) {
        fs::write(file, b"x").with_context(|| format!("write to {}", file.display()))?;
    }
    add_watch(&target, &tree, WatchFlags::MODIFY).with_context(|| format!("watch {}", tree.display()))?;
    let measure = |subject: &str, watcher: Option<&mut Watcher>, out: &mut Figures| {
        measure(subject, watcher, &target, &places, args.count, out)
    };
    measure("none", None, out)?;
    let queued = empty::attach(&args.empty, "inotify_handle_inode_event")?;
    let taken = empty::attach(&args.empty, "fsnotify_remove_first_event")?;
    measure("empty", None, out)?;
    drop((queued, taken));
    let mut trace = watcher::hotr(&args.hotr, &["--raw", "--channels", "ebpf", "--tier", "fentry"], &tree)?;
    measure("trace", Some(&mut trace), out)?;
    trace.stop(|_| ())?;
    let mut diagnose = Command::new(&args.hotr);
    diagnose.args(["diagnose", "--live", "--json", "--tier", "fentry", "--pid"]);
    diagnose.arg(std::process::id().to_string());
    let mut diagnose = Watcher::start(diagnose, false)?;
    diagnose.expect("\"type\":\"ready\"", Instant::now() + PATIENCE, |_| ())?;
    measure("diagnose", Some(&mut diagnose), out)?;
    diagnose.stop(|_| ())
}

fn measure(
    subject: &str,
    mut watcher: Option<&mut Watcher>,
    target: &OwnedFd,
    places: &Places,
    count: u64,
    out: &mut Figures,
) -> Result<()> {
    for (place, files) in &places.0 {
        let files: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
        let (mut writes, mut reads) = (Vec::new(), Vec::new());
        for _ in 0..REPEATS {
            writes.push(loop_apart(watcher.as_deref_mut(), &files, count)?.writer);
            let (events, each) = drain(target)?;
            let expected = if *place == "watched" { count + WARM } else { 0 };
            ensure!(events == expected, "{subject}: {events} events of {expected} writes at {place}");
            reads.push(each);
        }
        out.value(format!("delivered/{subject}/{place}/writer"), median(&writes))?;
        if *place == "watched" {
            out.value(format!("delivered/{subject}/read"), median(&reads))?;
        }
    }
    Ok(())
}

/// Reads all events, one a call: how many, and nanoseconds of this thread for each.
fn drain(target: &OwnedFd) -> Result<(u64, f64)> {
    let (begin, mut events) = (now(ClockId::ThreadCPUTime), 0_u32);
    let mut event = [0_u8; EVENT];
    loop {
        match rustix::io::read(target, &mut event) {
            Ok(EVENT) => events += 1,
            Err(Errno::AGAIN) => break,
            Ok(length) => anyhow::bail!("an event has {length} bytes, not {EVENT}"),
            Err(error) => return Err(error).context("read events"),
        }
    }
    let each = (now(ClockId::ThreadCPUTime) - begin) / f64::from(events.max(1));
    Ok((events.into(), each))
}
