//! Real mounts, in a private mount namespace of a thread. Needs root.

use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount, mount_bind, mount_change,
    move_mount, unmount,
};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::*;
use hotr_events::Layer;

/// Gives this thread a mount namespace of its own.
pub(crate) fn unshare_mounts() {
    // SAFETY: NEWNS leaves the file descriptor table shared.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.unwrap();
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
}

/// Runs `test` in a mount namespace of its own, with a fresh tmpfs to work in. Everything goes with the thread.
pub(crate) fn in_private_namespace(test: impl FnOnce(&Path) + Send + 'static) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    if !rustix::process::geteuid().is_root() {
        println!("skipped: making mounts needs root");
        return;
    }
    let name = format!("hotr-mounts-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let dir = fs::canonicalize(std::env::temp_dir()).unwrap().join(name);
    fs::create_dir(&dir).unwrap();
    let inside = dir.clone();
    let outcome = thread::spawn(move || {
        unshare_mounts();
        tmpfs(&inside);
        test(&inside);
    })
    .join();
    fs::remove_dir(&dir).unwrap();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

pub(crate) fn tmpfs(dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    mount("tmpfs", dir, "tmpfs", MountFlags::empty(), None).unwrap();
}

pub(crate) fn bind(from: &Path, to: &Path) {
    fs::create_dir_all(from).unwrap();
    fs::create_dir_all(to).unwrap();
    mount_bind(from, to).unwrap();
}

fn quote(path: &Path) -> Vec<u8> {
    let special = |byte: &u8| matches!(byte, b'\\' | b':' | b',');
    path.as_os_str()
        .as_bytes()
        .iter()
        .flat_map(|byte| special(byte).then_some(b'\\').into_iter().chain([*byte]))
        .collect()
}

/// Mounts an overlay at `to`; makes the directories that do not exist.
pub(crate) fn overlay(to: &Path, upper: &Path, lowers: &[&Path]) {
    let work = upper.with_file_name("work-of-overlay");
    for dir in [to, upper, &work].into_iter().chain(lowers.iter().copied()) {
        fs::create_dir_all(dir).unwrap();
    }
    let lowers: Vec<_> = lowers.iter().map(|dir| quote(dir)).collect();
    let lowers = lowers.join(&b':');
    let options =
        [b"lowerdir=", lowers.as_slice(), b",upperdir=", &quote(upper), b",workdir=", &quote(&work)];
    let options = CString::new(options.concat()).unwrap();
    mount("overlay", to, "overlay", MountFlags::empty(), &*options).unwrap();
}

fn summary(found: &Aliases) -> Vec<(PathBuf, PathBuf, Option<Layer>)> {
    found.roots.iter().map(|alias| (alias.dir.clone(), alias.prefix.clone(), alias.layer)).collect()
}

#[test]
fn our_own_mountinfo_has_no_line_that_is_not_understood() {
    let table = MountTable::read().unwrap();
    assert!(!table.mounts().is_empty());
    assert_eq!(table.malformed(), 0);
}

#[test]
fn nasty_names_are_found_again() {
    in_private_namespace(|dir| {
        let nasty: [&[u8]; 6] = [b"a b", b"t\tn\nb\\040", b"\xff\xfe", b"#:,=", b" (deleted)", &[b'x'; 255]];
        for name in nasty {
            let to = dir.join("to").join(OsStr::from_bytes(name));
            let from = dir.join("from").join(OsStr::from_bytes(name));
            bind(&from, &to);
            let table = MountTable::read().unwrap();
            let location = table.locate(&to).unwrap();
            assert_eq!(location.fs_path, Path::new("/from").join(OsStr::from_bytes(name)));
            assert_eq!(location, table.locate(&from).unwrap());
            let opened = File::open(&to).unwrap();
            let id = mount_id(&opened).unwrap();
            assert_eq!(id, watch::mount_id_from_fdinfo(opened.as_fd()).unwrap());
            assert_eq!(table.mount_of(&to).unwrap().id, id);
            assert_ne!(table.mount_of(&from).unwrap().id, id);
        }
    });
}

#[test]
fn the_top_of_a_stack_is_what_a_path_leads_into() {
    in_private_namespace(|dir| {
        let point = dir.join("point");
        tmpfs(&point);
        tmpfs(&point.join("hidden"));
        tmpfs(&point);
        let table = MountTable::read().unwrap();
        assert_eq!(table.mount_of(&point).unwrap().id, mount_id(File::open(&point).unwrap()).unwrap());
        assert_eq!(table.visible_below(dir).count(), 1);
        assert_eq!(summary(&aliases(dir, &table)), [(point, PathBuf::from("point"), None)]);
    });
}

#[test]
fn layers_of_an_overlay_with_separators_in_their_names() {
    in_private_namespace(|dir| {
        let merged = dir.join("merged");
        let upper = dir.join("up,per \n\\x");
        let lowers = [dir.join("low:er,1"), dir.join("low er\\2")];
        fs::create_dir_all(lowers[0].join("sub")).unwrap();
        overlay(&merged, &upper, &[&lowers[0], &lowers[1]]);
        let table = MountTable::read().unwrap();
        let none = PathBuf::new();
        let expected = [
            (upper.clone(), none.clone(), Some(Layer::Upper)),
            (lowers[0].clone(), none.clone(), Some(Layer::Lower)),
            (lowers[1].clone(), none.clone(), Some(Layer::Lower)),
        ];
        assert_eq!(summary(&aliases(&merged, &table)), expected);

        // Nothing copied up yet, and only one lower layer has it.
        let sub = aliases(&merged.join("sub"), &table);
        assert_eq!(summary(&sub), [(lowers[0].join("sub"), none.clone(), Some(Layer::Lower))]);
        assert_eq!(sub.pending.iter().map(|pending| &pending.dir).collect::<Vec<_>>(), [&upper.join("sub")]);
        fs::write(merged.join("sub/file"), "x").unwrap();
        let sub = aliases(&merged.join("sub"), &table);
        assert_eq!(sub.roots[0].dir, upper.join("sub"));
        assert_eq!(sub.pending, []);

        // Replaced by a new directory: the lower one no longer shows through.
        fs::remove_dir_all(merged.join("sub")).unwrap();
        assert_eq!(summary(&aliases(&merged.join("sub"), &table)), []);
        fs::create_dir(merged.join("sub")).unwrap();
        let sub = aliases(&merged.join("sub"), &table);
        assert_eq!(summary(&sub), [(upper.join("sub"), none, Some(Layer::Upper))]);
    });
}

#[test]
fn an_overlay_below_the_root_brings_its_layers() {
    in_private_namespace(|dir| {
        let root = dir.join("root");
        let (merged, upper, lower) = (root.join("m"), dir.join("u"), dir.join("l"));
        overlay(&merged, &upper, &[&lower]);
        let table = MountTable::read().unwrap();
        let m = PathBuf::from("m");
        let expected = [
            (merged, m.clone(), None),
            (upper, m.clone(), Some(Layer::Upper)),
            (lower, m, Some(Layer::Lower)),
        ];
        assert_eq!(summary(&aliases(&root, &table)), expected);
        // Watched from above, the layers are part of the tree under their own names.
        let all = aliases(dir, &table);
        assert_eq!((all.roots.len(), all.covered.len()), (1, 2));
    });
}

#[test]
fn layers_that_cannot_be_reached_say_why() {
    in_private_namespace(|dir| {
        let (merged, upper, lower) = (dir.join("m"), dir.join("u"), dir.join("l"));
        fs::create_dir_all(lower.join("sub")).unwrap();
        overlay(&merged, &upper, &[&lower]);
        tmpfs(&lower.join("sub"));
        fs::rename(&upper, dir.join("elsewhere")).unwrap();
        let found = aliases(&merged.join("sub"), &MountTable::read().unwrap());
        assert_eq!(found.roots, []);
        let reasons: Vec<_> =
            found.unreachable.iter().map(|layer| (layer.layer, layer.reason.as_str())).collect();
        assert_eq!(reasons[0], (Layer::Upper, "not in this mount namespace, or removed"));
        assert_eq!(reasons[1].0, Layer::Lower);
        assert!(reasons[1].1.contains("mounted over"), "{}", reasons[1].1);
    });
}

#[test]
fn layers_given_one_by_one() {
    in_private_namespace(|dir| {
        let lowers = [dir.join("a:b"), dir.join("c,d\\e")];
        lowers.iter().for_each(|lower| fs::create_dir(lower).unwrap());
        let merged = dir.join("m");
        fs::create_dir(&merged).unwrap();
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
        for lower in &lowers {
            if let Err(errno) = fsconfig_set_string(context.as_fd(), "lowerdir+", lower.as_path()) {
                println!("skipped: this kernel's overlay has no lowerdir+: {errno}");
                return;
            }
        }
        fsconfig_create(context.as_fd()).unwrap();
        let mounted =
            fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap();
        move_mount(&mounted, "", rustix::fs::CWD, &merged, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).unwrap();
        let found = aliases(&merged, &MountTable::read().unwrap());
        assert_eq!(found.roots.iter().map(|alias| &alias.dir).collect::<Vec<_>>(), [&lowers[0], &lowers[1]]);
    });
}

#[test]
fn a_mount_change_is_heard() {
    in_private_namespace(|dir| {
        let (mut watch, before) = MountWatch::new().unwrap();
        let is_told = |watch: &MountWatch| {
            let mut fds = [PollFd::new(watch, PollFlags::PRI)];
            poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
        };
        assert!(!is_told(&watch));
        assert!(watch.refresh(false).unwrap().is_none());
        let point = dir.join("new");
        tmpfs(&point);
        assert!(is_told(&watch));
        let after = watch.refresh(false).unwrap().unwrap();
        assert_eq!(after.mounts().len(), before.mounts().len() + 1);
        unmount(&point, UnmountFlags::empty()).unwrap();
        assert!(is_told(&watch));
        assert!(watch.refresh(false).unwrap().is_some());
        assert!(!is_told(&watch));
    });
}

#[test]
fn a_process_in_another_namespace_and_what_it_mounted_there() {
    in_private_namespace(|dir| {
        let root = dir.join("root");
        bind(&dir.join("source"), &root);
        let ours = MountTable::read().unwrap();
        let watched = ours.mount_of(&root).unwrap().id;
        let (send_ids, ids) = mpsc::channel();
        let (done, wait) = mpsc::channel::<()>();
        let inside = root.clone();
        let other = thread::spawn(move || {
            unshare_mounts();
            let copy = mount_id(File::open(&inside).unwrap()).unwrap();
            let extra = inside.with_file_name("extra");
            bind(&inside, &extra);
            let bound = mount_id(File::open(&extra).unwrap()).unwrap();
            let tid = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
            send_ids.send((tid, copy, bound)).unwrap();
            // Ends when the other side has hung up.
            assert!(wait.recv().is_err());
        });
        let (tid, copy, bound) = ids.recv().unwrap();
        let mut cache = LayerCache::default();
        let now = Instant::now();
        assert_eq!(layer_of_mount(copy, watched, &ours), Through::NotInTable);
        assert_eq!(cache.layer(copy, watched, tid, &ours, now), None);
        assert_eq!(cache.layer(bound, watched, tid, &ours, now), Some(Layer::Bind));
        drop(done);
        other.join().unwrap();
        // From memory for a while, then unknown: the mount ids may stand for something else by now.
        assert_eq!(cache.layer(bound, watched, tid, &ours, now), Some(Layer::Bind));
        assert_eq!(
            cache.layer(bound, watched, u32::MAX, &ours, now + std::time::Duration::from_secs(2)),
            None
        );
    });
}
