//! Which paths a reload may depend on: extensions, globs, `.gitignore` files, and what editors leave behind.
//!
//! In: a path below a root. Out: wanted or not. `.gitignore` files are read when a path below them is first asked
//! about, and again after one of them changed.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use globset::GlobSet;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

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
    roots: Vec<PathBuf>,
    rules: HashMap<PathBuf, Option<Gitignore>>,
}

/// Whether a name ends with a dot and an extension, which may have dots itself (`tar.gz`).
fn has_extension(name: &[u8], ext: &[u8]) -> bool {
    name.strip_suffix(ext).and_then(|rest| rest.strip_suffix(b".")).is_some_and(|stem| !stem.is_empty())
}

impl PathFilter {
    /// For paths below these roots.
    #[must_use]
    pub fn new(options: FilterOptions, roots: Vec<PathBuf>) -> Self {
        Self { options, roots, rules: HashMap::new() }
    }

    /// Reads the `.gitignore` files again.
    pub fn forget_rules(&mut self) {
        self.rules.clear();
    }

    /// Whether a path matters. A directory is asked about for what it holds: extensions and `only` are of files.
    pub fn wants(&mut self, path: &Path, is_dir: bool) -> bool {
        let Some(root) = self.roots.iter().find(|root| path.starts_with(root)).cloned() else { return false };
        let relative = path.strip_prefix(&root).unwrap_or(path);
        if relative.as_os_str().is_empty() {
            // What the user named is wanted.
            return true;
        }
        if self.is_left_out(relative) || self.options.vcs_ignore && self.is_ignored(&root, path, is_dir) {
            return false;
        }
        is_dir || self.is_chosen(relative)
    }

    fn is_chosen(&self, relative: &Path) -> bool {
        let options = &self.options;
        let by_ext = || {
            let name = relative.file_name().unwrap_or_default();
            options.exts.iter().any(|ext| has_extension(name.as_bytes(), ext.as_bytes()))
        };
        let by_glob = || options.only.as_ref().is_some_and(|only| only.is_match(relative));
        if options.exts.is_empty() && options.only.is_none() {
            return true;
        }
        // Either choice is enough, as in watchexec.
        by_ext() || by_glob()
    }

    fn is_left_out(&self, relative: &Path) -> bool {
        let names = || relative.iter().map(OsStr::as_bytes);
        let set = &self.options.ignore;
        if names().any(|name| name.starts_with(BACKUP_PREFIX.as_bytes()))
            || !set.is_empty() && relative.ancestors().any(|part| set.is_match(part))
        {
            return true;
        }
        if self.options.vcs_ignore && names().any(|name| VCS_DIRS.iter().any(|dir| dir.as_bytes() == name)) {
            return true;
        }
        self.options.default_ignore && names().any(is_leftover)
    }

    /// The rule of the deepest `.gitignore` decides; a directory that is ignored takes all it holds with it.
    fn is_ignored(&mut self, root: &Path, path: &Path, is_dir: bool) -> bool {
        let top = if root.is_file() { root.parent().unwrap_or(root) } else { root };
        let top = top.ancestors().find(|dir| dir.join(".git").exists()).unwrap_or(top).to_owned();
        let Ok(relative) = path.strip_prefix(&top) else { return false };
        let parts: Vec<&OsStr> = relative.iter().collect();
        let mut prefix = top.clone();
        for (i, part) in parts.iter().enumerate() {
            prefix.push(part);
            let prefix_is_dir = is_dir || i + 1 < parts.len();
            for dir in prefix.ancestors().skip(1).take_while(|dir| dir.starts_with(&top)).collect::<Vec<_>>()
            {
                let Some(rules) = self.rules_of(dir) else { continue };
                let matched = rules.matched(&prefix, prefix_is_dir);
                if matched.is_ignore() {
                    return true;
                }
                if matched.is_whitelist() {
                    break;
                }
            }
        }
        false
    }

    fn rules_of(&mut self, dir: &Path) -> Option<&Gitignore> {
        if !self.rules.contains_key(dir) {
            let file = dir.join(".gitignore");
            let rules = file.is_file().then(|| {
                let mut builder = GitignoreBuilder::new(dir);
                // A bad line is left out, as git does.
                let _ = builder.add(&file);
                builder.build().ok()
            });
            self.rules.insert(dir.to_owned(), rules.flatten());
        }
        self.rules.get(dir)?.as_ref()
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
