//! What a watcher adds to a one-byte pwrite: for a file on another superblock, for one on the watched superblock but
//! outside the tree, and for a watched file that is written over and over.
//!
//! Made for a guest whose clock counts instructions: nanoseconds are instructions there. Two clocks are read: the
//! machine's, which includes what the watcher does in userspace, and the writing thread's own.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::empty;
use crate::figures::{Figures, median};
use crate::watcher::{self, Heard, PATIENCE, Watcher};

/// Writes before the clock starts: caches are warm, and a storm has begun.
pub(crate) const WARM: u64 = 2000;
pub(crate) const REPEATS: usize = 3;
/// How often the writer's end is looked for.
const TURN: Duration = Duration::from_millis(20);
/// A watcher that says nothing for this long after the last write has reported everything.
const QUIET: Duration = Duration::from_millis(200);
/// Loops before a machine is given up that does not become quiet.
const SETTLE: usize = 500;

/// What to measure, and where.
#[derive(Args)]
pub(crate) struct CostArgs {
    /// hotr; measured when given
    #[arg(long)]
    hotr: Option<PathBuf>,
    /// The object with the empty program; measured when given
    #[arg(long)]
    empty: Option<PathBuf>,
    /// Also these tools: bpftrace, fatrace, inotifywait
    #[arg(long, value_delimiter = ',')]
    tools: Vec<String>,
    /// Folder on the superblock that is watched
    #[arg(long)]
    watched: PathBuf,
    /// Folder on another superblock
    #[arg(long)]
    other: PathBuf,
    /// Writes in a loop
    #[arg(long, default_value_t = 20_000)]
    count: u64,
}

/// Nanoseconds for a write.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Took {
    /// By the machine's clock: the watcher's userspace is in it.
    pub(crate) machine: f64,
    /// By the writing thread's clock.
    pub(crate) writer: f64,
}

/// The files that are written.
struct Places {
    tree: PathBuf,
    files: [(&'static str, PathBuf); 3],
}

impl Places {
    fn make(args: &CostArgs) -> Result<Self> {
        let (tree, outside) = (args.watched.join("tree"), args.watched.join("outside"));
        for folder in [&tree, &outside, &args.other] {
            fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        }
        let files = [
            ("other", args.other.join("file")),
            ("outside", outside.join("file")),
            ("watched", tree.join("file")),
        ];
        Ok(Self { tree, files })
    }
}

/// Entry point of the benchmark: each subject alone, one after the other.
pub(crate) fn run(args: &CostArgs, out: &mut Figures) -> Result<()> {
    let places = Places::make(args)?;
    settle(&places.files[0].1, args.count)?;
    measure("none", None, &places, args.count, out)?;
    if let Some(object) = &args.empty {
        let attached = empty::attach(object, "vfs_write")?;
        measure("empty", None, &places, args.count, out)?;
        drop(attached);
    }
    if let Some(hotr) = &args.hotr {
        for (subject, options) in [
            ("hotr", &["--channels", "ebpf", "--tier", "fentry"][..]),
            ("hotr-kprobe", &["--channels", "ebpf", "--tier", "kprobe"]),
            ("hotr-tracepoint", &["--channels", "ebpf", "--tier", "tracepoint"]),
            ("hotr-auto", &[]),
        ] {
            let started = watcher::hotr(hotr, options, &places.tree);
            alone(subject, started, &places, args.count, out)?;
        }
    }
    for tool in &args.tools {
        alone(tool, other_tool(tool, &places), &places, args.count, out)?;
    }
    Ok(())
}

/// Waits until a machine that has just booted is idle: only the writer runs.
pub(crate) fn settle(file: &Path, count: u64) -> Result<()> {
    for _ in 0..SETTLE {
        let took = pwrite_loop(&[file], count)?;
        if took.machine < took.writer * 1.01 {
            return Ok(());
        }
    }
    bail!("the machine is not quiet: something else runs on its processor")
}

/// Measures beside a watcher that was started; says why when it was not.
fn alone(
    subject: &str,
    started: Result<Watcher>,
    places: &Places,
    count: u64,
    out: &mut Figures,
) -> Result<()> {
    match started {
        Ok(mut watcher) => {
            measure(subject, Some(&mut watcher), places, count, out)?;
            watcher.stop(|_| ())
        }
        Err(error) => out.text(format!("cost/{subject}"), &format!("{error:#}")),
    }
}

fn measure(
    subject: &str,
    mut watcher: Option<&mut Watcher>,
    places: &Places,
    count: u64,
    out: &mut Figures,
) -> Result<()> {
    for (place, file) in &places.files {
        let mut runs = Vec::new();
        for _ in 0..REPEATS {
            runs.push(loop_apart(watcher.as_deref_mut(), &[file], count)?);
        }
        let each = |pick: fn(&Took) -> f64| median(&runs.iter().map(pick).collect::<Vec<_>>());
        out.value(format!("cost/{subject}/{place}/machine"), each(|took| took.machine))?;
        out.value(format!("cost/{subject}/{place}/writer"), each(|took| took.writer))?;
    }
    Ok(())
}

/// The loop in a process of its own, while what the watcher says about it is read. A process with a second thread
/// would pay for the reference that each system call then takes on the file.
pub(crate) fn loop_apart(watcher: Option<&mut Watcher>, files: &[&Path], count: u64) -> Result<Took> {
    let mut writer = Command::new("/proc/self/exe")
        .arg("pwrite-loop")
        .arg(count.to_string())
        .args(files)
        .stdout(Stdio::piped())
        .spawn()
        .context("start the writer")?;
    if let Some(watcher) = watcher {
        let mut over = false;
        loop {
            match watcher.line(Instant::now() + if over { QUIET } else { TURN })? {
                Heard::Line(_) => {}
                // Nothing more to come: the next loop starts with an empty pipe.
                Heard::Late if over => break,
                Heard::Late => over = writer.try_wait().context("wait for the writer")?.is_some(),
                Heard::End => bail!("the watcher ended while it was measured"),
            }
        }
    }
    let output = writer.wait_with_output().context("wait for the writer")?;
    ensure!(output.status.success(), "the writer ended with {}", output.status);
    serde_json::from_slice(&output.stdout).context("read what the writer measured")
}

/// `count` one-byte pwrites to the starts of these files in turn, on one processor.
pub(crate) fn pwrite_loop<P: AsRef<Path>>(files: &[P], count: u64) -> Result<Took> {
    let mut one = CpuSet::new();
    one.set(0);
    sched_setaffinity(None, &one).context("stay on one processor")?;
    let open = |file: &P| {
        let options = OpenOptions::new().write(true).create(true).truncate(false).open(file);
        options.with_context(|| format!("write to {}", file.as_ref().display()))
    };
    let files = files.iter().map(open).collect::<Result<Vec<_>>>()?;
    let write = |count: u64| -> Result<()> {
        let mut left = count;
        for file in files.iter().cycle() {
            if left == 0 {
                break;
            }
            file.write_all_at(b"x", 0).context("write to a file of the loop")?;
            left -= 1;
        }
        Ok(())
    };
    write(WARM)?;
    let (machine, writer) = (now(ClockId::MonotonicRaw), now(ClockId::ThreadCPUTime));
    write(count)?;
    let (machine_end, writer_end) = (now(ClockId::MonotonicRaw), now(ClockId::ThreadCPUTime));
    #[expect(clippy::cast_precision_loss, reason = "a loop has fewer rounds than 2^52")]
    let each = |took: f64| took / count as f64;
    Ok(Took { machine: each(machine_end - machine), writer: each(writer_end - writer) })
}

/// Nanoseconds; exact to a fraction of one for months of uptime.
pub(crate) fn now(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    #[expect(clippy::cast_precision_loss, reason = "differences of some seconds stay exact to a nanosecond")]
    let (seconds, nanoseconds) = (time.tv_sec as f64, time.tv_nsec as f64);
    seconds.mul_add(1e9, nanoseconds)
}

/// Starts another tool with the filter that comes nearest to a tree: bpftrace and fatrace know superblocks only.
fn other_tool(tool: &str, places: &Places) -> Result<Watcher> {
    let (mut command, line) = match tool {
        "inotifywait" => {
            let mut command = Command::new("inotifywait");
            command.args(["-m", "-r"]).arg(&places.tree);
            (command, "probe")
        }
        "fatrace" => {
            let mut command = Command::new("fatrace");
            command.args(["-c", "-f", "W"]).current_dir(&places.tree);
            (command, "probe")
        }
        "bpftrace" => {
            let mut command = Command::new("bpftrace");
            command.arg("-e").arg(bpftrace_program(&places.tree)?);
            (command, "WROTE")
        }
        _ => bail!("measure {tool}: not known here"),
    };
    command.env("BPFTRACE_STRLEN", "64");
    probed(Watcher::start(command, true)?, &places.tree.join("probe"), line)
}

fn bpftrace_program(tree: &Path) -> Result<String> {
    let device = fs::metadata(tree).with_context(|| format!("read {}", tree.display()))?.dev();
    // The kernel's own number: 12 bits major, 20 bits minor.
    let kernel = (u64::from(rustix::fs::major(device)) << 20) | u64::from(rustix::fs::minor(device));
    Ok(format!(
        "kretfunc:vfs_write /args->file->f_inode->i_sb->s_dev == {kernel}/ \
         {{ printf(\"WROTE %s %d %d\\n\", comm, pid, retval); }}"
    ))
}

/// Writes to `probe` until the watcher says a line with `text`: these tools have no sign of readiness in common.
fn probed(mut watcher: Watcher, probe: &Path, text: &str) -> Result<Watcher> {
    let end = Instant::now() + PATIENCE;
    let mut file = File::create(probe).with_context(|| format!("make {}", probe.display()))?;
    let mut said = Vec::new();
    while Instant::now() < end {
        file.write_all(b"x").with_context(|| format!("write to {}", probe.display()))?;
        let next = Instant::now() + Duration::from_millis(200);
        loop {
            match watcher.line(next)? {
                Heard::Line(line) if watcher::contains(&line, text.as_bytes()) => return Ok(watcher),
                Heard::Line(line) => said = line,
                Heard::Late => break,
                Heard::End => bail!("it ended: {}", String::from_utf8_lossy(&said)),
            }
        }
    }
    bail!("it reported nothing within {} s: {}", PATIENCE.as_secs(), String::from_utf8_lossy(&said))
}
