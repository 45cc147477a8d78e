//! Callers of another mount namespace or with another root directory, alive and ended. Needs root.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::chroot;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use super::{Base, CallPath, Resolved, RootRef, ask, call, furnish, resolver, tid};
use crate::mounts::mount_id;
use crate::mounts::tests::{bind, in_private_namespace, unshare_mounts};
use hotr_events::Layer;

/// Runs `before` in another thread, keeps that thread alive while `test` asks with its tid, and then once more.
fn with_other_process(before: impl FnOnce() + Send + 'static, mut test: impl FnMut(u32, bool)) {
    let (send_tid, receive_tid) = mpsc::channel();
    let (done, wait) = mpsc::channel::<()>();
    let other = thread::spawn(move || {
        before();
        send_tid.send(tid()).unwrap();
        assert!(wait.recv().is_err());
    });
    let pid = receive_tid.recv().unwrap();
    test(pid, true);
    drop(done);
    other.join().unwrap();
    test(pid, false);
}

#[test]
fn a_container_that_has_the_root_elsewhere() {
    in_private_namespace(|dir| {
        let root = furnish(dir);
        let jail = dir.join("jail");
        fs::create_dir_all(&jail).unwrap();
        symlink("/data/a", jail.join("absolute")).unwrap();
        let mut resolver = resolver(&[&root]);
        let (source, inside) = (root.clone(), jail.clone());
        let enter = move || {
            unshare_mounts();
            // A container's root directory is a mount.
            bind(&inside, &inside);
            bind(&source, &inside.join("data"));
            chroot(&inside).unwrap();
            std::env::set_current_dir("/data").unwrap();
        };
        let now = Instant::now();
        let mut namespace = None;
        with_other_process(enter, |pid, alive| {
            if alive {
                namespace = fs::metadata(format!("/proc/{pid}/ns/mnt")).ok().map(|ns| ns.ino());
            }
            for (base, string, expected) in [
                (Base::Unknown, "/data/x", Some("x")),
                (Base::Unknown, "/absolute/x", Some("a/x")),
                (Base::Unknown, "/../../data/a/../x", Some("x")),
                (Base::Unknown, "/x", None),
                (Base::Fd(-100), "a/x", Some("a/x")),
            ] {
                let call = CallPath { pid, mount_ns: namespace, base, ..call(Path::new(string), false) };
                // Long after the other time, so that nothing is remembered.
                let later = if alive { now } else { now + Duration::from_secs(5) };
                match (resolver.resolve(&call, later), expected) {
                    (Resolved::Unknown(_), _) => assert!(!alive, "{string}"),
                    (Resolved::NotOurs, None) => assert!(alive),
                    (Resolved::Ours { rel, layer, .. }, Some(expected)) => {
                        assert!(alive);
                        assert_eq!(
                            (rel.as_path(), layer),
                            (Path::new(expected), Some(Layer::Bind)),
                            "{string}"
                        );
                    }
                    (other, _) => panic!("{string}: {other:?}"),
                }
            }
        });
    });
}

#[test]
fn a_mount_that_only_the_callers_namespace_has() {
    in_private_namespace(|dir| {
        let root = furnish(dir);
        let mut resolver = resolver(&[&root]);
        let (source, target) = (root.clone(), dir.join("theirs"));
        let (send, receive) = mpsc::channel();
        let enter = move || {
            unshare_mounts();
            bind(&source, &target);
            send.send(mount_id(File::open(&target).unwrap()).unwrap()).unwrap();
        };
        let mut id = 0;
        with_other_process(enter, |pid, alive| {
            id = receive.try_recv().unwrap_or(id);
            let base = Base::Mount { mount_id: id, fs_path: Path::new("/srv/app/a") };
            let now = Instant::now() + Duration::from_secs(if alive { 0 } else { 5 });
            for (string, expected) in [("x", "a/x"), ("b/x", "a/b/x"), ("../x", "x")] {
                let call = CallPath { pid, base, ..call(Path::new(string), false) };
                let resolved = resolver.resolve(&call, now);
                if alive {
                    let root = RootRef { root: 0, alias: None };
                    let layer = Some(Layer::Bind);
                    assert_eq!(
                        resolved,
                        Resolved::Ours { root, rel: PathBuf::from(expected), layer },
                        "{string}"
                    );
                } else {
                    assert!(matches!(resolved, Resolved::Unknown(_)), "{string}: {resolved:?}");
                }
            }
        });
    });
}

#[test]
fn a_caller_that_changed_its_root_directory_only() {
    in_private_namespace(|dir| {
        let root = furnish(dir);
        let mut resolver = resolver(&[&root]);
        let inside = dir.join("srv");
        let enter = move || {
            // SAFETY: FS leaves the file descriptor table shared.
            unsafe { unshare_unsafe(UnshareFlags::FS) }.unwrap();
            chroot(&inside).unwrap();
        };
        with_other_process(enter, |pid, alive| {
            if alive {
                let call = CallPath { pid, ..call(Path::new("/app/a/x"), false) };
                assert_eq!(ask(&mut resolver, &call), Some(("a/x".to_owned(), None)));
            }
        });
    });
}

/// A container whose first process lives on, while those that somebody started in it end.
#[test]
fn a_caller_that_has_ended_is_stood_in_for_by_its_namespace() {
    in_private_namespace(|dir| {
        let root = furnish(dir);
        let mut resolver = resolver(&[&root]);
        let (source, target) = (root.clone(), dir.join("theirs"));
        let enter = move || {
            unshare_mounts();
            bind(&source, &target);
        };
        let inside = dir.join("theirs/a/x");
        with_other_process(enter, |pid, alive| {
            if !alive {
                return;
            }
            let namespace = fs::metadata(format!("/proc/{pid}/ns/mnt")).ok().map(|ns| ns.ino());
            // A process, and not a thread, is looked for: the caller that has ended never was one.
            let ours = Resolved::Ours {
                root: RootRef { root: 0, alias: None },
                rel: PathBuf::from("a/x"),
                layer: Some(Layer::Bind),
            };
            let mut member = Command::new("sleep");
            let file = File::open(format!("/proc/{pid}/ns/mnt")).unwrap();
            // SAFETY: between fork and exec it makes one system call.
            unsafe {
                member.pre_exec(move || {
                    Ok(move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Mount))?)
                });
            }
            let mut member = member.arg("1000").spawn().unwrap();
            let call = CallPath { pid: NOBODY, mount_ns: namespace, ..call(&inside, false) };
            let resolved = resolver.resolve(&call, Instant::now());
            member.kill().unwrap();
            member.wait().unwrap();
            assert_eq!(resolved, ours);
        });
    });
}

/// More than the kernel lets `pid_max` be.
const NOBODY: u32 = 1 << 30;
