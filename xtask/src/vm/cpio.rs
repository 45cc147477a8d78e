//! The archive format that the kernel unpacks at boot (`newc`, Documentation/driver-api/early-userspace/buffer-format.rst).
//!
//! In: names and contents. Out: the archive's bytes, uncompressed: unpacking costs an emulated guest more than copying.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

const DIRECTORY: u32 = 0o040_755;
const LINK: u32 = 0o120_777;
const FILE: u32 = 0o100_000;
const DEVICE: u32 = 0o020_600;

/// An archive under construction. Parent folders are added as they are needed.
#[derive(Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    known: BTreeSet<PathBuf>,
}

impl Archive {
    /// Adds a file with permission bits `mode`. A second file of the same name is left out.
    pub(crate) fn file(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.add(Path::new(name), FILE | mode, (0, 0), content);
    }

    /// Adds a symbolic link.
    pub(crate) fn link(&mut self, name: &str, to: &str) {
        self.add(Path::new(name), LINK, (0, 0), to.as_bytes());
    }

    /// Adds a character device. The console must be there before anything can mount one.
    pub(crate) fn device(&mut self, name: &str, major: u32, minor: u32) {
        self.add(Path::new(name), DEVICE, (major, minor), &[]);
    }

    /// Adds a file, or a folder with all in it, of this machine. Links are followed.
    pub(crate) fn tree(&mut self, host: &Path, name: &Path) -> Result<()> {
        let what = || format!("put {} into the guest", host.display());
        let meta = fs::metadata(host).with_context(what)?;
        if meta.is_dir() {
            for entry in fs::read_dir(host).with_context(what)? {
                let entry = entry.with_context(what)?;
                self.tree(&entry.path(), &name.join(entry.file_name()))?;
            }
            return Ok(());
        }
        let content = fs::read(host).with_context(what)?;
        self.add(name, FILE | (meta.permissions().mode() & 0o777), (0, 0), &content);
        Ok(())
    }

    /// The finished archive.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry(b"TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn add(&mut self, name: &Path, mode: u32, device: (u32, u32), content: &[u8]) {
        let name = name.strip_prefix("/").unwrap_or(name);
        let parents: Vec<&Path> =
            name.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()).collect();
        for parent in parents.into_iter().rev() {
            if self.known.insert(parent.to_owned()) {
                self.entry(parent.as_os_str().as_bytes(), DIRECTORY, (0, 0), &[]);
            }
        }
        if self.known.insert(name.to_owned()) {
            self.entry(name.as_os_str().as_bytes(), mode, device, content);
        }
    }

    fn entry(&mut self, name: &[u8], mode: u32, (major, minor): (u32, u32), content: &[u8]) {
        self.entries += 1;
        let size = u32::try_from(content.len()).expect("a file of the guest is smaller than 4 GiB");
        let name_size = u32::try_from(name.len() + 1).expect("a path is shorter than 4 GiB");
        // magic, ino, mode, uid, gid, nlink, mtime, filesize, dev (2), rdev (2), namesize, check
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, major, minor, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name);
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_has_parents_once_and_is_aligned() {
        let mut archive = Archive::default();
        archive.file("/a/b/c", 0o644, b"hello");
        archive.file("/a/d", 0o755, b"");
        archive.file("/a/d", 0o755, b"ignored");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let names: Vec<&[u8]> = bytes
            .split(|byte| *byte == 0)
            .filter(|part| part.starts_with(b"070701"))
            .map(|part| &part[110..])
            .collect();
        let expected: [&[u8]; 5] = [b"a", b"a/b", b"a/b/c", b"a/d", b"TRAILER!!!"];
        assert_eq!(names, expected);
        assert_eq!(&bytes[..6], b"070701");
        // The file's size field: seventh of eight digits after the magic.
        let start = bytes.windows(5).position(|window| window == b"a/b/c").expect("the name is there") - 110;
        assert_eq!(&bytes[start + 6 + 6 * 8..start + 6 + 7 * 8], b"00000005");
    }
}
