//! What the threads of a process wait for: whether one waits for an instance and for nothing else.
//!
//! In: `/proc/PID/task/TID/{stat,syscall,wchan}`, and for `select` and `poll` the sets in the memory of the process,
//! which are copied out and not touched. Out: a [`Wait`] for each thread.

use std::collections::BTreeSet;

use super::process::{ProcDir, stat_field};

/// A thread and what it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wait {
    /// A letter as in `/proc/PID/stat`.
    pub(super) state: u8,
    /// The kernel function in which it sleeps, when it sleeps and that may be read.
    pub(super) function: Option<String>,
    /// The descriptors that can end its sleep, when that is known.
    pub(super) for_fds: Option<BTreeSet<i32>>,
}

/// Threads checked; beyond that the answer would not be about all.
const MOST: usize = 256;

/// Every thread; `None` when they may not be read, or are too many.
pub(super) fn threads(dir: &ProcDir) -> Option<Vec<Wait>> {
    let ids = dir.list("task").ok()?;
    if ids.len() > MOST {
        return None;
    }
    let ids = ids.into_iter().filter_map(|id| String::from_utf8(id).ok());
    Some(ids.filter_map(|id| thread(dir, &id)).collect())
}

fn thread(dir: &ProcDir, id: &str) -> Option<Wait> {
    let file = |name: &str| dir.read(&format!("task/{id}/{name}")).ok();
    let state = stat_field::<char>(&file("stat")?, 3)?;
    let function = file("wchan")
        .and_then(|text| String::from_utf8(text).ok())
        .filter(|text| !text.is_empty() && text != "0")
        .map(|text| text.split('.').next().unwrap_or_default().to_owned());
    let call = file("syscall").and_then(|text| parse_call(std::str::from_utf8(&text).ok()?));
    let for_fds = call.and_then(|(number, args)| waited(dir, number, &args));
    Some(Wait { state: u8::try_from(state).unwrap_or(b'?'), function, for_fds })
}

/// Number and arguments of the call that a thread is in; `None` when it runs or is in none.
fn parse_call(text: &str) -> Option<(i64, [u64; 6])> {
    let mut words = text.split_ascii_whitespace();
    let number = words.next()?.parse().ok().filter(|number| *number >= 0)?;
    let mut args = [0; 6];
    for arg in &mut args {
        *arg = u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok()?;
    }
    Some((number, args))
}

/// The descriptors that a call waits for.
fn waited(dir: &ProcDir, number: i64, args: &[u64; 6]) -> Option<BTreeSet<i32>> {
    let fd = |n: u64| i32::try_from(n).ok();
    match number {
        libc::SYS_read | libc::SYS_readv => Some(BTreeSet::from([fd(args[0])?])),
        libc::SYS_select | libc::SYS_pselect6 => {
            // Sets to write to and of exceptions could end it as well.
            if args[2] != 0 || args[3] != 0 || args[0] > 4096 {
                return None;
            }
            let bits = memory(dir.pid, args[1], usize::try_from(args[0]).ok()?.div_ceil(64) * 8)?;
            let set = (0..i32::try_from(args[0]).ok()?)
                .filter(|n| bits[n.unsigned_abs() as usize / 8] >> (n.unsigned_abs() % 8) & 1 == 1);
            Some(set.collect())
        }
        libc::SYS_poll | libc::SYS_ppoll => {
            let count = usize::try_from(args[1]).ok().filter(|count| *count <= 1024)?;
            let entries = memory(dir.pid, args[0], count * 8)?;
            let fds = entries
                .chunks_exact(8)
                .map(|entry| i32::from_ne_bytes([entry[0], entry[1], entry[2], entry[3]]));
            Some(fds.filter(|fd| *fd >= 0).collect())
        }
        libc::SYS_epoll_wait | libc::SYS_epoll_pwait | libc::SYS_epoll_pwait2 => {
            let info = dir.read(&format!("fdinfo/{}", fd(args[0])?)).ok()?;
            Some(epoll_set(&String::from_utf8_lossy(&info)))
        }
        _ => None,
    }
}

/// The descriptors in an epoll set, from its fdinfo: `tfd: 5 events: 19 data: …`.
fn epoll_set(info: &str) -> BTreeSet<i32> {
    let lines = info.lines().filter_map(|line| line.strip_prefix("tfd:"));
    lines.filter_map(|rest| rest.split_whitespace().next()?.parse().ok()).collect()
}

/// A copy of some bytes of a process's memory.
pub(super) fn memory(pid: u32, address: u64, len: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0_u8; len];
    let ours = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: len };
    let theirs = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: len };
    let pid = i32::try_from(pid).ok()?;
    // SAFETY: `ours` names `len` bytes that this function owns; the kernel checks `theirs` against the other process.
    let read = unsafe { libc::process_vm_readv(pid, &raw const ours, 1, &raw const theirs, 1, 0) };
    (usize::try_from(read).ok()? == len).then_some(bytes)
}

/// Whether a thread waits for this descriptor and for nothing else.
pub(super) fn only_for(threads: &[Wait], fd: i32) -> bool {
    let only = BTreeSet::from([fd]);
    threads.iter().any(|thread| thread.for_fds.as_ref() == Some(&only))
}

/// Whether a thread waits for this descriptor, and beside it only for counters by which other threads wake it: the
/// thread of a library that reads events for its program.
pub(super) fn only_for_but_wakers(dir: &ProcDir, threads: &[Wait], fd: i32) -> bool {
    let is_waker = |fd: i32| dir.link(&format!("fd/{fd}")).is_ok_and(|to| to == b"anon_inode:[eventfd]");
    let waited = threads.iter().filter_map(|thread| thread.for_fds.as_ref());
    let mut those = waited.filter(|fds| fds.contains(&fd));
    those.any(|fds| fds.iter().all(|&other| other == fd || is_waker(other)))
}

/// Whether any thread waits for this descriptor, with or without others.
pub(super) fn any_for(threads: &[Wait], fd: i32) -> bool {
    threads.iter().any(|thread| thread.for_fds.as_ref().is_some_and(|fds| fds.contains(&fd)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_numbers_and_arguments() {
        let text = "270 0x4 0x7fb5c5f761e0 0x0 0x0 0x0 0x0 0x7ffd602a9490 0x7fb5c5e83954\n";
        assert_eq!(parse_call(text), Some((270, [4, 0x7fb5_c5f7_61e0, 0, 0, 0, 0])));
        assert_eq!(parse_call("running\n"), None);
        assert_eq!(parse_call("-1 0x7ffd602a9490 0x7fb5c5e83954\n"), None);
    }

    #[test]
    fn a_thread_that_polls_is_seen_with_its_set() {
        let (reader, _writer) = std::io::pipe().unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&reader);
        let mut threads = Vec::new();
        let (done, ended) = std::io::pipe().unwrap();
        let done_fd = std::os::fd::AsRawFd::as_raw_fd(&done);
        let poller = std::thread::spawn(move || {
            use rustix::event::{PollFd, PollFlags, poll};
            let mut fds = [PollFd::new(&reader, PollFlags::IN), PollFd::new(&done, PollFlags::IN)];
            let _ = poll(&mut fds, None);
        });
        let me = ProcDir::open(std::process::id()).unwrap();
        let want = BTreeSet::from([fd, done_fd]);
        for _ in 0..1000 {
            threads = super::threads(&me).unwrap();
            if threads.iter().any(|thread| thread.for_fds.as_ref() == Some(&want)) {
                break;
            }
            std::thread::yield_now();
        }
        assert!(threads.iter().any(|thread| thread.for_fds.as_ref() == Some(&want)), "{threads:?}");
        assert!(any_for(&threads, fd) && !only_for(&threads, fd));
        drop(ended);
        poller.join().unwrap();
    }

    #[test]
    fn an_epoll_set() {
        let info =
            "pos:\t0\ntfd:        5 events:       19 data:   5  pos:0 ino:1 sdev:a\ntfd: 7 events: 1\n";
        assert_eq!(epoll_set(info), BTreeSet::from([5, 7]));
    }
}
