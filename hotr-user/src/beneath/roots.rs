//! The paths that the user named, and what lies below them.
//!
//! In: paths as they are watched. Out: the held directory of each, and its name there. A named path is the user's, with all
//! links on its way; below it no link is followed. It is followed again each time, because it may have been replaced.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::Dir;

/// Named paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roots(Vec<PathBuf>);

impl From<Vec<PathBuf>> for Roots {
    fn from(named: Vec<PathBuf>) -> Self {
        Self(named)
    }
}

impl Roots {
    /// The directory of a path, to look at its name there. The directory of a path that is not below a named one is opened
    /// by its path.
    ///
    /// # Errors
    /// `ENOTDIR` also for a link on the way below a named path; and what opening gives.
    pub fn spot<'a>(&self, path: &'a Path) -> Result<(Dir, &'a OsStr), Errno> {
        let name = path.file_name().ok_or(Errno::INVAL)?;
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let Some((root, below)) = self.below(path) else { return Ok((Dir::search(dir)?, name)) };
        let root = Dir::search(root)?;
        match below.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => Ok((root.search_below(dir).map_err(no_link)?, name)),
            _ => Ok((root, name)),
        }
    }

    /// Whether no directory of the tree is on the way to a path: by its path it leads where its held directory does, unless the
    /// named path itself is replaced meanwhile.
    #[must_use]
    pub fn is_near(&self, path: &Path) -> bool {
        self.below(path).is_none_or(|(_, way)| way.components().count() == 1)
    }

    /// A directory at or below a named one, to be listed.
    ///
    /// # Errors
    /// As [`Self::spot`].
    pub fn dir(&self, path: &Path) -> Result<Dir, Errno> {
        let of = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
        match self.below(path) {
            Some((root, below)) => Dir::search(root)?.dir(below).map_err(of).map_err(no_link),
            None => Dir::open(path).map_err(of),
        }
    }

    /// The longest named path that a path lies below, and the way from there; none for a named one.
    fn below<'a>(&self, path: &'a Path) -> Option<(&Path, &'a Path)> {
        let of = |root: &'_ PathBuf| path.strip_prefix(root).ok();
        let ways = self.0.iter().filter_map(|root| Some((root.as_path(), of(root)?)));
        ways.min_by_key(|(_, way)| way.as_os_str().len()).filter(|(_, way)| !way.as_os_str().is_empty())
    }
}

/// A link is no directory of the tree.
const fn no_link(error: Errno) -> Errno {
    match error {
        Errno::LOOP => Errno::NOTDIR,
        error => error,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use rustix::fs::{AtFlags, statat};

    use super::*;

    #[test]
    fn links_to_a_named_path_are_followed_and_none_below_it() {
        let dir = std::env::temp_dir().join(format!("hotr-roots-{}", std::process::id()));
        fs::create_dir_all(dir.join("w/d/e")).unwrap();
        fs::write(dir.join("w/d/e/f"), "").unwrap();
        symlink("w", dir.join("l")).unwrap();
        symlink("d", dir.join("w/m")).unwrap();
        let roots = Roots::from(vec![dir.join("l"), dir.join("l/m/e"), dir.join("file")]);
        let size = |path: &str| {
            let path = dir.join(path);
            let (dir, name) = roots.spot(&path)?;
            statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW).map(|stat| stat.st_size)
        };
        assert_eq!(size("l/d/e/f"), Ok(0));
        assert_eq!(size("l/m"), Ok(1), "the link itself");
        assert_eq!(size("l/m/d"), Err(Errno::NOTDIR));
        assert_eq!(size("l/m/e/f"), Ok(0), "below a path that was named");
        assert_eq!(size("l/d/none"), Err(Errno::NOENT));
        assert_eq!(size("l/d/e/f/g"), Err(Errno::NOTDIR));
        assert_eq!(size("file"), Err(Errno::NOENT));
        assert_eq!(size("w/d/e/f"), Ok(0), "by its own path");
        let is_near = |path: &str| roots.is_near(&dir.join(path));
        assert!(is_near("l/m") && is_near("l/m/e/f") && is_near("file") && !is_near("l/m/d"));
        let lists = |path: &str| roots.dir(&dir.join(path)).err();
        assert_eq!(lists("l"), None);
        assert_eq!(lists("l/d/e"), None);
        assert_eq!(lists("l/m/e"), None);
        assert_eq!(lists("l/m"), Some(Errno::NOTDIR));
        fs::remove_dir_all(&dir).unwrap();
    }
}
