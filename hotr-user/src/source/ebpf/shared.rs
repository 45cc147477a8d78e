//! Memory that the kernel programs and hotr share: an array map, mapped into hotr. Reading it takes no system call,
//! and so does not make the kernel skip a program (see `storms.rs`).

use std::ffi::c_void;
use std::mem::size_of;
use std::os::fd::AsFd;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::AtomicU64;

use aya::Pod;
use aya::maps::{Array, IterableMap, MapData};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A mapped array of `T`, which must be integers only.
pub(super) struct Shared<T: Pod> {
    start: NonNull<c_void>,
    bytes: usize,
    entries: usize,
    /// Programs that are loaded later refer to it.
    _map: Array<MapData, T>,
}

// SAFETY: the memory belongs to this value; the pointer is not tied to a thread.
unsafe impl<T: Pod + Send> Send for Shared<T> {}
// SAFETY: as above; through a shared reference it is only read, or written atomically.
unsafe impl<T: Pod + Send> Sync for Shared<T> {}

impl<T: Pod> Shared<T> {
    /// Maps an array of `entries` values, made with `BPF_F_MMAPABLE`.
    pub(super) fn new(map: Array<MapData, T>, entries: usize) -> std::io::Result<Self> {
        // The kernel rounds each value up to eight bytes (kernel/bpf/arraymap.c `array_map_alloc`).
        let bytes =
            (entries * size_of::<T>().next_multiple_of(8)).next_multiple_of(rustix::param::page_size());
        let fd = map.map().fd().as_fd();
        // SAFETY: a new mapping at an address the kernel chooses; it stays valid when the map's descriptor is closed.
        let start =
            unsafe { mmap(null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, fd, 0)? };
        let start = NonNull::new(start).ok_or(std::io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, bytes, entries, _map: map })
    }

    /// The values as they are now. A value of several words that programs are writing may be torn between words.
    pub(super) fn values(&self) -> impl Iterator<Item = T> + '_ {
        (0..self.entries).map(|index| self.at(index))
    }

    /// One value as it is now, see [`Self::values`].
    pub(super) fn get(&self, index: u32) -> Option<T> {
        let index = usize::try_from(index).ok().filter(|index| *index < self.entries)?;
        Some(self.at(index))
    }

    /// An aligned word of a value, at this offset in bytes.
    pub(super) fn word(&self, index: u32, offset: usize) -> Option<&AtomicU64> {
        let index = usize::try_from(index).ok().filter(|index| *index < self.entries)?;
        if !offset.is_multiple_of(8) || offset + 8 > size_of::<T>() {
            return None;
        }
        // SAFETY: within the mapping and aligned, as was checked; it lives as long as `self`. Programs write whole words.
        Some(unsafe { &*self.start.as_ptr().byte_add(index * size_of::<T>() + offset).cast::<AtomicU64>() })
    }

    /// Writes a value, while no program writes or reads it.
    pub(super) fn set(&mut self, index: u32, value: T) {
        if let Some(index) = usize::try_from(index).ok().filter(|index| *index < self.entries) {
            let first: *mut T = self.start.as_ptr().cast();
            // SAFETY: within the mapping, as was checked, and aligned as in `at`; `self` is borrowed alone.
            unsafe { first.add(index).write_volatile(value) };
        }
    }

    fn at(&self, index: usize) -> T {
        const { assert!(size_of::<T>().is_multiple_of(8)) };
        let first: *const T = self.start.as_ptr().cast();
        // SAFETY: callers have checked the index; the mapping holds values of whole words, and any bits are a value of
        // integers.
        unsafe { first.add(index).read_volatile() }
    }
}

impl<T: Pod> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`, which nothing refers to any more. It cannot fail then.
        let _ = unsafe { munmap(self.start.as_ptr(), self.bytes) };
    }
}
