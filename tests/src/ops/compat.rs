//! Calls of the 32-bit system call table, as a 32-bit program makes them. `int 0x80` enters it from any program
//! (arch/x86/entry/entry_64_compat.S).

use std::arch::asm;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::OnceLock;

use super::{Cell, DATA, OpError, Operation, Step, all_fs, step};
use crate::expect::Expect;

/// Numbers of arch/x86/entry/syscalls/syscall_32.tbl.
mod nr {
    pub(super) const WRITE: u32 = 4;
    pub(super) const OPEN: u32 = 5;
    pub(super) const CLOSE: u32 = 6;
    pub(super) const UNLINK: u32 = 10;
    pub(super) const CHMOD: u32 = 15;
    pub(super) const GETPID: u32 = 20;
    pub(super) const RENAME: u32 = 38;
    pub(super) const MKDIR: u32 = 39;
    pub(super) const FTRUNCATE: u32 = 93;
    pub(super) const TRUNCATE: u32 = 92;
    pub(super) const PWRITE64: u32 = 181;
}

pub(super) const OPS: &[Operation] = &[
    all_fs("compat-write", |c| data(c, "write", nr::WRITE)),
    all_fs("compat-pwrite", |c| data(c, "pwrite64", nr::PWRITE64)),
    all_fs("compat-ftruncate", |c| {
        let (path, file) = c.open("f")?;
        step(vec![Expect::new("write", &["ftruncate"], path)], move || {
            call(nr::FTRUNCATE, [number(file.as_raw_fd()), 7, 0])
        })
    }),
    all_fs("compat-truncate", |c| {
        let path = c.file("f")?;
        let name = Low::path(&path)?;
        step(vec![Expect::new("write", &["truncate"], path)], move || {
            call(nr::TRUNCATE, [name.address(), 7, 0])
        })
    }),
    all_fs("compat-create", |c| {
        let path = c.inside("new");
        let name = Low::path(&path)?;
        step(vec![Expect::new("create", &["open"], path)], move || {
            open(&name, libc::O_CREAT | libc::O_WRONLY)
        })
    }),
    all_fs("compat-open-trunc", |c| {
        let path = c.file("f")?;
        let name = Low::path(&path)?;
        step(vec![Expect::new("write", &["o_trunc"], path)], move || {
            open(&name, libc::O_TRUNC | libc::O_WRONLY)
        })
    }),
    all_fs("compat-mkdir", |c| {
        let path = c.inside("new");
        let name = Low::path(&path)?;
        step(vec![Expect::new("create", &["mkdir"], path).kind("dir")], move || {
            call(nr::MKDIR, [name.address(), 0o700, 0])
        })
    }),
    all_fs("compat-rename", |c| {
        let (from, to) = (c.file("from")?, c.inside("to"));
        let names = (Low::path(&from)?, Low::path(&to)?);
        step(vec![Expect::new("rename", &["rename"], to).from(from)], move || {
            call(nr::RENAME, [names.0.address(), names.1.address(), 0])
        })
    }),
    all_fs("compat-chmod", |c| {
        let path = c.file("f")?;
        let name = Low::path(&path)?;
        step(vec![Expect::new("attrib", &["chmod"], path)], move || {
            call(nr::CHMOD, [name.address(), 0o600, 0])
        })
    }),
    all_fs("compat-unlink", |c| {
        let path = c.file("f")?;
        let name = Low::path(&path)?;
        step(vec![Expect::new("remove", &["unlink"], path)], move || call(nr::UNLINK, [name.address(), 0, 0]))
    }),
];

/// One call that writes [`DATA`] to an open file.
fn data(c: &Cell<'_>, detail: &str, call: u32) -> Step {
    let (path, file) = c.open("f")?;
    let bytes = Low::new(DATA)?;
    step(vec![Expect::data(path, detail, DATA.len() as u64)], move || {
        let length = u32::try_from(DATA.len()).map_err(|_| OpError::other("too much data"))?;
        let written = call_with(call, [number(file.as_raw_fd()), bytes.address(), length, 1, 0])?;
        super::exactly(usize::try_from(written).unwrap_or(0), DATA.len())
    })
}

fn open(name: &Low, flags: i32) -> Result<(), OpError> {
    let opened = call_with(nr::OPEN, [name.address(), flags.cast_unsigned(), 0o644, 0, 0])?;
    call(nr::CLOSE, [opened.cast_unsigned(), 0, 0])
}

fn number(descriptor: i32) -> u32 {
    descriptor.cast_unsigned()
}

fn call(number: u32, [a, b, c]: [u32; 3]) -> Result<(), OpError> {
    call_with(number, [a, b, c, 0, 0]).map(drop)
}

/// A call, where the kernel has that table.
fn call_with(number: u32, arguments: [u32; 5]) -> Result<i32, OpError> {
    static HAS_TABLE: OnceLock<bool> = OnceLock::new();
    if !*HAS_TABLE.get_or_init(has_table) {
        return Err(io::Error::from_raw_os_error(libc::ENOSYS).into());
    }
    let answer = enter(number, arguments);
    if answer < 0 {
        return Err(io::Error::from_raw_os_error(-answer).into());
    }
    Ok(answer)
}

/// Whether the kernel has the 32-bit table: without it the instruction is a fault, which a child takes.
fn has_table() -> bool {
    // SAFETY: the child makes two system calls and no other use of what it shares with its parent.
    let child = unsafe { libc::fork() };
    if child == 0 {
        enter(nr::GETPID, [0; 5]);
        // SAFETY: ends the child without running anything of the parent's.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: a pointer to a live number, and a child of this process.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    child > 0 && waited == child && libc::WIFEXITED(status)
}

/// `int 0x80`, of at most five arguments: the register of the sixth holds the frame.
fn enter(number: u32, [a, b, c, d, e]: [u32; 5]) -> i32 {
    let answer: i32;
    // SAFETY: system calls of this file's cells, whose memory lives over the call. The compiler keeps a value in `rbx`,
    // which is put back; older kernels clear the four others.
    unsafe {
        asm!(
            "xchg rbx, {first}",
            "int 0x80",
            "xchg rbx, {first}",
            first = inout(reg) u64::from(a) => _,
            inlateout("eax") number => answer,
            in("ecx") b,
            in("edx") c,
            in("esi") d,
            in("edi") e,
            lateout("r8") _,
            lateout("r9") _,
            lateout("r10") _,
            lateout("r11") _,
        );
    }
    answer
}

/// Bytes at an address of 32 bits.
struct Low {
    start: *mut libc::c_void,
    address: u32,
}

const PAGE: usize = 4096;

impl Low {
    fn new(bytes: &[u8]) -> Result<Self, OpError> {
        if bytes.len() >= PAGE {
            return Err(OpError::other("more than a page"));
        }
        let (access, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT);
        // SAFETY: a new mapping at an address the kernel chooses.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), PAGE, access, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error().into());
        }
        // SAFETY: the page is new, and longer than the bytes. What follows them is zero.
        unsafe { start.cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        let address =
            u32::try_from(start.expose_provenance()).map_err(|_| OpError::other("a high address"))?;
        Ok(Self { start, address })
    }

    fn path(path: &Path) -> Result<Self, OpError> {
        Self::new(path.as_os_str().as_bytes())
    }

    fn address(&self) -> u32 {
        self.address
    }
}

impl Drop for Low {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`. It cannot fail then.
        unsafe { libc::munmap(self.start, PAGE) };
    }
}
