//! Changes by requests of io_uring: writes, writes of a polling ring, and names.

use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use io_uring::{IoUring, opcode, squeue, types};

use crate::verify::bench::{Bench, During, Stop, holds, old_file, overwrite};
use crate::verify::evidence::Listener;
use crate::verify::experiment::{Experiment, Group};
use crate::verify::make_filesystem::Disk;
use crate::verify::rulings::{receives, receives_none};

const INOTIFY: &[Listener] = &[Listener::Inotify];
const BLOCK: usize = 4096;
/// A request that is not complete by then never will be.
const PATIENCE: Duration = Duration::from_secs(5);

/// Those about content.
pub(super) const CONTENT: &[Experiment] = &[
    Experiment {
        name: "uring-write",
        group: Group::Content,
        claim: "A write by io_uring is not received as IN_MODIFY.",
        source: "bug reports about io_uring and inotify; kernels before 5.19 without a backport",
        method: "Write to a file in a watched directory by IORING_OP_WRITE.",
        rests_on: INOTIFY,
        run: |bench| {
            let path = bench.watched_file()?;
            bench.operate(|_| {
                let file = File::options().write(true).open(&path)?;
                let ring = IoUring::new(4).during("make an io_uring")?;
                submit(ring, &write(&file, b"22\n"))
            })?;
            bench.done(holds(&path, b"22\n"));
            bench.control("d", || overwrite(&path, b"3"))
        },
        decide: |evidence| receives_none(evidence, "d", &["MODIFY"]),
    },
    Experiment {
        name: "uring-iopoll",
        group: Group::Content,
        claim: "A write by a polling io_uring is not received as IN_MODIFY.",
        source: "io_uring/rw.c, io_complete_rw_iopoll: no notification call",
        method: "Write a block of an ext4 file in a watched directory by a ring with IORING_SETUP_IOPOLL and O_DIRECT.",
        rests_on: INOTIFY,
        run: polled,
        decide: |evidence| receives_none(evidence, "d", &["MODIFY"]),
    },
];

/// Those about names.
pub(super) const NAMES: &[Experiment] = &[Experiment {
    name: "uring-rename",
    group: Group::Names,
    claim: "A rename by io_uring is received as IN_MOVED_TO.",
    source: "io_uring/fs.c, io_renameat",
    method: "Rename a file in a watched directory by IORING_OP_RENAMEAT.",
    rests_on: INOTIFY,
    run: |bench| {
        let dir = bench.dir("d")?;
        let (old, new) = (dir.join("old"), dir.join("new"));
        old_file(&old, b"1\n")?;
        bench.watch("d", &dir)?;
        bench.compare("d/new", &new);
        bench.operate(|_| {
            let [from, to] = [name(&old)?, name(&new)?];
            let here = types::Fd(libc::AT_FDCWD);
            let ring = IoUring::new(4).during("make an io_uring")?;
            submit(ring, &opcode::RenameAt::new(here, from.as_ptr(), here, to.as_ptr()).build())
        })?;
        bench.done(holds(&new, b"1\n") && !old.exists());
        bench.control("d", || overwrite(&new, b"3"))
    },
    decide: |evidence| receives(evidence, "d", "MOVED_TO"),
}];

/// A block at an address that direct writes accept.
#[repr(C, align(4096))]
struct Block([u8; BLOCK]);

fn polled(bench: &mut Bench<'_>) -> Result<(), Stop> {
    let dir = bench.dir_on(Disk::Ext4)?;
    let path = dir.join("f");
    old_file(&path, &[b'1'; BLOCK])?;
    bench.watch("d", &dir)?;
    bench.compare("d/f", &path);
    bench.operate(|_| {
        let file = File::options().write(true).custom_flags(libc::O_DIRECT).open(&path)?;
        let block = Box::new(Block([b'2'; BLOCK]));
        let ring = IoUring::builder().setup_iopoll().build(4).during("make a polling io_uring")?;
        submit(ring, &write(&file, &block.0))
    })?;
    bench.done(fs::read(&path)? == [b'2'; BLOCK]);
    bench.control("d", || overwrite(&path, b"3"))
}

fn name(path: &Path) -> Result<CString, Stop> {
    CString::new(path.as_os_str().as_bytes()).map_err(|error| Stop(error.to_string()))
}

fn write(file: &File, content: &[u8]) -> squeue::Entry {
    let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
    opcode::Write::new(types::Fd(file.as_raw_fd()), content.as_ptr(), length).build()
}

/// Submits one request, waits until it is complete, and closes the ring.
fn submit(mut ring: IoUring, entry: &squeue::Entry) -> Result<(), Stop> {
    // SAFETY: what the request refers to lives in the caller, over this call, which returns after the completion; the ring ends first
    // otherwise, and with it the request.
    unsafe { ring.submission().push(entry) }.map_err(|error| Stop(error.to_string()))?;
    let over = Instant::now() + PATIENCE;
    loop {
        ring.submit_and_wait(1).during("submit to io_uring")?;
        // A polling ring may come back early, with nothing.
        if let Some(entry) = ring.completion().next() {
            return match entry.result() {
                0.. => Ok(()),
                errno => Err(std::io::Error::from_raw_os_error(-errno)).during("a request of io_uring"),
            };
        }
        if Instant::now() >= over {
            return Err(Stop("a request of io_uring was not complete in time".to_owned()));
        }
    }
}
