//! The kernel's older asynchronous interface, libaio's, by its system calls.
//!
//! In: writes. Out: all of them made, by one `io_submit`.

use std::fs::File;
use std::io::{Error, ErrorKind, Result};
use std::os::fd::AsRawFd;

/// An aio context.
pub struct Context(libc::c_ulong);

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
#[derive(Clone, Default)]
struct Event {
    data: u64,
    object: u64,
    result: i64,
    result2: i64,
}

impl Context {
    /// A context with room for so many requests.
    ///
    /// # Errors
    /// Those of `io_setup`.
    pub fn new(requests: u32) -> Result<Self> {
        let mut id: libc::c_ulong = 0;
        // SAFETY: the kernel writes the new context's id into `id`.
        checked(unsafe { libc::syscall(libc::SYS_io_setup, requests, &raw mut id) })?;
        Ok(Self(id))
    }

    /// Submits writes at the start of files in one call, and waits for their completion.
    ///
    /// # Errors
    /// A request was not accepted, failed, or wrote less than was requested.
    pub fn write_all(&self, writes: &[(&File, &[u8])]) -> Result<()> {
        const IOCB_CMD_PWRITE: u16 = 1;
        let mut requests = Vec::with_capacity(writes.len());
        for (index, (file, data)) in writes.iter().enumerate() {
            let fd = u32::try_from(file.as_raw_fd()).map_err(|_| ErrorKind::InvalidInput)?;
            requests.push(Request {
                data: index as u64,
                opcode: IOCB_CMD_PWRITE,
                fd,
                buffer: data.as_ptr() as u64,
                length: data.len() as u64,
                ..Request::default()
            });
        }
        let mut list: Vec<*mut Request> = requests.iter_mut().map(std::ptr::from_mut).collect();
        let mut events = vec![Event::default(); list.len()];
        let no_timeout = std::ptr::null_mut::<libc::timespec>();
        // SAFETY: the list holds as many requests as are given, which refer to `writes`; all live until the completion
        // of each below.
        let accepted =
            checked(unsafe { libc::syscall(libc::SYS_io_submit, self.0, list.len(), list.as_mut_ptr()) })?;
        // SAFETY: there is room for the events that are requested, and no more than those come.
        let done = checked(unsafe {
            libc::syscall(libc::SYS_io_getevents, self.0, accepted, accepted, events.as_mut_ptr(), no_timeout)
        })?;
        if usize::try_from(accepted) != Ok(list.len()) || done != accepted {
            return Err(Error::other(format!("{accepted} of {} requests accepted, {done} done", list.len())));
        }
        for event in events {
            let wanted = usize::try_from(event.data).ok().and_then(|index| writes.get(index));
            match usize::try_from(event.result) {
                Ok(count) if wanted.is_some_and(|(_, data)| data.len() == count) => {}
                Ok(count) => return Err(Error::other(format!("{count} bytes written"))),
                Err(_) => {
                    let errno = i32::try_from(-event.result).unwrap_or(libc::EIO);
                    return Err(Error::from_raw_os_error(errno));
                }
            }
        }
        Ok(())
    }
}

fn checked(result: libc::c_long) -> Result<libc::c_long> {
    if result < 0 { Err(Error::last_os_error()) } else { Ok(result) }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: the context was made by `new` and is destroyed only here; it ends with the process otherwise.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.0) };
    }
}
