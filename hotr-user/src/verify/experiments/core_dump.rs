//! A core dump, which the kernel itself writes.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::verify::bench::{Bench, During, Stop, overwrite};
use crate::verify::evidence::Listener;
use crate::verify::experiment::{Experiment, Group};
use crate::verify::rulings::{receives, words_at};
use crate::verify::verdict::Ruling;

const INOTIFY: &[Listener] = &[Listener::Inotify];
const PATTERN: &str = "/proc/sys/kernel/core_pattern";
/// Most bytes of a core.
const MOST: libc::rlim_t = 1 << 20;

pub(super) const ALL: &[Experiment] = &[Experiment {
    name: "core-dump",
    group: Group::Content,
    claim: "A core dump is received as IN_CREATE and IN_MODIFY, as a write by a process is.",
    source: "fs/coredump.c, do_coredump and dump_emit",
    method: "Have a process crash in a watched directory, where kernel.core_pattern puts its core.",
    rests_on: INOTIFY,
    run: crashed,
    decide: |evidence| {
        let words = words_at(evidence, "d");
        let why = format!("the watch on d received {words}");
        match (evidence.heard("d", "CREATE"), evidence.heard("d", "MODIFY")) {
            (1.., 1..) => Ruling::confirmed(why),
            (0, 0) => receives(evidence, "d", "MODIFY"),
            _ => Ruling::partly(why),
        }
    },
}];

fn crashed(bench: &mut Bench<'_>) -> Result<(), Stop> {
    let pattern = fs::read_to_string(PATTERN).during("read kernel.core_pattern")?;
    if pattern.trim() != "core" {
        return Err(Stop("kernel.core_pattern is not core: dumps go elsewhere".to_owned()));
    }
    let dir = bench.dir("d")?;
    bench.watch("d", &dir)?;
    bench.operate(|_| crash_in(&dir))?;
    // With kernel.core_uses_pid, its name has the number of the process.
    let core = fs::read_dir(&dir).during("look for the core")?.flatten().next();
    bench.done(core.as_ref().is_some_and(|core| core.metadata().is_ok_and(|metadata| metadata.len() > 0)));
    match core {
        Some(core) => bench.control("d", || overwrite(&core.path(), b"3")),
        None => Ok(()),
    }
}

fn crash_in(dir: &Path) -> Result<(), Stop> {
    let dir = CString::new(dir.as_os_str().as_bytes()).map_err(|error| Stop(error.to_string()))?;
    // SAFETY: the laboratory's process has one thread; the child only makes system calls, and crashes.
    let child = unsafe { libc::fork() };
    if child < 0 {
        return Err(io::Error::last_os_error()).during("start a process");
    }
    if child == 0 {
        let limit = libc::rlimit { rlim_cur: MOST, rlim_max: MOST };
        // SAFETY: a live string that ends in NUL, and a local; ends the child at once.
        unsafe {
            libc::chdir(dir.as_ptr());
            libc::setrlimit(libc::RLIMIT_CORE, &raw const limit);
            libc::prctl(libc::PR_SET_DUMPABLE, 1);
            libc::signal(libc::SIGABRT, libc::SIG_DFL);
            libc::abort();
        }
    }
    let mut status = 0;
    // SAFETY: the destination is a local.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    if waited == child && libc::WCOREDUMP(status) {
        return Ok(());
    }
    Err(Stop(format!("the process left no core: its status is {status:#x}")))
}
