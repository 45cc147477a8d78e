//! Real directories, links, mounts and processes. What makes mounts needs root.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;

use super::*;
use crate::mounts::tests::{bind, in_private_namespace, overlay, tmpfs};
use crate::mounts::{aliases, mount_id};

mod namespaces;

/// The relative path and the layer; `None` when not ours.
type Expected = Option<(&'static str, Option<Layer>)>;

fn tid() -> u32 {
    rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs()
}

fn resolver(roots: &[&Path]) -> CallResolver {
    let table = MountTable::read().unwrap();
    let with_aliases = |dir: &&Path| {
        let aliases = aliases(dir, &table).roots;
        let files = (0..aliases.len()).filter(|index| aliases[*index].dir.is_file()).collect();
        CallRoot { dir: dir.to_path_buf(), aliases, files }
    };
    let roots: Vec<_> = roots.iter().map(with_aliases).collect();
    CallResolver::new(&roots, table)
}

fn call<'a>(string: &'a Path, follow: bool) -> CallPath<'a> {
    CallPath {
        pid: tid(),
        mount_ns: None,
        base: Base::Unknown,
        string: string.as_os_str().as_bytes(),
        follow,
        of_name: false,
    }
}

/// The relative path and the layer; `None` when not ours.
fn ask(resolver: &mut CallResolver, call: &CallPath<'_>) -> Option<(String, Option<Layer>)> {
    match resolver.resolve(call, Instant::now()) {
        Resolved::Ours { rel, layer, .. } => Some((rel.to_str().unwrap().to_owned(), layer)),
        Resolved::NotOurs => None,
        Resolved::Unknown(why) => panic!("{}: {why}", String::from_utf8_lossy(call.string)),
    }
}

#[test]
fn a_string_is_a_directory_and_a_name() {
    let cases: &[(&str, &str, Option<&str>)] = &[
        ("/a/b", "/a/", Some("b")),
        ("a", "", Some("a")),
        ("/a", "/", Some("a")),
        ("a/b//", "a/", Some("b")),
        ("a//b", "a//", Some("b")),
        ("/", "/", None),
        ("//", "//", None),
        ("", "", None),
        ("a/..", "a/..", None),
        (".", ".", None),
        ("a/.", "a/.", None),
        ("...", "", Some("...")),
    ];
    for (string, dir, name) in cases {
        assert_eq!(split(string.as_bytes()), (dir.as_bytes(), name.map(str::as_bytes)), "{string}");
    }
}

/// `root` is dir/srv/app; everything else lies around it.
fn furnish(dir: &Path) -> PathBuf {
    let root = dir.join("srv/app");
    fs::create_dir_all(root.join("a/b")).unwrap();
    fs::create_dir_all(dir.join("out/sub")).unwrap();
    fs::write(root.join("file"), "").unwrap();
    fs::write(dir.join("out/file"), "").unwrap();
    symlink(root.join("a"), dir.join("out/into")).unwrap();
    symlink("../srv/app/file", dir.join("out/to-file")).unwrap();
    symlink(dir.join("out"), root.join("away")).unwrap();
    symlink("file", root.join("near")).unwrap();
    symlink("nowhere", root.join("dangling")).unwrap();
    root
}

#[test]
fn where_a_string_leads() {
    in_private_namespace(|dir| {
        let root = furnish(dir);
        bind(&root.join("a"), &dir.join("below"));
        bind(&dir.join("srv"), &dir.join("above"));
        tmpfs(&root.join("mnt"));
        let mut resolver = resolver(&[&root]);
        let bound = Some(Layer::Bind);
        let cases: &[(&str, bool, Expected)] = &[
            ("srv/app/new", false, Some(("new", None))),
            ("srv/app/a/b/new", false, Some(("a/b/new", None))),
            ("srv/app/a/../x", false, Some(("x", None))),
            ("srv/app/./a//b/", false, Some(("a/b", None))),
            ("srv/app", false, Some(("", None))),
            ("srv/app/a/..", false, Some(("", None))),
            ("srv", false, None),
            ("srv/other", false, None),
            ("srv/app-2", false, None),
            ("out/new", false, None),
            // Links on the way are followed, whoever asks.
            ("out/into/x", false, Some(("a/x", None))),
            ("out/into/../x", false, Some(("x", None))),
            ("srv/app/away/x", false, None),
            ("srv/app/away/../srv/app/x", false, Some(("x", None))),
            // A link at the end only by calls that follow.
            ("out/to-file", false, None),
            ("out/to-file", true, Some(("file", None))),
            ("out/into", true, Some(("a", None))),
            ("srv/app/away", false, Some(("away", None))),
            ("srv/app/away", true, None),
            ("srv/app/near", true, Some(("file", None))),
            ("srv/app/file", true, Some(("file", None))),
            // By other mounts.
            ("below/x", false, Some(("a/x", bound))),
            ("above/app/a/x", false, Some(("a/x", bound))),
            ("above/app", false, Some(("", bound))),
            ("above/x", false, None),
            ("srv/app/mnt/x", false, Some(("mnt/x", None))),
            ("srv/app/mnt", false, Some(("mnt", None))),
            // Gone since.
            ("srv/app/x/y/z", false, Some(("x/y/z", None))),
            ("srv/app/x/y/../z", false, Some(("x/z", None))),
            ("srv/app/x/../../new", false, None),
            ("srv/app/file/z", false, Some(("file/z", None))),
            ("srv/app/a/x/../../../new", false, None),
            ("out/x/../../srv/app/new", false, Some(("new", None))),
            ("gone/app/z", false, None),
        ];
        for (string, follow, expected) in cases {
            let string = dir.join(string);
            let expected = expected.map(|(rel, layer)| (rel.to_owned(), layer));
            // Twice: the second time from memory.
            for _ in 0..2 {
                assert_eq!(ask(&mut resolver, &call(&string, *follow)), expected, "{}", string.display());
            }
        }
        let dangling = root.join("dangling");
        assert_eq!(
            resolver.resolve(&call(&dangling, true), Instant::now()),
            Resolved::Unknown("the target of the symbolic link is gone")
        );
    });
}

/// In `/proc` the caller has our root directory, as after a chroot it may have had another one before.
#[test]
fn an_absolute_string_starts_from_the_root_directory_of_the_call() {
    in_private_namespace(|dir| {
        let root = furnish(dir);
        symlink("/srv/app/a", dir.join("out/absolute")).unwrap();
        let mut resolver = resolver(&[&root]);
        let own = mount_id(File::open(dir.join("srv")).unwrap()).unwrap();
        let mount = |fs_path| Base::Mount { mount_id: own, fs_path: Path::new(fs_path) };
        let home = Base::Root { root: RootRef { root: 0, alias: None }, rel: Path::new("a") };
        let cases: &[(Base<'_>, &str, Expected)] = &[
            (mount("/"), "/srv/app/x", Some(("x", None))),
            (mount("/"), "/out/x", None),
            (mount("/"), "/out/absolute/x", Some(("a/x", None))),
            (mount("/"), "/../../srv/app/x", Some(("x", None))),
            (mount("/srv"), "/app/x", Some(("x", None))),
            (mount("/srv"), "/x", None),
            (mount("/srv/app"), "/x", Some(("x", None))),
            (home, "/b/x", Some(("a/b/x", None))),
            (home, "/../x", Some(("a/x", None))),
        ];
        for (base, string, expected) in cases {
            let call = CallPath { base: *base, ..call(Path::new(string), false) };
            let expected = expected.map(|(rel, layer)| (rel.to_owned(), layer));
            assert_eq!(ask(&mut resolver, &call), expected, "{string} from {base:?}");
        }
    });
}

#[test]
fn relative_strings_and_the_base_itself() {
    in_private_namespace(|dir| {
        let root = furnish(dir);
        bind(&root, &dir.join("bound"));
        let mut resolver = resolver(&[&root]);
        let base_id = |path: &str| mount_id(File::open(dir.join(path)).unwrap()).unwrap();
        let (own, bound) = (base_id("srv"), base_id("bound"));
        let home = RootRef { root: 0, alias: None };
        let opened = File::open(root.join("a")).unwrap();
        let in_a = Base::Root { root: home, rel: Path::new("a") };
        let mount = |mount_id, fs_path| Base::Mount { mount_id, fs_path: Path::new(fs_path) };
        // The thread's own: unshare gave it a working directory of its own.
        std::env::set_current_dir(root.join("a")).unwrap();
        let cases: &[(Base<'_>, &str, Expected)] = &[
            (in_a, "x", Some(("a/x", None))),
            (in_a, "b/x", Some(("a/b/x", None))),
            (in_a, "../x", Some(("x", None))),
            (in_a, "../../x", None),
            (in_a, "", Some(("a", None))),
            (in_a, "gone/x", Some(("a/gone/x", None))),
            (mount(own, "/srv"), "app", Some(("", None))),
            (mount(own, "/srv"), "app/x", Some(("x", None))),
            (mount(own, "/out"), "into/x", Some(("a/x", None))),
            (mount(own, "/out"), "x", None),
            (mount(own, "/srv/app/removed"), "x", Some(("removed/x", None))),
            (mount(own, "/srv/app/removed"), "y/x", Some(("removed/y/x", None))),
            (mount(bound, "/srv/app"), "x", Some(("x", Some(Layer::Bind)))),
            (mount(bound, "/srv/app"), "a/x", Some(("a/x", Some(Layer::Bind)))),
            (Base::Fd(-100), "x", Some(("a/x", None))),
            (Base::Fd(-100), "../x", Some(("x", None))),
            (Base::Fd(opened.as_raw_fd()), "x", Some(("a/x", None))),
            (Base::Fd(opened.as_raw_fd()), "", Some(("a", None))),
        ];
        for (base, string, expected) in cases {
            let call = CallPath { base: *base, ..call(Path::new(string), false) };
            let expected = expected.map(|(rel, layer)| (rel.to_owned(), layer));
            assert_eq!(ask(&mut resolver, &call), expected, "{base:?} {string}");
        }
        // Removed under its user: the kernel says so behind the name.
        fs::remove_dir_all(root.join("a")).unwrap();
        let call = CallPath { base: Base::Fd(-100), ..call(Path::new("x"), false) };
        resolver.invalidate();
        assert_eq!(ask(&mut resolver, &call), Some(("a/x".to_owned(), None)));
        let unknown = CallPath { base: Base::Unknown, ..call };
        assert!(matches!(resolver.resolve(&unknown, Instant::now()), Resolved::Unknown(_)));
    });
}

#[test]
fn a_link_at_the_end_of_a_relative_string_is_followed_too() {
    in_private_namespace(|dir| {
        let root = furnish(dir);
        let mut resolver = resolver(&[&root]);
        let base = Base::Root { root: RootRef { root: 0, alias: None }, rel: Path::new("") };
        for (name, follow, expected) in
            [("near", true, Some("file")), ("near", false, Some("near")), ("away", true, None)]
        {
            let call = CallPath { base, ..call(Path::new(name), follow) };
            assert_eq!(ask(&mut resolver, &call).map(|(rel, _)| rel).as_deref(), expected, "{name}");
        }
    });
}

#[test]
fn the_callers_own_descriptors_in_proc() {
    in_private_namespace(|dir| {
        let root = furnish(dir);
        let mut resolver = resolver(&[&root]);
        let file = File::open(root.join("file")).unwrap();
        for prefix in ["/proc/self/fd", "/proc/thread-self/fd", "/dev/fd"] {
            let string = Path::new(prefix).join(file.as_raw_fd().to_string());
            assert_eq!(ask(&mut resolver, &call(&string, true)), Some(("file".to_owned(), None)), "{prefix}");
            assert_eq!(ask(&mut resolver, &call(&string, false)), None);
        }
    });
}

#[test]
fn layers_of_an_overlay_and_a_root_that_is_a_mount_point() {
    in_private_namespace(|dir| {
        let (merged, upper, lower) = (dir.join("m"), dir.join("u"), dir.join("l"));
        overlay(&merged, &upper, &[&lower]);
        let mut resolver = resolver(&[&merged]);
        for (string, expected) in [
            ("m/x", Some(("x", None))),
            ("m", Some(("", None))),
            ("u/d/x", Some(("d/x", Some(Layer::Upper)))),
            ("l/x", Some(("x", Some(Layer::Lower)))),
            ("l", Some(("", Some(Layer::Lower)))),
            ("x", None),
        ] {
            let expected = expected.map(|(rel, layer): (&str, _)| (rel.to_owned(), layer));
            assert_eq!(ask(&mut resolver, &call(&dir.join(string), false)), expected, "{string}");
        }
    });
}

#[test]
fn the_nearest_of_two_roots_is_meant() {
    in_private_namespace(|dir| {
        let root = furnish(dir);
        let inner = root.join("a");
        let mut resolver = resolver(&[&root, &inner]);
        for (string, index, rel) in [("x", 0, "x"), ("a/x", 1, "x"), ("a", 1, "")] {
            let string = root.join(string);
            let root = RootRef { root: index, alias: None };
            let expected = Resolved::Ours { root, rel: PathBuf::from(rel), layer: None };
            assert_eq!(resolver.resolve(&call(&string, false), Instant::now()), expected);
        }
    });
}

#[test]
fn a_verdict_is_kept_until_a_rename_or_its_time() {
    in_private_namespace(|dir| {
        let root = furnish(dir);
        let mut resolver = resolver(&[&root]);
        let string = dir.join("out/sub/x");
        let call = call(&string, false);
        let now = Instant::now();
        assert_eq!(resolver.resolve(&call, now), Resolved::NotOurs);
        fs::remove_dir(dir.join("out/sub")).unwrap();
        symlink(&root, dir.join("out/sub")).unwrap();
        assert_eq!(resolver.resolve(&call, now), Resolved::NotOurs);
        assert!(matches!(resolver.resolve(&call, now + CallResolver::TTL), Resolved::Ours { .. }));
        fs::remove_file(dir.join("out/sub")).unwrap();
        resolver.invalidate();
        assert_eq!(resolver.resolve(&call, now), Resolved::NotOurs);
    });
}
