//! Roots: a directory is watched itself; a file is watched through its parent, by its name, so that it may be
//! replaced, deleted and created again. A root that is a symbolic link is also watched where it leads.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

use super::tree::{NodeId, flag};
use super::watch::{Mode as WalkMode, Watching};
use super::{InotifySource, limits};
use crate::beneath::{HeldName, NamedPath};
use crate::error::Error;
use crate::source::fsinfo::Fs;
use crate::source::walk;

/// A root as the user named it.
#[derive(Debug)]
pub(super) struct Root {
    /// As given.
    pub(super) path: PathBuf,
    /// Where to look for it, when it is a file: a directory and a name in it.
    files: Vec<(NodeId, OsString)>,
}

impl Root {
    /// A root that cannot be watched now.
    pub(super) fn absent(path: PathBuf) -> Self {
        Self { path, files: Vec::new() }
    }
}

impl InotifySource {
    /// Watches a directory (and what is below it) or a file. What is there already gives no events.
    ///
    /// # Errors
    /// [`Error::Path`] when the path does not exist, may not be read, or is on a pseudo filesystem.
    pub fn add_root(&mut self, root: &Path) -> Result<(), Error> {
        let above_another = self.is_above_another(root);
        self.watch_root(root)?;
        if above_another {
            // The trees overlap, and a directory has one watch: begin again with the upper one.
            return self.rebuild()?.into_iter().next().map_or(Ok(()), Err);
        }
        Ok(())
    }

    /// Whether a root lies below this path. To add it makes all watches again: see [`Self::rebuild`].
    pub fn is_above_another(&self, root: &Path) -> bool {
        self.roots.iter().any(|other| other.path.starts_with(root) && other.path != *root)
    }

    /// Whether this path is a root.
    pub fn has_root(&self, root: &Path) -> bool {
        self.roots.iter().any(|other| other.path == root)
    }

    /// The roots, as they were named.
    pub fn root_paths(&self) -> Vec<PathBuf> {
        self.roots.iter().map(|root| root.path.clone()).collect()
    }

    /// Watches a root no longer. Watches that another root may need stay: those of a tree that overlaps one of another
    /// root give events until the next [`Self::rebuild`].
    pub fn remove_root(&mut self, root: &Path) {
        self.roots.retain(|other| other.path != root);
        let is_needed = |node: NodeId, path: &Path| {
            let is_dir = !self.tree.has(node, flag::NAMES_ONLY);
            self.roots.iter().any(|other| {
                let has_name =
                    other.files.iter().any(|(dir, _)| *dir == node || self.tree.is_below(*dir, node));
                has_name || is_dir && (other.path.starts_with(path) || path.starts_with(&other.path))
            })
        };
        let tops = self.tree.roots().iter();
        let needless: Vec<NodeId> =
            tops.filter(|(node, path)| !is_needed(*node, path)).map(|(node, _)| *node).collect();
        needless.into_iter().for_each(|node| self.forget(node));
    }

    pub(super) fn watch_root(&mut self, path: &Path) -> Result<(), Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let files = match NamedPath::follow(path).into_last_names().map_err(|error| explain(path, error))? {
            Ok((dir, _)) => {
                let dir = openat(&dir, c".", flags, Mode::empty()).map_err(|error| explain(path, error))?;
                refuse_pseudo(path, &dir)?;
                if !self.is_watched_in_full(path) {
                    self.watch_tree(path, dir)?;
                }
                Vec::new()
            }
            Err(names) => self.watch_file(path, &names)?,
        };
        self.roots.push(Root { path: path.to_owned(), files });
        Ok(())
    }

    fn watch_tree(&mut self, path: &Path, dir: rustix::fd::OwnedFd) -> Result<(), Error> {
        let existing = self.tree.roots().iter().find(|(_, root)| root == path).map(|(node, _)| *node);
        let node = match existing {
            Some(node) => node,
            None => self.tree.add_root(path).ok_or_else(|| explain(path, Errno::NOMEM))?,
        };
        self.tree.unset(node, flag::NAMES_ONLY);
        let recursive = self.options.recursive;
        walk::walk(&mut Watching::new(self, WalkMode::Initial { recursive }), dir, node);
        self.need_watch(path, node)
    }

    /// A file root: its name in its parent, and, for a symbolic link, each name that leads to the file.
    fn watch_file(&mut self, path: &Path, names: &[HeldName]) -> Result<Vec<(NodeId, OsString)>, Error> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let dirs = std::iter::once(parent).chain(names.iter().skip(1).map(|name| name.dir_path.as_path()));
        dirs.zip(names)
            .map(|(dir, name)| Ok((self.watch_name(path, dir, name)?, name.name.clone())))
            .collect()
    }

    /// Watches the directory of a name, which is reported as `parent`.
    fn watch_name(&mut self, path: &Path, parent: &Path, name: &HeldName) -> Result<NodeId, Error> {
        if let Some(node) = self.find(parent) {
            return Ok(node);
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = openat(&name.dir, c".", flags, Mode::empty()).map_err(|error| explain(parent, error))?;
        refuse_pseudo(path, &dir)?;
        let node = self.tree.add_root(parent).ok_or_else(|| explain(path, Errno::NOMEM))?;
        self.tree.set(node, flag::NAMES_ONLY);
        let mut watching = Watching::new(self, WalkMode::Initial { recursive: false });
        walk::walk(&mut watching, dir, node);
        // The same directory by another path has the watch already.
        let node = watching.alias.unwrap_or(node);
        drop(watching);
        self.need_watch(parent, node)?;
        Ok(node)
    }

    /// A root directory without a watch is useless, and its node must not stay.
    fn need_watch(&mut self, path: &Path, node: NodeId) -> Result<(), Error> {
        if !self.tree.is_living(node) || self.tree.wd(node).is_some() {
            return Ok(());
        }
        self.tree.remove(node, &mut Vec::new());
        Err(explain(path, Errno::NOSPC))
    }

    /// The node of a watched directory.
    fn find(&self, dir: &Path) -> Option<NodeId> {
        self.tree.roots().iter().find_map(|(root, path)| {
            let rest = dir.strip_prefix(path).ok()?;
            rest.components().try_fold(*root, |node, part| self.tree.child(node, part.as_os_str().as_bytes()))
        })
    }

    fn is_watched_in_full(&self, dir: &Path) -> bool {
        self.find(dir).is_some_and(|node| {
            let is_own_root = self.tree.parent(node).is_none();
            !self.tree.has(node, flag::NAMES_ONLY) && (self.options.recursive || is_own_root)
        })
    }

    /// The roots that a name in a directory with [`flag::NAMES_ONLY`] belongs to.
    pub(super) fn file_root(&self, node: NodeId, name: &[u8]) -> Option<&Path> {
        let names =
            |root: &&Root| root.files.iter().any(|(dir, file)| *dir == node && file.as_bytes() == name);
        self.roots.iter().find(names).map(|root| root.path.as_path())
    }
}

fn refuse_pseudo(path: &Path, dir: impl AsFd) -> Result<(), Error> {
    match Fs::of(dir).map(|fs| fs.pseudo) {
        Ok(Some(fs)) => Err(Error::Path {
            path: path.to_owned(),
            cause: format!("it is on {fs}, where values change without a file being written"),
            next: "give a path on a filesystem that stores files".into(),
        }),
        _ => Ok(()),
    }
}

fn explain(path: &Path, error: Errno) -> Error {
    let (cause, next) = match error {
        Errno::NOENT if path.is_symlink() => {
            ("it is a symbolic link that leads nowhere".into(), "give the path it should lead to".into())
        }
        Errno::NOENT => ("it does not exist".into(), "check the path".into()),
        Errno::ACCESS | Errno::PERM => {
            ("permission to read it is denied".into(), "run as a user who may read it, or as root".into())
        }
        Errno::NOSPC => (
            "the limit of inotify watches is reached".into(),
            format!("raise fs.inotify.max_user_watches ({} may be used now)", limits::half_of_watches()),
        ),
        error => (error.to_string(), "check the path".into()),
    };
    Error::Path { path: path.to_owned(), cause, next }
}
