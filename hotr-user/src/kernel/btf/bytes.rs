//! The file with the kernel's type information, as bytes.

use std::ffi::c_void;
use std::fs::File;
use std::io::Read as _;
use std::ptr::{NonNull, null_mut};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// The bytes of the kernel's type information.
pub(super) enum Bytes {
    Mapped(NonNull<c_void>, usize),
    Read(Vec<u8>),
}

impl Bytes {
    /// Mapped where the kernel lets it be mapped: reading them goes page by page, and takes as long as the index.
    pub(super) fn of_kernel() -> std::io::Result<Self> {
        let mut file = File::open("/sys/kernel/btf/vmlinux")?;
        let size = usize::try_from(file.metadata()?.len()).unwrap_or(0);
        // SAFETY: a new mapping at an address the kernel chooses. What is mapped is never written (kernel/bpf/sysfs_btf.c).
        let mapped = unsafe { mmap(null_mut(), size, ProtFlags::READ, MapFlags::PRIVATE, &file, 0) };
        if let Some(start) = mapped.ok().and_then(NonNull::new) {
            return Ok(Self::Mapped(start, size));
        }
        let mut read = Vec::with_capacity(size + 1);
        file.read_to_end(&mut read)?;
        Ok(Self::Read(read))
    }
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            // SAFETY: the mapping is of this size, stays until this value is dropped, and is never written.
            Self::Mapped(start, size) => unsafe { std::slice::from_raw_parts(start.as_ptr().cast(), *size) },
            Self::Read(read) => read,
        }
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        if let Self::Mapped(start, size) = self {
            // SAFETY: the mapping made in `of_kernel`, which nothing refers to any more. It cannot fail then.
            let _ = unsafe { munmap(start.as_ptr(), *size) };
        }
    }
}
