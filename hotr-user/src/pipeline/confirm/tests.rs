//! States before and after, without a kernel channel.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use super::*;

struct Scene(PathBuf);

impl Scene {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("hotr-confirm-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn knowing(path: &Path, options: ConfirmOptions) -> Confirmer {
    let mut confirmer = Confirmer::new(options, Roots::default());
    confirmer.learn(path, State::of(path, None, options));
    confirmer
}

#[test]
fn only_other_content_is_a_change() {
    for hash in [HashKind::Sha256, HashKind::Blake3] {
        let place = Scene::new("content");
        let file = place.0.join("f");
        fs::write(&file, "one").unwrap();
        let mut confirmer = knowing(&file, ConfirmOptions { hash, ..ConfirmOptions::default() });
        fs::File::options()
            .write(true)
            .open(&file)
            .unwrap()
            .set_modified(std::time::SystemTime::now())
            .unwrap();
        assert_eq!(confirmer.confirm(&file, false, &[]), None, "a touch");
        fs::write(&file, "one").unwrap();
        assert_eq!(confirmer.confirm(&file, false, &[]), None, "the same bytes");
        fs::remove_file(&file).unwrap();
        fs::write(&file, "one").unwrap();
        assert_eq!(confirmer.confirm(&file, false, &[]), None, "removed and made again");
        fs::write(&file, "two").unwrap();
        let change = confirmer.confirm(&file, false, &[]).unwrap();
        assert_eq!(
            (change.kind, change.by),
            (Kind::Written, Evidence::Digest),
            "as long, within the same tick"
        );
        assert_eq!(confirmer.confirm(&file, false, &[]), None, "confirmed once");
    }
}

#[test]
fn names_that_appear_and_go() {
    let place = Scene::new("names");
    let file = place.0.join("f");
    let mut confirmer = Confirmer::new(ConfirmOptions::default(), Roots::default());
    confirmer.baseline_complete();
    assert_eq!(confirmer.confirm(&file, false, &[]), None);
    fs::write(&file, "").unwrap();
    assert_eq!(confirmer.confirm(&file, false, &[]).unwrap().kind, Kind::Created);
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert_eq!(
        confirmer.confirm(&file, false, &[]).unwrap().kind,
        Kind::Removed,
        "a directory took its name"
    );
    fs::remove_dir(&file).unwrap();
    fs::write(&file, "").unwrap();
    assert_eq!(confirmer.confirm(&file, false, &[]).unwrap().kind, Kind::Created);
    fs::remove_file(&file).unwrap();
    symlink("a", &file).unwrap();
    assert_eq!(confirmer.confirm(&file, false, &[]).unwrap().by, Evidence::Name);
    fs::remove_file(&file).unwrap();
    symlink("b", &file).unwrap();
    assert_eq!(confirmer.confirm(&file, false, &[]).unwrap().kind, Kind::Link);
}

#[test]
fn a_terabyte_is_not_read() {
    let place = Scene::new("sparse");
    let path = place.0.join("f");
    let file = fs::File::create(&path).unwrap();
    file.set_len(1 << 40).unwrap();
    let mut confirmer = knowing(&path, ConfirmOptions::default());
    assert_eq!(confirmer.confirm(&path, false, &[]), None);
    file.set_len((1 << 40) + 1).unwrap();
    assert_eq!(confirmer.confirm(&path, false, &[]).unwrap().by, Evidence::SizeAndTime);
}

#[test]
fn what_was_forgotten_counts_as_changed() {
    let place = Scene::new("bound");
    let options = ConfirmOptions { entries: NonZeroUsize::MIN, ..ConfirmOptions::default() };
    let mut confirmer = Confirmer::new(options, Roots::default());
    confirmer.baseline_complete();
    for name in ["a", "b"] {
        fs::write(place.0.join(name), "x").unwrap();
        assert!(confirmer.confirm(&place.0.join(name), false, &[]).is_some());
    }
    assert_eq!(confirmer.len(), 1);
    assert_eq!(confirmer.confirm(&place.0.join("a"), false, &[]).unwrap().by, Evidence::Unknown);
}

#[test]
fn a_writer_is_noticed() {
    let place = Scene::new("writer");
    let path = place.0.join("f");
    let file = fs::File::create(&path).unwrap();
    let is_being_written = || {
        let roots = Roots::default();
        let (dir, name) = roots.spot(&path).unwrap();
        writers::is_being_written(&dir, name)
    };
    assert!(is_being_written());
    drop(file);
    assert!(!is_being_written());
}

#[test]
fn what_cannot_be_looked_at_is_unknown() {
    let place = Scene::new("unknown");
    let (dir, aside) = (place.0.join("d"), place.0.join("aside"));
    let file = dir.join("f");
    fs::create_dir(&dir).unwrap();
    fs::write(&file, "one").unwrap();
    let mut confirmer = knowing(&file, ConfirmOptions::default());
    confirmer.baseline_complete();
    fs::rename(&dir, &aside).unwrap();
    symlink("d", &dir).unwrap();
    let go_on = AtomicBool::new(false);
    for named in [false, true] {
        let now = confirmer.look(&file, named, None, &go_on);
        assert_eq!(now, State::Unknown(rustix::io::Errno::LOOP), "named: {named}");
        assert_eq!(confirmer.decide(&file, now, false, &[]), None);
    }
    fs::remove_file(&dir).unwrap();
    fs::rename(&aside, &dir).unwrap();
    assert_eq!(confirmer.confirm(&file, false, &[]), None, "compared with what was known before");
    fs::write(&file, "two").unwrap();
    assert_eq!(confirmer.confirm(&file, false, &[]).unwrap().by, Evidence::Digest);
    let long = place.0.join("x".repeat(256));
    assert_eq!(State::of(&long, None, confirmer.options()), State::Unknown(rustix::io::Errno::NAMETOOLONG));
    fs::remove_file(&file).unwrap();
    fs::remove_dir(&dir).unwrap();
    fs::write(&dir, "").unwrap();
    assert_eq!(confirmer.confirm(&file, false, &[]).unwrap().kind, Kind::Removed, "ENOTDIR: it has gone");
}

#[test]
fn what_is_behind_a_link_below_a_named_path_is_not_in_the_tree() {
    let place = Scene::new("link");
    let (dir, aside) = (place.0.join("w/d"), place.0.join("aside"));
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("f"), "one").unwrap();
    symlink("w", place.0.join("named")).unwrap();
    let path = place.0.join("named/d/f");
    let mut confirmer = Confirmer::new(ConfirmOptions::default(), Roots::from(vec![place.0.join("named")]));
    confirmer.baseline_complete();
    assert_eq!(
        confirmer.confirm(&path, false, &[]).unwrap().kind,
        Kind::Created,
        "its own links are followed"
    );
    fs::rename(&dir, &aside).unwrap();
    for target in [aside.as_path(), Path::new("d")] {
        symlink(target, &dir).unwrap();
        assert_eq!(confirmer.look(&path, false, None, &AtomicBool::new(false)), State::Absent);
        fs::remove_file(&dir).unwrap();
    }
    fs::rename(&aside, &dir).unwrap();
    assert_eq!(confirmer.confirm(&path, false, &[]), None);
}

#[test]
fn a_pipe_is_neither_read_nor_waited_for() {
    let place = Scene::new("pipe");
    let (pipe, link) = (place.0.join("pipe"), place.0.join("link"));
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    symlink("pipe", &link).unwrap();
    let (options, go_on) = (ConfirmOptions::default(), AtomicBool::new(false));
    for path in [&pipe, &link] {
        assert_eq!(State::look_named(path, None, options, &go_on), State::Other);
    }
    assert_eq!(State::of(&pipe, None, options), State::Other);
    // Nobody has opened it: a writer would find a reader.
    let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NONBLOCK;
    let writer = rustix::fs::open(&pipe, flags, rustix::fs::Mode::empty());
    assert_eq!(writer.unwrap_err(), rustix::io::Errno::NXIO);
    let file = place.0.join("f");
    fs::write(&file, "one").unwrap();
    fs::remove_file(&link).unwrap();
    symlink("f", &link).unwrap();
    assert_eq!(State::look_named(&link, None, options, &go_on), State::of(&file, None, options));
}

/// Looks at a tree whose owner does this when its names are listed; the states that are reported, and whether they are
/// all.
fn baseline(root: &Path, meanwhile: impl Fn(&Path) + Send + 'static) -> (Vec<(PathBuf, State)>, bool) {
    let wanted = move |path: &Path, _: bool| {
        meanwhile(path);
        true
    };
    let options = ConfirmOptions::default();
    let mut baseline = baseline::Baseline::start(vec![root.to_owned()], i64::MAX, options, wanted).unwrap();
    let mut told = Vec::new();
    loop {
        match baseline.next_now() {
            Some(baseline::Message::States(states)) => told.extend(states),
            Some(baseline::Message::End { complete, .. }) => return (told, complete),
            None => std::thread::yield_now(),
        }
    }
}

#[test]
fn a_directory_that_is_swapped_while_the_tree_is_read_leads_nowhere() {
    for when in ["d", "d/f"] {
        let place = Scene::new(if when == "d" { "swap-dir" } else { "swap-file" });
        let (root, other) = (place.0.join("w"), place.0.join("other"));
        for (dir, text) in [(root.join("d"), "one"), (other.clone(), "secret")] {
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("f"), text).unwrap();
        }
        let file = State::of(&root.join("d/f"), None, ConfirmOptions::default());
        assert_eq!(baseline(&root, |_| ()), (vec![(root.join("d/f"), file.clone())], true));
        let (dir, moved, at) = (root.join("d"), place.0.join("moved"), root.join(when));
        let (told, complete) = baseline(&root, move |path| {
            if path == at {
                fs::rename(&dir, &moved).unwrap();
                symlink(&other, &dir).unwrap();
            }
        });
        // Either it was held already, or it is not there any more.
        let expected = if when == "d" { vec![] } else { vec![(root.join("d/f"), file)] };
        assert_eq!((told, complete), (expected, when != "d"), "{when}");
    }
}
