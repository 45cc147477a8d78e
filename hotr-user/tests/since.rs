//! The search by change times, which has no baseline, against real directories.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use hotr_user::source::since::{SearchOptions, changed_since};

struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("hotr-since-{}", std::process::id()));
        fs::create_dir(&path).expect("a scratch directory");
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn write(root: &Path, name: &str, text: &str) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().expect("a path below the root")).expect("a directory");
    fs::write(path, text).expect("a file");
}

#[test]
fn a_search_by_time_finds_what_changed_and_passes_over_what_is_known() {
    let scratch = Scratch::new();
    let root = &scratch.0;
    write(root, "old/f", "x");
    let time = |path: &str| {
        let meta = fs::metadata(root.join(path)).unwrap();
        meta.ctime() * 1_000_000_000 + meta.ctime_nsec()
    };
    // Further than the coarseness that the search allows for.
    let since = time("old/f") + 20_000_000;
    loop {
        write(root, "new", "x");
        if time("new") > since {
            break;
        }
    }
    write(root, "old/g", "x");
    let search = |known: Option<u64>| {
        let mut found = Vec::new();
        let is_known = |_, ino, _| Some(ino) == known;
        let options = SearchOptions { recursive: true, exclude: globset::GlobSet::empty() };
        changed_since(root, &options, since, is_known, |changed| found.push(changed.path)).unwrap();
        found.retain(|path| path != root);
        found.sort();
        found
    };
    assert_eq!(search(None), [root.join("new"), root.join("old"), root.join("old/g")]);
    let known = fs::metadata(root.join("old/g")).unwrap().ino();
    assert_eq!(search(Some(known)), [root.join("new"), root.join("old")]);
}
