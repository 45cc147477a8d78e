//! Writes through the kernel's older asynchronous interface (`io_submit`), which never notifies.

use std::fs::File;
use std::os::fd::AsRawFd;

use super::{
    Aligned, BLOCK, Cell, DATA, OpError, Operation, Step, aligned_block, all_fs, checked, exactly,
    open_direct, step,
};
use crate::expect::Expect;

pub(super) const OPS: &[Operation] = &[all_fs("aio-write", buffered), all_fs("aio-direct", direct)];

fn buffered(c: &Cell<'_>) -> Step {
    let (path, file) = c.open("f")?;
    let context = Context::new()?;
    let line = Expect::data(path, "aio", DATA.len() as u64).unheard("aio");
    step(vec![line], move || context.write(&file, DATA))
}

fn direct(c: &Cell<'_>) -> Step {
    let path = c.file("f")?;
    let file = open_direct(&path)?;
    let block: Box<Aligned> = aligned_block();
    let context = Context::new()?;
    let line = Expect::data(path, "aio", BLOCK).unheard("aio");
    step(vec![line], move || context.write(&file, &block.0))
}

/// An aio context.
struct Context(libc::c_ulong);

/// `struct iocb` of linux/aio_abi.h on a little-endian machine.
#[repr(C)]
#[derive(Default)]
struct Request {
    data: u64,
    key: u32,
    rw_flags: u32,
    opcode: u16,
    priority: i16,
    fd: u32,
    buffer: u64,
    length: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    resfd: u32,
}

/// `struct io_event` of linux/aio_abi.h.
#[repr(C)]
#[derive(Default)]
struct Event {
    data: u64,
    object: u64,
    result: i64,
    result2: i64,
}

impl Context {
    fn new() -> Result<Self, OpError> {
        let mut id: libc::c_ulong = 0;
        // SAFETY: the kernel writes the new context's id into `id`.
        checked(unsafe { libc::syscall(libc::SYS_io_setup, 1, &raw mut id) })?;
        Ok(Self(id))
    }

    /// Submits one write and waits for its completion.
    fn write(&self, file: &File, data: &[u8]) -> Result<(), OpError> {
        const IOCB_CMD_PWRITE: u16 = 1;
        let fd = u32::try_from(file.as_raw_fd()).map_err(|_| OpError::other("negative descriptor"))?;
        let mut request = Request {
            opcode: IOCB_CMD_PWRITE,
            fd,
            buffer: data.as_ptr() as u64,
            length: data.len() as u64,
            ..Request::default()
        };
        let mut list = [&raw mut request];
        let mut event = Event::default();
        let no_timeout = std::ptr::null_mut::<libc::timespec>();
        // SAFETY: the list holds one request, which refers to `data`; both live until the completion below.
        checked(unsafe { libc::syscall(libc::SYS_io_submit, self.0, 1, list.as_mut_ptr()) })?;
        // SAFETY: there is room for the one event that is asked for.
        checked(unsafe { libc::syscall(libc::SYS_io_getevents, self.0, 1, 1, &raw mut event, no_timeout) })?;
        match usize::try_from(event.result) {
            Ok(count) => exactly(count, data.len()),
            Err(_) => {
                let errno = i32::try_from(-event.result).unwrap_or(libc::EIO);
                Err(std::io::Error::from_raw_os_error(errno).into())
            }
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: the context was made by `new` and is destroyed only here; it ends with the process otherwise.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.0) };
    }
}
