//! From a hooked call to a record: the filter, the storm and the emission, in the order of their cost.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use hotr_common::config::storm_who;
use hotr_common::record::{FLAG_OTHER_NAME, TOO_DEEP};

use crate::call::Call;
use crate::emit::{self, Event};
use crate::filter::{self, Spot};
use crate::kernel::{Mem, Probe, number};
use crate::maps::{Count, blur, count, live, off};
use crate::storm::{self, Decision, Key};

pub const S_IFMT: u16 = 0o170_000;
pub const S_IFDIR: u16 = 0o040_000;

/// What was changed, and by whom when it was not the running task.
pub struct Target {
    pub dentry: *const u8,
    pub inode: *const u8,
    /// The `struct file` it was changed through, or NULL: it knows the mount.
    pub file: *const u8,
    /// `task_struct`, or NULL for the running one.
    pub task: *const u8,
    pub flags: u32,
}

impl Target {
    /// The file of a call whose subject is a `struct file`.
    #[inline(always)]
    pub fn subject<M: Mem>(call: &Call) -> Self {
        match call.known.file {
            Some((inode, dentry)) => {
                Self { dentry, inode, file: call.subject, task: core::ptr::null(), flags: 0 }
            }
            None => Self::file::<M>(call.subject),
        }
    }

    /// The file behind a `struct file`.
    #[inline(always)]
    pub fn file<M: Mem>(file: *const u8) -> Self {
        Self {
            dentry: M::ptr(file, off!(file_dentry)),
            inode: M::ptr(file, off!(file_f_inode)),
            file,
            task: core::ptr::null(),
            flags: 0,
        }
    }

    /// `struct vfsmount`, or NULL.
    #[inline(always)]
    fn mount(&self) -> *const u8 {
        if self.file.is_null() { core::ptr::null() } else { Probe::ptr(self.file, off!(file_mnt)) }
    }

    /// The file of a dentry.
    #[inline(always)]
    pub fn dentry<M: Mem>(dentry: *const u8) -> Self {
        Self {
            dentry,
            inode: M::ptr(dentry, off!(dentry_d_inode)),
            file: core::ptr::null(),
            task: core::ptr::null(),
            flags: 0,
        }
    }
}

/// Whether the running task is hotr itself: reporting its own output into a watched tree would never end.
#[inline(always)]
fn is_own() -> bool {
    (bpf_get_current_pid_tgid() >> 32) as u32 == live!(own_tgid)
}

/// A name to report a file by.
struct Place {
    dentry: *const u8,
    directory: Spot,
    flags: u32,
}

/// Where the file is in the watched trees, if it is.
#[inline(always)]
fn place<M: Mem>(target: &Target, directory: Spot) -> Option<Place> {
    let dentry = target.dentry;
    if directory.is_inside() {
        return Some(Place { dentry, directory, flags: 0 });
    }
    if M::u16(target.inode, off!(inode_i_mode)) & S_IFMT == S_IFDIR {
        // The parent of a root is outside, the root itself is not.
        let root = filter::root_itself(target.inode)?;
        return Some(Place { dentry, directory: Spot::of_root(root), flags: 0 });
    }
    let hashed = M::u64(dentry, off!(dentry_d_hash_pprev)) != 0;
    if hashed && M::u32(target.inode, off!(inode_i_nlink)) < 2 {
        return None;
    }
    let (dentry, directory) = other_place(target.inode)?;
    Some(Place { dentry, directory, flags: FLAG_OTHER_NAME })
}

/// Another name of the file in a watched tree, and where its directory is.
#[inline(always)]
fn other_place(inode: *const u8) -> Option<(*const u8, Spot)> {
    let dentry = filter::hotr_other_name(number(inode)) as *const u8;
    if dentry.is_null() {
        return None;
    }
    let superblock = Probe::ptr(inode, off!(inode_i_sb));
    let directory = filter::directory::<Probe>(Probe::ptr(dentry, off!(dentry_d_parent)), superblock);
    directory.is_inside().then_some((dentry, directory))
}

/// A change of a file's content or attributes: counted while it is repeated. `class` tells apart the ways one
/// hook sees.
#[inline(always)]
pub fn file<M: Mem>(call: &Call, target: &Target, class: u32, bytes: u64, aux: u64) {
    let mut directory = call.known.directory;
    if !directory.is_known() {
        let superblock = M::ptr(target.inode, off!(inode_i_sb));
        if !filter::is_watched(superblock) {
            return;
        }
        directory = filter::directory::<M>(M::ptr(target.dentry, off!(dentry_d_parent)), superblock);
    }
    let Some(mut place) = place::<M>(target, directory) else {
        count(Count::Seen);
        count(Count::Filtered);
        return;
    };
    // The completion of a request interrupts any task: that one's process and credentials say nothing.
    let elsewhere = !target.task.is_null();
    let pid = if elsewhere {
        Probe::u32(target.task, off!(task_tgid))
    } else {
        (bpf_get_current_pid_tgid() >> 32) as u32
    };
    // A file without a name is nobody's to reload.
    if M::u32(target.inode, off!(inode_i_nlink)) == 0
        || (!elsewhere && filter::is_inner(place.directory.root(), target.dentry, target.inode))
        || pid == live!(own_tgid)
    {
        count(Count::Seen);
        count(Count::Filtered);
        return;
    }
    let way = call.hook as u32 | (class << 8);
    let key = Key {
        inode: target.inode as u64,
        who: storm_who(pid, way),
        ino: M::u64(target.inode, off!(inode_i_ino)),
        generation: M::u32(target.inode, off!(inode_i_generation)),
    };
    let Decision::Emit { writes, bytes, born, slot } = storm::count(&key, bytes) else {
        count(Count::Coalesced);
        return;
    };
    count(Count::Seen);
    if !filter::is_hashed(place.dentry)
        && let Some((dentry, directory)) = other_place(target.inode)
    {
        (place.dentry, place.directory) = (dentry, directory);
    }
    let mut event = Event::new(call.hook as u16, call.tier, number(place.dentry), target.inode);
    event.task = blur(target.task as u64) as *const u8;
    event.mnt = target.mount();
    event.writes = blur(writes);
    event.bytes = blur(bytes);
    event.aux[0] = aux;
    event.flags = blur(u64::from(target.flags | place.flags)) as u32;
    event.born = blur(born);
    event.storm = blur(u64::from(slot)) as u32;
    event.way = way;
    set_place(&mut event, place.directory);
    emit::emit(&event);
}

#[inline(always)]
fn set_place(event: &mut Event, directory: Spot) {
    let directory = directory.blurred();
    event.root = directory.root();
    event.depth = directory.depth();
    // At most 128 levels of 256 bytes each.
    let name = Probe::u32(event.dentry, off!(dentry_d_name_len)) as u16 & 0xff;
    event.len = directory.len().wrapping_add(name).wrapping_add(1);
}

/// A name that appeared or disappeared. Each gives a record. `itself` is what [`filter::root_number`] says of a directory
/// that disappeared: its end is told wherever it was. `adjust` completes the event.
#[inline(always)]
pub fn name<M: Mem>(call: &Call, target: &Target, itself: u64, adjust: impl FnOnce(&mut Event)) {
    let dentry = target.dentry;
    let superblock = M::ptr(dentry, off!(dentry_d_sb));
    if !filter::is_watched(superblock) {
        return;
    }
    count(Count::Seen);
    let directory = filter::directory::<M>(M::ptr(dentry, off!(dentry_d_parent)), superblock);
    let untold = if directory.root() == TOO_DEEP {
        Some(Count::Oversize)
    } else if directory.is_outside() || filter::is_inner(directory.root(), dentry, target.inode) || is_own() {
        Some(Count::Filtered)
    } else {
        None
    };
    let mut event = Event::new(call.hook as u16, call.tier, number(dentry), target.inode);
    event.aux[1] = itself;
    if let Some(why) = untold {
        if itself == 0 {
            count(why);
            return;
        }
        // Of a path, nothing is told.
        event.dentry = core::ptr::null();
    } else {
        event.mnt = target.mount();
        set_place(&mut event, directory);
    }
    adjust(&mut event);
    emit::emit(&event);
}
