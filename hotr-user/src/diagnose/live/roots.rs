//! Which directories are traced for those that are watched.

use std::path::PathBuf;

/// Directories that are traced one by one; of more than so many, whole trees are.
const SEVERAL: usize = 64;

/// What is traced for these directories, which are in order; and whether with all that is below.
pub(super) fn roots(mut dirs: Vec<PathBuf>) -> (Vec<PathBuf>, bool) {
    if dirs.len() <= SEVERAL {
        return (dirs, false);
    }
    dirs.dedup_by(|dir, above| dir.starts_with(above));
    (dirs, true)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn many_directories_are_traced_as_trees() {
        let few: Vec<_> = (0..SEVERAL).map(|n| PathBuf::from(format!("/a/{n:03}"))).collect();
        assert_eq!(roots(few.clone()), (few, false));
        let mut many: BTreeSet<_> =
            (0..2000).map(|n| PathBuf::from(format!("/a/{}/{}", n / 50, n % 50))).collect();
        many.extend(["/a", "/a-b", "/b/c"].map(PathBuf::from));
        let tops = ["/a", "/a-b", "/b/c"].map(PathBuf::from).to_vec();
        assert_eq!(roots(many.into_iter().collect()), (tops, true));
    }
}
