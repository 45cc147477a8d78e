//! What git itself says is the right value: rules are compared with `git check-ignore`.
// size: one table of patterns, one of cases, and what builds their trees

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::rules::{Notices, Rules};

struct Scene(PathBuf);

impl Drop for Scene {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
    }
}

impl Scene {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("hotr-git-{name}-{}", std::process::id()));
        let _gone = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        Self(dir.canonicalize().unwrap())
    }

    fn repository(name: &str) -> Self {
        let scene = Self::new(name);
        scene.git(&["init", "-q", "."]);
        scene
    }

    fn git(&self, args: &[&str]) {
        assert!(git(&self.0).args(args).status().unwrap().success(), "{args:?}");
    }

    fn file(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// Ignored or not, of a path below the root.
    fn ignores(&self, root: &str, path: &str) -> bool {
        let path = self.0.join(path);
        let root = self.0.join(root);
        rules(&root).ignore(path.strip_prefix(&root).unwrap(), path.is_dir())
    }
}

fn rules(root: &Path) -> Rules {
    Rules::new(root.to_owned(), Notices::default())
}

fn git(dir: &Path) -> Command {
    let mut git = Command::new("git");
    git.arg("-C").arg(dir).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    git
}

/// Paths below a working tree that git ignores, of these.
fn by_git(top: &Path, paths: &[PathBuf]) -> BTreeSet<PathBuf> {
    let mut git = git(top)
        .args(["check-ignore", "--no-index", "-z", "--stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = git.stdin.take().unwrap();
    let asked: Vec<u8> =
        paths.iter().flat_map(|path| [path.as_os_str().as_bytes(), b"\0"].concat()).collect();
    let writer = std::thread::spawn(move || stdin.write_all(&asked).unwrap());
    let said = git.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(matches!(said.status.code(), Some(0 | 1)), "{said:?}");
    let ignored = said.stdout.split(|byte| *byte == 0).filter(|path| !path.is_empty());
    ignored.map(|path| PathBuf::from(OsString::from_vec(path.to_vec()))).collect()
}

fn all(dir: &Path, top: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.file_name() == Some(OsStr::new(".git")) {
            continue;
        }
        paths.push(path.strip_prefix(top).unwrap().to_owned());
        if entry.file_type().unwrap().is_dir() {
            all(&path, top, paths);
        }
    }
}

/// A tree of names in which each pattern has something to match.
fn tree(scene: &Scene) -> Vec<PathBuf> {
    let names: [&[u8]; 14] = [
        b"a", b"b", b"ab", b"aab", b"a b", b"a ", b"{a,b}", b"#a", b"!a", b"x.c", b"[ab]", b"a\\b", b"A",
        b"\xff-]",
    ];
    for one in names {
        let dir = scene.0.join(OsStr::from_bytes(&[b"d-", one].concat()));
        let dirs =
            [dir.join("a"), dir.join("b/ab"), scene.0.join("a"), scene.0.join("b/a"), dir, scene.0.clone()];
        dirs.iter().for_each(|dir| fs::create_dir_all(dir).unwrap());
        for dir in dirs {
            let path = dir.join(OsStr::from_bytes(one));
            if !path.exists() {
                fs::write(&path, "").unwrap();
            }
        }
    }
    let mut paths = Vec::new();
    all(&scene.0, &scene.0, &mut paths);
    paths
}

fn compare(scene: &Scene, paths: &[PathBuf], what: &str) {
    let ignored = by_git(&scene.0, paths);
    let mut rules = rules(&scene.0);
    for path in paths {
        let is_dir = scene.0.join(path).symlink_metadata().unwrap().is_dir();
        assert_eq!(rules.ignore(path, is_dir), ignored.contains(path), "{path:?} by {what}");
    }
}

#[test]
fn lines_mean_what_git_means() {
    let scene = Scene::repository("lines");
    let paths = tree(&scene);
    for line in [
        "a",
        "/a",
        "a/",
        "/a/",
        "*",
        "*/",
        "/*",
        "*.c",
        "a*",
        "a?b",
        "[ab]",
        "[!a]",
        "[^a]b",
        "[a-b]*",
        "[b-a]",
        "[]-]",
        "\\[ab]",
        "[[]ab]",
        "[[:alpha:]]",
        "[[:upper:]]",
        "[[:foo:]]",
        "[[:alpha:]",
        "[a",
        "{a,b}",
        "\\{a,b}",
        "a b",
        "a\\ ",
        "a ",
        "a  ",
        "\\#a",
        "#a",
        "\\!a",
        "!a",
        "**",
        "**/a",
        "a/**",
        "b/**/ab",
        "**/b/ab",
        "a**",
        "a**b",
        "**a",
        "d-a/*",
        "d-*/a",
        "d-a/**/ab",
        "d-?/b/",
        "d-a/b",
        "b/a",
        "/b/a",
        "*/b/*",
        "d**/ab",
        "d-**/ab",
        "***/ab",
        "a\\\\b",
        "a\\b",
        "a\\",
        "\\a",
        "*\n!a",
        "d-a\n!d-a/a",
        "d-a/*\n!d-a/b",
        "/*\n!/d-a\n/d-a/*\n!/d-a/b",
        "!*\na",
        "a\r",
        "a\r\nb\r\n",
        "\u{feff}a",
        "a\0b",
        "/",
        "//",
        "a//b",
        "./a",
        "d-a/",
        "d-a//",
        "[a/b]",
        "d-[a/]a",
        "*[!c]",
        "**/",
        "/**",
        "/**/",
        "**/*",
        "a/*",
        "\\*",
        "?",
        "??",
        "[A-Z]",
        "[\\a]",
        "[\\]a]",
        "[a\\-b]",
        "[]]",
        "[!]]",
        "*\\",
        "[\\",
        "**\\/a",
    ] {
        scene.file(".gitignore", line);
        compare(&scene, &paths, &format!("{line:?}"));
    }
}

/// Rounds of [`random_rules_mean_what_git_means`]; more by hand.
fn rounds() -> u64 {
    std::env::var("HOTR_GIT_ROUNDS").ok().and_then(|word| word.parse().ok()).unwrap_or(300)
}

/// Files of rules by chance, at several levels and in `info/exclude`, the same in each run.
#[test]
fn random_rules_mean_what_git_means() {
    let scene = Scene::repository("random");
    let paths = tree(&scene);
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % u64::try_from(below).unwrap()).unwrap()
    };
    let parts: [&[u8]; 46] = [
        b"a",
        b"b",
        b"ab",
        b"d-a",
        b"d-",
        b"*",
        b"**",
        b"?",
        b"/",
        b"/",
        b"/",
        b"[ab]",
        b"[!a]",
        b"[a-",
        b"]",
        b"{a,b}",
        b"\\",
        b" ",
        b"\\ ",
        b"#",
        b"x.c",
        b"[[:alpha:]]",
        b"-",
        b"**/",
        b"/**/",
        b"***",
        b"[^a]",
        b"[]a]",
        b"[!]-a]",
        b"[[:",
        b":]",
        b"[[:digit:][:space:]]",
        b"[",
        b"\t",
        b"\r",
        b"A",
        b"\xff",
        b"\xc3\xa9",
        b"[\\]]",
        b"[a\\-z]",
        b"[z-a]",
        b"[/]",
        b"\\*",
        b"\\!",
        b"!",
        b".",
    ];
    let ends: [&[u8]; 8] = [b"\n", b"\n", b"/\n", b" \n", b"\r\n", b"\\\n", b"/**\n", b"\t\n"];
    let begins: [&[u8]; 6] = [b"", b"", b"!", b"/", b"**/", b"\xef\xbb\xbf"];
    for round in 0..rounds() {
        let mut text = String::new();
        for place in [".gitignore", "d-a/.gitignore", "b/.gitignore", "d-a/b/.gitignore", ".git/info/exclude"]
        {
            let mut lines = Vec::new();
            for _ in 0..next(4) {
                lines.extend_from_slice(begins[next(begins.len())]);
                (0..=next(5)).for_each(|_| lines.extend_from_slice(parts[next(parts.len())]));
                lines.extend_from_slice(ends[next(ends.len())]);
            }
            scene.file(place, &lines);
            text += &format!("{place}: \"{}\"; ", lines.escape_ascii());
        }
        compare(&scene, &paths, &format!("round {round}: {text}"));
    }
}

#[test]
fn a_named_directory_is_watched_whatever_is_said_about_it() {
    let scene = Scene::repository("named");
    scene.file("dist/app.js", "");
    scene.file("dist/app.log", "");
    scene.file("dist/deep/app.js", "");
    for line in [
        "dist",
        "dist/",
        "/dist",
        "/dist/",
        "dist/*",
        "/dist/**",
        "**/dist",
        "**/dist/**",
        "d*",
        "*",
        "/*",
        "d*\n!e",
        "dist\ndist/*",
    ] {
        scene.file(".gitignore", line);
        for path in ["dist/app.js", "dist/deep/app.js"] {
            assert!(!scene.ignores("dist", path), "{line:?}, {path}");
        }
        scene.file(".gitignore", format!("{line}\n*.log\n"));
        assert!(scene.ignores("dist", "dist/app.log"), "other rules hold inside: {line:?}");
    }
    // What git does not say of the directory holds in it.
    scene.file(".gitignore", "*\n!*/\n!*.js\n");
    assert!(scene.ignores("dist", "dist/app.log") && !scene.ignores("dist", "dist/deep/app.js"));
    scene.file(".gitignore", "dist/*.js\n");
    assert!(scene.ignores("dist", "dist/app.js") && !scene.ignores("dist", "dist/app.log"));
}

#[test]
fn worktrees_and_other_repositories_have_their_own_rules() {
    let scene = Scene::repository("trees");
    scene.git(&["-c", "user.name=x", "-c", "user.email=x@x", "commit", "-q", "--allow-empty", "-m", "x"]);
    scene.git(&["worktree", "add", "-q", "w"]);
    scene.git(&["init", "-q", "inner"]);
    scene.file(".gitignore", "*.log\n");
    scene.file(".git/info/exclude", "*.tmp\n");
    for name in ["w/d/a.log", "w/d/a.tmp", "inner/a.log", "inner/a.tmp", "a.log", "a.tmp"] {
        scene.file(name, "");
    }
    for root in ["w", "w/d"] {
        assert!(!scene.ignores(root, "w/d/a.log"), "the working tree above is another one");
        assert!(scene.ignores(root, "w/d/a.tmp"), "one info/exclude for all worktrees");
    }
    assert!(scene.ignores("", "a.log") && scene.ignores("", "a.tmp"));
    assert!(!scene.ignores("", "inner/a.log") && !scene.ignores("inner", "inner/a.tmp"));
}

#[test]
fn without_a_repository_rules_begin_at_the_root() {
    let scene = Scene::new("plain");
    scene.file(".gitignore", "b\n");
    scene.file("a/.gitignore", "c\n");
    fs::create_dir(scene.0.join(".git")).unwrap();
    for name in ["a/b", "a/c"] {
        scene.file(name, "");
    }
    assert!(!scene.ignores("a", "a/b") && scene.ignores("a", "a/c"));
    assert!(scene.ignores("", "a/b"));
}

#[test]
fn rules_that_are_no_plain_small_file_are_said_and_not_applied() {
    let scene = Scene::repository("odd");
    scene.file("a/f", "");
    let secret = scene.file("secret", "f\n");
    let place = scene.0.join("a/.gitignore");
    let odd: [(&str, &dyn Fn()); 5] = [
        ("symbolic link", &|| symlink(&secret, &place).unwrap()),
        ("not a regular file", &|| {
            rustix::fs::mknodat(rustix::fs::CWD, &place, rustix::fs::FileType::Fifo, 0o600.into(), 0)
                .unwrap();
        }),
        ("not a regular file", &|| fs::create_dir(&place).unwrap()),
        ("larger than", &|| fs::File::create(&place).unwrap().set_len(4 << 30).unwrap()),
        ("larger than", &|| fs::write(&place, "f\n".repeat(600_000)).unwrap()),
    ];
    for (why, make) in odd {
        make();
        let notices = Notices::default();
        let mut rules = Rules::new(scene.0.clone(), notices.clone());
        let began = Instant::now();
        assert!(!rules.ignore(Path::new("a/f"), false), "{why}");
        assert!(began.elapsed() < Duration::from_secs(5), "{why}");
        let said = notices.take();
        assert!(said.len() == 1 && said[0].contains(why) && said[0].contains("a/.gitignore"), "{said:?}");
        let _gone = fs::remove_file(&place).or_else(|_| fs::remove_dir(&place));
    }
    fs::write(&place, "f\n").unwrap();
    assert!(scene.ignores("", "a/f"));
}

/// Whoever owns the tree decides neither how much memory hotr takes nor how long it thinks about a path.
#[test]
fn many_files_of_rules_cost_a_bounded_time() {
    let scene = Scene::repository("many");
    let mut dir = PathBuf::new();
    for _ in 0..40 {
        dir.push("d");
        scene.file(dir.join(".gitignore").to_str().unwrap(), format!("{}\n", "*a".repeat(2000)).repeat(40));
    }
    scene.file("f/.gitignore", format!("{}f\nx\n", "?".repeat(5000)));
    let notices = Notices::default();
    let mut rules = Rules::new(scene.0.clone(), notices.clone());
    let began = Instant::now();
    assert!(!rules.ignore(&dir.join("a".repeat(255)), false));
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    let said = notices.take();
    assert!(
        said.len() >= 38 && said.iter().all(|one| one.contains("with the rules of directories above")),
        "{said:?}"
    );
    assert!(rules.ignore(Path::new("f/x"), false));
}

/// A directory that was replaced by a link: what is behind it says nothing.
#[test]
fn a_directory_that_became_a_link_is_not_followed() {
    let scene = Scene::repository("swapped");
    scene.file("a/f", "");
    scene.file("other/.gitignore", "f\n");
    scene.file("other/f", "");
    fs::rename(scene.0.join("a"), scene.0.join("b")).unwrap();
    symlink("other", scene.0.join("a")).unwrap();
    assert!(!scene.ignores("", "a/f") && scene.ignores("", "other/f"));
}

/// Somebody who can write in a directory above, such as /tmp, must not make hotr deaf; needs root.
#[test]
fn rules_from_above_count_only_from_who_may_decide() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let scene = Scene::repository("owners");
    scene.file(".gitignore", "*.conf\n");
    scene.file("app/a.conf", "");
    let own = |name: &str, uid| std::os::unix::fs::lchown(scene.0.join(name), Some(uid), None).unwrap();
    assert!(scene.ignores("app", "app/a.conf"));
    own(".gitignore", 1234);
    assert!(!scene.ignores("app", "app/a.conf"), "rules of a stranger");
    own("app", 1234);
    assert!(scene.ignores("app", "app/a.conf"), "rules of the directory's owner");
    own(".git", 1235);
    assert!(!scene.ignores("app", "app/a.conf"), "a repository of a stranger");
    // Nor may he lead to a repository of root.
    own(".git", 0);
    own(".gitignore", 0);
    fs::rename(scene.0.join(".git"), scene.0.join("kept")).unwrap();
    scene.file(".git", "gitdir: kept\n");
    assert!(scene.ignores("app", "app/a.conf"));
    own(".git", 1234);
    assert!(!scene.ignores("app", "app/a.conf"), "a pointer of a stranger");
}
