//! Which files of a directory are untouched, read from the inode tables of a mounted ext4.
//!
//! In: the block device below a filesystem, and an inode number. Out: what is on record of it and of those after it.
//! A change marks its inode dirty, and that copies all of it to the table's block, in the device's page cache, before
//! the call that makes the change returns (fs/ext4/inode.c, `ext4_dirty_inode`). That cache is what is read here. Under
//! `lazytime` times are copied later, and another driver's ext2 does so with all: neither is asked.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{major, minor};

use super::InodeStat;

/// Inodes read at a time.
const CHUNK: u64 = 128;
/// The superblock, from the start of the device.
const SUPERBLOCK: u64 = 1024;
const MAGIC: u16 = 0xef53;
/// Descriptors of the groups lie elsewhere.
const META_BG: u32 = 0x10;
/// Block numbers have more than 32 bits.
const WIDE: u32 = 0x80;
/// An inode that ends before this has no fractions of seconds.
const LEAST_INODE: usize = 160;

/// Inode tables that were read in a round, by device.
pub(in crate::source::poll) struct Tables<'a> {
    mounts: Option<&'a [u8]>,
    known: Mutex<Vec<(u64, Option<Arc<Table>>)>>,
}

impl<'a> Tables<'a> {
    /// `mounts`: the mount table.
    pub(in crate::source::poll) fn new(mounts: Option<&'a [u8]>) -> Self {
        Self { mounts, known: Mutex::default() }
    }

    /// Those of a device, where they can be read.
    pub(in crate::source::poll) fn of(&self, dev: u64) -> Option<Arc<Table>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, table)) = known.iter().find(|(one, _)| *one == dev) {
            return table.clone();
        }
        let table = self.mounts.and_then(|mounts| Table::of_mounted(mounts, dev)).map(Arc::new);
        known.push((dev, table.clone()));
        table
    }
}

/// The inode tables of a filesystem.
#[derive(Debug)]
pub(in crate::source::poll) struct Table {
    device: File,
    inode_size: usize,
    per_group: u64,
    /// Where each group's table begins, in bytes.
    begins: Vec<u64>,
}

impl Table {
    /// Of the mounted filesystem with this device number, `mounts` being the mount table. None where it is no ext4 that
    /// can be read like this, or where this process may not read its device.
    fn of_mounted(mounts: &[u8], dev: u64) -> Option<Self> {
        let number = format!("{}:{}", dev >> 20, dev & 0xf_ffff);
        let source = source(std::str::from_utf8(mounts).ok()?, &number)?;
        [PathBuf::from(format!("/dev/block/{number}")), PathBuf::from(source)]
            .iter()
            .find_map(|path| Self::new(device(path, dev)?))
    }

    fn new(device: File) -> Option<Self> {
        let mut head = [0; 1024];
        device.read_exact_at(&mut head, SUPERBLOCK).ok()?;
        let (features, inode_size) = (long(&head, 0x60)?, usize::from(short(&head, 0x58)?));
        if short(&head, 0x38)? != MAGIC || features & META_BG != 0 || inode_size < LEAST_INODE {
            return None;
        }
        let block = 1024_u64.checked_shl(long(&head, 0x18)?)?;
        let per_group = u64::from(long(&head, 0x28)?);
        let groups = usize::try_from(u64::from(long(&head, 0)?).checked_div(per_group)?).ok()?;
        let size = if features & WIDE == 0 { 32 } else { usize::from(short(&head, 0xfe)?).max(64) };
        let mut descriptors = vec![0; groups.checked_mul(size)?];
        let at = (u64::from(long(&head, 0x14)?) + 1).checked_mul(block)?;
        device.read_exact_at(&mut descriptors, at).ok()?;
        let begin = |descriptor: &[u8]| {
            let high = if size >= 64 { long(descriptor, 0x28)? } else { 0 };
            (u64::from(high) << 32 | u64::from(long(descriptor, 8)?)).checked_mul(block)
        };
        let begins = descriptors.chunks_exact(size).map(begin).collect::<Option<_>>()?;
        Some(Self { device, inode_size, per_group, begins })
    }

    /// Reads what is on record of `first` and of those after it. The number of inodes that the answer is about; fewer
    /// may have been read.
    pub(super) fn read(&self, first: u64, buffer: &mut Vec<u8>) -> Option<u64> {
        let index = first.checked_sub(1)?;
        let (group, index) = (index / self.per_group, index % self.per_group);
        let count = CHUNK.min(self.per_group - index);
        let at = self.begins.get(usize::try_from(group).ok()?)? + index * self.inode_size as u64;
        buffer.resize(CHUNK as usize * self.inode_size, 0);
        let room = &mut buffer[..count as usize * self.inode_size];
        let read = match self.device.read_at(room, at) {
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => 0,
            Err(_) => return None,
        };
        buffer.truncate(read);
        Some(count)
    }

    /// One of the inodes that were read, by its distance from the first.
    pub(super) fn inode_stat(&self, buffer: &[u8], index: u64) -> Option<InodeStat> {
        let at = usize::try_from(index).ok()?.checked_mul(self.inode_size)?;
        let inode = buffer.get(at..at + self.inode_size)?;
        // The part that has room for fractions of both times.
        if short(inode, 0x80)? < 12 {
            return None;
        }
        let time = |seconds: usize, extra: usize| {
            let (seconds, extra) = (long(inode, seconds)?.cast_signed(), long(inode, extra)?);
            Some((i64::from(seconds) + (i64::from(extra & 3) << 32), extra >> 2))
        };
        Some(InodeStat {
            generation: long(inode, 0x64)?,
            mode: short(inode, 0)?,
            mtime: time(0x10, 0x88)?,
            ctime: time(0x0c, 0x84)?,
        })
    }
}

/// What is mounted under this number, where it is an ext4 that keeps its tables up to date.
fn source<'a>(mounts: &'a str, number: &str) -> Option<&'a str> {
    let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some(number))?;
    let mut fields = mount.split_once(" - ")?.1.split(' ');
    let (kind, source, options) = (fields.next()?, fields.next()?, fields.next()?);
    let is_lazy = options.split(',').any(|option| option == "lazytime");
    (matches!(kind, "ext4" | "ext3") && !is_lazy).then_some(source)
}

fn device(path: &Path, dev: u64) -> Option<File> {
    let is_it = |meta: &std::fs::Metadata| {
        let number = meta.rdev();
        meta.file_type().is_block_device() && u64::from(major(number)) << 20 | u64::from(minor(number)) == dev
    };
    // Not opened before it is known to be a device of this kind: opening others may do something.
    std::fs::metadata(path).ok().filter(is_it)?;
    let device = File::open(path).ok()?;
    is_it(&device.metadata().ok()?).then_some(device)
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_le_bytes)
}

fn long(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;

    #[test]
    fn only_an_ext4_that_keeps_its_tables_up_to_date_is_asked() {
        let mounts = "22 1 8:1 / / rw - ext4 /dev/sda1 rw,discard\n\
            23 1 8:2 / /lazy rw,relatime shared:1 - ext4 /dev/sda2 rw,lazytime,discard\n\
            24 1 8:3 / /old rw - ext2 /dev/sda3 rw\n\
            25 1 8:4 / /third rw - ext3 /dev/sda4 rw\n";
        let table = [("8:1", Some("/dev/sda1")), ("8:2", None), ("8:3", None), ("8:4", Some("/dev/sda4"))];
        for (number, expected) in table {
            assert_eq!(source(mounts, number), expected, "{number}");
        }
        assert_eq!(source(mounts, "8:5"), None);
    }

    #[test]
    fn times_have_34_bits_of_seconds_and_30_of_nanoseconds() {
        let table =
            Table { device: File::open("/dev/null").unwrap(), inode_size: 256, per_group: 1, begins: vec![] };
        let mut inode = vec![0; 256];
        inode[0x80] = 32;
        inode[0x0c..0x10].copy_from_slice(&(-1_i32).to_le_bytes());
        inode[0x84..0x88].copy_from_slice(&(999_999_999_u32 << 2).to_le_bytes());
        inode[0x10..0x14].copy_from_slice(&705_032_704_u32.to_le_bytes());
        inode[0x88..0x8c].copy_from_slice(&(7_u32 << 2 | 1).to_le_bytes());
        let told = table.inode_stat(&inode, 0).unwrap();
        assert_eq!((told.ctime, told.mtime), ((-1, 999_999_999), (5_000_000_000, 7)));
        inode[0x80] = 8;
        assert!(table.inode_stat(&inode, 0).is_none(), "no room for fractions");
    }

    #[test]
    fn an_image_is_read_as_its_files_were() {
        let dir = std::env::temp_dir().join(format!("hotr-ext4-{}", std::process::id()));
        let (files, image) = (dir.join("files"), dir.join("image"));
        fs::create_dir_all(&files).unwrap();
        fs::write(files.join("f"), "x").unwrap();
        let time = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 0);
        File::options().write(true).open(files.join("f")).unwrap().set_modified(time).unwrap();
        File::create(&image).and_then(|image| image.set_len(32 << 20)).unwrap();
        let mut make = Command::new("mkfs.ext4");
        make.args(["-q", "-F", "-N", "4096", "-g", "8192", "-b", "1024", "-d"]).arg(&files).arg(&image);
        let made = make.output().expect("mkfs.ext4; apt-get install e2fsprogs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let table = Table::new(File::open(&image).unwrap()).expect("an ext4");
        assert!(table.begins.len() > 1, "{table:?}");
        let mut buffer = Vec::new();
        // The first inode for files is 11, of lost+found.
        assert_eq!(table.read(11, &mut buffer), Some(CHUNK));
        let file = table.inode_stat(&buffer, 1).expect("it was read");
        assert_eq!((file.mode & 0o170_000, file.mtime.0), (0o100_000, 1_000_000_000));
        let last = table.per_group * table.begins.len() as u64;
        assert_eq!(table.read(last, &mut buffer), Some(1), "not beyond the group");
        assert_eq!(table.read(last + 1, &mut buffer), None);
        assert!(table.inode_stat(&buffer, 7).is_none());
        fs::remove_dir_all(&dir).unwrap();
    }
}
