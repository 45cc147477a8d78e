//! Names that appear and disappear: open(O_CREAT), mknod, mkdir, symlink, link, unlink, rmdir.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{HashMap, LruHashMap};
use core::marker::PhantomData;
use hotr_common::uapi::file::{FMODE_CREATED, O_TMPFILE};

use crate::call::{Call, is_error};
use crate::change::{self, Target};
use crate::filter;
use crate::globals::off;
use crate::hooks::{entry_hook, exit_hook};
use crate::kernel::{Mem, Probe};
use crate::kernel::{S_IFDIR, S_IFMT};

/// Files about to lose a name, by the address of the dentry.
#[map(name = "VICTIMS")]
pub static VICTIMS: HashMap<u64, Victim> = HashMap::with_max_entries(1024, 0);

/// Files that lose a name in the system call of a thread, by its id.
#[map(name = "CALL_VICTIMS")]
pub static CALL_VICTIMS: LruHashMap<u32, Victim> = LruHashMap::with_max_entries(1024, 0);

exit_hook!(Open, Other, open => fexit_open, kprobe_open, kretprobe_open);
exit_hook!(Create, Dentry, create => fexit_create, kprobe_create, kretprobe_create);
exit_hook!(Mkdir, Dentry, create => fexit_mkdir, kprobe_mkdir, kretprobe_mkdir);
exit_hook!(Mknod, Dentry, create => fexit_mknod, kprobe_mknod, kretprobe_mknod);
exit_hook!(Symlink, Dentry, create => fexit_symlink, kprobe_symlink, kretprobe_symlink);
exit_hook!(Link, Dentry, create => fexit_link, kprobe_link, kretprobe_link);
exit_hook!(Unlink, Dentry, remove => fexit_unlink, kprobe_unlink, kretprobe_unlink);
entry_hook!(Unlink, remember => fentry_unlink, kprobe_unlink_victim);
entry_hook!(Rmdir, remember => fentry_rmdir, kprobe_rmdir_victim);

/// A file that is about to lose a name: at the function's exit its dentry has no inode any more.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Victim {
    pub ino: u64,
    pub generation: u32,
    pub mode: u32,
    /// See [`filter::root_number`].
    pub itself: u64,
}

impl Victim {
    /// Of a file that nothing is known of.
    const UNKNOWN: Self = Self { ino: 0, generation: 0, mode: 0, itself: 0 };

    /// Whether it is a directory that cannot be distinguished from the next one, which may have its address and number:
    /// of a filesystem without generations.
    #[inline(always)]
    pub fn may_be_mistaken(&self) -> bool {
        self.generation == 0 && self.mode & u32::from(S_IFMT) == u32::from(S_IFDIR)
    }

    /// The file with this inode.
    #[inline(always)]
    pub fn of<M: Mem>(inode: *const u8) -> Self {
        let mode = M::u16(inode, off!(inode_i_mode));
        Self {
            ino: M::u64(inode, off!(inode_i_ino)),
            generation: M::u32(inode, off!(inode_i_generation)),
            mode: u32::from(mode),
            itself: if mode & S_IFMT == S_IFDIR { filter::root_number(inode) } else { 0 },
        }
    }
}

/// `do_filp_open` returns the opened file; `FMODE_CREATED` says that this open made it.
#[inline(always)]
fn open<M: Mem>(_: PhantomData<M>, call: &Call) {
    let file = call.ret;
    if is_error(file) || file.is_null() || M::u32(file, off!(file_f_mode)) & FMODE_CREATED == 0 {
        return;
    }
    // A nameless file: its name, if it gets one, comes by linkat.
    if M::u32(file, off!(file_f_flags)) & O_TMPFILE != 0 {
        return;
    }
    change::name::<M>(call, &Target::file::<M>(file), 0, |_| {});
}

/// A function `(…, dentry, …)` that made the dentry positive. Newer `vfs_mkdir` returns the dentry that is used.
#[inline(always)]
fn create<M: Mem>(_: PhantomData<M>, call: &Call) {
    if !call.succeeded() {
        return;
    }
    change::name::<M>(call, &Target::dentry::<M>(call.subject), 0, |_| {});
}

/// Entry of `vfs_unlink` and `vfs_rmdir`: remembers the file.
#[inline(always)]
fn remember<M: Mem>(_: PhantomData<M>, call: &Call) {
    let dentry = call.subject;
    let superblock = M::ptr(dentry, off!(dentry_d_sb));
    if !filter::is_watched(superblock) || call.has_no_end() {
        return;
    }
    let victim = Victim::of::<M>(M::ptr(dentry, off!(dentry_d_inode)));
    let parent = M::ptr(dentry, off!(dentry_d_parent));
    if victim.itself == 0
        && !victim.may_be_mistaken()
        && !filter::directory::<M>(parent, superblock).is_inside()
    {
        return;
    }
    // A full map costs the removed file's number, not the change.
    let _ = VICTIMS.insert(&(dentry as u64), &victim, 0);
}

/// Exit of `vfs_unlink` and `vfs_rmdir`.
#[inline(always)]
pub fn remove<M: Mem>(_: PhantomData<M>, call: &Call) {
    let key = call.subject as u64;
    let mut victim = Victim::UNKNOWN;
    if let Some(known) = VICTIMS.get_ptr(&key) {
        // SAFETY: the entry is this call's own: a dentry's removal holds its parent's lock.
        victim = unsafe { *known };
        let _ = VICTIMS.remove(&key);
    }
    if call.succeeded() {
        tell_removal::<M>(call, victim);
    }
}

/// Reports the removal of the subject's name; its dentry may have lost the file already.
#[inline(always)]
pub fn tell_removal<M: Mem>(call: &Call, victim: Victim) {
    if victim.may_be_mistaken() {
        // What is remembered of the directory is void.
        filter::bump_epoch();
    }
    change::name::<M>(call, &Target::dentry::<Probe>(call.subject), victim.itself, |event| {
        event.victim = victim.ino;
        event.victim_generation = victim.generation;
        event.victim_mode = victim.mode;
    });
}
