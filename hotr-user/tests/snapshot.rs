//! Snapshots against real directories: only real differences, each under its one name.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use hotr_user::source::snapshot::{Kind, ScanOptions, Snapshot, changed_since};

struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("hotr-snapshot-{}-{number}", std::process::id()));
        fs::create_dir(&path).expect("a scratch directory");
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a case does to a directory, and the differences it makes, by paths below the root.
struct Case {
    name: &'static str,
    before: fn(&Path),
    change: fn(&Path),
    expected: &'static [(&'static str, &'static str)],
}

fn write(root: &Path, name: &str, text: &str) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().expect("a path below the root")).expect("a directory");
    fs::write(path, text).expect("a file");
}

fn rename(root: &Path, from: &str, to: &str) {
    fs::rename(root.join(from), root.join(to)).expect("a rename");
}

const CASES: &[Case] = &[
    Case { name: "nothing", before: |r| write(r, "d/f", "x"), change: |_| {}, expected: &[] },
    Case {
        name: "a file read",
        before: |r| write(r, "f", "x"),
        change: |r| assert_eq!(fs::read(r.join("f")).expect("a file"), b"x"),
        expected: &[],
    },
    Case {
        name: "a file made in a new directory",
        before: |_| {},
        change: |r| write(r, "a/b/f", "x"),
        expected: &[("created", "a"), ("created", "a/b"), ("created", "a/b/f")],
    },
    Case {
        name: "a tree removed",
        before: |r| write(r, "a/b/f", "x"),
        change: |r| fs::remove_dir_all(r.join("a")).expect("a removal"),
        expected: &[("removed", "a/b/f"), ("removed", "a/b"), ("removed", "a")],
    },
    Case {
        name: "a file made longer, and another given another mode",
        before: |r| {
            write(r, "f", "x");
            write(r, "g", "x");
        },
        change: |r| {
            write(r, "f", "xx");
            fs::set_permissions(r.join("g"), fs::Permissions::from_mode(0o600)).expect("a mode");
        },
        expected: &[("content", "f"), ("attrib", "g")],
    },
    Case {
        name: "a directory renamed with all that is in it",
        before: |r| write(r, "a/b/f", "x"),
        change: |r| rename(r, "a", "z"),
        expected: &[("renamed a", "z")],
    },
    Case {
        name: "a file renamed within a renamed directory, and written",
        before: |r| write(r, "a/f", "x"),
        change: |r| {
            rename(r, "a", "z");
            rename(r, "z/f", "z/g");
            write(r, "z/g", "longer");
        },
        expected: &[("renamed a", "z"), ("renamed a/f", "z/g"), ("content", "z/g")],
    },
    Case {
        name: "a directory moved deep into new ones",
        before: |r| write(r, "d/e/f", "x"),
        change: |r| {
            fs::create_dir_all(r.join("x/y")).expect("directories");
            rename(r, "d", "x/y/d");
        },
        expected: &[("renamed d", "x/y/d"), ("created", "x"), ("created", "x/y")],
    },
    Case {
        name: "a file saved out of a removed directory",
        before: |r| write(r, "d/e/f", "x"),
        change: |r| {
            rename(r, "d/e/f", "f");
            fs::remove_dir_all(r.join("d")).expect("a removal");
        },
        expected: &[("removed", "d/e"), ("removed", "d"), ("renamed d/e/f", "f")],
    },
    Case {
        name: "two files that changed places",
        before: |r| {
            write(r, "a", "1");
            write(r, "b", "22");
        },
        change: |r| {
            rename(r, "a", "t");
            rename(r, "b", "a");
            rename(r, "t", "b");
        },
        expected: &[("renamed a", "b"), ("renamed b", "a")],
    },
    Case {
        name: "a file replaced by a new one: the name was there before, and leads to another file",
        before: |r| write(r, "f", "old"),
        change: |r| {
            write(r, "f.tmp", "new");
            rename(r, "f.tmp", "f");
        },
        expected: &[("created", "f")],
    },
    Case {
        name: "a file replaced by a directory",
        before: |r| write(r, "f", "old"),
        change: |r| {
            fs::remove_file(r.join("f")).expect("a removal");
            write(r, "f/g", "x");
        },
        expected: &[("removed", "f"), ("created", "f"), ("created", "f/g")],
    },
];

#[test]
fn every_case_has_its_differences_and_then_no_more() {
    for case in CASES {
        let scratch = Scratch::new();
        let root = &scratch.0;
        (case.before)(root);
        let mut snapshot = Snapshot::scan(std::slice::from_ref(root), ScanOptions::default()).unwrap();
        (case.change)(root);
        let found: Vec<(String, String)> = snapshot
            .diff()
            .unwrap()
            .into_iter()
            .filter(|difference| difference.path != *root)
            .map(|difference| {
                let below = |path: &Path| path.strip_prefix(root).unwrap().display().to_string();
                let word = match &difference.kind {
                    Kind::Created => "created".into(),
                    Kind::Removed => "removed".into(),
                    Kind::Renamed { old } => format!("renamed {}", below(old)),
                    Kind::Content => "content".into(),
                    Kind::Attrib => "attrib".into(),
                };
                (word, below(&difference.path))
            })
            .collect();
        let mut sorted = found.clone();
        let mut expected: Vec<_> =
            case.expected.iter().map(|(word, path)| ((*word).to_owned(), (*path).to_owned())).collect();
        if case.name.starts_with("two files") {
            sorted.sort();
            expected.sort();
        }
        assert_eq!(sorted, expected, "{}", case.name);
        assert_eq!(snapshot.diff().unwrap(), [], "{}: again", case.name);
    }
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
        let options = ScanOptions::default();
        changed_since(root, &options, since, is_known, |changed| found.push(changed.path)).unwrap();
        found.retain(|path| path != root);
        found.sort();
        found
    };
    assert_eq!(search(None), [root.join("new"), root.join("old"), root.join("old/g")]);
    let known = fs::metadata(root.join("old/g")).unwrap().ino();
    assert_eq!(search(Some(known)), [root.join("new"), root.join("old")]);
}
