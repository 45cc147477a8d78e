//! Many tasks that wait in the very functions that hotr's programs are on: the calls of others are seen all the same.
//!
//! A kretprobe follows only so many calls at a time, by default as many as there are CPUs, or ten (kernel/kprobes.c
//! `register_kretprobe`).

use std::fs::{self, File};
use std::io::{self, Write, pipe};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use io_uring::{IoUring, opcode, squeue, types};
use rustix::fs::{CWD, Mode, mkfifoat};
use rustix::pipe::fcntl_setpipe_size;
use rustix::thread::{Pid, gettid};

use crate::asleep::is_asleep;
use crate::group::{Group, Report, Setting};
use crate::session::Session;

/// The cases.
pub const GROUP: Group = Group { place: "crowd", names: || CASES.map(|(name, _)| name).to_vec(), make };

/// Waiting tasks: more than the kernel's default lets a kretprobe follow on the guests, which have one CPU.
const WAITING: usize = 12;

/// The kernel's list of probes that have a name; guests mount tracefs.
const PROBES: &str = "/sys/kernel/tracing/kprobe_events";

type Case = fn(&mut Session, &Path, Duration) -> Result<()>;

const CASES: [(&str, Case); 3] =
    [("crowd-open", crowd_open), ("crowd-write", crowd_write), ("crowd-uring", crowd_uring)];

fn make(report: &mut Report<'_>) {
    let limit = report.setting.deadlines.line;
    let started = start(&report.setting);
    report.cases(
        CASES,
        started,
        |(session, dir), case| case(session, dir, limit),
        |(session, _)| end(session),
    );
}

fn start(setting: &Setting<'_>) -> Result<(Session, PathBuf)> {
    let dir = std::env::temp_dir().join(format!("hotr-crowd-{}", setting.tier));
    fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
    let start = || Session::start(setting.hotr, "ebpf", setting.tier, &[&dir], setting.deadlines, false);
    if setting.tier == "kprobe" {
        // Killed when it is dropped, it leaves behind what it can.
        drop(start());
    }
    let (session, _) = start()?;
    Ok((session, dir))
}

fn end(mut session: Session) -> Result<()> {
    let end = session.finish()?;
    ensure!(end.status.success(), "{}; messages: {}", end.status, session.messages());
    let probes = fs::read_to_string(PROBES).with_context(|| format!("read {PROBES}"))?;
    let left: Vec<&str> = probes.lines().filter(|line| line.contains(":hotr/")).collect();
    ensure!(left.is_empty(), "{} probes were left behind, such as {}", left.len(), left[0]);
    Ok(())
}

/// Openers of fifos that wait for a writer; meanwhile a file is made.
fn crowd_open(session: &mut Session, dir: &Path, limit: Duration) -> Result<()> {
    let fifos = std::env::temp_dir().join("hotr-crowd-fifos");
    fs::create_dir_all(&fifos)?;
    let mut crowd = Vec::new();
    for number in 0..WAITING {
        let path = fifos.join(number.to_string());
        mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).with_context(|| format!("make {}", path.display()))?;
        let fifo = path.clone();
        crowd.push((Waiting::start(move || File::open(fifo).map(drop))?, path));
    }
    let mut result = crowd.iter().try_for_each(|(waiting, _)| waiting.until_asleep(limit));
    result = result.and_then(|()| heard(session, &dir.join("made"), "create"));
    for (waiting, path) in crowd {
        // Opened for both, it waits for nobody.
        let _writer = File::options().read(true).write(true).open(path)?;
        waiting.join()?;
    }
    fs::remove_dir_all(&fifos)?;
    result
}

/// Writers to full pipes that wait for a reader; meanwhile a file is written.
fn crowd_write(session: &mut Session, dir: &Path, limit: Duration) -> Result<()> {
    let mut crowd = Vec::new();
    for _ in 0..WAITING {
        let (reader, mut writer) = pipe()?;
        let size = fcntl_setpipe_size(&writer, PIPE_SIZE)?;
        // One byte more than there is room for.
        crowd.push((Waiting::start(move || writer.write_all(&vec![0; size + 1]))?, reader));
    }
    let mut result = crowd.iter().try_for_each(|(waiting, _)| waiting.until_asleep(limit));
    result = result.and_then(|()| heard(session, &dir.join("written"), "write"));
    for (waiting, mut reader) in crowd {
        io::copy(&mut reader, &mut io::sink())?;
        waiting.join()?;
    }
    result
}

/// Requests in flight that their submitter does not distinguish: each file is reported, if only after a search.
fn crowd_uring(session: &mut Session, dir: &Path, _limit: Duration) -> Result<()> {
    let paths: Vec<PathBuf> = (0..REQUESTS).map(|number| dir.join(format!("requested-{number}"))).collect();
    let files: Vec<File> = paths.iter().map(File::create).collect::<Result<_, _>>()?;
    session.barrier()?;
    let before = session.seen.len();
    let mut ring = IoUring::new(REQUESTS)?;
    for file in &files {
        let entry = opcode::Write::new(types::Fd(file.as_raw_fd()), DATA.as_ptr(), LENGTH);
        // In a worker, so that all are submitted before the first is done.
        let entry = entry.build().flags(squeue::Flags::ASYNC);
        // SAFETY: files and data outlive the requests, which are waited for.
        unsafe { ring.submission().push(&entry) }.context("the submission queue is full")?;
    }
    ring.submit_and_wait(files.len())?;
    let written = ring.completion().filter(|entry| u32::try_from(entry.result()) == Ok(LENGTH)).count();
    ensure!(written == files.len(), "{written} of {} requests wrote", files.len());
    for path in paths {
        session
            .read_until(|session| session.seen[before..].iter().any(|change| change.path == path))
            .with_context(|| format!("the write of {} was not reported", path.display()))?;
    }
    Ok(())
}

const REQUESTS: u32 = 8;
const DATA: [u8; LENGTH as usize] = *b"requested";
const LENGTH: u32 = 9;

/// Bytes in a pipe; the kernel takes a page.
const PIPE_SIZE: usize = 4096;

/// Makes and writes a file, and waits for the line of this operation.
fn heard(session: &mut Session, path: &Path, op: &str) -> Result<()> {
    fs::write(path, "x")?;
    let tells = |session: &Session| session.seen.iter().any(|change| change.op == op && change.path == path);
    session.read_until(tells).with_context(|| format!("the {op} of {} was not reported", path.display()))
}

/// A thread in one system call that waits.
struct Waiting {
    thread: JoinHandle<io::Result<()>>,
    id: Pid,
}

impl Waiting {
    fn start(call: impl FnOnce() -> io::Result<()> + Send + 'static) -> Result<Self> {
        let (tell, told) = channel();
        let thread = std::thread::spawn(move || {
            // The receiver waits for it.
            let _ = tell.send(gettid());
            call()
        });
        Ok(Self { thread, id: told.recv().context("the thread has ended")? })
    }

    /// Waits until the thread sleeps: that is in its call, because it does nothing else.
    fn until_asleep(&self, limit: Duration) -> Result<()> {
        let path = format!("/proc/self/task/{}/stat", self.id);
        let deadline = Instant::now() + limit;
        loop {
            let stat = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
            if is_asleep(&stat) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "thread {} does not wait", self.id);
            std::thread::yield_now();
        }
    }

    fn join(self) -> Result<()> {
        let ended = self.thread.join().map_err(|_| anyhow::anyhow!("thread {} panicked", self.id))?;
        ended.with_context(|| format!("the call of thread {}", self.id))
    }
}
