//! A change between the hook that saw it and the record that reports it.

use hotr_common::record::{NO_ROOT, SMALL_DEPTH, SMALL_PATHS};

/// A change on its way into a record. Kernel objects are addresses here: emitting reads them by helper calls.
#[derive(Clone, Copy)]
pub struct Event {
    /// The dentry with the new or only name.
    pub dentry: *const u8,
    /// The inode, NULL when it is gone.
    pub inode: *const u8,
    /// The task that made the change; NULL for the running one.
    pub task: *const u8,
    /// `struct vfsmount`, or NULL.
    pub mnt: *const u8,
    /// Where a rename came from: the former parent's dentry.
    pub old_parent: *const u8,
    /// Its former name, in map memory.
    pub old_name: *const u8,
    pub writes: u64,
    pub bytes: u64,
    pub born: u64,
    pub aux: [u64; 2],
    /// For removed and replaced files: number, generation, mode.
    pub victim: u64,
    pub victim_generation: u32,
    pub victim_mode: u32,
    pub flags: u32,
    /// Bytes the path is expected to take.
    pub len: u16,
    /// Levels of directories between the leaf and its root, the most of its two paths.
    pub depth: u16,
    pub hook: u16,
    pub tier: u16,
    pub root: u16,
    pub old_root: u16,
    /// See [`Record::storm`].
    pub storm: u32,
    /// See [`Record::way`].
    pub way: u32,
}

impl Event {
    /// An event about the dentry of this number (see [`number`]), with nothing else known.
    #[inline(always)]
    pub fn new(hook: u16, tier: u16, dentry: u64, inode: *const u8) -> Self {
        let zero = opaque_zero();
        let null = zero as *const u8;
        Self {
            dentry: dentry as *const u8,
            inode,
            task: null,
            mnt: null,
            old_parent: null,
            old_name: null,
            writes: zero,
            bytes: zero,
            born: zero,
            aux: [zero; 2],
            victim: zero,
            victim_generation: 0,
            victim_mode: 0,
            flags: 0,
            len: 0,
            depth: 0,
            hook,
            tier,
            root: NO_ROOT,
            old_root: NO_ROOT,
            storm: 0,
            way: 0,
        }
    }

    /// Whether the small record class has room for the paths.
    #[inline(always)]
    pub const fn is_small(&self) -> bool {
        self.len < SMALL_PATHS as u16 && self.depth < SMALL_DEPTH as u16
    }
}

/// A zero the compiler cannot see through: otherwise it would fill the fields of an event byte by byte, in a loop.
#[inline(always)]
fn opaque_zero() -> u64 {
    let zero: u64;
    // SAFETY: one instruction without side effects.
    unsafe { core::arch::asm!("{0} = 0", out(reg) zero, options(pure, nomem, nostack)) };
    zero
}
