//! Is this file below a watched root? First its superblock, then its directory's remembered verdict, then a
//! walk up `d_parent`. No strings.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap};
use hotr_common::config::{MAX_ROOTS, RootSlot, Verdicts};
use hotr_common::config::{MAX_SUPERBLOCKS, ROOT_LAYER, VERDICT_WAYS, Verdict, verdict_set};
use hotr_common::record::{MAX_DEPTH, MAY_HOLD_ROOT, NO_ROOT, TOO_DEEP};

use crate::globals::{live, off, read};
use crate::kernel::{DentryFields, Layout, Mem, Probe, task};
use crate::kernel::{S_IFDIR, S_IFMT};
use crate::messages::note;

/// Address of a watched root's inode → its slot.
#[map(name = "ROOTS")]
pub static ROOTS: HashMap<u64, u32> = HashMap::with_max_entries(MAX_ROOTS as u32, 0);

/// Slot → root.
#[map(name = "ROOT_SLOTS")]
pub static ROOT_SLOTS: Array<RootSlot> = Array::with_max_entries(MAX_ROOTS as u32, 0);

/// Bumped by every rename of a directory; empties the verdict cache. In a section of its own: the map of `.bss` is
/// rewritten by userspace as a whole.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".data.epoch")]
pub static mut EPOCH: u64 = 0;

/// Where directories are, as far as is known. In a section of its own, as above; no map function is needed to read it.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".bss.verdicts")]
// SAFETY: integers and arrays of integers only, for which zero is a value.
pub static mut VERDICTS: Verdicts = unsafe { core::mem::zeroed() };

/// Aliases of an inode that are checked when its own dentry is not in a watched tree.
const MAX_ALIASES: u32 = 8;

/// Whether a superblock may be watched: the first question, and for most calls the last.
#[inline(always)]
pub fn may_be_watched(superblock: *const u8) -> bool {
    superblock as u64 >= live!(lowest) && superblock as u64 <= live!(highest)
}

/// Whether a superblock is watched.
#[inline(always)]
pub fn is_watched(superblock: *const u8) -> bool {
    if !may_be_watched(superblock) {
        return false;
    }
    let mut index = 0;
    while index < MAX_SUPERBLOCKS {
        let watched = live!(superblocks[index]);
        if watched == superblock as u64 {
            return true;
        }
        if watched == 0 {
            return false;
        }
        index += 1;
    }
    false
}

/// The current verdict epoch: directory renames counted by the kernel side, root changes by userspace.
#[inline(always)]
fn epoch() -> u64 {
    read(&raw const EPOCH).wrapping_add(live!(epoch))
}

/// Forgets every verdict: a directory changed its place.
#[inline(always)]
pub fn bump_epoch() {
    crate::globals::add(&raw mut EPOCH, 1);
}

/// Where a directory is: a [`Verdict::spot`], or not known yet. In one word, whose parts are only taken apart where they are
/// needed.
#[derive(Clone, Copy)]
pub struct DirectoryPosition(u64);

impl DirectoryPosition {
    /// Of a directory that nobody has looked for yet.
    pub const UNKNOWN: Self = Self(u64::MAX);

    /// Of a root itself.
    #[inline(always)]
    pub const fn of_root(root: u16) -> Self {
        Self(root as u64)
    }

    /// See [`crate::globals::verifier_opaque`].
    #[inline(always)]
    pub fn verifier_opaque(self) -> Self {
        Self(crate::globals::verifier_opaque(self.0))
    }

    #[inline(always)]
    pub const fn is_known(self) -> bool {
        self.0 != Self::UNKNOWN.0
    }

    #[inline(always)]
    pub const fn is_inside(self) -> bool {
        self.root() < TOO_DEEP
    }

    #[inline(always)]
    pub const fn is_outside(self) -> bool {
        self.root() == NO_ROOT
    }

    /// Outside, but files in it may be roots themselves.
    #[inline(always)]
    pub const fn may_hold_root(self) -> bool {
        self.root() == MAY_HOLD_ROOT
    }

    /// Slot of its root, [`NO_ROOT`], [`MAY_HOLD_ROOT`] or [`TOO_DEEP`].
    #[inline(always)]
    pub const fn root(self) -> u16 {
        self.0 as u16
    }

    /// Bytes its path below the root takes in a record.
    #[inline(always)]
    pub const fn len(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// Levels of directories between it and the root.
    #[inline(always)]
    pub const fn depth(self) -> u16 {
        (self.0 >> 32) as u16
    }
}

/// A directory by all that distinguishes it from others, now and later.
#[derive(Clone, Copy)]
pub struct Directory {
    pub inode: *const u8,
    pub superblock: *const u8,
    pub ino: u64,
    pub generation: u32,
}

impl Directory {
    #[inline(always)]
    pub fn of<M: Mem>(inode: *const u8, superblock: *const u8) -> Self {
        Self {
            inode,
            superblock,
            ino: M::u64(inode, off!(inode_i_ino)),
            generation: M::u32(inode, off!(inode_i_generation)),
        }
    }

    /// An entry of its set in the table of verdicts.
    #[inline(always)]
    fn entry(&self, way: usize) -> *mut Verdict {
        // SAFETY: the set is below the number of sets, the way a constant below the number of ways.
        unsafe {
            let sets = (&raw mut VERDICTS.sets).cast::<Verdict>();
            sets.add(verdict_set(self.ino, self.generation) * VERDICT_WAYS + way)
        }
    }

    /// What an entry says of it.
    ///
    /// Only one program at a time writes, and the inode last. So an entry that has this inode is whole, and if its version
    /// is the same before and after, what was read belongs together.
    #[inline(always)]
    fn recall(&self, way: usize) -> Option<DirectoryPosition> {
        let entry = self.entry(way);
        // SAFETY: an entry of the table, read word by word.
        unsafe {
            let version = read(&raw const (*entry).version);
            let ours = read(&raw const (*entry).inode) == self.inode as u64
                && read(&raw const (*entry).ino) == self.ino
                && read(&raw const (*entry).superblock) == self.superblock as u64
                && read(&raw const (*entry).generation) == u64::from(self.generation)
                && read(&raw const (*entry).epoch) == epoch();
            let spot = read(&raw const (*entry).spot);
            (ours && read(&raw const (*entry).version) == version).then_some(DirectoryPosition(spot))
        }
    }

    /// What is remembered of it in the first entry of its set, where most are.
    #[inline(always)]
    pub fn first_thought(&self) -> Option<DirectoryPosition> {
        self.recall(0)
    }

    /// Remembers where it is, as found in this epoch. Somebody else's turn only costs another walk.
    #[inline(always)]
    fn remember(&self, spot: DirectoryPosition, epoch: u64) {
        // The first entry, unless it is of use to another directory.
        // SAFETY: as in `recall`.
        let taken = unsafe {
            let first = self.entry(0);
            read(&raw const (*first).epoch) == epoch && read(&raw const (*first).inode) != self.inode as u64
        };
        let entry = self.entry(usize::from(taken));
        // SAFETY: the address of a static.
        crate::try_lock::with_lock(unsafe { &raw mut VERDICTS.turn }, || {
            // SAFETY: as in `recall`; nobody else writes.
            unsafe {
                (&raw mut (*entry).inode).write_volatile(0);
                crate::globals::add(&raw mut (*entry).version, 1);
                (&raw mut (*entry).ino).write_volatile(self.ino);
                (&raw mut (*entry).superblock).write_volatile(self.superblock as u64);
                (&raw mut (*entry).generation).write_volatile(u64::from(self.generation));
                (&raw mut (*entry).epoch).write_volatile(epoch);
                (&raw mut (*entry).spot).write_volatile(spot.0);
                (&raw mut (*entry).inode).write_volatile(self.inode as u64);
            }
        });
    }
}

/// Where a directory is, remembered or found out.
#[inline(always)]
pub fn directory<M: Mem>(dentry: *const u8, superblock: *const u8) -> DirectoryPosition {
    DirectoryPosition(hotr_directory(M::number(dentry), M::number(superblock)))
}

/// See [`directory`]. A global function, with numbers only, as those that follow: the verifier looks at it once, not once a
/// call.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hotr_directory(dentry: u64, superblock: u64) -> u64 {
    let inode = Probe::ptr(dentry as *const u8, off!(dentry_d_inode));
    let directory = Directory::of::<Probe>(inode, superblock as *const u8);
    let known = directory.recall(0).or_else(|| directory.recall(1));
    if let Some(spot) = known {
        note!(remembered, inode, spot.root());
        return spot.0;
    }
    let epoch = epoch();
    let spot = DirectoryPosition(walk(dentry));
    note!(walked, inode, spot.depth(), spot.root());
    directory.remember(spot, epoch);
    spot.0
}

/// The upper eight bits of every kernel address, also where addresses have 57 bits.
const KERNEL_HALF: u64 = 0xff << 56;
/// Levels that [`hotr_climb`] goes up.
const STRIDE: u64 = 8;
/// The lengths of as many names together are less.
const STRIDE_NAMES: u64 = 1 << 11;

/// Walks from a directory to the nearest watched root. [`MAX_DEPTH`] is a multiple of [`STRIDE`].
#[inline(always)]
fn walk(dentry: u64) -> u64 {
    let mut dentry = dentry;
    let mut len: u64 = 0;
    let mut level: u64 = 0;
    while level < u64::from(MAX_DEPTH) {
        let next = hotr_climb(dentry);
        if next < STRIDE << 32 {
            // At most 128 times 256 bytes.
            return if next == u64::from(NO_ROOT) {
                if live!(files) != 0 { u64::from(MAY_HOLD_ROOT) } else { next }
            } else {
                next + (len << 16) + (level << 32)
            };
        }
        dentry = ((next >> 8) & !7) | KERNEL_HALF;
        len += next % STRIDE_NAMES + STRIDE;
        level += STRIDE;
    }
    u64::from(TOO_DEEP)
}

/// Part of [`walk`]: the [`DirectoryPosition`] of a directory whose root is less than [`STRIDE`] levels above it, [`NO_ROOT`] when so near
/// there is the uppermost directory. Else, above the lengths of the names together, the address that many levels up, but
/// for its upper eight bits, which are ones, and the lower three, which are zeros.
///
/// A global function, and a loop in each of the two: together the verifier looks at 24 levels, not at 128.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hotr_climb(dentry: u64) -> u64 {
    let layout = Layout::of_kernel();
    let mut dentry = dentry;
    let mut len: u64 = 0;
    let mut level: u64 = 0;
    while level < STRIDE {
        let near = DentryFields::read(dentry, layout);
        // SAFETY: the value is a plain word that userspace writes before it publishes the key.
        if let Some(slot) = unsafe { ROOTS.get(&near.inode) } {
            return u64::from(*slot) | ((len + level) << 16) | (level << 32);
        }
        // What is not readable is 0.
        if near.parent == dentry || near.parent == 0 {
            return u64::from(NO_ROOT);
        }
        dentry = near.parent;
        len += near.name_len();
        level += 1;
    }
    (dentry << 8) | (len % STRIDE_NAMES)
}

/// Slot of the root that this inode itself is.
#[inline(always)]
pub fn root_itself(inode: *const u8) -> Option<u16> {
    // SAFETY: as in `walk`.
    unsafe { ROOTS.get(&(inode as u64)) }.map(|slot| *slot as u16)
}

/// One more than the slot of the root that this inode itself is, or 0: what [`Record::aux`] has of a directory that is
/// renamed or removed.
///
/// [`Record::aux`]: hotr_common::record::Record::aux
#[inline(always)]
pub fn root_number(inode: *const u8) -> u64 {
    root_itself(inode).map_or(0, |slot| u64::from(slot) + 1)
}

/// The same of an inode that loses its name, if that takes the root away: a file that is mounted by itself stays where it is.
#[inline(always)]
pub fn lost_root(inode: *const u8) -> u64 {
    let is_dir = Probe::u16(inode, off!(inode_i_mode)) & S_IFMT == S_IFDIR;
    if is_dir { root_number(inode) } else { 0 }
}

/// Address of a root's inode.
#[inline(always)]
pub fn root_inode(slot: u16) -> u64 {
    ROOT_SLOTS.get(u32::from(slot)).map_or(0, |root| root.inode)
}

/// Address of the inode where the names of a path of this slot end; 0 when they continue to the root of the filesystem.
/// A number whose relation to others the verifier does not know: however an event came about, the walk is one.
#[inline(always)]
pub fn root_of_slot(slot: u16) -> u64 {
    crate::globals::verifier_opaque(if slot == NO_ROOT { 0 } else { root_inode(slot) })
}

/// Whether the change may be an overlay's own operation on one of its layers: the overlay file's change reports it. A
/// request of io_uring and a core dump may be made with other credentials, too: where there is a file,
/// [`is_opened_by_overlay`] decides.
///
/// Up to 6.6 the file an overlay opens on its layer carries the overlay's dentry with the layer's inode.
#[inline(always)]
pub fn is_inner(slot: u16, dentry: *const u8, inode: *const u8) -> bool {
    if live!(layers) == 0 {
        return false;
    }
    let layer = ROOT_SLOTS.get(u32::from(slot)).is_some_and(|root| root.flags & ROOT_LAYER != 0);
    let borrowed = Probe::ptr(dentry, off!(dentry_d_inode)) as u64 != inode as u64;
    (layer || borrowed) && task::acts_for_another()
}

/// `MNT_NS_INTERNAL` (fs/mount.h): an error number as a pointer.
const NO_NAMESPACE: u64 = -22_i64 as u64;

/// Whether a file is one that an overlay opened on its layer, while layers are watched. It is on a mount of the overlay's own,
/// which is in no namespace (fs/namespace.c `clone_private_mount`); up to 6.6 it carries the overlay's dentry with the layer's
/// inode. This holds for kernel threads, too, whose credentials say nothing.
#[inline(always)]
pub fn is_opened_by_overlay(file: *const u8) -> bool {
    if live!(layers) == 0 {
        return false;
    }
    let dentry = Probe::ptr(file, off!(file_dentry));
    let mount = Probe::ptr(file, off!(file_mnt)).wrapping_sub(off!(mount_mnt) as usize);
    Probe::u64(dentry, off!(dentry_d_inode)) != Probe::u64(file, off!(file_f_inode))
        || Probe::u64(mount, off!(mount_mnt_ns)) == NO_NAMESPACE
}

/// Another dentry of the inode, in a watched tree, or 0. For files with several names, and for the nameless dentry
/// of an `O_TMPFILE` that was linked. A global function, as [`hotr_directory`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hotr_other_name(inode: u64) -> u64 {
    let superblock = Probe::ptr(inode as *const u8, off!(inode_i_sb));
    let mut node = Probe::u64(inode as *const u8, off!(inode_i_dentry));
    let mut tried = 0;
    while tried < MAX_ALIASES && node != 0 {
        let dentry = node.wrapping_sub(u64::from(off!(dentry_d_alias)));
        if is_hashed(dentry as *const u8) {
            let parent = Probe::ptr(dentry as *const u8, off!(dentry_d_parent));
            if directory::<Probe>(parent, superblock).is_inside() {
                return dentry;
            }
        }
        // `hlist_node.next` is its first member.
        node = Probe::u64(node as *const u8, 0);
        tried += 1;
    }
    0
}

/// Whether the dentry is in the name hash: it is not after an unlink and for `O_TMPFILE`.
#[inline(always)]
pub fn is_hashed(dentry: *const u8) -> bool {
    Probe::u64(dentry, off!(dentry_d_hash_pprev)) != 0 || is_moving(dentry)
}

/// Whether a dentry that was seen outside the name hash only gets another name: a rename takes it out and puts it back
/// (fs/dcache.c `__d_move`), and its `d_seq` is odd meanwhile. It has a name at every moment, which a writer on another
/// CPU must not be told to have lost.
#[inline(always)]
fn is_moving(dentry: *const u8) -> bool {
    let before = Probe::u32(dentry, off!(dentry_d_seq));
    let is_back = Probe::u64(dentry, off!(dentry_d_hash_pprev)) != 0;
    let after = Probe::u32(dentry, off!(dentry_d_seq));
    before & 1 != 0 || is_back || before != after
}
