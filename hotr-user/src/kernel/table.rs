//! Which kernel functions each hook can be attached to, and with which programs: the data the plan is made from.
//!
//! A prototype is never derived from a kernel version: the arguments a program needs are found in BTF by their types.

use hotr_common::hook::Hook;
use hotr_common::offsets::{Arguments, NO_ARG};
use hotr_common::tier::Tier;

use super::btf::Prototype;

/// How an argument is found in a prototype.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Select {
    /// Not needed.
    None,
    /// By position.
    At(u8),
    /// The nth parameter that points to this structure.
    PointerTo(&'static str, usize),
    /// The first parameter, which must point to this structure: the program reads it without looking up its position.
    First(&'static str),
}

/// Programs of one way to attach: run at a function's entry, at its exit, or both.
#[derive(Clone, Copy, Debug)]
pub struct Programs {
    /// fentry programs.
    pub fentry: &'static [&'static str],
    /// fexit programs.
    pub fexit: &'static [&'static str],
    /// kprobe programs.
    pub kprobe: &'static [&'static str],
    /// kretprobe programs.
    pub kretprobe: &'static [&'static str],
}

impl Programs {
    /// The programs of a tier: on entry, and at the exit. The tracepoint tier has its own.
    #[must_use]
    pub const fn of(&self, tier: Tier) -> (&'static [&'static str], &'static [&'static str]) {
        match tier {
            Tier::Fentry => (self.fentry, self.fexit),
            Tier::Kprobe => (self.kprobe, self.kretprobe),
            Tier::Tracepoint => (&[], &[]),
        }
    }
}

/// One function a hook can be attached to.
#[derive(Clone, Copy, Debug)]
pub struct Site {
    /// The hook.
    pub hook: Hook,
    /// The kernel function.
    pub function: &'static str,
    /// What the change is about.
    pub subject: Select,
    /// What else is needed.
    pub second: Select,
    /// The programs.
    pub programs: Programs,
}

impl Site {
    /// The arguments' positions in this kernel's prototype; `None` when it has none of the needed ones.
    #[must_use]
    pub fn arguments(&self, prototype: &Prototype) -> Option<Arguments> {
        let ret = u8::try_from(prototype.parameters.len()).ok()?;
        let find = |select| match select {
            Select::None => Some(NO_ARG),
            Select::At(index) => (index < ret).then_some(index),
            Select::PointerTo(structure, nth) => prototype.pointer_to(structure, nth),
            Select::First(structure) => prototype.pointer_to(structure, 0).filter(|index| *index == 0),
        };
        Some(Arguments {
            subject: find(self.subject)?,
            second: find(self.second)?,
            ret: if prototype.returns_nothing { NO_ARG } else { ret },
            ret_pointer: u8::from(prototype.returns_pointer),
        })
    }
}

const FIRST_FILE: Select = Select::First("file");
const SECOND_FILE: Select = Select::PointerTo("file", 1);
const DENTRY: Select = Select::PointerTo("dentry", 0);

/// A site with an exit program: `fexit_x`, and `kprobe_x` with `kretprobe_x`.
macro_rules! exit {
    ($hook:ident, $function:literal, $subject:expr, $second:expr, $name:literal) => {
        Site {
            hook: Hook::$hook,
            function: $function,
            subject: $subject,
            second: $second,
            programs: Programs {
                fentry: &[],
                fexit: &[concat!("fexit_", $name)],
                kprobe: &[concat!("kprobe_", $name)],
                kretprobe: &[concat!("kretprobe_", $name)],
            },
        }
    };
}

/// A site with an entry program only: `fentry_x`, `kprobe_x`.
macro_rules! entry {
    ($hook:ident, $function:literal, $subject:expr, $second:expr, $name:literal) => {
        Site {
            hook: Hook::$hook,
            function: $function,
            subject: $subject,
            second: $second,
            programs: Programs {
                fentry: &[concat!("fentry_", $name)],
                fexit: &[],
                kprobe: &[concat!("kprobe_", $name)],
                kretprobe: &[],
            },
        }
    };
}

/// A site whose exit program needs what its entry program remembers.
macro_rules! both {
    ($hook:ident, $function:literal, $subject:expr, $name:literal, $remember:literal) => {
        Site {
            hook: Hook::$hook,
            function: $function,
            subject: $subject,
            second: Select::None,
            programs: Programs {
                fentry: &[concat!("fentry_", $name)],
                fexit: &[concat!("fexit_", $name)],
                kprobe: &[concat!("kprobe_", $name, $remember), concat!("kprobe_", $name)],
                kretprobe: &[concat!("kretprobe_", $name)],
            },
        }
    };
}

/// Every site, the preferred one of a hook first.
pub const SITES: &[Site] = &[
    exit!(Write, "vfs_write", FIRST_FILE, Select::None, "write"),
    exit!(Writev, "vfs_writev", FIRST_FILE, Select::None, "writev"),
    exit!(IterWrite, "vfs_iter_write", FIRST_FILE, Select::None, "iter_write"),
    exit!(KernelWrite, "__kernel_write_iter", FIRST_FILE, Select::None, "kernel_write"),
    exit!(KernelWrite, "__kernel_write", FIRST_FILE, Select::None, "kernel_write"),
    exit!(UringDone, "kiocb_done", Select::At(0), Select::At(1), "uring_done"),
    entry!(UringComplete, "io_complete_rw", Select::At(0), Select::At(1), "uring_complete"),
    entry!(UringIopoll, "io_complete_rw_iopoll", Select::At(0), Select::At(1), "uring_iopoll"),
    entry!(AioComplete, "aio_complete_rw", Select::At(0), Select::At(1), "aio_complete"),
    exit!(Sendfile, "do_sendfile", Select::At(0), Select::None, "sendfile"),
    exit!(Splice, "do_splice", SECOND_FILE, Select::None, "splice"),
    exit!(CopyFileRange, "vfs_copy_file_range", SECOND_FILE, Select::None, "copy_file_range"),
    exit!(Clone, "vfs_clone_file_range", SECOND_FILE, Select::None, "clone"),
    exit!(Fallocate, "vfs_fallocate", FIRST_FILE, Select::At(1), "fallocate"),
    exit!(NotifyChange, "notify_change", DENTRY, Select::PointerTo("iattr", 0), "notify_change"),
    entry!(Mmap, "fault_dirty_shared_page", Select::At(0), Select::None, "mmap"),
    exit!(Open, "do_filp_open", Select::None, Select::None, "open"),
    exit!(Open, "do_file_open", Select::None, Select::None, "open"),
    exit!(Create, "vfs_create", DENTRY, Select::None, "create"),
    exit!(Mkdir, "vfs_mkdir", DENTRY, Select::None, "mkdir"),
    exit!(Mknod, "vfs_mknod", DENTRY, Select::None, "mknod"),
    exit!(Symlink, "vfs_symlink", DENTRY, Select::None, "symlink"),
    exit!(Link, "vfs_link", Select::PointerTo("dentry", 1), Select::None, "link"),
    both!(Unlink, "vfs_unlink", DENTRY, "unlink", "_victim"),
    both!(Rmdir, "vfs_rmdir", DENTRY, "rmdir", "_victim"),
    both!(Rename, "vfs_rename", Select::PointerTo("renamedata", 0), "rename", "_old"),
    exit!(SetXattr, "vfs_setxattr", DENTRY, Select::None, "setxattr"),
    exit!(RemoveXattr, "vfs_removexattr", DENTRY, Select::None, "removexattr"),
    exit!(SetAcl, "vfs_set_acl", DENTRY, Select::None, "set_acl"),
    exit!(RemoveAcl, "vfs_remove_acl", DENTRY, Select::None, "remove_acl"),
    exit!(FileAttr, "vfs_fileattr_set", DENTRY, Select::None, "fileattr"),
    exit!(FileAttr, "vfs_ioc_setflags_prepare", Select::PointerTo("inode", 0), Select::None, "setflags"),
    entry!(SubvolumeMade, "d_instantiate", DENTRY, Select::PointerTo("inode", 0), "subvolume_made"),
    entry!(SubvolumeGone, "d_delete", DENTRY, Select::None, "subvolume_gone"),
];

/// Programs that help another hook; a kernel without their function only loses what they add.
pub const HELPERS: &[(&str, Programs)] = &[
    // The submitter of a libaio write that completes in another task.
    (
        "aio_prep_rw",
        Programs {
            fentry: &["fentry_aio_submit"],
            fexit: &[],
            kprobe: &["kprobe_aio_submit"],
            kretprobe: &[],
        },
    ),
    // The removal of a directory where the compiler copied `vfs_rmdir` into its caller.
    (
        "security_inode_rmdir",
        Programs {
            fentry: &["fentry_rmdir_check"],
            fexit: &[],
            kprobe: &["kprobe_rmdir_check"],
            kretprobe: &[],
        },
    ),
    (
        "do_rmdir",
        Programs {
            fentry: &[],
            fexit: &["fexit_rmdir_caller"],
            kprobe: &[],
            kretprobe: &["kretprobe_rmdir_caller"],
        },
    ),
    // Inode flags on xfs, where there is no `vfs_fileattr_set`.
    (
        "vfs_ioc_fssetxattr_check",
        Programs {
            fentry: &[],
            fexit: &["fexit_fssetxattr"],
            kprobe: &["kprobe_fssetxattr"],
            kretprobe: &["kretprobe_fssetxattr"],
        },
    ),
    // The other function by which a subvolume gets its inode, and the end of the call.
    (
        "d_instantiate_new",
        Programs {
            fentry: &["fentry_subvolume_new"],
            fexit: &[],
            kprobe: &["kprobe_subvolume_new"],
            kretprobe: &[],
        },
    ),
    (
        "mnt_drop_write_file",
        Programs {
            fentry: &["fentry_subvolume_end"],
            fexit: &[],
            kprobe: &["kprobe_subvolume_end"],
            kretprobe: &[],
        },
    ),
    // What became of events in hotr's own inotify instance.
    (
        "inotify_handle_inode_event",
        Programs { fentry: &["fentry_offer"], fexit: &[], kprobe: &["kprobe_offer"], kretprobe: &[] },
    ),
    (
        "fsnotify_insert_event",
        Programs {
            fentry: &[],
            fexit: &["fexit_insert"],
            kprobe: &["kprobe_insert"],
            kretprobe: &["kretprobe_insert"],
        },
    ),
];

/// Programs of a diagnosis, attached by it alone: what inotify instances of other processes are offered, and take.
pub const DELIVERY: &[(&str, Programs)] = &[
    (
        "fsnotify_destroy_group",
        Programs {
            fentry: &["fentry_deliver_close"],
            fexit: &[],
            kprobe: &["kprobe_deliver_close"],
            kretprobe: &[],
        },
    ),
    (
        "fsnotify_remove_first_event",
        Programs {
            fentry: &["fentry_deliver_take"],
            fexit: &[],
            kprobe: &["kprobe_deliver_take"],
            kretprobe: &[],
        },
    ),
    (
        "fsnotify_insert_event",
        Programs {
            fentry: &["fentry_deliver_insert"],
            fexit: &["fexit_deliver_insert"],
            kprobe: &["kprobe_deliver_insert"],
            kretprobe: &["kretprobe_deliver_insert"],
        },
    ),
    (
        "inotify_handle_inode_event",
        Programs { fentry: &["fentry_deliver"], fexit: &[], kprobe: &["kprobe_deliver"], kretprobe: &[] },
    ),
];

/// More programs of a diagnosis: what followed processes open and read.
pub const USAGE: &[(&str, Programs)] = &[
    (
        "security_file_open",
        Programs {
            fentry: &["fentry_usage_open"],
            fexit: &[],
            kprobe: &["kprobe_usage_open"],
            kretprobe: &[],
        },
    ),
    (
        "touch_atime",
        Programs {
            fentry: &["fentry_usage_read"],
            fexit: &[],
            kprobe: &["kprobe_usage_read"],
            kretprobe: &[],
        },
    ),
    (
        "vfs_copy_file_range",
        Programs {
            fentry: &["fentry_usage_copy"],
            fexit: &[],
            kprobe: &["kprobe_usage_copy"],
            kretprobe: &[],
        },
    ),
    (
        "vfs_clone_file_range",
        Programs {
            fentry: &["fentry_usage_clone"],
            fexit: &[],
            kprobe: &["kprobe_usage_copy"],
            kretprobe: &[],
        },
    ),
];

/// Hooks whose absence loses nothing, because other hooks report the same: later additions of the kernel.
#[must_use]
pub const fn is_optional(hook: Hook) -> bool {
    matches!(hook, Hook::SetAcl | Hook::RemoveAcl | Hook::UringIopoll | Hook::IterWrite)
}

/// The function or tracepoint a record's hook is named by.
#[must_use]
pub fn function_of(hook: Hook) -> &'static str {
    match hook {
        Hook::SysExit => "sys_exit",
        Hook::Dirty => "writeback_mark_inode_dirty",
        Hook::UringTrace => "io_uring_complete",
        _ => SITES.iter().find(|site| site.hook == hook).map_or("", |site| site.function),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prototype(parameters: &[&str], returns_pointer: bool) -> Prototype {
        let parameters =
            parameters.iter().map(|name| (!name.is_empty()).then(|| (*name).to_owned())).collect();
        Prototype { parameters, returns_pointer, returns_nothing: false }
    }

    fn site(function: &str) -> Site {
        *SITES.iter().find(|site| site.function == function).expect("a site of that name")
    }

    #[test]
    fn arguments_follow_the_prototype_of_the_kernel() {
        let mkdir = site("vfs_mkdir");
        let old = mkdir.arguments(&prototype(&["inode", "dentry", ""], false));
        assert_eq!(old, Some(Arguments { subject: 1, second: NO_ARG, ret: 3, ret_pointer: 0 }));
        let new = mkdir.arguments(&prototype(&["mnt_idmap", "inode", "dentry", "", "delegated_inode"], true));
        assert_eq!(new, Some(Arguments { subject: 2, second: NO_ARG, ret: 5, ret_pointer: 1 }));
        let link =
            site("vfs_link").arguments(&prototype(&["dentry", "mnt_idmap", "inode", "dentry", ""], false));
        assert_eq!(link.map(|found| found.subject), Some(3));
        assert_eq!(site("vfs_write").arguments(&prototype(&["", ""], false)), None);
        let write = |parameters| site("vfs_write").arguments(&prototype(parameters, false));
        assert_eq!(write(&["file", "", "", ""]).map(|found| found.subject), Some(0));
        assert_eq!(write(&["", "file", "", ""]), None, "the program reads the first word");
    }

    #[test]
    fn every_change_hook_has_a_site() {
        for hook in Hook::ALL {
            let traced = matches!(hook, Hook::SysExit | Hook::Dirty | Hook::UringTrace);
            assert_eq!(SITES.iter().any(|site| site.hook == hook), !traced, "{hook:?}");
        }
    }
}
