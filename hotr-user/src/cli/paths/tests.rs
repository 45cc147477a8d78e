//! Tables of paths, good and bad; no file is needed.

use super::*;

fn good() -> Facts {
    Facts {
        absolute: Some(PathBuf::from("/srv/a")),
        real: Ok(PathBuf::from("/data/a")),
        link: None,
        magic: 0xef53,
        readable: true,
    }
}

fn fails(errno: Errno) -> Facts {
    Facts { real: Err(errno.raw_os_error()), readable: false, ..good() }
}

fn verdict(path: &str, facts: &Facts) -> String {
    let result = check(Path::new(path), facts).and_then(|named| {
        refuse_pseudo(Path::new(path), facts)?;
        Ok(named)
    });
    match result {
        Ok(named) => format!("ok {}", named.display()),
        Err(error) => error.to_string(),
    }
}

#[test]
fn each_bad_path_is_told_with_its_cause_and_a_next_step() {
    let pseudo = |magic| Facts { magic, ..good() };
    let table = [
        ("a", good(), "ok /srv/a"),
        (
            "/x",
            fails(Errno::NOENT),
            "watch /x: no such file or directory; create it first, or name the directory in which it will appear",
        ),
        (
            "/x",
            Facts { link: Some(PathBuf::from("../y")), ..fails(Errno::NOENT) },
            "watch /x: a symbolic link to ../y, which does not exist; create its target, or name another path",
        ),
        (
            "/secret/x",
            fails(Errno::ACCESS),
            "watch /secret/x: permission denied; run as root, or get search permission on every directory of \
             the path",
        ),
        (
            "/root",
            Facts { readable: false, ..good() },
            "watch /root: permission denied; run as root, or get read permission (and search permission on \
             directories)",
        ),
        (
            "/etc/passwd/x",
            fails(Errno::NOTDIR),
            "watch /etc/passwd/x: a part of the path is not a directory; correct the path",
        ),
        ("/l", fails(Errno::LOOP), "watch /l: too many symbolic links, probably a loop; correct the links"),
        (
            "/long",
            fails(Errno::NAMETOOLONG),
            "watch /long: the path is too long (4095 bytes, 255 for each name); change to a directory on the \
             way and name the rest",
        ),
        ("", fails(Errno::NOENT), "watch : an empty path names nothing; name a directory, or . for this one"),
        ("a\0b", fails(Errno::INVAL), "watch a\0b: a path cannot contain a NUL byte; correct the path"),
        (
            "a",
            Facts { absolute: None, ..good() },
            "watch a: the current directory no longer exists; name an absolute path",
        ),
        (
            "/proc",
            pseudo(0x9fa0),
            "watch /proc: it is on procfs, where values change without a write that could be seen; read it \
             periodically instead, or name a path on another filesystem",
        ),
    ];
    for (path, facts, want) in table {
        assert_eq!(verdict(path, &facts), want);
    }
}

#[test]
fn pseudo_filesystems_have_names() {
    for (magic, want) in [
        (0x6265_6572, Some("sysfs")),
        (0x6462_6720, Some("debugfs")),
        (0x7472_6163, Some("tracefs")),
        (0x0027_e0eb, Some("cgroupfs")),
        (0x6367_7270, Some("cgroupfs")),
        (0xef53, None),
        (0x0102_1994, None),
    ] {
        assert_eq!(pseudo_fs(magic), want, "{magic:#x}");
    }
}

#[test]
fn roots_are_traced_once() {
    let merged = |roots: &[(&str, &str)], recursive| {
        let roots = roots.iter().map(|(named, real)| (PathBuf::from(named), PathBuf::from(real))).collect();
        let roots = merge(roots, recursive);
        let paths: Vec<_> = roots.paths.iter().map(|path| path.display().to_string()).collect();
        (paths.join(" "), roots.notes.join(" | "))
    };
    for (roots, recursive, paths, notes) in [
        (&[("/a", "/a"), ("/b", "/b")][..], true, "/a /b", ""),
        (&[("/a", "/a"), ("/a", "/a")], true, "/a", "/a is the same as /a; traced once, as /a"),
        (&[("/a", "/a"), ("/l", "/a")], false, "/a", "/l is the same as /a; traced once, as /a"),
        (&[("/a/b", "/a/b"), ("/a", "/a")], true, "/a", "/a/b is inside /a; traced once, as a part of /a"),
        (&[("/a/b", "/a/b"), ("/a", "/a")], false, "/a/b /a", ""),
        (&[("/a", "/a"), ("/ab", "/ab")], true, "/a /ab", ""),
        (&[("/a", "/a"), ("/a/l", "/data")], true, "/a /a/l", ""),
        (
            &[("/a", "/a"), ("/a/b", "/a/b"), ("/a/b", "/a/b")],
            true,
            "/a",
            "/a/b is inside /a; traced once, as a part of /a | /a/b is the same as /a/b; traced once, as /a/b",
        ),
    ] {
        assert_eq!(merged(roots, recursive), (paths.to_owned(), notes.to_owned()));
    }
}

#[test]
fn the_system_is_asked_about_links_as_named() {
    let dir = std::env::temp_dir().join(format!("hotr-paths-{}", std::process::id()));
    std::fs::create_dir_all(dir.join("real")).unwrap();
    std::os::unix::fs::symlink("real", dir.join("link")).unwrap();
    let roots = roots(&[dir.join("link")], true);
    let real = dir.join("real").canonicalize().unwrap();
    let facts = look(&dir.join("link"));
    std::fs::remove_dir_all(&dir).unwrap();
    assert_eq!(roots.unwrap().paths, [dir.join("link")]);
    assert_eq!(facts.real, Ok(real));
    assert_eq!(facts.link, Some(PathBuf::from("real")));
}
