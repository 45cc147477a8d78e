//! The search by change times, which has no baseline, against real directories.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use hotr_user::source::difference::Kind;
use hotr_user::source::poll::{PollOptions, Poller};
use hotr_user::source::since::{SearchOptions, changed_since};

struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("hotr-since-{}-{number}", std::process::id()));
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

/// What it had to compare with was read after the change.
#[test]
fn a_poller_tells_after_its_first_look_what_changed_after_a_time() {
    let scratch = Scratch::new();
    let root = &scratch.0;
    let time = |name: &str| {
        let meta = fs::metadata(root.join(name)).unwrap();
        meta.ctime() * 1_000_000_000 + meta.ctime_nsec()
    };
    for name in ["old", "written", "attributes", "d/written"] {
        write(root, name, "x");
    }
    let since = time("d/written");
    while time("d/written") <= since {
        write(root, "d/written", "y");
    }
    write(root, "written", "y");
    write(root, "d/new", "y");
    fs::set_permissions(root.join("attributes"), fs::Permissions::from_mode(0o600)).unwrap();
    let mut poller = Poller::new(std::slice::from_ref(root), PollOptions::default()).unwrap();
    let mut told = |until| {
        let found = poller.changed_between(since, until).into_iter();
        let mut found: Vec<_> = found.map(|found| (found.path, found.kind)).collect();
        found.sort_by(|one, other| one.0.cmp(&other.0));
        found
    };
    let want = [
        ("attributes", Kind::Attrib),
        ("d/new", Kind::Content),
        ("d/written", Kind::Content),
        ("written", Kind::Content),
    ];
    assert_eq!(told(i64::MAX), want.map(|(name, kind)| (root.join(name), kind)));
    assert_eq!(told(since), []);
}
