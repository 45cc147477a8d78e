//! The tree as it is: every name below a directory, its type, its file and a hash of the content.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::hash::{DefaultHasher, Hasher};
use std::io::Read as _;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt as _};
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
    walk_or(top, Err)
}

/// The same of a tree that is changed meanwhile: what disappears is left out.
#[must_use]
pub fn walk_moving(top: &Path) -> BTreeMap<PathBuf, Entry> {
    walk_or(top, |_| Ok(())).unwrap_or_default()
}

fn walk_or(top: &Path, unreadable: impl Fn(anyhow::Error) -> Result<()>) -> Result<BTreeMap<PathBuf, Entry>> {
    let mut found = BTreeMap::new();
    let mut open = vec![PathBuf::new()];
    while let Some(dir) = open.pop() {
        let full = top.join(&dir);
        let names = match std::fs::read_dir(&full).with_context(|| format!("list {}", full.display())) {
            Ok(names) => names,
            Err(error) => {
                unreadable(error)?;
                continue;
            }
        };
        for entry in names {
            let name = entry.with_context(|| format!("list {}", full.display()))?.file_name();
            if name.as_encoded_bytes().starts_with(b".barrier-") {
                continue;
            }
            let path = dir.join(name);
            match look(&top.join(&path)).with_context(|| format!("look at {}", path.display())) {
                Ok(entry) => {
                    if entry.kind == "dir" {
                        open.push(path.clone());
                    }
                    found.insert(path, entry);
                }
                Err(error) => unreadable(error)?,
            }
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
        hasher.write(&content(path)?);
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

/// The content of a file. What takes its name meanwhile may be a pipe, for whose other end nobody waits.
fn content(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?.read_to_end(&mut content)?;
    Ok(content)
}
