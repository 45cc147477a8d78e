//! Two names change their files in one step (`RENAME_EXCHANGE`): each name has another type before than after.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::inject::Held;
use super::run::{Scratch, Watch, root};

/// All that can run in this build.
fn channels() -> &'static [&'static str] {
    if cfg!(hotr_without_ebpf) || !root() { &["inotify"] } else { &["auto", "ebpf", "inotify"] }
}

fn exchange(one: &Path, other: &Path) {
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
}

/// Paths below the watched directory with what became of them, in the order of the paths.
fn kinds(line: &serde_json::Value, w: &Path) -> Vec<String> {
    let mut all: Vec<String> = line["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| {
            let path = Path::new(change["path"].as_str().unwrap()).strip_prefix(w).unwrap();
            format!("{} {}", path.display(), change["kind"].as_str().unwrap())
        })
        .collect();
    all.sort();
    all
}

/// The next reload is for these, whatever the kind of a name that is new.
fn reloads(watch: &mut Watch, w: &Path, expected: &[&str]) {
    let line = watch.reload("started");
    let found: Vec<String> = kinds(&line, w).iter().map(|kind| kind.replace("renamed", "created")).collect();
    assert_eq!(found, expected, "{line}\nsaid {}", watch.said());
    watch.reload("done");
}

struct Scene {
    scratch: Scratch,
    w: PathBuf,
}

impl Scene {
    /// A file, and a directory with files at two depths.
    fn new() -> Self {
        let scratch = Scratch::new("exchange");
        let w = scratch.w();
        scratch.file("conf.yaml", "file");
        scratch.file("dir/a.yaml", "a");
        scratch.file("dir/sub/b.yaml", "b");
        scratch.file("dir/c.txt", "c");
        Self { scratch, w }
    }
}

#[test]
fn a_file_and_a_directory() {
    for channels in channels() {
        for (filter, turned) in
            [(&[][..], false), (&[], true), (&["-e", "yaml"], false), (&["-e", "yaml"], true)]
        {
            let Scene { scratch: _scratch, w } = Scene::new();
            let (file, dir) = (w.join("conf.yaml"), w.join("dir"));
            let args = [&["-p", "--no-poll", "--channels", channels], filter].concat();
            let mut watch = Watch::start(&args, &w, &["true"]);
            let (one, other) = if turned { (&dir, &file) } else { (&file, &dir) };
            let all = filter.is_empty();
            let only = |names: &[&'static str], and: &[&'static str]| -> Vec<&'static str> {
                let mut names: Vec<_> = names.iter().chain(and.iter().filter(|_| all)).copied().collect();
                names.sort_unstable();
                names
            };
            exchange(one, other);
            let there = only(
                &[
                    "conf.yaml removed",
                    "conf.yaml/a.yaml created",
                    "conf.yaml/sub/b.yaml created",
                    "dir/a.yaml removed",
                    "dir/sub/b.yaml removed",
                ],
                &["conf.yaml/c.txt created", "dir created", "dir/c.txt removed"],
            );
            reloads(&mut watch, &w, &there);
            // What is there now is watched under its names of now.
            fs::write(w.join("conf.yaml/sub/b.yaml"), "bb").unwrap();
            reloads(&mut watch, &w, &["conf.yaml/sub/b.yaml written"]);
            if all {
                fs::write(&dir, "filefile").unwrap();
                reloads(&mut watch, &w, &["dir written"]);
            }
            exchange(one, other);
            let back = only(
                &[
                    "conf.yaml created",
                    "conf.yaml/a.yaml removed",
                    "conf.yaml/sub/b.yaml removed",
                    "dir/a.yaml created",
                    "dir/sub/b.yaml created",
                ],
                &["conf.yaml/c.txt removed", "dir removed", "dir/c.txt created"],
            );
            reloads(&mut watch, &w, &back);
            fs::write(dir.join("a.yaml"), "aa").unwrap();
            reloads(&mut watch, &w, &["dir/a.yaml written"]);
            watch.end();
        }
    }
}

#[test]
fn two_directories_and_two_files() {
    for channels in channels() {
        let Scene { scratch, w } = Scene::new();
        scratch.file("other/a.yaml", "another");
        scratch.file("other/z.yaml", "z");
        scratch.file("z.yaml", "z");
        let mut watch =
            Watch::start(&["-p", "--no-poll", "-e", "yaml", "--channels", channels], &w, &["true"]);
        exchange(&w.join("dir"), &w.join("other"));
        let expected = [
            "dir/a.yaml written",
            "dir/sub/b.yaml removed",
            "dir/z.yaml created",
            "other/a.yaml written",
            "other/sub/b.yaml created",
            "other/z.yaml removed",
        ];
        reloads(&mut watch, &w, &expected);
        exchange(&w.join("conf.yaml"), &w.join("z.yaml"));
        reloads(&mut watch, &w, &["conf.yaml written", "z.yaml written"]);
        watch.end();
    }
}

#[test]
fn a_link_and_a_directory() {
    for channels in channels() {
        for turned in [false, true] {
            let Scene { scratch: _scratch, w } = Scene::new();
            fs::create_dir(w.join("real")).unwrap();
            fs::write(w.join("real/r.yaml"), "r").unwrap();
            let (link, dir) = (w.join("current"), w.join("dir"));
            symlink("real", &link).unwrap();
            let args = ["-p", "--no-poll", "-e", "yaml", "--channels", channels];
            let mut watch = Watch::start(&args, &w, &["true"]);
            let (one, other) = if turned { (&dir, &link) } else { (&link, &dir) };
            exchange(one, other);
            let line = watch.reload("started");
            let found: Vec<String> =
                kinds(&line, &w).iter().map(|kind| kind.replace("renamed", "created")).collect();
            for name in [
                "current/a.yaml created",
                "current/sub/b.yaml created",
                "dir/a.yaml removed",
                "dir/sub/b.yaml removed",
            ] {
                assert!(found.contains(&name.to_owned()), "{name} in {found:?}");
            }
            watch.reload("done");
            fs::write(w.join("current/sub/b.yaml"), "bb").unwrap();
            reloads(&mut watch, &w, &["current/sub/b.yaml written"]);
            watch.end();
        }
    }
}

/// One of the names is outside the watched tree.
#[test]
fn a_name_outside() {
    for channels in channels() {
        for turned in [false, true] {
            let Scene { scratch, w } = Scene::new();
            let outside = scratch.0.join("outside");
            fs::create_dir_all(outside.join("sub")).unwrap();
            fs::write(outside.join("sub/new.yaml"), "new").unwrap();
            let file = scratch.0.join("file.yaml");
            fs::write(&file, "from outside").unwrap();
            let args = ["-p", "--no-poll", "-e", "yaml", "--channels", channels];
            let mut watch = Watch::start(&args, &w, &["true"]);
            let swap = |inside: &Path, outside: &Path| match turned {
                true => exchange(outside, inside),
                false => exchange(inside, outside),
            };
            let conf = w.join("conf.yaml");
            swap(&conf, &outside);
            reloads(&mut watch, &w, &["conf.yaml removed", "conf.yaml/sub/new.yaml created"]);
            swap(&conf, &outside);
            reloads(&mut watch, &w, &["conf.yaml created", "conf.yaml/sub/new.yaml removed"]);
            swap(&w.join("dir"), &file);
            reloads(&mut watch, &w, &["dir/a.yaml removed", "dir/sub/b.yaml removed"]);
            fs::write(w.join("conf.yaml"), "more").unwrap();
            reloads(&mut watch, &w, &["conf.yaml written"]);
            swap(&w.join("dir"), &file);
            reloads(&mut watch, &w, &["dir/a.yaml created", "dir/sub/b.yaml created"]);
            watch.end();
        }
    }
}

/// Rules that a directory brings with it hold for what it holds, and go with it.
#[test]
fn rules_come_and_go_with_a_directory() {
    for channels in channels() {
        for turned in [false, true] {
            let Scene { scratch, w } = Scene::new();
            scratch.file("dir/.gitignore", "c.txt\n");
            scratch.file("dir2/c.txt", "c");
            scratch.file("sub", "a file");
            let args = ["-p", "--no-poll", "--channels", channels];
            let mut watch = Watch::start(&args, &w, &["true"]);
            let (file, dir) = (w.join("sub"), w.join("dir"));
            let (one, other) = if turned { (&dir, &file) } else { (&file, &dir) };
            exchange(one, other);
            let line = watch.reload("started");
            assert!(!line.to_string().contains("sub/c.txt"), "{line}");
            watch.reload("done");
            fs::write(w.join("sub/c.txt"), "of no interest").unwrap();
            watch.nothing_but_a_marker();
            // Another directory takes the name, without those rules.
            exchange(&w.join("sub"), &w.join("dir2"));
            let line = watch.reload("started");
            assert!(line.to_string().contains("sub/c.txt"), "{line}");
            watch.reload("done");
            fs::write(w.join("sub/c.txt"), "of interest").unwrap();
            reloads(&mut watch, &w, &["sub/c.txt written"]);
            watch.end();
        }
    }
}

/// What no channel reports, the next look finds: the poller sees a name whose type changed.
#[test]
fn found_by_a_look_alone() {
    if cfg!(hotr_without_ebpf) || !root() {
        return;
    }
    for turned in [false, true] {
        let Scene { scratch: _scratch, w } = Scene::new();
        let (file, dir) = (w.join("conf.yaml"), w.join("dir"));
        let mut watch = Watch::start(&["-p", "-e", "yaml"], &w, &["true"]);
        let held = Held::hold(watch.pid());
        held.detach_programs();
        held.drop_watches();
        drop(held);
        let (one, other) = if turned { (&dir, &file) } else { (&file, &dir) };
        exchange(one, other);
        let expected = [
            "conf.yaml removed",
            "conf.yaml/a.yaml created",
            "conf.yaml/sub/b.yaml created",
            "dir/a.yaml removed",
            "dir/sub/b.yaml removed",
        ];
        reloads(&mut watch, &w, &expected);
        watch.end();
    }
}

/// Nobody can look at a directory that is gone by the time its move is read: what it took is known by its former name.
#[test]
fn a_directory_that_is_gone_when_its_move_is_read() {
    for channels in channels() {
        for away in ["w/away", "away"] {
            let Scene { scratch, w } = Scene::new();
            let away = scratch.0.join(away);
            let args = ["-p", "--no-poll", "-e", "yaml", "--channels", channels];
            let mut watch = Watch::start(&args, &w, &["true"]);
            watch.at_once(|| {
                fs::rename(w.join("dir"), &away).unwrap();
                fs::remove_dir_all(&away).unwrap();
            });
            reloads(&mut watch, &w, &["dir/a.yaml removed", "dir/sub/b.yaml removed"]);
            watch.end();
        }
    }
}
