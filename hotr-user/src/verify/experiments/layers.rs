//! Features of overlay mounts that move the content of a file, or share a layer: metacopy, redirects, one upperdir twice.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::verify::bench::{Bench, During, Stop, holds, old_file, overwrite};
use crate::verify::evidence::Listener;
use crate::verify::experiment::{Experiment, Group};
use crate::verify::rulings::{receives_anything, receives_nothing};

const INOTIFY: &[Listener] = &[Listener::Inotify];

pub(super) const ALL: &[Experiment] = &[
    Experiment {
        name: "overlay-metacopy",
        group: Group::Overlay,
        claim: "After a copy-up of metadata only, a write to the lower file shows in the merged file, and no watch there receives it.",
        source: "documentation of overlayfs: metadata only copy up",
        method: "With metacopy=on, change the mode of merged/f, watch it, and write to lower/f.",
        rests_on: INOTIFY,
        run: metadata_only,
        decide: |evidence| receives_nothing(evidence, "merged/f"),
    },
    Experiment {
        name: "overlay-redirect-dir",
        group: Group::Overlay,
        claim: "A rename of a lower directory through the merged mount is received by a watch on the lowerdir.",
        source: "documentation of overlayfs: redirect_dir leaves the lower directory where it is",
        method: "With redirect_dir=on, rename merged/d, which is only in the lowerdir, while lower/ is watched.",
        rests_on: INOTIFY,
        run: redirected,
        decide: |evidence| receives_anything(evidence, "lower"),
    },
    Experiment {
        name: "overlay-upper-shared",
        group: Group::Overlay,
        claim: "A write through one of two overlay mounts with the same upperdir is received by a watch on the other.",
        source: "bug reports about containers that share an upperdir",
        method: "Mount an overlay twice with one upperdir and two workdirs, watch the first mount, and write to f through the second.",
        rests_on: INOTIFY,
        run: shared,
        decide: |evidence| receives_anything(evidence, "merged"),
    },
];

fn metadata_only(bench: &mut Bench<'_>) -> Result<(), Stop> {
    let layers = bench.overlay_with(",metacopy=on", |layers| old_file(&layers.lower.join("f"), b"1\n"))?;
    let [lower, upper, merged] = [&layers.lower, &layers.upper, &layers.merged].map(|dir| dir.join("f"));
    fs::set_permissions(&merged, fs::Permissions::from_mode(0o640)).during("change the mode")?;
    // Without metacopy the file was copied as a whole, and its content is another one from now on.
    if fs::metadata(&upper).during("look at the upper file")?.permissions().mode() & 0o777 != 0o640 {
        return Err(Stop("the change of the mode copied nothing up".to_owned()));
    }
    bench.watch("merged/f", &merged)?;
    bench.compare("lower/f", &lower);
    bench.operate(|_| overwrite(&lower, b"2\n"))?;
    let is_whole = holds(&upper, b"1\n");
    if is_whole && !holds(&merged, b"2\n") && holds(&lower, b"2\n") {
        return Err(Stop("the kernel copied the content up as well".to_owned()));
    }
    bench.done(holds(&merged, b"2\n"));
    bench.control("merged/f", || overwrite(&merged, b"3\n"))
}

fn redirected(bench: &mut Bench<'_>) -> Result<(), Stop> {
    let layers = bench.overlay_with(",redirect_dir=on", |layers| {
        fs::create_dir(layers.lower.join("d")).during("make a directory")?;
        old_file(&layers.lower.join("d").join("f"), b"1\n")
    })?;
    let (old, new) = (layers.merged.join("d"), layers.merged.join("new"));
    bench.watch("lower", &layers.lower)?;
    bench.compare("merged/new", &new);
    bench.operate(|_| fs::rename(&old, &new).during("rename a directory"))?;
    // Otherwise the rename copied the directory, as mv(1) does.
    let is_redirected = !layers.upper.join("new").join("f").exists();
    bench.done(holds(&new.join("f"), b"1\n") && !old.exists() && is_redirected);
    bench.control("lower", || fs::create_dir(layers.lower.join("g")).during("make a directory"))
}

fn shared(bench: &mut Bench<'_>) -> Result<(), Stop> {
    let first = bench.overlay_with("", |layers| old_file(&layers.upper.join("f"), b"1\n"))?;
    let second = bench.overlay_again(&first)?;
    let path = second.join("f");
    bench.watch("merged", &first.merged)?;
    bench.compare("second/f", &path);
    bench.operate(|_| overwrite(&path, b"22\n"))?;
    bench.done(holds(&path, b"22\n") && holds(&first.upper.join("f"), b"22\n"));
    bench.control("merged", || overwrite(&first.merged.join("f"), b"3\n"))
}
