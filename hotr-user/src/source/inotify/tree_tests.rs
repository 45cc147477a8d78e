//! The tree of watched directories, without a kernel.

use std::path::{Path, PathBuf};

use super::{SWEEP, Tree};

#[test]
fn a_path_is_put_together_from_the_names() {
    let mut tree = Tree::default();
    let root = tree.add_root(Path::new("/srv/app")).unwrap();
    let slash = tree.add_root(Path::new("/")).unwrap();
    let a = tree.add(root, b"a").unwrap();
    let b = tree.add(a, b"b").unwrap();
    let etc = tree.add(slash, b"etc").unwrap();
    for (node, name, path) in [
        (root, None, "/srv/app"),
        (root, Some(&b"f"[..]), "/srv/app/f"),
        (b, None, "/srv/app/a/b"),
        (b, Some(b"f"), "/srv/app/a/b/f"),
        (slash, None, "/"),
        (slash, Some(b"f"), "/f"),
        (etc, None, "/etc"),
        (etc, Some(b"f"), "/etc/f"),
    ] {
        assert_eq!(tree.path(node, name), PathBuf::from(path));
    }
}

#[test]
fn a_moved_directory_takes_all_below_it_along() {
    let mut tree = Tree::default();
    let root = tree.add_root(Path::new("/r")).unwrap();
    let a = tree.add(root, b"a").unwrap();
    let b = tree.add(a, b"b").unwrap();
    let c = tree.add(b, b"c").unwrap();
    assert!(tree.relocate(b, root, b"x"));
    assert_eq!(tree.path(c, Some(b"f")), PathBuf::from("/r/x/c/f"));
    assert_eq!(tree.child(root, b"x"), Some(b));
    assert_eq!(tree.child(a, b"b"), None);
    assert!(!tree.relocate(b, c, b"y"), "a directory cannot move below itself");
    assert_eq!(tree.path(c, None), PathBuf::from("/r/x/c"));
}

#[test]
fn two_directories_can_change_places() {
    let mut tree = Tree::default();
    let root = tree.add_root(Path::new("/r")).unwrap();
    let a = tree.add(root, b"a").unwrap();
    let b = tree.add(root, b"b").unwrap();
    assert!(tree.relocate(a, root, b"b"));
    assert!(tree.relocate(b, root, b"a"));
    assert_eq!((tree.child(root, b"a"), tree.child(root, b"b")), (Some(b), Some(a)));
}

#[test]
fn removing_a_directory_gives_up_every_watch_below_it() {
    let mut tree = Tree::default();
    let root = tree.add_root(Path::new("/r")).unwrap();
    let a = tree.add(root, b"a").unwrap();
    let b = tree.add(a, b"b").unwrap();
    let other = tree.add(root, b"other").unwrap();
    for (wd, node) in [(1, root), (2, a), (3, b), (4, other)] {
        tree.set_watch(node, wd, 0);
    }
    let mut watches = Vec::new();
    tree.remove(a, &mut watches);
    watches.sort_unstable();
    assert_eq!(watches, [2, 3]);
    assert_eq!(tree.watches(), 2);
    assert_eq!(tree.child(root, b"a"), None);
    assert_eq!(tree.child(root, b"other"), Some(other));
}

#[test]
fn names_of_removed_directories_do_not_pile_up() {
    let mut tree = Tree::default();
    let root = tree.add_root(Path::new("/r")).unwrap();
    let keep = tree.add(root, b"keep").unwrap();
    for round in 0..100_000 {
        let node = tree.add(root, format!("directory-{round}").as_bytes()).unwrap();
        tree.remove(node, &mut Vec::new());
    }
    assert!(tree.names.len() <= 2 * SWEEP, "{} bytes of names", tree.names.len());
    assert_eq!(tree.nodes.len(), 3);
    assert_eq!(tree.path(keep, None), PathBuf::from("/r/keep"));
}
