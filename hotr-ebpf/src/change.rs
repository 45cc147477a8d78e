//! From a hooked call to a record: the filter, the storm and the emission, in the order of their cost.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use hotr_common::config::storm_who;
use hotr_common::hook::Hook;
use hotr_common::record::{FLAG_NAME_GONE, FLAG_OTHER_NAME, TOO_DEEP};

use crate::call::Call;
use crate::counters::{Count, count};
use crate::emit;
use crate::event::Event;
use crate::filter::{self, DirectoryPosition};
use crate::globals::{live, off, verifier_opaque};
use crate::kernel::{Mem, Probe, S_IFDIR, S_IFMT, number, task};
use crate::messages::note;
use crate::storm::{self, Decision, Key};

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

/// A name to report a file by.
struct ReportedName {
    dentry: *const u8,
    directory: DirectoryPosition,
    flags: u32,
}

/// Where the file is in the watched trees, if it is.
#[inline(always)]
fn place<M: Mem>(target: &Target, directory: DirectoryPosition) -> Option<ReportedName> {
    let dentry = target.dentry;
    if directory.is_inside() {
        return Some(ReportedName { dentry, directory, flags: 0 });
    }
    if M::u16(target.inode, off!(inode_i_mode)) & S_IFMT == S_IFDIR {
        // The parent of a root is outside, the root itself is not.
        let root = filter::root_itself(target.inode)?;
        return Some(ReportedName { dentry, directory: DirectoryPosition::of_root(root), flags: 0 });
    }
    if directory.may_hold_root()
        && let Some(root) = filter::root_itself(target.inode)
    {
        return Some(ReportedName { dentry, directory: DirectoryPosition::of_root(root), flags: 0 });
    }
    let hashed = M::u64(dentry, off!(dentry_d_hash_pprev)) != 0;
    if hashed && M::u32(target.inode, off!(inode_i_nlink)) < 2 {
        return None;
    }
    let (dentry, directory) = other_place(target.inode)?;
    Some(ReportedName { dentry, directory, flags: FLAG_OTHER_NAME })
}

/// Slot of the file, when it is mounted by itself.
#[inline(always)]
fn mounted_file(inode: *const u8) -> Option<u16> {
    if live!(files) == 0 { None } else { filter::root_itself(inode) }
}

/// Another name of the file in a watched tree, and where its directory is.
#[inline(always)]
fn other_place(inode: *const u8) -> Option<(*const u8, DirectoryPosition)> {
    let dentry = filter::hotr_other_name(number(inode)) as *const u8;
    if dentry.is_null() {
        return None;
    }
    let superblock = Probe::ptr(inode, off!(inode_i_sb));
    let directory = filter::directory::<Probe>(Probe::ptr(dentry, off!(dentry_d_parent)), superblock);
    note!(when directory.is_inside() => other_name, inode, directory.root());
    directory.is_inside().then_some((dentry, directory))
}

/// A change of a file's content or attributes: counted while it is repeated. `class` distinguishes the kinds that one
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
        note!(outside, call.hook, target.inode);
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
    // A file without a name is nobody's to reload, unless it is mounted: then it is where it was mounted.
    let is_nameless = M::u32(target.inode, off!(inode_i_nlink)) == 0 && mounted_file(target.inode).is_none();
    // inotify is notified of it all the same, by the name that it had: its record explains that event.
    if (is_nameless && (live!(own_group) == 0 || place.flags != 0))
        || (!elsewhere
            && call.hook != Hook::KernelWrite
            && filter::is_inner(place.directory.root(), target.dentry, target.inode)
            && (target.file.is_null() || filter::is_opened_by_overlay(target.file)))
        || pid == live!(own_tgid)
    {
        note!(when is_nameless => nameless, call.hook, target.inode);
        note!(when !is_nameless && !elsewhere => inner, call.hook, target.inode);
        count(Count::Seen);
        count(Count::Filtered);
        return;
    }
    let way = call.hook as u32 | (class << 8);
    let mut generation = M::u32(target.inode, off!(inode_i_generation));
    if generation == 0 {
        // A filesystem that numbers no generations (overlay) gives the same address and number to the next file at
        // once. That one has another name, and with the same name it is reported by the same path.
        generation = M::u32(target.dentry, off!(dentry_d_name_hash));
    }
    let key = Key {
        inode: target.inode as u64,
        who: storm_who(pid, way),
        ino: M::u64(target.inode, off!(inode_i_ino)),
        // What is counted is reported by the name that the file had when its count began. A file that was made by
        // `O_TMPFILE` has none until it is linked, and what is written afterwards is another count.
        generation: if is_nameless { !generation } else { generation },
    };
    let Decision::Emit { writes, bytes, born, slot } = storm::count(&key, bytes) else {
        note!(coalesced, call.hook, target.inode);
        count(Count::Coalesced);
        return;
    };
    count(Count::Seen);
    if !filter::is_hashed(place.dentry) {
        // The name is gone. Where the file is mounted, it still is.
        if let Some(root) = mounted_file(target.inode) {
            place.directory = DirectoryPosition::of_root(root);
        } else if let Some((dentry, directory)) = other_place(target.inode) {
            (place.dentry, place.directory) = (dentry, directory);
        } else {
            place.flags |= FLAG_NAME_GONE;
        }
    }
    let mut event = Event::new(call.hook as u16, call.tier, number(place.dentry), target.inode);
    event.task = verifier_opaque(target.task as u64) as *const u8;
    event.mnt = target.mount();
    event.writes = verifier_opaque(writes);
    event.bytes = verifier_opaque(bytes);
    event.aux[0] = aux;
    event.flags = verifier_opaque(u64::from(target.flags | place.flags)) as u32;
    event.born = verifier_opaque(born);
    event.storm = verifier_opaque(u64::from(slot)) as u32;
    event.way = way;
    set_place(&mut event, place.directory);
    emit::emit(&event);
}

#[inline(always)]
fn set_place(event: &mut Event, directory: DirectoryPosition) {
    let directory = directory.verifier_opaque();
    event.root = directory.root();
    event.depth = directory.depth();
    // At most 128 levels of 256 bytes each.
    let name = Probe::u32(event.dentry, off!(dentry_d_name_len)) as u16 & 0xff;
    event.len = directory.len().wrapping_add(name).wrapping_add(1);
}

/// A name that appeared or disappeared. Each makes a record. `itself` is what [`filter::root_number`] says of a
/// directory that disappeared: its removal is reported wherever it was. `update_roots` completes the event.
#[inline(always)]
pub fn name<M: Mem>(call: &Call, target: &Target, itself: u64, update_roots: impl FnOnce(&mut Event)) {
    let dentry = target.dentry;
    let superblock = M::ptr(dentry, off!(dentry_d_sb));
    if !filter::is_watched(superblock) {
        return;
    }
    count(Count::Seen);
    let directory = filter::directory::<M>(M::ptr(dentry, off!(dentry_d_parent)), superblock);
    let untold = if directory.root() == TOO_DEEP {
        Some(Count::Oversize)
    } else if !directory.is_inside()
        || filter::is_inner(directory.root(), dentry, target.inode)
        || task::is_own()
    {
        Some(Count::Filtered)
    } else {
        None
    };
    let mut event = Event::new(call.hook as u16, call.tier, number(dentry), target.inode);
    event.aux[1] = itself;
    if let Some(why) = untold {
        if itself == 0 {
            note!(when directory.root() == TOO_DEEP => too_deep, call.hook, target.inode);
            note!(when directory.is_inside() => inner, call.hook, target.inode);
            note!(when !directory.is_inside() && directory.root() != TOO_DEEP => outside, call.hook, target.inode);
            count(why);
            return;
        }
        // No path is reported.
        event.dentry = core::ptr::null();
    } else {
        event.mnt = target.mount();
        set_place(&mut event, directory);
    }
    update_roots(&mut event);
    emit::emit(&event);
}
