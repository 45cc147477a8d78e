//! Is this file below a watched root? First its superblock, then its directory's remembered verdict, then a
//! walk up `d_parent`. No strings.

use hotr_common::config::{MAX_SUPERBLOCKS, ROOT_LAYER, VERDICT_WAYS, Verdict, verdict_set};
use hotr_common::record::{MAX_DEPTH, NO_ROOT, TOO_DEEP};

use crate::kernel::{Layout, Mem, Near, Probe, task};
use crate::maps::{self, EPOCH, ROOT_SLOTS, ROOTS, VERDICTS, live, off, read};

/// Aliases of an inode that are looked at when its own dentry is not in a watched tree.
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
    maps::add(&raw mut EPOCH, 1);
}

/// Where a directory is: a [`Verdict::spot`], or not known yet. In one word, whose parts are only taken apart where they are
/// needed.
#[derive(Clone, Copy)]
pub struct Spot(u64);

impl Spot {
    /// Of a directory that nobody has looked for yet.
    pub const UNKNOWN: Self = Self(u64::MAX);

    /// Of a root itself.
    #[inline(always)]
    pub const fn of_root(root: u16) -> Self {
        Self(root as u64)
    }

    /// See [`maps::blur`].
    #[inline(always)]
    pub fn blurred(self) -> Self {
        Self(maps::blur(self.0))
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

    /// Slot of its root, [`NO_ROOT`] or [`TOO_DEEP`].
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

/// A directory by all that tells it from others, now and later.
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
    fn recall(&self, way: usize) -> Option<Spot> {
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
            (ours && read(&raw const (*entry).version) == version).then_some(Spot(spot))
        }
    }

    /// What is remembered of it in the first entry of its set, where most are.
    #[inline(always)]
    pub fn first_thought(&self) -> Option<Spot> {
        self.recall(0)
    }

    /// Remembers where it is, as found in this epoch. Somebody else's turn only costs another walk.
    #[inline(always)]
    fn remember(&self, spot: Spot, epoch: u64) {
        // The first entry, unless it is of use to another directory.
        // SAFETY: as in `recall`.
        let taken = unsafe {
            let first = self.entry(0);
            read(&raw const (*first).epoch) == epoch && read(&raw const (*first).inode) != self.inode as u64
        };
        let entry = self.entry(usize::from(taken));
        // SAFETY: the address of a static.
        maps::alone(unsafe { &raw mut VERDICTS.turn }, || {
            // SAFETY: as in `recall`; nobody else writes.
            unsafe {
                (&raw mut (*entry).inode).write_volatile(0);
                maps::add(&raw mut (*entry).version, 1);
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
pub fn directory<M: Mem>(dentry: *const u8, superblock: *const u8) -> Spot {
    Spot(hotr_directory(M::number(dentry), M::number(superblock)))
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
        return spot.0;
    }
    let epoch = epoch();
    let spot = Spot(walk(dentry));
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
            return if next == u64::from(NO_ROOT) { next } else { next + (len << 16) + (level << 32) };
        }
        dentry = ((next >> 8) & !7) | KERNEL_HALF;
        len += next % STRIDE_NAMES + STRIDE;
        level += STRIDE;
    }
    u64::from(TOO_DEEP)
}

/// Part of [`walk`]: the [`Spot`] of a directory whose root is less than [`STRIDE`] levels above it, [`NO_ROOT`] when so near
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
        let near = Near::read(dentry, layout);
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

/// Address of a root's inode.
#[inline(always)]
pub fn root_inode(slot: u16) -> u64 {
    ROOT_SLOTS.get(u32::from(slot)).map_or(0, |root| root.inode)
}

/// Address of the inode where the names of a path end that belongs to this slot; 0 when they go on to the root of the
/// filesystem. A number of which the verifier knows no relation to others: however an event came about, the walk is one.
#[inline(always)]
pub fn root_of_slot(slot: u16) -> u64 {
    maps::blur(if slot == NO_ROOT { 0 } else { root_inode(slot) })
}

/// Whether the change is an overlay's own operation on one of its layers: the overlay file's change tells it.
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
    Probe::u64(dentry, off!(dentry_d_hash_pprev)) != 0
}
