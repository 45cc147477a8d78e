//! How a process without an instance may learn of changes: the paths that it looks at again and again by `stat` and
//! similar calls, seen for some seconds.
//!
//! In: processes. Out: for each the paths that it looked at more than once, with how often. The kernel's event of each
//! system call is counted for the threads of these processes alone (perf); nothing is added to them. The path is read from
//! the memory of the process right after the call began. It may have been replaced there even so: a path that is seen once
//! only is not taken, and one that does not exist is not named.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use perf_event::events::Tracepoint;
use perf_event::{Builder, SampleFlag, Sampler, data};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::process::{ProcDir, Process};
use super::thread_waits::memory;
use crate::kernel::perf::Events;
use crate::sched;

/// How long processes are looked at.
pub(super) const LOOK_FOR: Duration = Duration::from_secs(3);
/// How often new threads are looked for.
const THREADS_EVERY: Duration = Duration::from_millis(100);
/// Looks that follow each other faster are one.
const APART: Duration = Duration::from_millis(50);
/// Threads looked at.
const MOST: usize = 256;
/// Calls after which it ends early: to look at more would take time from the processes.
const MOST_CALLS: usize = 10_000;
/// Bytes of records of one thread.
const RING: usize = 16 << 10;
/// `PERF_EVENT_IOC_SET_FILTER`, `_IOW('$', 6, char *)` (kernel: include/uapi/linux/perf_event.h).
const PERF_EVENT_IOC_SET_FILTER: libc::Ioctl = 0x4008_2406;

/// A path that a process looked at more than once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Polled {
    /// As the process sees it.
    pub(super) path: PathBuf,
    /// Looks at different times, at least.
    pub(super) looks: u32,
}

/// Where a call has what it looks at.
#[derive(Clone, Copy)]
enum At {
    /// The path.
    Path(usize),
    /// A directory and a path from there.
    Dir(usize),
    /// A descriptor.
    Fd(usize),
}

/// The calls that look at a file and do not open it.
const CALLS: [(i64, At); 8] = [
    (libc::SYS_stat, At::Path(0)),
    (libc::SYS_lstat, At::Path(0)),
    (libc::SYS_access, At::Path(0)),
    (libc::SYS_fstat, At::Fd(0)),
    (libc::SYS_newfstatat, At::Dir(0)),
    (libc::SYS_statx, At::Dir(0)),
    (libc::SYS_faccessat, At::Dir(0)),
    (libc::SYS_faccessat2, At::Dir(0)),
];

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// By process id, the most looked at first.
    pub(super) polled: HashMap<u32, Vec<Polled>>,
    /// How long it took.
    pub(super) took: Duration,
}

/// Looks at these processes.
///
/// # Errors
/// When the kernel does not let hotr count calls.
pub(super) fn look(processes: &[&Process]) -> io::Result<Seen> {
    let _first = sched::First::new();
    let start = Instant::now();
    let event = Tracepoint::with_id(Events::open()?.number("raw_syscalls/sys_enter")?);
    let over = start + LOOK_FOR;
    let mut calls = 0;
    let mut threads: BTreeMap<u32, (&Process, Sampler)> = BTreeMap::new();
    let mut seen: HashMap<(u32, PathBuf), Looks> = HashMap::new();
    // Counting changes no process, so those that are read as 32-bit programs, whose calls have other numbers, are left out.
    let processes: Vec<_> = processes.iter().filter(|process| is_64_bit(&process.dir)).collect();
    let mut fresh = Instant::now();
    while Instant::now() < over && calls < MOST_CALLS {
        if Instant::now() >= fresh {
            for process in &processes {
                follow(process, event, &mut threads)?;
            }
            fresh = Instant::now() + THREADS_EVERY;
        }
        let now = Instant::now();
        let left = over.min(fresh).saturating_duration_since(now);
        wait(threads.values().map(|(_, sampler)| sampler), left)?;
        for (process, sampler) in threads.values_mut() {
            calls += drain(process, sampler, MOST_CALLS - calls, &mut seen);
        }
        // Of a thread that has ended, the kernel reports that for ever.
        threads.retain(|tid, (process, _)| process.dir.read(&format!("task/{tid}/comm")).is_ok());
    }
    let took = start.elapsed();
    let mut polled: HashMap<u32, Vec<Polled>> = HashMap::new();
    for ((pid, path), looks) in seen {
        if looks.count > 1 {
            polled.entry(pid).or_default().push(Polled { path, looks: looks.count });
        }
    }
    for paths in polled.values_mut() {
        paths.sort_by(|a, b| (b.looks, &a.path).cmp(&(a.looks, &b.path)));
    }
    Ok(Seen { polled, took })
}

/// When a path was looked at.
#[derive(Clone, Copy, Debug)]
struct Looks {
    last: Instant,
    count: u32,
}

impl Looks {
    fn add(&mut self, now: Instant) {
        // Several calls of one look.
        if now.duration_since(self.last) >= APART {
            self.count += 1;
            self.last = now;
        }
    }
}

/// Counts the calls of the threads of a process that are not counted yet.
fn follow<'p>(
    process: &'p Process,
    event: Tracepoint,
    threads: &mut BTreeMap<u32, (&'p Process, Sampler)>,
) -> io::Result<()> {
    let known: HashSet<u32> = threads.keys().copied().collect();
    let ids = process.dir.list("task").unwrap_or_default();
    let ids = ids.into_iter().filter_map(|id| String::from_utf8(id).ok()?.parse().ok());
    for tid in ids.filter(|tid| !known.contains(tid)) {
        if threads.len() >= MOST {
            break;
        }
        match count(tid, event) {
            Ok(sampler) => drop(threads.insert(tid, (process, sampler))),
            // It has ended meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn count(tid: u32, event: Tracepoint) -> io::Result<Sampler> {
    let tid = libc::pid_t::try_from(tid).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut builder = Builder::new(event);
    builder.observe_pid(tid).any_cpu().exclude_kernel(false).exclude_hv(false);
    let mut sampler =
        builder.sample_period(1).sample(SampleFlag::RAW).wakeup_events(1).build()?.sampled(RING)?;
    let filter = CALLS.map(|(number, _)| format!("id == {number}")).join(" || ");
    let filter = std::ffi::CString::new(filter)?;
    // SAFETY: the request takes a string, which lives until it returns.
    let done = unsafe { libc::ioctl(sampler.as_raw_fd(), PERF_EVENT_IOC_SET_FILTER, filter.as_ptr()) };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    sampler.as_counter_mut().enable()?;
    Ok(sampler)
}

/// Waits for a record.
fn wait<'s>(samplers: impl Iterator<Item = &'s Sampler>, left: Duration) -> io::Result<()> {
    let mut fds: Vec<_> = samplers
        .map(|sampler| {
            // SAFETY: the descriptor is the sampler's, which is borrowed for as long.
            let fd = unsafe { BorrowedFd::borrow_raw(sampler.as_raw_fd()) };
            PollFd::from_borrowed_fd(fd, PollFlags::IN)
        })
        .collect();
    let left = Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?;
    match poll(&mut fds, Some(&left)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Takes records, at most so many; returns how many.
fn drain(
    process: &Process,
    sampler: &mut Sampler,
    most: usize,
    seen: &mut HashMap<(u32, PathBuf), Looks>,
) -> usize {
    let mut taken = 0;
    while taken < most
        && let Some(record) = sampler.next_record()
    {
        taken += 1;
        let Ok(data::Record::Sample(sample)) = record.parse_record() else { continue };
        let Some(path) = sample.raw().and_then(call).and_then(|(at, args)| path(&process.dir, at, &args))
        else {
            continue;
        };
        let now = Instant::now();
        let looks = seen.entry((process.pid, path)).or_insert(Looks { last: now, count: 1 });
        looks.add(now);
    }
    taken
}

/// The call of a record, and its arguments (kernel: include/trace/events/syscalls.h `sys_enter`).
fn call(raw: &[u8]) -> Option<(At, [u64; 6])> {
    let number = |at: usize| Some(u64::from_ne_bytes(raw.get(at..at + 8)?.try_into().ok()?));
    let id = number(8)?.cast_signed();
    let (_, at) = CALLS.into_iter().find(|(call, _)| *call == id)?;
    let mut args = [0; 6];
    for (i, arg) in args.iter_mut().enumerate() {
        *arg = number(16 + 8 * i)?;
    }
    Some((at, args))
}

/// What a call looks at, as the process sees it.
fn path(dir: &ProcDir, at: At, args: &[u64; 6]) -> Option<PathBuf> {
    let named = match at {
        At::Path(arg) => {
            // First of all: it may not stay there.
            let name = text(dir.pid, args[arg])?;
            dir.cwd()?.join(name)
        }
        At::Fd(arg) => opened(dir, args[arg])?,
        At::Dir(arg) => {
            let name = text(dir.pid, args[arg + 1])?;
            if name.is_absolute() { name } else { opened(dir, args[arg])?.join(name) }
        }
    };
    // Without the end that an empty name adds.
    named.is_absolute().then(|| named.components().collect())
}

/// What a descriptor leads to; absent for what has no path, or lost it.
fn opened(dir: &ProcDir, arg: u64) -> Option<PathBuf> {
    // A descriptor is an int.
    let fd = ((arg & 0xffff_ffff) as u32).cast_signed();
    if fd == libc::AT_FDCWD {
        return dir.cwd();
    }
    let to = dir.link(&format!("fd/{fd}")).ok()?;
    (to.starts_with(b"/") && !to.ends_with(b" (deleted)")).then(|| PathBuf::from(OsString::from_vec(to)))
}

/// A string of the process's memory, read page by page: what is behind its end may not be there.
fn text(pid: u32, address: u64) -> Option<PathBuf> {
    const PAGE: u64 = 4096;
    let (mut bytes, mut at) = (Vec::new(), address);
    while bytes.len() < libc::PATH_MAX as usize {
        let length = PAGE - at % PAGE;
        let part = memory(pid, at, usize::try_from(length).ok()?)?;
        if let Some(end) = part.iter().position(|&byte| byte == 0) {
            bytes.extend_from_slice(&part[..end]);
            return Some(PathBuf::from(OsString::from_vec(bytes)));
        }
        bytes.extend(part);
        at = at.checked_add(length)?;
    }
    None
}

/// Whether a process is a 64-bit program: the first key of its auxiliary vector has as many bytes, and is small.
fn is_64_bit(dir: &ProcDir) -> bool {
    let first =
        dir.read("auxv").ok().and_then(|vector| vector.first_chunk().copied().map(u64::from_ne_bytes));
    first.is_some_and(|key| key < 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_read_from_a_record() {
        let mut raw = vec![0; 8];
        raw.extend(libc::SYS_statx.to_ne_bytes());
        for arg in 1..=6_u64 {
            raw.extend(arg.to_ne_bytes());
        }
        let (at, args) = call(&raw).unwrap();
        assert!(matches!(at, At::Dir(0)));
        assert_eq!(args, [1, 2, 3, 4, 5, 6]);
        raw[8..16].copy_from_slice(&libc::SYS_read.to_ne_bytes());
        assert!(call(&raw).is_none(), "another call");
        assert!(call(&raw[..20]).is_none(), "a short record");
    }

    #[test]
    fn what_a_call_looks_at() {
        let me = ProcDir::open(std::process::id()).unwrap();
        let file = std::fs::File::open("/proc/self/maps").unwrap();
        let names = [c"/etc/passwd", c"", c"name"].map(|name| name.as_ptr() as u64);
        let cwd = std::env::current_dir().unwrap();
        let here = u64::from(libc::AT_FDCWD.cast_unsigned());
        for (at, args, want) in [
            (At::Path(0), [names[0], 0], Some(PathBuf::from("/etc/passwd"))),
            (At::Path(0), [names[2], 0], Some(cwd.join("name"))),
            (At::Path(0), [8, 0], None),
            (At::Dir(0), [here, names[2]], Some(cwd.join("name"))),
            (At::Dir(0), [here, names[1]], Some(cwd.clone())),
            (At::Fd(0), [u64::MAX, 0], None),
            (
                At::Fd(0),
                [u64::from(file.as_raw_fd().cast_unsigned()), 0],
                Some(PathBuf::from(format!("/proc/{}/maps", std::process::id()))),
            ),
        ] {
            assert_eq!(path(&me, at, &[args[0], args[1], 0, 0, 0, 0]), want);
        }
    }

    #[test]
    fn one_look_is_no_polling() {
        let start = Instant::now();
        let mut looks = Looks { last: start, count: 1 };
        looks.add(start + APART / 2);
        assert_eq!(looks.count, 1, "calls of one look");
        looks.add(start + APART * 2);
        looks.add(start + APART * 4);
        assert_eq!(looks.count, 3);
    }
}
