//! The library: paths that are added to a running watch, and removed from it, on each set of channels.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use hotr_user::options::Channels;
use hotr_user::pipeline::confirm::{Confirmed, Evidence, Kind};
use hotr_user::watch::{Builder, Changes, PathError, WatchHandle};

use super::run::{Scratch, next_tick};

const EBPF: Channels = Channels { ebpf: true, inotify: false, required: true };
const INOTIFY: Channels = Channels { ebpf: false, inotify: true, required: true };

/// A watch of `one`, beside which there are other directories, and what it reports.
struct Scene {
    scratch: Scratch,
    changes: Changes,
    handle: WatchHandle,
    marks: u32,
}

impl Scene {
    /// None where these channels cannot run: not root, or a kernel without eBPF.
    fn start(name: &str, channels: Channels, debounce: Duration) -> Option<Self> {
        let scratch = Scratch::new(name);
        for file in ["one/a", "one/mark", "two/a", "three/a", "three/inner/a", "four/f", "four/g"] {
            scratch.file(file, "1");
        }
        next_tick();
        let builder = Builder::new(scratch.w().join("one")).channels(channels).debounce(debounce);
        let changes = match builder.whole_baseline(true).start_blocking() {
            Ok(changes) => changes,
            Err(error) => {
                assert!(channels.ebpf && !channels.inotify, "{error}");
                return None;
            }
        };
        let handle = changes.handle();
        Some(Self { scratch, changes, handle, marks: 1 })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.w().join(name)
    }

    /// Writes files by another process: what this one does, eBPF does not report.
    fn write(&self, text: &str, names: &[&str]) {
        let script = r#"text=$1; shift; for file; do printf %s "$text" > "$file"; done"#;
        self.run(Command::new("sh").args(["-c", script, "sh", text]).args(names));
    }

    fn run(&self, command: &mut Command) {
        assert!(command.current_dir(self.scratch.w()).status().unwrap().success());
    }

    /// Writes what a file holds already.
    fn write_again(&self, name: &str) {
        let text = fs::read_to_string(self.path(name)).unwrap();
        self.write(&text, &[name]);
    }

    fn add(&self, name: &str) {
        self.handle.add_path_blocking(self.path(name)).unwrap();
    }

    fn remove(&self, name: &str) {
        self.handle.remove_path_blocking(self.path(name)).unwrap();
    }

    /// What is reported until the mark is, which is written now.
    fn until_mark(&mut self) -> Vec<Confirmed> {
        self.marks += 1;
        let mark = self.path("one/mark");
        self.write(&self.marks.to_string(), &["one/mark"]);
        let mut all = Vec::new();
        loop {
            let Some(batch) = self.changes.next_blocking().unwrap().unwrap().into_batch() else { continue };
            all.extend(batch);
            let before = all.len();
            all.retain(|change| change.path != mark);
            if all.len() < before {
                return all;
            }
        }
    }

    /// Writes these files; each is reported, as content that differs from the one that was remembered, and nothing else is.
    fn reports(&mut self, names: &[&str]) {
        let text = format!("new {}", self.marks);
        self.write(&text, names);
        let mut told: Vec<_> = self.until_mark();
        told.sort_by(|one, other| one.path.cmp(&other.path));
        let told: Vec<_> = told.iter().map(|change| (change.kind, change.by, change.path.clone())).collect();
        let expected: Vec<_> =
            names.iter().map(|name| (Kind::Written, Evidence::Digest, self.path(name))).collect();
        assert_eq!(told, expected);
    }

    /// Writes these files, none of which is reported.
    fn is_silent(&mut self, names: &[&str]) {
        let text = format!("other {}", self.marks);
        self.write(&text, names);
        assert_eq!(self.until_mark(), []);
    }
}

fn on_all_channels(name: &str, debounce: Duration, mut test: impl FnMut(Scene, Channels)) {
    for channels in [Channels::AUTO, EBPF, INOTIFY] {
        if let Some(scene) = Scene::start(name, channels, debounce) {
            test(scene, channels);
        }
    }
}

#[test]
fn added_paths_are_compared_with_what_they_were_and_removed_ones_are_silent() {
    on_all_channels("edits", Duration::from_millis(50), |mut scene, _| {
        scene.is_silent(&["two/a", "three/a"]);
        next_tick();
        scene.add("two");
        // The same content is no change: it was remembered.
        scene.write_again("two/a");
        assert_eq!(scene.until_mark(), []);
        scene.reports(&["one/a", "two/a"]);
        scene.add("three");
        scene.reports(&["three/a", "three/inner/a", "two/a"]);
        scene.remove("two");
        scene.is_silent(&["two/a"]);
        scene.reports(&["three/a"]);
        next_tick();
        // What it is now counts, not what it was when it was removed.
        scene.add("two");
        scene.write_again("two/a");
        assert_eq!(scene.until_mark(), []);
        scene.reports(&["three/inner/a", "two/a"]);
        for name in ["three", "two"] {
            scene.remove(name);
        }
        scene.is_silent(&["two/a", "three/a", "three/inner/a", "four/f"]);
        scene.reports(&["one/a"]);
        // The last path too.
        scene.remove("one");
        scene.add("two");
        scene.add("one");
        scene.reports(&["one/a", "two/a"]);
    });
}

#[test]
fn a_file_is_added_by_its_name() {
    on_all_channels("edit-file", Duration::from_millis(50), |mut scene, _| {
        scene.add("four/f");
        scene.is_silent(&["four/g"]);
        scene.reports(&["four/f"]);
        scene.write("replaced", &["four/next"]);
        scene.run(Command::new("mv").args(["four/next", "four/f"]));
        let told = scene.until_mark();
        assert_eq!(
            told.iter().map(|it| (it.kind, it.path.clone())).collect::<Vec<_>>(),
            [(Kind::Written, scene.path("four/f"))]
        );
        // Two files of a directory: one of them is removed.
        next_tick();
        scene.add("four/g");
        scene.reports(&["four/f", "four/g"]);
        scene.remove("four/f");
        scene.is_silent(&["four/f"]);
        scene.reports(&["four/g"]);
    });
}

#[test]
fn paths_inside_others_are_watched_until_both_are_removed() {
    on_all_channels("edit-overlap", Duration::from_millis(50), |mut scene, _| {
        scene.add("three/inner");
        scene.is_silent(&["three/a"]);
        scene.reports(&["three/inner/a"]);
        next_tick();
        scene.add("three");
        scene.reports(&["three/a", "three/inner/a"]);
        scene.remove("three/inner");
        scene.reports(&["three/a", "three/inner/a"]);
        scene.add("three/inner");
        scene.remove("three");
        scene.is_silent(&["three/a"]);
        scene.reports(&["three/inner/a"]);
        scene.remove("three/inner");
        scene.is_silent(&["three/a", "three/inner/a"]);
    });
}

#[test]
fn a_removal_drops_what_waits_for_its_batch() {
    // Nothing but the mark ends the wait.
    on_all_channels("edit-pending", Duration::from_secs(2), |mut scene, _| {
        scene.add("two");
        scene.add("three");
        scene.write("pending", &["one/a", "two/a", "three/a"]);
        scene.remove("two");
        let told: Vec<PathBuf> = scene.until_mark().into_iter().map(|change| change.path.clone()).collect();
        assert_eq!(told, [scene.path("one/a"), scene.path("three/a")]);
    });
}

#[test]
fn what_cannot_be_added_or_removed_says_why_and_changes_nothing() {
    on_all_channels("edit-errors", Duration::from_millis(50), |mut scene, channels| {
        let (one, two, missing) = (scene.path("one"), scene.path("two"), scene.path("missing"));
        let handle = scene.handle.clone();
        let said = |answer: Result<(), PathError>| answer.unwrap_err().to_string();
        assert!(
            matches!(handle.add_path_blocking(&one), Err(PathError::AlreadyWatched { path, .. }) if path == one)
        );
        assert!(
            matches!(handle.add_path_blocking(&missing), Err(PathError::Missing { path, .. }) if path == missing)
        );
        assert!(
            matches!(handle.remove_path_blocking(&two), Err(PathError::NotWatched { path, .. }) if path == two)
        );
        if channels.inotify {
            let proc = Path::new("/proc/self");
            assert!(
                matches!(handle.add_path_blocking(proc), Err(PathError::NotCovered { path, .. }) if path == proc)
            );
            let said = said(handle.add_path_blocking(proc));
            assert!(said.starts_with("watch /proc/self: it is on proc"), "{said}");
        }
        for said in [said(handle.add_path_blocking(&missing)), said(handle.remove_path_blocking(&two))] {
            assert!(said.contains(": ") && said.contains("; ") && !said.contains('\n'), "{said}");
        }
        scene.reports(&["one/a"]);
        scene.is_silent(&["two/a"]);
        drop(scene.changes);
        // Its thread ends soon; until then it answers as before.
        super::run::until("the handle of an ended watch says so", || {
            handle.add_path_blocking(&one) == Err(PathError::Ended)
        });
    });
}

#[tokio::test]
async fn paths_are_added_while_nobody_takes_events() {
    let Some(scene) = Scene::start("edit-untaken", Channels::AUTO, Duration::from_millis(1)) else { return };
    for round in 0..200 {
        // More batches than there is room for.
        scene.write(&format!("round {round}"), &["one/a"]);
        if round % 20 == 0 {
            scene.handle.add_path(scene.path("two")).await.unwrap();
            scene.handle.remove_path(scene.path("two")).await.unwrap();
        }
    }
}
