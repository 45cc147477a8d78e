//! Filesystems made in a file, by the tools of their packages.

use std::ffi::CStr;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::mount::{MountFlags, mount};
use rustix::process::{Signal, set_parent_process_death_signal};

use super::loop_device::LoopDevice;

/// A filesystem with a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Disk {
    Ext4,
    /// With data=ordered, which is the usual mode, by name.
    Ext4Ordered,
    /// With data=journal.
    Ext4Journal,
    /// With data=writeback.
    Ext4Writeback,
    Xfs,
    Btrfs,
}

impl Disk {
    /// The name of its directory, and what evidence calls it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Ext4Ordered => "ext4-ordered",
            Self::Ext4Journal => "ext4-journal",
            Self::Ext4Writeback => "ext4-writeback",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    /// Its type in mount(2), and the ending of its mkfs.
    const fn kind(self) -> &'static str {
        match self {
            Self::Ext4 | Self::Ext4Ordered | Self::Ext4Journal | Self::Ext4Writeback => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    /// Options of mount(2).
    const fn options(self) -> Option<&'static CStr> {
        match self {
            Self::Ext4 | Self::Xfs | Self::Btrfs => None,
            Self::Ext4Ordered => Some(c"data=ordered"),
            Self::Ext4Journal => Some(c"data=journal"),
            Self::Ext4Writeback => Some(c"data=writeback"),
        }
    }

    /// Debian's package with its mkfs.
    const fn package(self) -> &'static str {
        match self {
            Self::Ext4 | Self::Ext4Ordered | Self::Ext4Journal | Self::Ext4Writeback => "e2fsprogs",
            Self::Xfs => "xfsprogs",
            Self::Btrfs => "btrfs-progs",
        }
    }

    /// Bytes of the image: what mkfs asks for at least, and a little more. Nearly all of it stays a hole.
    const fn bytes(self) -> u64 {
        match self {
            Self::Ext4 | Self::Ext4Ordered | Self::Ext4Journal | Self::Ext4Writeback => 32 << 20,
            Self::Xfs => 320 << 20,
            Self::Btrfs => 160 << 20,
        }
    }
}

/// Makes a filesystem in `image`, a new file, and mounts it on `target`, a directory.
///
/// # Errors
/// A sentence: the package that is missing, or what failed.
pub(super) fn make_and_mount(disk: Disk, image: &Path, target: &Path) -> Result<(), String> {
    let name = disk.kind();
    let fault = |what: &str, error: &dyn std::fmt::Display| format!("{what} {name}: {error}");
    let mut options = File::options();
    let file = options.read(true).write(true).create_new(true).open(image);
    let file = file.map_err(|error| fault("make an image for", &error))?;
    file.set_len(disk.bytes()).map_err(|error| fault("make an image for", &error))?;
    let program = format!("mkfs.{name}");
    let mut command = Command::new(&program);
    command.args(if name == "ext4" { ["-q", "-F"] } else { ["-q", "-f"] }).arg(image);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    // SAFETY: between fork and exec only one system call is made.
    unsafe {
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
    }
    let output = command.output().map_err(|error| match error.kind() {
        ErrorKind::NotFound => {
            format!("{program} is not installed; install Debian's package {}", disk.package())
        }
        _ => fault("run mkfs of", &error),
    })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(fault("run mkfs of", &said.lines().next().unwrap_or("it failed")));
    }
    let device = LoopDevice::of(&file)?;
    mount(&device.path, target, name, MountFlags::empty(), disk.options())
        .map_err(|errno| fault("mount", &errno))
}
