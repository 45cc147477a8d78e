//! Files of a package, before they are in one.

use std::collections::{BTreeMap, BTreeSet};

/// A regular file in a package.
pub(super) struct File {
    /// Permission bits.
    pub(super) mode: u32,
    /// What is in it.
    pub(super) content: Vec<u8>,
}

/// Files by name; names have no leading slash.
pub(super) type Tree = BTreeMap<String, File>;

/// A file that everybody may read.
pub(super) fn file(content: impl Into<Vec<u8>>) -> File {
    File { mode: 0o644, content: content.into() }
}

/// Every folder above a file, without a trailing slash.
pub(super) fn folders(tree: &Tree) -> BTreeSet<String> {
    tree.keys().flat_map(|name| name.match_indices('/').map(|(at, _)| name[..at].to_owned())).collect()
}
