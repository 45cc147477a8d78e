//! Which running process gets a signal, and that it is that process and no other.
//!
//! In: a process id, a pid file, a task name or a systemd unit. Out: the signal, sent through a pidfd. The pidfd is
//! opened first and the target's identity checked after: a process id that was given to another process in between
//! is noticed, and one that is given to another afterwards is not hit.

mod pid_file;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;

use procfs::process::Process;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal, test_kill_process};
use tokio::sync::oneshot;

use crate::procinfo::kept_of;
use pid_file::PidFile;

/// Clock ticks and boot time are this exact.
const SLACK_S: i64 = 2;

/// Who gets the signal.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Target {
    /// The process that had this id when hotr started.
    Pid(i32, Arc<OwnedFd>),
    /// The process whose id a file holds.
    PidFile(PathBuf),
    /// Every process of this task name; the kernel keeps 15 bytes of it.
    Comm(OsString),
    /// The main process of a systemd unit.
    Unit(OsString),
}

impl Target {
    /// Takes hold of a process now: whoever gets its id later is another.
    ///
    /// # Errors
    /// When there is none of this id.
    pub fn pid(pid: i32) -> Result<Self, String> {
        Ok(Self::Pid(pid, Arc::new(open(pid)?)))
    }

    /// Sends a signal. Returns the process ids it was sent to.
    ///
    /// # Errors
    /// A sentence: who was meant, and why the signal was not sent.
    pub fn send(&self, signal: Signal) -> Result<Vec<i32>, String> {
        self.each(&|pid, fd| send(pid, fd, signal))
    }

    /// Whether [`Self::send`] would find somebody now whom hotr may signal: the process ids. Nothing is sent.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn find(&self) -> Result<Vec<i32>, String> {
        self.each(&may_send)
    }

    fn each(&self, act: Act<'_>) -> Result<Vec<i32>, String> {
        match self {
            Self::Pid(pid, fd) => act(*pid, fd).map(|()| vec![*pid]),
            Self::PidFile(path) => by_file(path, act),
            Self::Comm(name) => by_comm(name, act),
            Self::Unit(unit) => {
                let pid = main_pid(unit)?;
                let fd = open(pid)?;
                if main_pid(unit)? != pid {
                    let unit = unit.display();
                    return Err(format!("signal unit {unit}: its main process has just changed; try again"));
                }
                act(pid, &fd).map(|()| vec![pid])
            }
        }
    }

    /// As [`Self::send`], on a thread of its own: systemctl may take its time to answer. May be dropped; the signal
    /// may be sent all the same.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn send_aside(self, signal: Signal) -> Result<Vec<i32>, String> {
        aside(move || self.send(signal)).await
    }

    /// As [`Self::find`], on a thread of its own.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn find_aside(self) -> Result<Vec<i32>, String> {
        aside(move || self.find()).await
    }
}

/// What is done with a process that was found, and held by a pidfd.
type Act<'a> = &'a dyn Fn(i32, &OwnedFd) -> Result<(), String>;

async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let (answer, done) = oneshot::channel();
    thread::Builder::new()
        .name("hotr-signal".to_owned())
        .spawn(move || drop(answer.send(work())))
        .map_err(|error| format!("signal a process: start a thread: {error}; raise the limit of threads"))?;
    done.await.unwrap_or_else(|_| Err("signal a process: its thread has failed; try again".to_owned()))
}

fn open(pid: i32) -> Result<OwnedFd, String> {
    let raw = Pid::from_raw(pid.max(0)).ok_or_else(|| format!("signal process {pid}: no such id"))?;
    pidfd_open(raw, PidfdFlags::empty()).map_err(|errno| match errno {
        Errno::SRCH => {
            format!("signal process {pid}: no process with this pid; start the service, or name another")
        }
        _ => format!(
            "signal process {pid}: {}; check that it is a process and not a thread",
            io::Error::from(errno)
        ),
    })
}

fn send(pid: i32, fd: &OwnedFd, signal: Signal) -> Result<(), String> {
    pidfd_send_signal(fd, signal).map_err(|errno| refused(pid, errno))
}

/// Asks the kernel whether a signal would be allowed (signal 0). By process id, because rustix has no pidfd call for
/// it; the answer is only words.
fn may_send(pid: i32, fd: &OwnedFd) -> Result<(), String> {
    if !runs(fd) {
        return Err(refused(pid, Errno::SRCH));
    }
    let Some(raw) = Pid::from_raw(pid.max(0)) else { return Err(refused(pid, Errno::SRCH)) };
    test_kill_process(raw).map_err(|errno| refused(pid, errno))
}

fn refused(pid: i32, errno: Errno) -> String {
    let uid = fs::metadata(format!("/proc/{pid}")).map_or(0, |data| data.uid());
    match errno {
        Errno::SRCH => format!("signal process {pid}: it has exited; restart the service"),
        Errno::PERM => {
            format!("signal process {pid}: it belongs to user {uid}; run hotr as that user or as root")
        }
        _ => format!("signal process {pid}: {}", io::Error::from(errno)),
    }
}

/// Whether the process of a pidfd still runs: what was read in /proc under its id was then its own.
fn runs(fd: &OwnedFd) -> bool {
    let ask = || poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    retry_on_intr(ask) == Ok(0)
}

fn by_file(path: &Path, act: Act<'_>) -> Result<Vec<i32>, String> {
    let object = path.display();
    let file = PidFile::open(path)?;
    let pid = file.pid(path)?;
    let fd = open(pid).map_err(|why| format!("pid file {object} is stale: {why}"))?;
    let process =
        Process::new(pid).map_err(|_| format!("pid file {object} is stale: process {pid} has exited"))?;
    let uid = process.uid().unwrap_or(0);
    file.check_writers(path, pid, uid)?;
    if started_at(&process).is_some_and(|started| started > file.written_s() + SLACK_S) {
        return Err(format!(
            "pid file {object} is stale: process {pid} was started after the file was written; restart the service"
        ));
    }
    if file.pid(path)? != pid || !runs(&fd) {
        return Err(format!("pid file {object} now names another process; try again"));
    }
    act(pid, &fd).map(|()| vec![pid])
}

/// Seconds since 1970.
fn started_at(process: &Process) -> Option<i64> {
    let ticks = process.stat().ok()?.starttime;
    // Not `btime`: it is rounded at boot, and the clock may have been set since.
    let up = rustix::time::clock_gettime(rustix::time::ClockId::Boottime).tv_sec;
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec;
    let since_boot = i64::try_from(ticks / procfs::ticks_per_second()).ok()?;
    Some(now - up + since_boot)
}

fn by_comm(name: &OsStr, act: Act<'_>) -> Result<Vec<i32>, String> {
    let mut sent = Vec::new();
    let mut refused = None;
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let is_it = |pid: i32| {
        fs::read(format!("/proc/{pid}/comm"))
            .is_ok_and(|comm| comm.strip_suffix(b"\n").unwrap_or(&comm) == kept_of(name))
    };
    let all = procfs::process::all_processes().map_err(|error| format!("read /proc: {error}"))?;
    for pid in all.flatten().map(|process| process.pid()).filter(|pid| *pid != own && is_it(*pid)) {
        let Ok(fd) = open(pid) else { continue };
        if !is_it(pid) || !runs(&fd) {
            continue;
        }
        match act(pid, &fd) {
            Ok(()) => sent.push(pid),
            Err(why) => refused = Some(why),
        }
    }
    match refused {
        Some(why) if sent.is_empty() => Err(why),
        None if sent.is_empty() => Err(format!(
            "signal processes named {}: none runs; start the service, or see ps -e -o comm",
            name.display()
        )),
        _ => Ok(sent),
    }
}

fn main_pid(unit: &OsStr) -> Result<i32, String> {
    let mut systemctl = Command::new("systemctl");
    systemctl.args(["show", "-p", "MainPID", "--value", "--"]).arg(unit);
    let unit = unit.display();
    let output = systemctl
        .output()
        .map_err(|error| format!("ask systemctl for unit {unit}: {error}; use --pid-file or --comm"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    match said.trim().parse() {
        Ok(pid) if pid > 0 => Ok(pid),
        Ok(_) => Err(format!(
            "signal unit {unit}: it has no main process; systemctl start it, or correct its name"
        )),
        Err(_) => {
            let why = String::from_utf8_lossy(&output.stderr);
            Err(format!("signal unit {unit}: systemctl said: {}; use --pid-file or --comm", why.trim()))
        }
    }
}
