//! Single changes of a tree, and the poller's differences for each, in their order.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use hotr_user::source::difference::Kind;

use super::{Scratch, audit, poller};

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
        let mut poller = poller(root);
        (case.change)(root);
        let found: Vec<(String, String)> = audit(&mut poller)
            .differences
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
        assert_eq!(audit(&mut poller).differences, [], "{}: again", case.name);
    }
}
