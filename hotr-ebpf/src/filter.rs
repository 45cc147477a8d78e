//! Is this file below a watched root? First its superblock, then its directory's remembered verdict, then a
//! walk up `d_parent`. No strings.

use hotr_common::config::{MAX_SUPERBLOCKS, ROOT_LAYER, Verdict};
use hotr_common::record::{MAX_DEPTH, NO_ROOT};

use crate::kernel::{Mem, Near, Probe, number, task};
use crate::maps::{self, EPOCH, ROOT_SLOTS, ROOTS, VERDICT_CACHE, live, off};

/// [`Verdict::root`] of a directory deeper than [`MAX_DEPTH`] levels: in or out is not known.
pub const TOO_DEEP: u16 = NO_ROOT - 1;

/// Aliases of an inode that are looked at when its own dentry is not in a watched tree.
const MAX_ALIASES: u32 = 8;

/// Index of a watched superblock.
#[inline(always)]
pub fn superblock(sb: *const u8) -> Option<u32> {
    let mut index = 0;
    while index < MAX_SUPERBLOCKS {
        let watched = live!(superblocks[index]);
        // The end of the list first: an inode without a superblock is equal to it.
        if watched == 0 {
            return None;
        }
        if watched == sb as u64 {
            return Some(index as u32);
        }
        index += 1;
    }
    None
}

/// The current verdict epoch: directory renames counted by the kernel side, root changes by userspace.
#[inline(always)]
fn epoch() -> u32 {
    (maps::read(&raw const EPOCH) as u32).wrapping_add(live!(epoch))
}

/// Forgets every verdict: a directory changed its place.
#[inline(always)]
pub fn bump_epoch() {
    maps::add(&raw mut EPOCH, 1);
}

/// Where a directory is: what a [`Verdict`] says, without whose it is.
#[derive(Clone, Copy)]
pub struct Spot {
    /// Root slot, [`NO_ROOT`] or [`TOO_DEEP`].
    pub root: u16,
    /// See [`Verdict::len`].
    pub len: u16,
    /// See [`Verdict::depth`].
    pub depth: u16,
}

/// What is remembered of a directory and still holds.
#[inline(always)]
pub fn remembered<M: Mem>(inode: *const u8, superblock: u32) -> Option<Spot> {
    // SAFETY: the value is read word by word below.
    let known: *const Verdict = unsafe { VERDICT_CACHE.get(&(inode as u64)) }?;
    // SAFETY: map memory, alive until the program ends; the order is told at `Verdict`.
    let (state, ino, rest) = unsafe {
        let words: *const u64 = known.cast();
        let state = words.add(2).read_volatile();
        (state, words.read_volatile(), words.add(1).read_volatile())
    };
    let identity = u64::from(M::u32(inode, off!(inode_i_generation))) | (u64::from(superblock) << 32);
    let holds = state as u32 == epoch()
        && ino == M::u64(inode, off!(inode_i_ino))
        && rest & 0xffff_ffff_ffff == identity;
    if !holds {
        return None;
    }
    Some(Spot { root: (state >> 32) as u16, len: (state >> 48) as u16, depth: (rest >> 48) as u16 })
}

/// Verdict of a directory, remembered or found out.
#[inline(always)]
pub fn directory<M: Mem>(dentry: *const u8, superblock: u32) -> Spot {
    let inode = M::ptr(dentry, off!(dentry_d_inode));
    if let Some(known) = remembered::<M>(inode, superblock) {
        return known;
    }
    let epoch = epoch();
    let found = hotr_walk(number(dentry));
    let spot = Spot { root: found as u16, len: (found >> 16) as u16, depth: (found >> 32) as u16 };
    let verdict = Verdict {
        ino: M::u64(inode, off!(inode_i_ino)),
        generation: M::u32(inode, off!(inode_i_generation)),
        superblock: superblock as u16,
        depth: spot.depth,
        epoch,
        root: spot.root,
        len: spot.len,
    };
    // A full cache only costs another walk.
    let _ = VERDICT_CACHE.insert(&(inode as u64), &verdict, 0);
    spot
}

/// Walks from a directory to the nearest watched root: its slot in the low 16 bits, then the bytes of the path
/// between them, then the number of levels.
///
/// A global function, with numbers only: the verifier looks at it once, not once a call.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hotr_walk(dentry: u64) -> u64 {
    let mut dentry = dentry;
    let mut len: u64 = 0;
    let mut level: u64 = 0;
    while level < u64::from(MAX_DEPTH) {
        let near = Near::read(dentry);
        // SAFETY: the value is a plain word that userspace writes before it publishes the key.
        if let Some(slot) = unsafe { ROOTS.get(&near.inode) } {
            return u64::from(*slot & 0xffff) | ((len & 0xffff) << 16) | (level << 32);
        }
        if near.parent == dentry {
            return u64::from(NO_ROOT);
        }
        len += near.name_len() + 1;
        dentry = near.parent;
        level += 1;
    }
    u64::from(TOO_DEEP)
}

/// Slot of the root that this inode itself is.
#[inline(always)]
pub fn root_itself(inode: *const u8) -> Option<u16> {
    // SAFETY: as in `walk`.
    unsafe { ROOTS.get(&(inode as u64)) }.map(|slot| *slot as u16)
}

/// Address of a root's inode.
#[inline(always)]
pub fn root_inode(slot: u16) -> u64 {
    ROOT_SLOTS.get(u32::from(slot)).map_or(0, |root| root.inode)
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
/// of an `O_TMPFILE` that was linked. A global function, as [`hotr_walk`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hotr_other_name(inode: u64, superblock: u32) -> u64 {
    let mut node = Probe::u64(inode as *const u8, off!(inode_i_dentry));
    let mut tried = 0;
    while tried < MAX_ALIASES && node != 0 {
        let dentry = node.wrapping_sub(u64::from(off!(dentry_d_alias)));
        if is_hashed(dentry as *const u8) {
            let parent = Probe::ptr(dentry as *const u8, off!(dentry_d_parent));
            if directory::<Probe>(parent, superblock).root < TOO_DEEP {
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
