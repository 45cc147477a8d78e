//! Which paths a reload may depend on: extensions, globs, `.gitignore` files, and what editors leave behind.
//!
//! In: a path below a root. Out: wanted or not. `.gitignore` files are read when a path below them is first asked
//! about, and again after one of them changed.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use globset::GlobSet;

use super::git::rules::{Notices, Rules};
use crate::pipeline::chosen_names::is_chosen;

/// Directories of version control systems.
pub const VCS_DIRS: [&str; 6] = [".git", ".hg", ".svn", ".bzr", "_darcs", ".jj"];
/// The directory in which hotr keeps the last good content.
pub const BACKUP_PREFIX: &str = ".hotr-";

/// The user's choice.
#[derive(Clone, Debug, Default)]
pub struct FilterOptions {
    /// Only files with one of these extensions (empty: all).
    pub exts: Vec<OsString>,
    /// Only paths that match, relative to their root.
    pub only: Option<GlobSet>,
    /// Not those that match, nor what is below them.
    pub ignore: GlobSet,
    /// Keep to `.gitignore`.
    pub vcs_ignore: bool,
    /// Leave out what editors leave behind, and the staging names of Kubernetes volumes.
    pub default_ignore: bool,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct PathFilter {
    options: FilterOptions,
    roots: Vec<(PathBuf, Rules)>,
    notices: Notices,
}

impl PathFilter {
    /// For paths below these roots.
    #[must_use]
    pub fn new(options: FilterOptions, roots: Vec<PathBuf>) -> Self {
        let notices = Notices::default();
        let rules = |root: PathBuf| (root.clone(), Rules::new(root, notices.clone()));
        Self { options, roots: roots.into_iter().map(rules).collect(), notices }
    }

    /// For paths below these roots from now on.
    pub(super) fn set_roots(&mut self, roots: &[PathBuf]) {
        self.roots.retain(|(root, _)| roots.contains(root));
        for root in roots {
            if !self.roots.iter().any(|(known, _)| known == root) {
                self.roots.push((root.clone(), Rules::new(root.clone(), self.notices.clone())));
            }
        }
    }

    /// Reads the `.gitignore` files again.
    pub fn forget_rules(&mut self) {
        self.roots.iter_mut().for_each(|(_, rules)| rules.forget());
    }

    /// Reads the `.gitignore` files below a directory again: it is another one, or elsewhere.
    pub(super) fn forget_rules_below(&mut self, dir: &Path) {
        self.roots.iter_mut().for_each(|(_, rules)| rules.forget_below(dir));
    }

    /// Sentences about files of rules that cannot be read, once each, for all clones of this filter together.
    pub(super) fn take_notices(&self) -> Vec<String> {
        self.notices.take()
    }

    /// Whether a path matters. A directory is asked about for what it holds: extensions and `only` are of files. A path
    /// below several roots is asked about as each of them would have it.
    pub fn wants(&mut self, path: &Path, is_dir: bool) -> bool {
        let options = &self.options;
        self.roots.iter_mut().any(|(root, rules)| {
            let Ok(relative) = path.strip_prefix(root) else { return false };
            // What the user named is wanted.
            relative.as_os_str().is_empty()
                || !options.leave_out(relative)
                    && (is_dir || options.choose(relative))
                    && !(options.vcs_ignore && rules.ignore(relative, is_dir))
        })
    }
}

impl FilterOptions {
    fn choose(&self, relative: &Path) -> bool {
        is_chosen(&self.exts, self.only.as_ref(), relative)
    }

    fn leave_out(&self, relative: &Path) -> bool {
        let names = || relative.iter().map(OsStr::as_bytes);
        let set = &self.ignore;
        if names().any(|name| name.starts_with(BACKUP_PREFIX.as_bytes()))
            || !set.is_empty() && relative.ancestors().any(|part| set.is_match(part))
        {
            return true;
        }
        if self.vcs_ignore && names().any(|name| VCS_DIRS.iter().any(|dir| dir.as_bytes() == name)) {
            return true;
        }
        self.default_ignore && names().any(is_leftover)
    }
}

/// Names that editors make on the way to a saved file, and what Kubernetes stages beside `..data`.
fn is_leftover(name: &[u8]) -> bool {
    let swap = |ext: &[u8]| name.starts_with(b".") && name.ends_with(ext);
    name == b"4913"
        || name.ends_with(b"~")
        || name.starts_with(b".#")
        || name.starts_with(b"#") && name.ends_with(b"#") && name.len() > 1
        || name == b".DS_Store"
        || swap(b".swp")
        || swap(b".swo")
        || swap(b".swx")
        || swap(b".swpx")
        || swap(b".kate-swp")
        || name == b"..data_tmp"
        || name.starts_with(b"..") && name.get(2).is_some_and(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_are_of_no_interest() {
        for (name, want) in [
            ("4913", true),
            ("a.conf~", true),
            (".a.conf.swp", true),
            (".#a", true),
            ("#a#", true),
            ("..2026_01_02", true),
            ("..data", false),
            ("a.swp", false),
            ("#", false),
        ] {
            assert_eq!(is_leftover(name.as_bytes()), want, "{name}");
        }
    }

    #[test]
    fn gitignore_files_decide_from_the_deepest_up() {
        let root = std::env::temp_dir().join(format!("hotr-gitignore-{}", std::process::id()));
        std::fs::create_dir_all(root.join("a/target")).unwrap();
        std::fs::write(root.join(".gitignore"), "*.log\ntarget/\n").unwrap();
        std::fs::write(root.join("a/.gitignore"), "!keep.log\n").unwrap();
        let options = FilterOptions { vcs_ignore: true, ..FilterOptions::default() };
        let mut filter = PathFilter::new(options, vec![root.clone()]);
        for (path, want) in [
            ("x.log", false),
            ("a/x.log", false),
            ("a/keep.log", true),
            ("a/target/x", false),
            ("a/x", true),
            (".git/HEAD", false),
        ] {
            assert_eq!(filter.wants(&root.join(path), false), want, "{path}");
        }
        std::fs::remove_dir_all(&root).unwrap();
    }
}
