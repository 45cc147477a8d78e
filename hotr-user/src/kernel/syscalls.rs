//! The system calls that change files, as the tracepoint tier sees them: which hooks each replaces, what its arguments
//! are, and the word it is reported by.
//!
//! Numbers and registers are an architecture's. The kernel side gets both as [`Rule`]s.

use std::num::TryFromIntError;

use hotr_common::hook::Hook;
use hotr_common::rules::{
    Class, NO_REGISTER, RULE_CONTENT, RULE_ENABLED, RULE_KERNEL_WRITES, RULE_MAY_BE_DESCRIPTOR, RULE_REMOVES,
    RULE_REMOVES_DIRECTORY, RULE_TIMES, Rule, WORKING_DIRECTORY,
};

use hotr_events::Op;

/// An argument of a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arg {
    /// There is none.
    No,
    /// The working directory, which the call takes without asking.
    Cwd,
    /// The nth.
    At(u8),
}
use Arg::{At, Cwd, No};

/// When a path's last component is followed, if it is a symbolic link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// Never: the call is about names.
    Never,
    /// Always.
    Always,
    /// Unless the flags in `aux[0]` have `AT_SYMLINK_NOFOLLOW`.
    UnlessNofollow,
}

/// One system call.
#[derive(Clone, Copy, Debug)]
pub struct SystemCall {
    /// Its number.
    pub number: i64,
    /// The hooks it replaces.
    pub hooks: &'static [Hook],
    /// What it does; `open` creates or truncates; its record says which.
    pub op: Op,
    /// The word for it in a report.
    pub detail: &'static str,
    /// Of the path.
    pub follow: Follow,
    class: Class,
    content: bool,
    /// Descriptor, path, old descriptor, old path, `aux[0]`, `aux[1]`.
    arguments: [Arg; 6],
}

impl SystemCall {
    /// The rule for the kernel side, given the offsets of the argument registers in `pt_regs`.
    ///
    /// # Errors
    /// When an offset is larger than any known `pt_regs`.
    pub fn rule(&self, registers: &[u32; 6], enabled: bool) -> Result<Rule, TryFromIntError> {
        let register = |argument: Arg| match argument {
            No => Ok(NO_REGISTER),
            Cwd => Ok(WORKING_DIRECTORY),
            At(index) => u8::try_from(registers[usize::from(index)]),
        };
        let [descriptor, path, old_descriptor, old_path, aux0, aux1] = self.arguments;
        let mut flags = 0;
        if enabled {
            flags |= RULE_ENABLED;
        }
        if self.content {
            flags |= RULE_CONTENT;
        }
        if self.op == Op::Remove {
            flags |= RULE_REMOVES;
        }
        if self.hooks.contains(&Hook::Rmdir) {
            flags |= RULE_REMOVES_DIRECTORY;
        }
        if self.number == libc::SYS_acct {
            flags |= RULE_KERNEL_WRITES;
        }
        if self.number == libc::SYS_utimensat {
            flags |= RULE_TIMES;
        }
        // Attributes can be changed through a descriptor and no string; names cannot.
        if self.op == Op::Attrib && descriptor != Cwd {
            flags |= RULE_MAY_BE_DESCRIPTOR;
        }
        Ok(Rule {
            class: self.class as u8,
            flags,
            descriptor: register(descriptor)?,
            path: register(path)?,
            old_descriptor: register(old_descriptor)?,
            old_path: register(old_path)?,
            aux0: register(aux0)?,
            aux1: register(aux1)?,
        })
    }
}

/// The system call of a record's `sysno`.
#[must_use]
pub fn by_number(number: i32) -> Option<&'static SystemCall> {
    [CALLS, OLD_CALLS].into_iter().flatten().find(|call| call.number == i64::from(number))
}

/// Every system call that changes files.
pub fn all() -> impl Iterator<Item = &'static SystemCall> {
    [CALLS, OLD_CALLS].into_iter().flatten()
}

/// Names of the numbers; `libc` lacks the newest, which are the same on every architecture.
mod nr {
    pub(super) const FCHMODAT2: i64 = 452;
    pub(super) const SETXATTRAT: i64 = 463;
    pub(super) const REMOVEXATTRAT: i64 = 466;
    pub(super) const FILE_SETATTR: i64 = 469;
}

/// A change of content through a descriptor.
const fn content(
    number: i64,
    hook: &'static [Hook],
    class: Class,
    fd: u8,
    aux0: Arg,
    word: &'static str,
) -> SystemCall {
    SystemCall {
        number,
        hooks: hook,
        op: Op::Write,
        detail: word,
        follow: Follow::Never,
        class,
        content: true,
        arguments: [At(fd), No, No, No, aux0, No],
    }
}

/// A change of attributes through a descriptor.
const fn attribute(number: i64, hooks: &'static [Hook], word: &'static str) -> SystemCall {
    SystemCall {
        number,
        hooks,
        op: Op::Attrib,
        detail: word,
        follow: Follow::Never,
        class: Class::File,
        content: false,
        arguments: [At(0), No, No, No, No, No],
    }
}

/// A change of attributes through a path.
const fn named(
    number: i64,
    hooks: &'static [Hook],
    [directory, path, flags]: [Arg; 3],
    follow: Follow,
    word: &'static str,
) -> SystemCall {
    SystemCall {
        number,
        hooks,
        op: Op::Attrib,
        detail: word,
        follow,
        class: Class::Path,
        content: false,
        arguments: [directory, path, No, No, flags, No],
    }
}

/// A name that appears or disappears.
const fn name(
    number: i64,
    hooks: &'static [Hook],
    op: Op,
    [directory, path, aux0]: [Arg; 3],
    word: &'static str,
) -> SystemCall {
    SystemCall {
        number,
        hooks,
        op,
        detail: word,
        follow: Follow::Never,
        class: Class::Path,
        content: false,
        arguments: [directory, path, No, No, aux0, No],
    }
}

/// A name that is made from another one.
const fn pair(
    number: i64,
    hooks: &'static [Hook],
    op: Op,
    arguments: [Arg; 5],
    word: &'static str,
) -> SystemCall {
    let [directory, path, old_directory, old_path, flags] = arguments;
    SystemCall {
        number,
        hooks,
        op,
        detail: word,
        follow: Follow::Never,
        class: Class::Path,
        content: false,
        arguments: [directory, path, old_directory, old_path, flags, No],
    }
}

/// A call that opens, its flags at `flags`.
const fn open(number: i64, class: Class, flags: Arg) -> SystemCall {
    SystemCall {
        number,
        hooks: &[Hook::Open, Hook::NotifyChange],
        op: Op::Create,
        detail: "open",
        follow: Follow::Never,
        class,
        content: true,
        arguments: [No, No, No, No, flags, No],
    }
}

const WRITE: &[Hook] = &[Hook::Write];
const WRITEV: &[Hook] = &[Hook::Writev];
const NOTIFY: &[Hook] = &[Hook::NotifyChange];
const SET_XATTR: &[Hook] = &[Hook::SetXattr];
const REMOVE_XATTR: &[Hook] = &[Hook::RemoveXattr];
const MKNOD: &[Hook] = &[Hook::Mknod, Hook::Create];

/// The calls of every architecture.
const CALLS: &[SystemCall] = &[
    content(libc::SYS_write, WRITE, Class::Write, 0, No, "write"),
    content(libc::SYS_pwrite64, WRITE, Class::Write, 0, No, "pwrite64"),
    content(libc::SYS_writev, WRITEV, Class::Write, 0, No, "writev"),
    content(libc::SYS_pwritev, WRITEV, Class::Write, 0, No, "pwritev"),
    content(libc::SYS_pwritev2, WRITEV, Class::Write, 0, No, "pwritev2"),
    content(libc::SYS_sendfile, &[Hook::Sendfile], Class::Write, 0, No, "sendfile"),
    content(libc::SYS_splice, &[Hook::Splice], Class::Write, 2, No, "splice"),
    content(libc::SYS_copy_file_range, &[Hook::CopyFileRange], Class::Write, 2, No, "copy_file_range"),
    content(libc::SYS_fallocate, &[Hook::Fallocate], Class::File, 0, At(1), "fallocate"),
    content(libc::SYS_ftruncate, NOTIFY, Class::File, 0, No, "ftruncate"),
    SystemCall {
        number: libc::SYS_ioctl,
        hooks: &[Hook::Clone, Hook::FileAttr, Hook::SubvolumeMade, Hook::SubvolumeGone],
        op: Op::Write,
        detail: "ioctl",
        follow: Follow::Never,
        class: Class::Ioctl,
        content: true,
        arguments: [At(0), No, No, No, At(1), At(2)],
    },
    SystemCall {
        number: libc::SYS_io_submit,
        hooks: &[Hook::AioComplete],
        op: Op::Write,
        detail: "aio",
        follow: Follow::Never,
        class: Class::Aio,
        content: true,
        arguments: [No, No, No, No, At(1), At(2)],
    },
    SystemCall {
        // Its requests are reported by their completion.
        number: libc::SYS_io_uring_enter,
        hooks: &[],
        op: Op::Write,
        detail: "io_uring",
        follow: Follow::Never,
        class: Class::None,
        content: true,
        arguments: [No; 6],
    },
    SystemCall {
        // Closes the file of accounts with a last one.
        number: libc::SYS_acct,
        hooks: &[],
        op: Op::Write,
        detail: "kernel-write",
        follow: Follow::Never,
        class: Class::None,
        content: false,
        arguments: [No; 6],
    },
    open(libc::SYS_openat, Class::Open, At(2)),
    open(libc::SYS_openat2, Class::OpenHow, At(2)),
    open(libc::SYS_open_by_handle_at, Class::Open, At(2)),
    SystemCall {
        op: Op::Write,
        content: true,
        ..named(libc::SYS_truncate, NOTIFY, [Cwd, At(0), No], Follow::Always, "truncate")
    },
    attribute(libc::SYS_fchmod, NOTIFY, "chmod"),
    attribute(libc::SYS_fchown, NOTIFY, "chown"),
    attribute(libc::SYS_fsetxattr, SET_XATTR, "xattr"),
    attribute(libc::SYS_fremovexattr, REMOVE_XATTR, "xattr"),
    named(libc::SYS_fchmodat, NOTIFY, [At(0), At(1), No], Follow::Always, "chmod"),
    named(nr::FCHMODAT2, NOTIFY, [At(0), At(1), At(3)], Follow::UnlessNofollow, "chmod"),
    named(libc::SYS_fchownat, NOTIFY, [At(0), At(1), At(4)], Follow::UnlessNofollow, "chown"),
    SystemCall {
        arguments: [At(0), At(1), No, No, At(3), At(2)],
        ..named(libc::SYS_utimensat, NOTIFY, [At(0), At(1), At(3)], Follow::UnlessNofollow, "utimes")
    },
    named(libc::SYS_setxattr, SET_XATTR, [Cwd, At(0), No], Follow::Always, "xattr"),
    named(libc::SYS_lsetxattr, SET_XATTR, [Cwd, At(0), No], Follow::Never, "xattr"),
    named(libc::SYS_removexattr, REMOVE_XATTR, [Cwd, At(0), No], Follow::Always, "xattr"),
    named(libc::SYS_lremovexattr, REMOVE_XATTR, [Cwd, At(0), No], Follow::Never, "xattr"),
    named(nr::SETXATTRAT, SET_XATTR, [At(0), At(1), At(2)], Follow::UnlessNofollow, "xattr"),
    named(nr::REMOVEXATTRAT, REMOVE_XATTR, [At(0), At(1), At(2)], Follow::UnlessNofollow, "xattr"),
    named(nr::FILE_SETATTR, &[Hook::FileAttr], [At(0), At(1), At(4)], Follow::UnlessNofollow, "chattr"),
    name(libc::SYS_mkdirat, &[Hook::Mkdir], Op::Create, [At(0), At(1), No], "mkdir"),
    name(libc::SYS_mknodat, MKNOD, Op::Create, [At(0), At(1), No], "mknod"),
    name(libc::SYS_symlinkat, &[Hook::Symlink], Op::Create, [At(1), At(2), No], "symlink"),
    SystemCall { class: Class::Bind, ..name(libc::SYS_bind, MKNOD, Op::Create, [Cwd, At(1), No], "mknod") },
    // With AT_REMOVEDIR it stands for both.
    name(libc::SYS_unlinkat, &[Hook::Unlink, Hook::Rmdir], Op::Remove, [At(0), At(1), At(2)], "unlink"),
    pair(libc::SYS_linkat, &[Hook::Link], Op::Create, [At(2), At(3), No, At(1), At(4)], "link"),
    pair(libc::SYS_renameat2, &[Hook::Rename], Op::Rename, [At(2), At(3), At(0), At(1), At(4)], "rename"),
];

/// The calls that only the older tables have.
#[cfg(target_arch = "x86_64")]
const OLD_CALLS: &[SystemCall] = &[
    open(libc::SYS_open, Class::Open, At(1)),
    open(libc::SYS_creat, Class::Creat, No),
    named(libc::SYS_chmod, NOTIFY, [Cwd, At(0), No], Follow::Always, "chmod"),
    named(libc::SYS_chown, NOTIFY, [Cwd, At(0), No], Follow::Always, "chown"),
    named(libc::SYS_lchown, NOTIFY, [Cwd, At(0), No], Follow::Never, "chown"),
    named(libc::SYS_utime, NOTIFY, [Cwd, At(0), No], Follow::Always, "utimes"),
    named(libc::SYS_utimes, NOTIFY, [Cwd, At(0), No], Follow::Always, "utimes"),
    named(libc::SYS_futimesat, NOTIFY, [At(0), At(1), No], Follow::Always, "utimes"),
    name(libc::SYS_mkdir, &[Hook::Mkdir], Op::Create, [Cwd, At(0), No], "mkdir"),
    name(libc::SYS_mknod, MKNOD, Op::Create, [Cwd, At(0), No], "mknod"),
    name(libc::SYS_symlink, &[Hook::Symlink], Op::Create, [Cwd, At(1), No], "symlink"),
    name(libc::SYS_unlink, &[Hook::Unlink], Op::Remove, [Cwd, At(0), No], "unlink"),
    name(libc::SYS_rmdir, &[Hook::Rmdir], Op::Remove, [Cwd, At(0), No], "rmdir"),
    pair(libc::SYS_link, &[Hook::Link], Op::Create, [Cwd, At(1), No, At(0), No], "link"),
    pair(libc::SYS_rename, &[Hook::Rename], Op::Rename, [Cwd, At(1), Cwd, At(0), No], "rename"),
    pair(libc::SYS_renameat, &[Hook::Rename], Op::Rename, [At(2), At(3), At(0), At(1), No], "rename"),
];

/// arm64 has none of them but `renameat`.
#[cfg(not(target_arch = "x86_64"))]
const OLD_CALLS: &[SystemCall] =
    &[pair(libc::SYS_renameat, &[Hook::Rename], Op::Rename, [At(2), At(3), At(0), At(1), No], "rename")];
