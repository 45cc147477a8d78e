//! Changes on one layer of an overlay mount, and watches on another.
//!
//! An overlay inode and the inode of its layer carry separate marks (fs/overlayfs/inode.c, `ovl_inode_init`).

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use rustix::fs::inotify::WatchFlags;

use crate::verify::bench::{Bench, During, Layers, Stop, holds, old_file, overwrite};
use crate::verify::evidence::{Evidence, Listener};
use crate::verify::experiment::{Experiment, Group};
use crate::verify::rulings::{receives, receives_anything, receives_none, receives_nothing};
use crate::verify::verdict::{Ruling, Verdict};

const INOTIFY: &[Listener] = &[Listener::Inotify];

pub(super) const ALL: &[Experiment] = &[
    Experiment {
        name: "overlay-upper-write",
        group: Group::Overlay,
        claim: "A direct write to the upperdir is not received by a watch on the merged mount.",
        source: "articles about file watchers in containers",
        method: "Write to upper/f while merged/ is watched.",
        rests_on: INOTIFY,
        run: |bench| {
            let layers = bench.overlay(|layers| old_file(&layers.upper.join("f"), b"1\n"))?;
            bench.watch("merged", &layers.merged)?;
            bench.compare("merged/f", &layers.merged.join("f"));
            bench.operate(|_| overwrite(&layers.upper.join("f"), b"22\n"))?;
            bench.done(holds(&layers.merged.join("f"), b"22\n"));
            bench.control("merged", || overwrite(&layers.merged.join("f"), b"3\n"))
        },
        decide: |evidence| receives_nothing(evidence, "merged"),
    },
    Experiment {
        name: "overlay-mark",
        group: Group::Overlay,
        claim: "A watch on a merged file puts its mark on the inode of the upper file.",
        source: "an article: overlay inodes inherit the notification mask of the real ones",
        method: "Watch merged/f, which is in the upperdir, and ask the kernel for the mark (/proc/self/fdinfo).",
        rests_on: INOTIFY,
        run: marked,
        decide: |evidence| match (evidence.fact("mark_on_upper"), evidence.fact("mark_on_overlay")) {
            (1, 0) => Ruling::confirmed("the mark is on the upper file's inode"),
            (0, 1) => Ruling::refuted("the mark is on the overlay's inode; the upper file's inode has none"),
            _ => Ruling::not_testable("the kernel shows no mark of a known filesystem"),
        },
    },
    Experiment {
        name: "overlay-mask",
        group: Group::Overlay,
        claim: "A watch on a merged file misses a direct write to the upper file because the overlay's inode does not inherit the real inode's notification mask.",
        source: "an article about file watchers in containers",
        method: "Watch merged/f, write to upper/f, and read the notification masks of both inodes.",
        rests_on: INOTIFY,
        run: masks,
        decide: by_masks,
    },
    Experiment {
        name: "overlay-merged-write",
        group: Group::Overlay,
        claim: "A write through the merged mount is received by a watch on the upperdir.",
        source: "the reverse of overlay-upper-write",
        method: "Write to merged/f, which is in the upperdir, while upper/ is watched.",
        rests_on: INOTIFY,
        run: |bench| {
            let layers = bench.overlay(|layers| old_file(&layers.upper.join("f"), b"1\n"))?;
            bench.watch("upper", &layers.upper)?;
            bench.compare("upper/f", &layers.upper.join("f"));
            bench.operate(|_| overwrite(&layers.merged.join("f"), b"22\n"))?;
            bench.done(holds(&layers.upper.join("f"), b"22\n"));
            Ok(())
        },
        decide: |evidence| receives(evidence, "upper", "MODIFY"),
    },
    Experiment {
        name: "overlay-lower-write",
        group: Group::Overlay,
        claim: "A direct write to a lowerdir is not received by a watch on the merged mount.",
        source: "articles about file watchers in containers",
        method: "Write to lower/f while merged/ is watched.",
        rests_on: INOTIFY,
        run: |bench| {
            let layers = bench.overlay(|layers| old_file(&layers.lower.join("f"), b"1\n"))?;
            bench.watch("merged", &layers.merged)?;
            bench.compare("merged/f", &layers.merged.join("f"));
            bench.operate(|_| overwrite(&layers.lower.join("f"), b"22\n"))?;
            bench.done(holds(&layers.lower.join("f"), b"22\n"));
            bench.control("merged", || overwrite(&layers.merged.join("f"), b"3\n"))
        },
        decide: |evidence| receives_nothing(evidence, "merged"),
    },
    Experiment {
        name: "overlay-copy-up-lower",
        group: Group::Overlay,
        claim: "A watch on the file of a lower layer does not receive the write that copies the file up.",
        source: "documentation of overlayfs: a copied file is another file",
        method: "Write to merged/f, which is only in the lowerdir, while lower/f is watched.",
        rests_on: INOTIFY,
        run: copied_up_lower,
        decide: |evidence| receives_none(evidence, "lower/f", &["MODIFY", "CLOSE_WRITE"]),
    },
    Experiment {
        name: "overlay-copy-up-merged",
        group: Group::Overlay,
        claim: "A watch on a merged file is lost when the file is copied up.",
        source: "bug reports about watchers on overlay mounts",
        method: "Write to merged/f, which is only in the lowerdir, while merged/f is watched, and write once more.",
        rests_on: INOTIFY,
        run: copied_up_merged,
        decide: survives,
    },
    Experiment {
        name: "overlay-hardlink-split",
        group: Group::Overlay,
        claim: "A write through one of two hard links of a lower file is not received by a watch on the other.",
        source: "documentation of overlayfs: without an index, a copy-up breaks hard links",
        method: "Write to merged/f, which is the same lower file as merged/g, while merged/g is watched.",
        rests_on: INOTIFY,
        run: split,
        decide: |evidence| receives_none(evidence, "merged/g", &["MODIFY", "CLOSE_WRITE"]),
    },
    Experiment {
        name: "overlay-workdir-write",
        group: Group::Overlay,
        claim: "A write to the workdir is received by a watch on the merged mount.",
        source: "articles about file watchers in containers",
        method: "Make and write a file in work/work/ while merged/ is watched.",
        rests_on: INOTIFY,
        run: |bench| {
            let layers = bench.overlay(|layers| old_file(&layers.lower.join("f"), b"1\n"))?;
            bench.watch("merged", &layers.merged)?;
            let path = layers.work.join("work").join("f");
            bench.compare("work/f", &path);
            bench.operate(|_| fs::write(&path, b"22\n").during("write to the workdir"))?;
            bench.done(holds(&path, b"22\n"));
            bench.control("merged", || overwrite(&layers.merged.join("f"), b"3\n"))
        },
        decide: |evidence| receives_anything(evidence, "merged"),
    },
    Experiment {
        name: "overlay-whiteout",
        group: Group::Overlay,
        claim: "A removal through the merged mount appears in the upperdir as a new file, not as IN_DELETE.",
        source: "documentation of overlayfs: whiteouts",
        method: "Remove merged/f, which is only in the lowerdir, while upper/ is watched.",
        rests_on: INOTIFY,
        run: whiteout,
        decide: |evidence| {
            let appeared = |event: &&_| names_f(event) && (is(event, "CREATE") || is(event, "MOVED_TO"));
            let deleted = evidence.at("upper").any(|event| event.names("f") && event.is("DELETE"));
            match (evidence.at("upper").find(appeared), deleted) {
                (Some(event), false) => {
                    Ruling::confirmed(format!("the watch on upper received {event}, a whiteout"))
                }
                (Some(_), true) => Ruling::partly("the watch on upper received IN_DELETE as well"),
                (None, _) => Ruling::refuted("the watch on upper received no new file"),
            }
        },
    },
];

fn names_f(event: &&crate::verify::evidence::Event) -> bool {
    event.names("f")
}

fn is(event: &&crate::verify::evidence::Event, word: &str) -> bool {
    event.is(word)
}

fn lower_file(layers: &Layers) -> Result<(), Stop> {
    old_file(&layers.lower.join("f"), b"1\n")
}

fn copied_up_lower(bench: &mut Bench<'_>) -> Result<(), Stop> {
    let layers = bench.overlay(lower_file)?;
    bench.watch("lower/f", &layers.lower.join("f"))?;
    bench.compare("merged/f", &layers.merged.join("f"));
    bench.operate(|_| overwrite(&layers.merged.join("f"), b"22\n"))?;
    let is_copied = holds(&layers.upper.join("f"), b"22\n") && holds(&layers.lower.join("f"), b"1\n");
    bench.done(is_copied);
    bench.control("lower/f", || overwrite(&layers.lower.join("f"), b"3\n"))
}

fn marked(bench: &mut Bench<'_>) -> Result<(), Stop> {
    let layers = bench.overlay(|layers| old_file(&layers.upper.join("f"), b"1\n"))?;
    let file = layers.merged.join("f");
    bench.compare("merged/f", &file);
    bench.operate(|bench| bench.inotify_watch("merged/f", &file, WatchFlags::MODIFY))?;
    let devices: Vec<u64> = bench.own_marks().iter().map(|(dev, ..)| *dev).collect();
    let minor = |path: &std::path::Path| -> Result<u64, Stop> {
        Ok(u64::from(rustix::fs::minor(fs::metadata(path).during("look at a directory")?.dev())))
    };
    bench.fact("mark_on_upper", u64::from(devices.contains(&minor(&layers.upper)?)));
    bench.fact("mark_on_overlay", u64::from(devices.contains(&minor(&layers.merged)?)));
    bench.done(!devices.is_empty());
    Ok(())
}

/// Notification masks: `i_fsnotify_mask` by eBPF, or else the masks of this instance's own marks.
fn masks(bench: &mut Bench<'_>) -> Result<(), Stop> {
    let layers = bench.overlay(|layers| old_file(&layers.upper.join("f"), b"1\n"))?;
    let (upper, merged) = (layers.upper.join("f"), layers.merged.join("f"));
    bench.watch("merged/f", &merged)?;
    bench.compare("upper/f", &upper);
    bench.operate(|bench| {
        for (name, path) in [("mask_of_overlay_inode", &merged), ("mask_of_upper_inode", &upper)] {
            let (mask, is_read) = bench.notification_mask(path)?;
            bench.fact(name, mask.into());
            if name == "mask_of_upper_inode" {
                bench.fact("masks_by_ebpf", is_read.into());
            }
        }
        overwrite(&upper, b"22\n")
    })?;
    bench.done(holds(&merged, b"22\n"));
    bench.control("merged/f", || overwrite(&merged, b"3\n"))
}

fn by_masks(evidence: &Evidence) -> Ruling {
    const MODIFY: u64 = 0x2;
    let missed = receives_nothing(evidence, "merged/f");
    if missed.verdict != Verdict::Confirmed {
        return missed;
    }
    let (overlay, upper) = (evidence.fact("mask_of_overlay_inode"), evidence.fact("mask_of_upper_inode"));
    let way = if evidence.fact("masks_by_ebpf") == 1 { "i_fsnotify_mask" } else { "marks in fdinfo" };
    let why = format!("missed; overlay inode {overlay:#x}, upper inode {upper:#x} ({way})");
    match (overlay & MODIFY, upper & MODIFY) {
        // The write notifies the upper inode, and nothing there asks for it: there is no mask to inherit.
        (1.., 0) => Ruling::refuted(format!(
            "{why}: the upper inode, which the write notifies, has no mark to inherit"
        )),
        (0, 1..) => Ruling::confirmed(why),
        _ => Ruling::not_testable(why),
    }
}

fn split(bench: &mut Bench<'_>) -> Result<(), Stop> {
    let layers = bench.overlay(|layers| {
        lower_file(layers)?;
        fs::hard_link(layers.lower.join("f"), layers.lower.join("g")).during("link a file")
    })?;
    let (file, other) = (layers.merged.join("f"), layers.merged.join("g"));
    bench.watch("merged/g", &other)?;
    bench.compare("merged/f", &file);
    bench.operate(|_| overwrite(&file, b"22\n"))?;
    bench.done(holds(&file, b"22\n"));
    bench.control("merged/g", || overwrite(&other, b"3\n"))
}

fn copied_up_merged(bench: &mut Bench<'_>) -> Result<(), Stop> {
    let layers = bench.overlay(lower_file)?;
    let file = layers.merged.join("f");
    bench.watch("merged/f", &file)?;
    bench.operate(|bench| {
        overwrite(&file, b"22\n")?;
        bench.fact("copied", u64::from(holds(&layers.upper.join("f"), b"22\n")));
        // Of another kind: equal events would be merged with the first one's.
        rustix::fs::chmod(&file, rustix::fs::Mode::RUSR).during("change the mode")
    })?;
    bench.done(holds(&layers.upper.join("f"), b"22\n"));
    Ok(())
}

fn survives(evidence: &Evidence) -> Ruling {
    let after = evidence.heard("merged/f", "ATTRIB");
    match (evidence.heard("merged/f", "MODIFY"), after, evidence.heard("merged/f", "IGNORED")) {
        (1.., 1.., 0) => {
            Ruling::refuted("the watch on merged/f received the write that copied it up, and the next change")
        }
        (0, 1.., 0) => Ruling::partly("the watch on merged/f received only the change after the copy-up"),
        (_, 0, _) => Ruling::confirmed("the watch on merged/f received nothing after the copy-up"),
        _ => Ruling::confirmed("the watch on merged/f ended"),
    }
}

fn whiteout(bench: &mut Bench<'_>) -> Result<(), Stop> {
    let layers = bench.overlay(lower_file)?;
    bench.watch("upper", &layers.upper)?;
    bench.compare("merged/f", &layers.merged.join("f"));
    bench.operate(|_| fs::remove_file(layers.merged.join("f")).during("remove a file"))?;
    let is_whiteout = fs::symlink_metadata(layers.upper.join("f"))
        .is_ok_and(|metadata| metadata.file_type().is_char_device());
    bench.done(is_whiteout && !layers.merged.join("f").exists());
    Ok(())
}
