//! Which files are chosen by their names: one of several extensions, or a pattern.
//!
//! In: the choice, and a path relative to its root. Out: chosen or not. `trace`, `watch` and `subscribe` all ask here.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use globset::GlobSet;

/// Whether a file is chosen. Either choice is enough, as in watchexec; without one, every file is.
#[must_use]
pub fn is_chosen(exts: &[OsString], only: Option<&GlobSet>, relative: &Path) -> bool {
    if exts.is_empty() && only.is_none() {
        return true;
    }
    let name = relative.file_name().unwrap_or_default().as_bytes();
    exts.iter().any(|ext| has_extension(name, ext.as_bytes()))
        || only.is_some_and(|only| only.is_match(relative))
}

/// Whether a name ends with a dot and an extension, which may have dots itself (`tar.gz`).
fn has_extension(name: &[u8], ext: &[u8]) -> bool {
    name.strip_suffix(ext).and_then(|rest| rest.strip_suffix(b".")).is_some_and(|stem| !stem.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::patterns;

    #[test]
    fn an_extension_or_a_pattern_is_enough() {
        let exts = [OsString::from("tar.gz"), OsString::from("conf")];
        let only = patterns(["keep", "/d/*.x"]).unwrap();
        for (path, by_ext, by_pattern) in [
            ("a.conf", true, false),
            ("a.tar.gz", true, false),
            ("a.gz", false, false),
            (".conf", false, false),
            ("conf", false, false),
            ("d/keep", false, true),
            ("keep/a", false, true),
            ("d/a.x", false, true),
            ("e/d/a.x", false, false),
        ] {
            let path = Path::new(path);
            assert_eq!(is_chosen(&exts, None, path), by_ext, "{path:?}");
            assert_eq!(is_chosen(&[], Some(&only), path), by_pattern, "{path:?}");
            assert_eq!(is_chosen(&exts, Some(&only), path), by_ext || by_pattern, "{path:?}");
            assert!(is_chosen(&[], None, path));
        }
    }
}
