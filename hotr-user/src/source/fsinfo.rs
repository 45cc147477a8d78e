//! What a filesystem is, as far as walking its directories goes.
//!
//! In: a directory handle. Out: whether it may be watched, and what its link count means.

use std::os::fd::AsFd;

use rustix::fs::{Statx, fstatfs};
use rustix::io::Result;

/// `f_type` of filesystems whose files are views of kernel state: values change there without a notification, reading
/// them is costly, and no one deploys to them.
const PSEUDO: &[(u32, &str)] = &[
    (0x0000_9fa0, "proc"),
    (0x6265_6572, "sysfs"),
    (0x6462_6720, "debugfs"),
    (0x7472_6163, "tracefs"),
    (0x0027_e0eb, "cgroup"),
    (0x6367_7270, "cgroup2"),
    (0x0000_1cd1, "devpts"),
    (0xcafe_4a11, "bpf"),
    (0x7363_6673, "securityfs"),
    (0xf97c_ff8c, "selinuxfs"),
    (0x6165_676c, "pstore"),
    (0x6265_6570, "configfs"),
    (0x6573_5543, "fusectl"),
    (0x1980_0202, "mqueue"),
    (0xde5e_81e4, "efivarfs"),
    (0x4249_4e4d, "binfmt_misc"),
    (0x6e73_6673, "nsfs"),
    (0x6759_6969, "rpc_pipefs"),
    // Opening a name below an automount point mounts it: a watcher must not be the one that does that.
    (0x0000_0187, "autofs"),
];

/// Whose inodes can be read in bulk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// Returns many inodes in one call.
    Xfs,
    /// ext2, ext3 or ext4.
    Ext,
    /// Has all its names in the dentry cache (tmpfs).
    Cached,
    /// Any other.
    Other,
}

const XFS: u32 = 0x5846_5342;
const EXT: u32 = 0x0000_ef53;
const TMPFS: u32 = 0x0102_1994;

/// ext2, ext3, ext4; xfs; tmpfs: a directory without subdirectories has exactly two links.
const COUNTS_SUBDIRECTORIES: &[u32] = &[EXT, XFS, TMPFS];

/// ext2, ext3, ext4; xfs; tmpfs; btrfs; f2fs: a name that appears or disappears always changes its directory's times.
/// On overlay a lower directory may change without the merged one; servers and FUSE daemons need not follow this rule.
const DATES_NAMES: &[u32] = &[EXT, XFS, TMPFS, 0x9123_683e, 0xf2f5_2010];

/// A filesystem, by what matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fs {
    /// Name, when it is a pseudo filesystem.
    pub(crate) pseudo: Option<&'static str>,
    /// A directory with a link count of two has no subdirectory.
    pub(crate) counts_subdirectories: bool,
    /// A directory's times show whether a name in it appeared or disappeared.
    pub(crate) dates_names: bool,
    /// Whether many inodes can be read at a time.
    pub(crate) family: Family,
}

impl Fs {
    /// Asks the filesystem that an open directory lies on.
    pub(crate) fn of(dir: impl AsFd) -> Result<Self> {
        // The field's type differs between architectures, and a magic above 2^31 may come sign-extended.
        let magic = u32::try_from(i128::from(fstatfs(dir)?.f_type) & 0xffff_ffff).unwrap_or(0);
        Ok(Self {
            pseudo: PSEUDO.iter().find(|(known, _)| *known == magic).map(|(_, name)| *name),
            counts_subdirectories: COUNTS_SUBDIRECTORIES.contains(&magic),
            dates_names: DATES_NAMES.contains(&magic),
            family: match magic {
                XFS => Family::Xfs,
                EXT => Family::Ext,
                TMPFS => Family::Cached,
                _ => Family::Other,
            },
        })
    }
}

/// `st_dev` in the kernel's own encoding (`s_dev`: 12 bits major, 20 bits minor).
pub(crate) fn device(stat: &Statx) -> u64 {
    (u64::from(stat.stx_dev_major) << 20) | u64::from(stat.stx_dev_minor)
}
