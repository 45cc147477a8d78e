//! What wanted names lead to: a filter is about files whose content changes, by whatever name it changes.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::run::{Scratch, Watch, root};

/// Another link over a link, as the kubelet and deploy tools do it.
fn switch(link: &Path, target: impl AsRef<Path>) {
    let staging = link.with_file_name("..data_tmp");
    symlink(target, &staging).unwrap();
    fs::rename(staging, link).unwrap();
}

/// A file in a new version of a volume, which the volume leads to from then on.
fn version(volume: &Path, number: u32, file: &str, text: &str) {
    let name = format!("..2026_01_0{number}");
    let path = volume.join(&name).join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    let old = fs::read_link(volume.join("..data")).ok();
    switch(&volume.join("..data"), &name);
    if let Some(old) = old {
        fs::remove_dir_all(volume.join(old)).unwrap();
    }
}

/// The next reload is for these names alone.
fn reloads(watch: &mut Watch, names: &[&str]) {
    let line = watch.reload("started");
    assert_eq!(watch.names(&line), names, "{line}\nsaid {}", watch.said());
    watch.reload("done");
}

/// A change that is one: the next reload is for it alone, so what was done before was none.
fn nothing_but(watch: &mut Watch, marker: PathBuf) {
    let text = fs::read_to_string(&marker).unwrap_or_default() + "x";
    fs::write(&marker, text).unwrap();
    reloads(watch, &[marker.file_name().unwrap().to_str().unwrap()]);
}

#[test]
fn a_volume_reloads_by_the_content_of_the_chosen_files() {
    let filters: [&[&str]; 4] =
        [&["-e", "yaml"], &["-f", "*.yaml"], &["-f", "/app.yaml"], &["-e", "yaml", "-i", "..data"]];
    for (i, filter) in filters.into_iter().enumerate() {
        for file in ["app.yaml", "app.yaml/deep.yaml"] {
            if i == 2 && file != "app.yaml" {
                continue;
            }
            let scratch = Scratch::new("chosen-volume");
            let w = scratch.w();
            version(&w, 1, file, "one");
            symlink("..data/app.yaml", w.join("app.yaml")).unwrap();
            let mut watch = Watch::start(&[&["-p"], filter].concat(), &w, &["true"]);
            version(&w, 2, file, "two");
            reloads(&mut watch, &[file]);
            version(&w, 3, file, "three");
            reloads(&mut watch, &[file]);
            version(&w, 4, file, "three");
            let marker = if i == 2 { w.join("..2026_01_04/app.yaml") } else { w.join("marker.yaml") };
            if i == 2 {
                fs::write(marker, "four").unwrap();
                reloads(&mut watch, &[file]);
            } else {
                nothing_but(&mut watch, marker);
            }
            watch.end();
        }
    }
}

#[test]
fn a_link_to_a_file_outside_is_followed_to_its_content() {
    for channels in ["auto", "inotify"] {
        let scratch = Scratch::new("sites");
        let (enabled, available) = (scratch.w(), scratch.0.join("available"));
        fs::create_dir_all(available.join("real")).unwrap();
        fs::write(available.join("real/x"), "one").unwrap();
        symlink("real/x", available.join("x")).unwrap();
        symlink("../available/x", enabled.join("x")).unwrap();
        fs::write(available.join("y"), "one").unwrap();
        let mut watch = Watch::start(&["-p", "--channels", channels], &enabled, &["true"]);
        let target = available.join("real/x");
        fs::write(&target, "two").unwrap();
        reloads(&mut watch, &["x"]);
        // An editor's save by rename, then the same content.
        fs::write(available.join("real/new"), "three").unwrap();
        fs::rename(available.join("real/new"), &target).unwrap();
        reloads(&mut watch, &["x"]);
        fs::write(&target, "three").unwrap();
        fs::write(available.join("real/other"), "no name leads here").unwrap();
        watch.nothing_but_a_marker();
        // A link outside that leads elsewhere now.
        switch(&available.join("x"), available.join("y"));
        reloads(&mut watch, &["x"]);
        fs::write(available.join("y"), "four").unwrap();
        reloads(&mut watch, &["x"]);
        fs::write(&target, "not any more").unwrap();
        watch.nothing_but_a_marker();
        // Gone, and back.
        fs::remove_file(available.join("y")).unwrap();
        reloads(&mut watch, &["x"]);
        fs::write(available.join("y"), "five").unwrap();
        reloads(&mut watch, &["x"]);
        watch.end();
    }
}

#[test]
fn links_that_come_while_hotr_runs_are_followed() {
    let scratch = Scratch::new("coming");
    let (w, outside) = (scratch.w(), scratch.0.join("outside"));
    fs::create_dir(&outside).unwrap();
    symlink(outside.join("late.conf"), w.join("dangling.conf")).unwrap();
    let mut watch = Watch::start(&["-p", "-e", "conf"], &w, &["true"]);
    fs::write(outside.join("late.conf"), "one").unwrap();
    reloads(&mut watch, &["dangling.conf"]);
    fs::write(outside.join("a"), "one").unwrap();
    symlink(outside.join("a"), w.join("a.conf")).unwrap();
    reloads(&mut watch, &["a.conf"]);
    fs::write(outside.join("a"), "two").unwrap();
    reloads(&mut watch, &["a.conf"]);
    // Its name fits nothing, but what it leads to does.
    fs::create_dir(outside.join("more")).unwrap();
    fs::write(outside.join("more/b.conf"), "one").unwrap();
    symlink(outside.join("more"), w.join("dir")).unwrap();
    reloads(&mut watch, &["dir/b.conf"]);
    watch.end();
}

#[test]
fn a_link_to_a_directory_outside_is_followed() {
    for filter in [&["-p"][..], &["-p", "-e", "conf"]] {
        let scratch = Scratch::new("dirs");
        let (w, outside) = (scratch.w(), scratch.0.join("outside"));
        fs::create_dir_all(outside.join("sub")).unwrap();
        fs::write(outside.join("a.conf"), "one").unwrap();
        fs::write(outside.join("sub/b.conf"), "one").unwrap();
        symlink(&outside, w.join("conf.d")).unwrap();
        // Neither is gone through for ever.
        symlink(".", w.join("self")).unwrap();
        symlink(&w, outside.join("sub/back")).unwrap();
        let mut watch = Watch::start(filter, &w, &["true"]);
        for (path, name) in [
            ("a.conf", "conf.d/a.conf"),
            ("sub/b.conf", "conf.d/sub/b.conf"),
            ("new.conf", "conf.d/new.conf"),
        ] {
            fs::write(outside.join(path), "two").unwrap();
            reloads(&mut watch, &[name]);
        }
        fs::remove_file(outside.join("new.conf")).unwrap();
        reloads(&mut watch, &["conf.d/new.conf"]);
        watch.end();
    }
}

#[test]
fn what_is_left_out_counts_where_a_wanted_name_leads_to_it() {
    let scratch = Scratch::new("releases");
    let w = scratch.w();
    scratch.file("releases/1/app.conf", "one");
    scratch.file("releases/2/app.conf", "two");
    symlink("releases/1", w.join("current")).unwrap();
    let mut watch = Watch::start(&["-p", "-e", "conf", "-i", "releases"], &w, &["true"]);
    scratch.file("releases/1/app.conf", "one and a half");
    reloads(&mut watch, &["current/app.conf"]);
    switch(&w.join("current"), "releases/2");
    reloads(&mut watch, &["current/app.conf"]);
    scratch.file("releases/1/app.conf", "old");
    nothing_but(&mut watch, w.join("marker.conf"));
    watch.end();
}

#[test]
fn another_hard_link_of_a_wanted_file_is_that_file() {
    for channels in ["auto", "inotify"] {
        let scratch = Scratch::new("hard");
        let w = scratch.w();
        let outside = scratch.0.join("outside");
        fs::write(&outside, "one").unwrap();
        fs::hard_link(&outside, w.join("a.conf")).unwrap();
        fs::hard_link(&outside, w.join("a.txt")).unwrap();
        scratch.file("b.conf", "one");
        let mut watch = Watch::start(&["-p", "-e", "conf", "--channels", channels], &w, &["true"]);
        for path in [&outside, &w.join("a.txt"), &w.join("a.conf")] {
            fs::write(path, path.to_str().unwrap()).unwrap();
            reloads(&mut watch, &["a.conf"]);
        }
        // A link that is made while hotr runs.
        fs::hard_link(w.join("b.conf"), w.join("b.txt")).unwrap();
        watch.until_said(" content unchanged");
        fs::write(w.join("b.txt"), "two").unwrap();
        reloads(&mut watch, &["b.conf"]);
        // The file at the name is another one from now on.
        scratch.file("new", "three");
        fs::rename(w.join("new"), w.join("a.conf")).unwrap();
        reloads(&mut watch, &["a.conf"]);
        fs::write(&outside, "not any more").unwrap();
        nothing_but(&mut watch, w.join("marker.conf"));
        watch.end();
    }
}

/// Who owns the tree would learn when a file changes that only root can read.
#[test]
fn a_link_of_another_user_to_what_is_not_his_is_said_and_not_followed() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("stranger");
    let (w, secret) = (scratch.w(), scratch.0.join("secret"));
    fs::write(&secret, "one").unwrap();
    symlink(&secret, w.join("mine")).unwrap();
    std::os::unix::fs::lchown(w.join("mine"), Some(1234), None).unwrap();
    symlink("mine", w.join("chain")).unwrap();
    let mut watch = Watch::start(&["-p"], &w, &["true"]);
    watch.until_said("mine is a symbolic link of user 1234");
    fs::write(&secret, "two").unwrap();
    watch.nothing_but_a_marker();
    watch.end();
}

#[test]
fn a_link_in_the_place_of_a_directory_takes_no_file_away() {
    for inside in [false, true] {
        let scratch = Scratch::new("instead");
        let dir = scratch.w().join("d");
        scratch.file("d/f", "one");
        let moved = if inside { scratch.w().join("r1") } else { scratch.0.join("r1") };
        let mut watch = Watch::start(&["-p"], &scratch.w(), &["true"]);
        watch.at_once(|| {
            fs::rename(&dir, &moved).unwrap();
            symlink(&moved, &dir).unwrap();
        });
        let by_its_name: &[&str] = if inside { &["r1/f"] } else { &["d/f"] };
        reloads(&mut watch, if inside { &["d", "r1/f"] } else { &["d"] });
        fs::write(moved.join("f"), "two").unwrap();
        reloads(&mut watch, by_its_name);
        // And back again, with what was confirmed behind the link.
        watch.at_once(|| {
            fs::remove_file(&dir).unwrap();
            fs::rename(&moved, &dir).unwrap();
        });
        reloads(&mut watch, if inside { &["d", "d/f", "r1/f"] } else { &["d"] });
        fs::write(dir.join("f"), "three").unwrap();
        let line = watch.reload("started");
        assert_eq!((watch.names(&line), &line["changes"][0]["by"]), (vec!["d/f".into()], &"digest".into()));
        watch.reload("done");
        watch.nothing_but_a_marker();
        watch.end();
    }
}
