//! The full comparison that the poller is held to: each file by itself, by definition, without an order or a shortcut.
//!
//! Holds for trees without hard links: a file is where its identity is.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Scratch;

/// Device, inode number and time of birth.
type Identity = (u64, u64, Option<std::time::SystemTime>);

struct File {
    path: PathBuf,
    parent: Option<Identity>,
    is_dir: bool,
    mode: u32,
    size: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

/// Every file of a tree.
pub(super) struct Naive(HashMap<Identity, File>);

impl Naive {
    pub(super) fn read(root: &Path) -> Self {
        let mut files = HashMap::new();
        let mut todo = vec![(root.to_owned(), None)];
        while let Some((path, parent)) = todo.pop() {
            let data = fs::symlink_metadata(&path).expect("a readable scratch directory");
            let identity = (data.dev(), data.ino(), data.created().ok());
            if data.is_dir() {
                let entries = fs::read_dir(&path).expect("a readable scratch directory");
                todo.extend(entries.map(|entry| (entry.expect("a readable entry").path(), Some(identity))));
            }
            let file = File {
                path,
                parent,
                is_dir: data.is_dir(),
                mode: data.mode(),
                size: data.size(),
                mtime: (data.mtime(), data.mtime_nsec()),
                ctime: (data.ctime(), data.ctime_nsec()),
            };
            assert!(files.insert(identity, file).is_none(), "no hard links");
        }
        Self(files)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Kind and path of each difference to an earlier state, sorted, as `super::plain` has them.
    pub(super) fn differences(&self, before: &Self, root: &Path) -> Vec<(String, PathBuf)> {
        let mut out = Vec::new();
        let mut created = HashSet::new();
        for (identity, now) in &self.0 {
            let Some(old) = before.0.get(identity) else {
                created.insert((now.path.as_path(), now.is_dir));
                out.push(("Created".to_owned(), now.path.clone()));
                continue;
            };
            let is_renamed = (old.parent, old.path.file_name()) != (now.parent, now.path.file_name());
            if is_renamed {
                out.push((format!("Renamed {{ old: {:?} }}", old.path), now.path.clone()));
            }
            // A rename sets the change time, and a name in a directory its times: reported separately.
            let other_times = now.ctime != old.ctime && !(now.is_dir && now.mtime != old.mtime);
            if !now.is_dir && (now.mtime, now.size) != (old.mtime, old.size) {
                out.push(("Content".to_owned(), now.path.clone()));
            } else if now.mode != old.mode || !is_renamed && other_times {
                out.push(("Attrib".to_owned(), now.path.clone()));
            }
        }
        // A name that leads to another file of its kind now is reported as created.
        let gone = before.0.iter().filter(|(identity, _)| !self.0.contains_key(*identity));
        let gone = gone.filter(|(_, old)| !created.contains(&(old.path.as_path(), old.is_dir)));
        out.extend(gone.map(|(_, old)| ("Removed".to_owned(), old.path.clone())));
        out.retain(|(_, path)| path != root);
        out.sort();
        out
    }
}

#[test]
fn the_comparison_itself_knows_each_kind() {
    let scratch = Scratch::new();
    let root = &scratch.0;
    let path = |name: &str| root.join(name);
    for name in ["content", "attrib", "renamed", "removed", "replaced"] {
        fs::write(path(name), name).unwrap();
    }
    let before = Naive::read(root);
    fs::write(path("content"), "longer than before").unwrap();
    fs::set_permissions(path("attrib"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    fs::rename(path("renamed"), path("new name")).unwrap();
    fs::remove_file(path("removed")).unwrap();
    fs::write(path("other"), "x").unwrap();
    fs::rename(path("other"), path("replaced")).unwrap();
    let expected = [
        ("Attrib".to_owned(), path("attrib")),
        ("Content".to_owned(), path("content")),
        ("Created".to_owned(), path("replaced")),
        ("Removed".to_owned(), path("removed")),
        (format!("Renamed {{ old: {:?} }}", path("renamed")), path("new name")),
    ];
    assert_eq!(Naive::read(root).differences(&before, root), expected);
}
