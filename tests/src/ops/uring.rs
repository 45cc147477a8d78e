//! Writes through io_uring: inline, with registered buffer and file, with other credentials, in a worker, and polled.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use io_uring::{IoUring, opcode, squeue, types};

use super::{
    Aligned, BLOCK, Cell, DATA, OpError, Operation, Step, aligned_block, all_fs, exactly, open_direct, step,
};
use crate::expect::Expect;

/// For one write of a block.
const DEADLINE: Duration = Duration::from_secs(10);

pub(super) const OPS: &[Operation] = &[
    all_fs("uring-write", |c| {
        let (path, file) = c.open("f")?;
        let ring = IoUring::new(4)?;
        step(vec![Expect::data(path, "io_uring", DATA.len() as u64)], move || {
            submit(ring, write(&file, DATA), DATA.len())
        })
    }),
    all_fs("uring-fixed", fixed),
    all_fs("uring-personality", |c| {
        let (path, file) = c.open("f")?;
        step(vec![Expect::data(path, "io_uring", DATA.len() as u64)], move || {
            let (ring, personality) = with_personality()?;
            submit(ring, write(&file, DATA).personality(personality), DATA.len())
        })
    }),
    all_fs("uring-worker", |c| {
        let (path, file) = c.open("f")?;
        let ring = IoUring::new(4)?;
        step(vec![Expect::data(path, "io_uring", DATA.len() as u64).by_worker()], move || {
            submit(ring, write(&file, DATA).flags(squeue::Flags::ASYNC), DATA.len())
        })
    }),
    all_fs("uring-iopoll", |c| {
        let path = c.file("f")?;
        let file = open_direct(&path)?;
        let ring = IoUring::builder().setup_iopoll().build(4)?;
        let block: Box<Aligned> = aligned_block();
        // A polled ring never notifies; whether a worker finishes it depends on the device.
        let line = Expect::data(path, "io_uring", BLOCK).by_worker().unheard("aio");
        step(vec![line], move || submit(ring, write(&file, &block.0), block.0.len()))
    }),
];

fn write(file: &File, data: &[u8]) -> squeue::Entry {
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    opcode::Write::new(types::Fd(file.as_raw_fd()), data.as_ptr(), length).build()
}

fn fixed(c: &Cell<'_>) -> Step {
    let (path, file) = c.open("f")?;
    let ring = IoUring::new(4)?;
    ring.submitter().register_files(&[file.as_raw_fd()])?;
    let buffer: Box<Aligned> = aligned_block();
    let vector = libc::iovec { iov_base: buffer.0.as_ptr().cast_mut().cast(), iov_len: buffer.0.len() };
    // SAFETY: the buffer is owned by the closure below and outlives the ring, which is consumed by `submit`.
    unsafe { ring.submitter().register_buffers(&[vector]) }?;
    step(vec![Expect::data(path, "io_uring", DATA.len() as u64)], move || {
        let length = u32::try_from(DATA.len()).unwrap_or(u32::MAX);
        let entry = opcode::WriteFixed::new(types::Fixed(0), buffer.0.as_ptr(), length, 0).build();
        let done = submit(ring, entry, DATA.len());
        drop((file, buffer));
        done
    })
}

/// A ring, and credentials that it was given before the thread changed its own. They allow the same.
pub(super) fn with_personality() -> Result<(IoUring, u16), OpError> {
    let ring = IoUring::new(4)?;
    let personality = ring.submitter().register_personality()?;
    // The thread's credentials become a copy, and another one with the same values.
    for group in [1, 0] {
        // SAFETY: the call has one number and no pointer.
        unsafe { libc::syscall(libc::SYS_setfsgid, group) };
    }
    Ok((ring, personality))
}

/// Submits one entry, waits for its completion, and closes the ring.
pub(super) fn submit(mut ring: IoUring, entry: squeue::Entry, expected: usize) -> Result<(), OpError> {
    // SAFETY: the caller keeps file and buffer alive over this call, which returns after the completion.
    unsafe { ring.submission().push(&entry) }.map_err(|_| OpError::other("the submission queue is full"))?;
    let result = wait(&mut ring)?;
    match usize::try_from(result) {
        Ok(count) => exactly(count, expected),
        Err(_) => Err(std::io::Error::from_raw_os_error(-result).into()),
    }
}

/// A polled ring may come back early, with nothing: then it is asked again.
pub(super) fn wait(ring: &mut IoUring) -> Result<i32, OpError> {
    let start = Instant::now();
    while start.elapsed() < DEADLINE {
        if let Some(entry) = ring.completion().next() {
            return Ok(entry.result());
        }
        ring.submit_and_wait(1)?;
    }
    Err(OpError::other(format!("no completion came in {DEADLINE:?}")))
}
