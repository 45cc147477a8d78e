//! Links that lead elsewhere: Kubernetes' `..data`, and releases behind `current`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::run::{Scratch, Watch};

/// As the kubelet does it (AtomicWriter): a new directory, a new link over the old one, the old directory removed.
fn kubelet(volume: &Path, number: u32) {
    let name = format!("..2026_01_0{number}");
    fs::create_dir(volume.join(&name)).unwrap();
    fs::write(volume.join(&name).join("app.yaml"), format!("version {number}")).unwrap();
    symlink(&name, volume.join("..data_tmp")).unwrap();
    let old = fs::read_link(volume.join("..data")).ok();
    fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
    if let Some(old) = old {
        fs::remove_dir_all(volume.join(old)).unwrap();
    }
}

fn volume(scratch: &Scratch) -> std::path::PathBuf {
    let volume = scratch.w();
    kubelet(&volume, 1);
    symlink("..data/app.yaml", volume.join("app.yaml")).unwrap();
    volume
}

#[test]
fn a_kubernetes_volume_swaps_twice() {
    let scratch = Scratch::new("volume");
    let volume = volume(&scratch);
    let mut watch = Watch::start(&["-p"], &volume, &["true"]);
    for number in 2..4 {
        kubelet(&volume, number);
        let line = watch.reload("started");
        assert_eq!(
            (watch.names(&line), &line["changes"][0]["kind"]),
            (vec!["..data".to_owned()], &"link".into())
        );
        watch.reload("done");
    }
    watch.nothing_but_a_marker();
    watch.end();
}

#[test]
fn a_file_behind_a_swapped_link_reloads_twice() {
    let scratch = Scratch::new("behind");
    let volume = volume(&scratch);
    let out = scratch.0.join("out");
    let copy =
        format!("cat {} >> {}; echo >> {}", volume.join("app.yaml").display(), out.display(), out.display());
    let mut watch = Watch::start(&["-p"], &volume.join("app.yaml"), &["sh", "-c", &copy]);
    for number in 2..4 {
        kubelet(&volume, number);
        let line = watch.reload("started");
        assert_eq!(line["changes"].as_array().unwrap().len(), 1, "{line}");
        watch.reload("done");
    }
    assert_eq!(fs::read_to_string(&out).unwrap(), "version 2\nversion 3\n");
    watch.end();
}

#[test]
fn a_file_that_is_named_by_a_link_is_read_behind_it() {
    let scratch = Scratch::new("named-link");
    let file = scratch.file("conf", "1");
    let link = scratch.0.join("link");
    symlink("w/conf", &link).unwrap();
    let mut watch = Watch::start(&["-p"], &link, &["true"]);
    fs::write(&file, "2").unwrap();
    let line = watch.reload("started");
    assert_eq!((watch.names(&line), &line["changes"][0]["by"]), (vec![String::new()], &"digest".into()));
    watch.reload("done");
    fs::write(&file, "2").unwrap();
    watch.until_said("content unchanged");
    // Now the link leads to another file.
    let other = scratch.file("other", "2");
    symlink("w/other", scratch.0.join("next")).unwrap();
    fs::rename(scratch.0.join("next"), &link).unwrap();
    let line = watch.reload("started");
    assert_eq!((watch.names(&line), &line["changes"][0]["kind"]), (vec![String::new()], &"link".into()));
    watch.reload("done");
    fs::write(&file, "of no interest").unwrap();
    fs::write(&other, "3").unwrap();
    let line = watch.reload("started");
    assert_eq!((&line["changes"][0]["kind"], &line["changes"][0]["size"]), (&"written".into(), &1.into()));
    watch.reload("done");
    watch.end();
}

#[test]
fn a_release_is_switched_by_rename_or_exchange() {
    let scratch = Scratch::new("release");
    for release in ["1", "2"] {
        let dir = scratch.0.join(release);
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("conf"), release).unwrap();
    }
    let current = scratch.0.join("current");
    symlink("1", &current).unwrap();
    let mut watch = Watch::start(&["-p"], &current, &["true"]);
    symlink("2", scratch.0.join("next")).unwrap();
    fs::rename(scratch.0.join("next"), &current).unwrap();
    let line = watch.reload("started");
    assert_eq!((watch.names(&line), &line["changes"][0]["kind"]), (vec![String::new()], &"link".into()));
    watch.reload("done");
    // What it leads to now is watched, what it led to is not.
    fs::write(scratch.0.join("1/conf"), "of no interest").unwrap();
    watch.nothing_but_a_marker();
    symlink("1", scratch.0.join("next")).unwrap();
    renameat_with(CWD, scratch.0.join("next"), CWD, &current, RenameFlags::EXCHANGE).unwrap();
    let line = watch.reload("started");
    assert_eq!(watch.names(&line), [""], "{line}");
    watch.reload("done");
    watch.nothing_but_a_marker();
    watch.end();
}

#[test]
fn a_switched_link_drops_nothing_of_other_paths() {
    let scratch = Scratch::new("two-roots");
    let file = scratch.file("f", "b");
    for release in ["1", "2"] {
        let dir = scratch.0.join("rel").join(release);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("c"), release).unwrap();
    }
    let current = scratch.0.join("current");
    symlink("rel/1", &current).unwrap();
    let other = scratch.w();
    let mut watch = Watch::start(&["-p", other.to_str().unwrap()], &current, &["true"]);
    // Both in one batch, or one after the other: neither is dropped.
    fs::write(&file, "bb").unwrap();
    symlink("rel/2", scratch.0.join("next")).unwrap();
    fs::rename(scratch.0.join("next"), &current).unwrap();
    let mut told = Vec::new();
    while told.len() < 2 {
        let line = watch.reload("started");
        let changes = line["changes"].as_array().unwrap();
        told.extend(changes.iter().map(|change| (change["path"].clone(), change["kind"].clone())));
        watch.reload("done");
    }
    told.sort_by_key(|(path, _)| path.to_string());
    let path = |path: &Path| serde_json::Value::from(path.to_str().unwrap());
    assert_eq!(told, [(path(&current), "link".into()), (path(&file), "written".into())]);
    watch.end();
}

#[test]
fn a_link_in_the_tree_is_one_change() {
    let scratch = Scratch::new("inner");
    scratch.file("r1/conf", "1");
    scratch.file("r2/conf", "2");
    symlink("r1", scratch.w().join("current")).unwrap();
    let mut watch = Watch::start(&["-p"], &scratch.w(), &["true"]);
    symlink("r2", scratch.0.join("next")).unwrap();
    renameat_with(CWD, scratch.0.join("next"), CWD, scratch.w().join("current"), RenameFlags::EXCHANGE)
        .unwrap();
    let line = watch.reload("started");
    assert_eq!(watch.names(&line), ["current"], "{line}");
    watch.reload("done");
    watch.nothing_but_a_marker();
    watch.end();
}
