//! btrfs subvolumes: names that an ioctl makes and destroys.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use super::{Cell, OpError, Operation, all_fs, checked, step};
use crate::expect::Expect;

/// `BTRFS_IOC_SUBVOL_CREATE`.
const SUBVOLUME: u32 = 0x5000_940e;
/// `BTRFS_IOC_SNAP_DESTROY`.
const SUBVOLUME_DESTROY: u32 = 0x5000_940f;
/// `BTRFS_IOC_SNAP_CREATE_V2`.
const SNAPSHOT_V2: u32 = 0x5000_9417;

pub(super) const OPS: &[Operation] = &[
    all_fs("subvolume-create", |c| {
        let path = c.inside("sub");
        let dir = dir(c)?;
        step(vec![Expect::new("create", &["subvolume"], path).kind("dir")], move || create(&dir, "sub"))
    }),
    all_fs("subvolume-snapshot", |c| {
        let dir = dir(c)?;
        create(&dir, "sub")?;
        let source = File::open(c.inside("sub"))?;
        let path = c.inside("snap");
        step(vec![Expect::new("create", &["snapshot"], path).kind("dir")], move || {
            snapshot(&dir, &source, "snap")
        })
    }),
    all_fs("subvolume-destroy", |c| {
        let dir = dir(c)?;
        create(&dir, "sub")?;
        let path = c.inside("sub");
        step(vec![Expect::new("remove", &["subvolume"], path).kind("dir")], move || destroy(&dir, "sub"))
    }),
    all_fs("subvolume-write-within", |c| {
        let dir = dir(c)?;
        create(&dir, "sub")?;
        let path: PathBuf = c.file("sub/f")?;
        step(vec![Expect::new("attrib", &["chmod"], &path)], move || chmod(&path))
    }),
    all_fs("absent-subvolume-refused", |c| {
        let dir = dir(c)?;
        create(&dir, "sub")?;
        step(vec![], move || match create(&dir, "sub") {
            Err(error) if error.errno == Some(libc::EEXIST) => Ok(()),
            Err(error) => Err(error),
            Ok(()) => Err(OpError::other("a second subvolume of the name was made")),
        })
    }),
];

fn chmod(path: &Path) -> Result<(), OpError> {
    Ok(rustix::fs::chmod(path, rustix::fs::Mode::RUSR)?)
}

fn dir(c: &Cell<'_>) -> Result<File, OpError> {
    Ok(File::open(c.inside(""))?)
}

/// `struct btrfs_ioctl_vol_args` of linux/btrfs.h.
#[repr(C)]
struct Arguments {
    descriptor: i64,
    name: [u8; 4088],
}

/// `struct btrfs_ioctl_vol_args_v2` of linux/btrfs.h.
#[repr(C)]
struct ArgumentsV2 {
    descriptor: i64,
    transaction: u64,
    flags: u64,
    unused: [u64; 4],
    name: [u8; 4040],
}

fn named<const LEN: usize>(name: &str) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    bytes
}

fn ioctl<T>(dir: &File, command: u32, arguments: &T) -> Result<(), OpError> {
    // SAFETY: each command reads the structure that it is called with, which lives over the call.
    let result =
        unsafe { libc::ioctl(dir.as_raw_fd(), libc::Ioctl::from(command), std::ptr::from_ref(arguments)) };
    checked(libc::c_long::from(result)).map(drop)
}

fn create(dir: &File, name: &str) -> Result<(), OpError> {
    ioctl(dir, SUBVOLUME, &Arguments { descriptor: 0, name: named(name) })
}

fn destroy(dir: &File, name: &str) -> Result<(), OpError> {
    ioctl(dir, SUBVOLUME_DESTROY, &Arguments { descriptor: 0, name: named(name) })
}

fn snapshot(dir: &File, source: &File, name: &str) -> Result<(), OpError> {
    let descriptor = i64::from(source.as_raw_fd());
    let arguments = ArgumentsV2 { descriptor, transaction: 0, flags: 0, unused: [0; 4], name: named(name) };
    ioctl(dir, SNAPSHOT_V2, &arguments)
}
