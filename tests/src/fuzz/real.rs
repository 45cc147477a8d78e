//! The tree as it is: every name below a directory, its type, its file and a hash of the content.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};

/// What a name leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// As hotr calls it.
    pub kind: &'static str,
    /// Which file it is.
    pub file: File,
    /// Size of a regular file.
    pub size: Option<u64>,
    /// Hash of a regular file's content, or of a link's target.
    pub content: u64,
}

/// A file, whatever its names are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct File {
    device: u64,
    /// Its number, which another file may have later.
    pub inode: u64,
    /// Where the filesystem keeps it.
    born: Option<SystemTime>,
}

/// Everything below `top`, by its path relative to it. Names that begin with `.barrier-` are left out.
///
/// # Errors
/// The tree cannot be read; it may not be changed meanwhile.
pub fn walk(top: &Path) -> Result<BTreeMap<PathBuf, Entry>> {
    let mut found = BTreeMap::new();
    let mut open = vec![PathBuf::new()];
    while let Some(dir) = open.pop() {
        let full = top.join(&dir);
        for entry in std::fs::read_dir(&full).with_context(|| format!("list {}", full.display()))? {
            let name = entry.with_context(|| format!("list {}", full.display()))?.file_name();
            if name.as_encoded_bytes().starts_with(b".barrier-") {
                continue;
            }
            let path = dir.join(name);
            let entry = look(&top.join(&path)).with_context(|| format!("look at {}", path.display()))?;
            if entry.kind == "dir" {
                open.push(path.clone());
            }
            found.insert(path, entry);
        }
    }
    Ok(found)
}

/// What a name leads to.
///
/// # Errors
/// It cannot be read.
pub fn look(path: &Path) -> Result<Entry> {
    let data = path.symlink_metadata()?;
    let kind = data.file_type();
    let mut hasher = DefaultHasher::new();
    let kind = if kind.is_file() {
        hasher.write(&std::fs::read(path)?);
        "file"
    } else if kind.is_dir() {
        "dir"
    } else if kind.is_symlink() {
        hasher.write(path.read_link()?.as_os_str().as_encoded_bytes());
        "symlink"
    } else if kind.is_fifo() {
        "fifo"
    } else if kind.is_socket() {
        "socket"
    } else if kind.is_char_device() {
        "char"
    } else {
        "block"
    };
    let size = (kind == "file").then_some(data.size());
    let file = File { device: data.dev(), inode: data.ino(), born: data.created().ok() };
    Ok(Entry { kind, file, size, content: hasher.finish() })
}
