//! Attributes: `notify_change` (truncate, chmod, chown, utimes), xattrs, ACLs, inode flags.

use core::marker::PhantomData;

use crate::call::Call;
use crate::change::{self, Target};
use crate::globals::off;
use crate::hooks::exit_hook;
use crate::kernel::{Mem, Probe};

exit_hook!(NotifyChange, Dentry, notify_change => fexit_notify_change, kprobe_notify_change, kretprobe_notify_change);
exit_hook!(SetXattr, Dentry, attribute => fexit_setxattr, kprobe_setxattr, kretprobe_setxattr);
exit_hook!(RemoveXattr, Dentry, attribute => fexit_removexattr, kprobe_removexattr, kretprobe_removexattr);
exit_hook!(SetAcl, Dentry, attribute => fexit_set_acl, kprobe_set_acl, kretprobe_set_acl);
exit_hook!(RemoveAcl, Dentry, attribute => fexit_remove_acl, kprobe_remove_acl, kretprobe_remove_acl);
exit_hook!(FileAttr, Dentry, attribute => fexit_fileattr, kprobe_fileattr, kretprobe_fileattr);
exit_hook!(FileAttr, Other, inode_flags => fexit_setflags, kprobe_setflags, kretprobe_setflags);
// `vfs_ioc_fssetxattr_check(inode, old, new)`: what xfs asks instead, with the arguments in the same places.
exit_hook!(FileAttr, Other, inode_flags => fexit_fssetxattr, kprobe_fssetxattr, kretprobe_fssetxattr);

/// `notify_change(…, dentry, attr, …)`: `attr->ia_valid` says what was changed.
#[inline(always)]
fn notify_change<M: Mem>(_: PhantomData<M>, call: &Call) {
    if call.status() != 0 {
        return;
    }
    let valid = M::u32(call.second(), off!(iattr_ia_valid));
    // Bits 0 to 5: mode, uid, gid, size, atime, mtime. Truncating and chmod are not one storm.
    change::file::<M>(call, &Target::dentry::<M>(call.subject), valid & 0x3f, 0, u64::from(valid));
}

/// A function `(…, dentry, …)` that returns 0.
#[inline(always)]
fn attribute<M: Mem>(_: PhantomData<M>, call: &Call) {
    if call.status() == 0 {
        change::file::<M>(call, &Target::dentry::<M>(call.subject), 0, 0, 0);
    }
}

/// `vfs_ioc_setflags_prepare(inode, oldflags, flags)`, where `vfs_fileattr_set` does not exist: the filesystem
/// sets the flags right after it. Only the inode is known.
#[inline(always)]
fn inode_flags<M: Mem>(_: PhantomData<M>, call: &Call) {
    if call.status() != 0 {
        return;
    }
    let first = Probe::ptr(call.subject, off!(inode_i_dentry));
    if first.is_null() {
        return;
    }
    let dentry = first.wrapping_sub(off!(dentry_d_alias) as usize);
    let target =
        Target { dentry, inode: call.subject, file: core::ptr::null(), task: core::ptr::null(), flags: 0 };
    change::file::<Probe>(call, &target, 0, 0, 0);
}
