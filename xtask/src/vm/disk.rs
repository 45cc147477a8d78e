//! Filesystem images for the tests: real ext4, xfs and btrfs, one for each mount of the matrix.
//!
//! In: a folder. Out: sparse image files that every kernel of the matrix can mount. QEMU writes to a throw-away
//! layer above them, so they are made once.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::cmd;

/// One image: the fixture's name as scripts/fixtures.sh reads it, and the filesystem's maker.
struct Disk {
    name: &'static str,
    maker: &'static str,
    options: &'static [&'static str],
    /// Bytes; only what is written takes room.
    size: u64,
}

// Features younger than 5.10 are turned off, so that one image serves every kernel.
const EXT4: &[&str] = &["-q", "-F", "-O", "^orphan_file,^metadata_csum_seed"];
const XFS: &[&str] = &["-q", "-f", "-m", "reflink=1,bigtime=0,inobtcount=0"];
const BTRFS: &[&str] = &["-q", "-f"];
const MIB: u64 = 1 << 20;

const DISKS: [Disk; 5] = [
    Disk { name: "ext4", maker: "mkfs.ext4", options: EXT4, size: 256 * MIB },
    Disk { name: "xfs", maker: "mkfs.xfs", options: XFS, size: 512 * MIB },
    Disk { name: "btrfs", maker: "mkfs.btrfs", options: BTRFS, size: 512 * MIB },
    Disk { name: "ovl-ext4", maker: "mkfs.ext4", options: EXT4, size: 256 * MIB },
    Disk { name: "ovl-xfs", maker: "mkfs.xfs", options: XFS, size: 512 * MIB },
];

/// An image and the name of its fixture.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    /// `ext4`, `ovl-xfs`, …
    pub(crate) name: &'static str,
    /// The image file.
    pub(crate) file: PathBuf,
}

/// Every filesystem of the matrix and its folder below the fixtures' root; an overlay's holds lower, upper, work and merged.
pub(crate) const FIXTURES: [(&str, &str); 6] = [
    ("ext4", "ext4"),
    ("xfs", "xfs"),
    ("btrfs", "btrfs"),
    ("tmpfs", "tmpfs"),
    ("ovl-ext4", "ovl-ext4"),
    ("ovl-xfs", "ovl-xfs"),
];

impl Image {
    /// The type of the filesystem in it.
    pub(crate) fn filesystem(&self) -> &'static str {
        self.name.trim_start_matches("ovl-")
    }
}

/// Makes the images that `folder` does not have yet, of the fixtures in `wanted`; of all when it is empty.
pub(crate) fn images(folder: &Path, wanted: &[String]) -> Result<Vec<Image>> {
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    DISKS
        .iter()
        .filter(|disk| wanted.is_empty() || wanted.iter().any(|name| name == disk.name))
        .map(|disk| Ok(Image { name: disk.name, file: image(folder, disk)? }))
        .collect()
}

fn image(folder: &Path, disk: &Disk) -> Result<PathBuf> {
    let file = folder.join(format!("{}.img", disk.name));
    if file.is_file() {
        return Ok(file);
    }
    // Renamed when whole: an interrupted mkfs leaves nothing that looks finished.
    let unfinished = folder.join(format!("{}.{}.new", disk.name, std::process::id()));
    let what = || format!("make the disk {}", unfinished.display());
    File::create(&unfinished).and_then(|image| image.set_len(disk.size)).with_context(what)?;
    let maker = cmd::find(disk.maker).with_context(|| {
        format!("{}: {} is not installed; run `cargo xtask setup --tests`", what(), disk.maker)
    })?;
    cmd::must_quietly(Command::new(maker).args(disk.options).arg(&unfinished), &what())?;
    fs::rename(&unfinished, &file).with_context(what)?;
    Ok(file)
}
