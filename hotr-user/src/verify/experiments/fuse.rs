//! A FUSE filesystem whose files change behind the mount: the kernel is not asked for that change, so it notifies no watch of it.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{AtFlags, Mode, OFlags, openat, unlinkat};
use rustix::mount::MountAttrFlags;

use crate::private_mount::private_mount;
use crate::verify::bench::{Bench, During, Stop, holds, overwrite, set_old_file};
use crate::verify::evidence::{CONTROL, CONTROL_EBPF, CONTROL_FANOTIFY, Evidence, Listener};
use crate::verify::experiment::{Experiment, Group};
use crate::verify::fuse::{Notice, SHOWN};
use crate::verify::rulings::{receives_anything, receives_nothing, words_at};
use crate::verify::verdict::Ruling;

const INOTIFY: &[Listener] = &[Listener::Inotify];
/// The kernel asks the server each time.
const NEVER_KEPT: Duration = Duration::ZERO;
/// Longer than any experiment.
const LONG_KEPT: Duration = Duration::from_secs(3600);

pub(super) const ALL: &[Experiment] = &[
    Experiment {
        name: "fuse-behind",
        group: Group::Mounts,
        claim: "A write to the directory behind a FUSE mount is not received by a watch on the mount.",
        source: "bug reports about sshfs, shared folders and FUSE overlays",
        method: "Watch a FUSE mount m that shows the files of backing/, and write to backing/f.",
        rests_on: INOTIFY,
        run: |bench| behind(bench, Backing::Watched, NEVER_KEPT),
        decide: |evidence| receives_nothing(evidence, "m"),
    },
    Experiment {
        name: "fuse-behind-ebpf",
        group: Group::Mounts,
        claim: "A write to the directory behind a FUSE mount of this machine is seen by eBPF, as one of that directory.",
        source: "fs/read_write.c, vfs_write: it knows the file that is written, and no mount that shows it",
        method: "As fuse-behind; only eBPF counts.",
        rests_on: &[Listener::Ebpf],
        run: |bench| behind(bench, Backing::Watched, NEVER_KEPT),
        decide: |evidence| {
            let seen = |path| named(evidence, Listener::Ebpf, path);
            match (seen("backing/f"), seen("m/f")) {
                (1.., 0) => Ruling::confirmed("eBPF reported the write of backing/f, and none of m/f"),
                (1.., _) => Ruling::partly("eBPF reported the write of backing/f and of m/f"),
                _ => Ruling::refuted("eBPF reported no write of backing/f"),
            }
        },
    },
    Experiment {
        name: "fuse-elsewhere",
        group: Group::Mounts,
        claim: "Of a change that only the FUSE server knows, a poller sees everything and a watch nothing.",
        source: "bug reports about sshfs: the file changes on the other machine",
        method: "As fuse-behind, with files that no path of this machine leads to, as if on another one; all channels count.",
        rests_on: &Listener::ALL,
        run: |bench| behind(bench, Backing::Hidden, NEVER_KEPT),
        decide: only_polled,
    },
    Experiment {
        name: "fuse-cached",
        group: Group::Mounts,
        claim: "As long as the kernel keeps what a FUSE server said of a file, a poller sees no change behind the mount either.",
        source: "libfuse: attr_timeout",
        method: "As fuse-elsewhere, with attributes that the kernel may keep for an hour; then have the server invalidate them.",
        rests_on: &[Listener::Poll],
        run: |bench| behind(bench, Backing::Hidden, LONG_KEPT),
        decide: |evidence| match (evidence.differs("m/f", ""), evidence.fact("seen_later")) {
            (true, _) => Ruling::refuted("the attributes of m/f differ at once"),
            (false, 0) => {
                Ruling::not_testable("the attributes of m/f stay the same after the server invalidated them")
            }
            (false, _) => {
                Ruling::confirmed("the attributes of m/f are the same until the server invalidates them")
            }
        },
    },
    Experiment {
        name: "fuse-invalidate",
        group: Group::Mounts,
        claim: "A FUSE server that invalidates a changed file (FUSE_NOTIFY_INVAL_INODE) makes watches receive the change.",
        source: "libfuse: fuse_lowlevel_notify_inval_inode, as a remedy in bug reports",
        method: "As fuse-elsewhere; after the write the server invalidates the file.",
        rests_on: INOTIFY,
        run: |bench| {
            let shown = Shown::new(bench, Backing::Hidden, LONG_KEPT)?;
            bench.operate(|bench| {
                shown.write()?;
                bench.notify_fuse(Notice::Invalidate)
            })?;
            bench.done(holds(&shown.path, b"22\n"));
            bench.control("m", || overwrite(&shown.path, b"3\n"))
        },
        decide: |evidence| receives_anything(evidence, "m"),
    },
    Experiment {
        name: "fuse-notify-delete",
        group: Group::Mounts,
        claim: "A FUSE server that reports a removal behind the mount (FUSE_NOTIFY_DELETE) makes watches receive it.",
        source: "libfuse: fuse_lowlevel_notify_delete, which says so",
        method: "As fuse-elsewhere; remove f and have the server send FUSE_NOTIFY_DELETE of it.",
        rests_on: INOTIFY,
        run: |bench| {
            let shown = Shown::new(bench, Backing::Hidden, LONG_KEPT)?;
            bench.inotify_watch("m/f", &shown.path, rustix::fs::inotify::WatchFlags::DELETE_SELF)?;
            bench.operate(|bench| {
                unlinkat(shown.backing.as_fd(), SHOWN, AtFlags::empty()).during("remove a file")?;
                bench.notify_fuse(Notice::Delete)
            })?;
            bench.done(!shown.path.exists());
            let other = shown.path.with_file_name("g");
            bench.control("m", || fs::write(&other, b"3\n").during("write a file"))
        },
        decide: |evidence| {
            let received = |at| format!("the watch on {at} received {}", words_at(evidence, at));
            match (evidence.heard("m", "DELETE"), evidence.heard("m/f", "DELETE_SELF")) {
                (1.., 1..) => Ruling::confirmed(format!("{}, {}", received("m"), received("m/f"))),
                (0, 0) => receives_anything(evidence, "m"),
                (0, _) => Ruling::partly(format!("{}; the watch on m received no DELETE", received("m/f"))),
                _ => Ruling::partly(format!("{}; the watch on m/f received no DELETE_SELF", received("m"))),
            }
        },
    },
];

/// What the filesystem shows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Backing {
    /// A directory of the laboratory, which hotr covers.
    Watched,
    /// A mount that no path leads to.
    Hidden,
}

/// A watched FUSE mount with one file.
struct Shown {
    /// The directory behind it.
    backing: OwnedFd,
    /// The file in the mount.
    path: PathBuf,
}

impl Shown {
    fn new(bench: &mut Bench<'_>, kind: Backing, lifetime: Duration) -> Result<Self, Stop> {
        let mount = bench.dir("m")?;
        let backing = match kind {
            Backing::Watched => {
                let dir = bench.dir("backing")?;
                bench.compare("backing/f", &dir.join(SHOWN));
                OwnedFd::from(File::open(&dir)?)
            }
            Backing::Hidden => {
                private_mount("tmpfs", MountAttrFlags::empty()).during("mount a tmpfs that nobody sees")?
            }
        };
        let path = mount.join(SHOWN);
        let shown = Self { backing, path };
        shown.file(OFlags::CREATE)?;
        shown.fill(b"1\n")?;
        set_old_file(&shown.file(OFlags::empty())?)?;
        bench.mount_fuse(shown.backing.try_clone()?, &mount, lifetime)?;
        bench.watch("m", &mount)?;
        bench.compare("m/f", &shown.path);
        Ok(shown)
    }

    /// The file behind the mount.
    fn file(&self, more: OFlags) -> Result<File, Stop> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | more;
        let file = openat(self.backing.as_fd(), SHOWN, flags, Mode::RUSR | Mode::WUSR);
        Ok(File::from(file.during("open a file behind the mount")?))
    }

    fn fill(&self, content: &[u8]) -> Result<(), Stop> {
        use std::io::Write;
        self.file(OFlags::empty())?.write_all(content).during("write behind the mount")
    }

    /// What the experiments are about.
    fn write(&self) -> Result<(), Stop> {
        self.fill(b"22\n")
    }

    fn is_written(&self) -> Result<bool, Stop> {
        Ok(std::io::read_to_string(self.file(OFlags::empty())?)? == "22\n")
    }
}

fn behind(bench: &mut Bench<'_>, kind: Backing, lifetime: Duration) -> Result<(), Stop> {
    let shown = Shown::new(bench, kind, lifetime)?;
    bench.operate(|_| shown.write())?;
    let is_written = shown.is_written()?;
    if lifetime != NEVER_KEPT {
        bench.notify_fuse(Notice::Invalidate)?;
        let size = fs::metadata(&shown.path).during("look at a file")?.len();
        bench.fact("seen_later", u64::from(size == 3));
        bench.done(is_written);
        return Ok(());
    }
    // Who opens the file reads what was written: the kernel just did not say so.
    bench.done(is_written && holds(&shown.path, b"22\n"));
    bench.control_all("m", || overwrite(&shown.path, b"3\n"))
}

/// How many events of a listener are of a file with this name.
fn named(evidence: &Evidence, listener: Listener, name: &str) -> u64 {
    let events = evidence.account(listener).map_or(&[][..], |account| &account.events);
    events.iter().filter(|event| event.names(name)).map(|event| event.count).sum()
}

fn only_polled(evidence: &Evidence) -> Ruling {
    let watches = [
        (Listener::Inotify, CONTROL),
        (Listener::Fanotify, CONTROL_FANOTIFY),
        (Listener::Ebpf, CONTROL_EBPF),
    ];
    if let Some((listener, _)) = watches.iter().find(|(_, control)| evidence.fact(control) == 0) {
        let word = listener.as_str();
        return Ruling::not_testable(format!(
            "{word} did not receive a later write through the mount either"
        ));
    }
    let received = |(listener, _): &(Listener, &str)| {
        evidence.account(*listener).is_some_and(|account| account.count() > 0)
    };
    let received: Vec<&str> =
        watches.iter().filter(|watch| received(watch)).map(|(listener, _)| listener.as_str()).collect();
    match (evidence.differs("m/f", "size"), received.is_empty()) {
        (true, true) => {
            Ruling::confirmed("size and times of m/f differ, and no other channel received anything")
        }
        (true, false) => Ruling::refuted(format!("{} received something as well", received.join(", "))),
        (false, _) => Ruling::refuted("the size of m/f is the same"),
    }
}
