//! A process in a real container, its overlay, and the remedies that are named where its watch misses a change of the host.

use std::ffi::CStr;
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{CreateFlags, Reader, WatchFlags, add_watch, init};
use rustix::io::Errno;

use crate::verify::bench::{Bench, During, Layers, Stop, holds, old_file, overwrite};
use crate::verify::container::{Container, Start, fill};
use crate::verify::evidence::Listener;
use crate::verify::experiment::{Experiment, Group};
use crate::verify::rulings::{receives, receives_anything, receives_nothing};
use crate::verify::verdict::Ruling;

const INOTIFY: &[Listener] = &[Listener::Inotify];
/// How long the host's listener waits for its event.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) const ALL: &[Experiment] = &[
    Experiment {
        name: "container-write",
        group: Group::Mounts,
        claim: "Mount namespaces isolate inotify: the host receives nothing of a container's writes to its own overlay.",
        source: "articles about inotify and containers",
        method: "Have a process in a container of crun append to /app/f, while the host watches merged/app.",
        rests_on: INOTIFY,
        run: written_inside,
        decide: |evidence| receives_nothing(evidence, "merged/app"),
    },
    Experiment {
        name: "container-fanotify",
        group: Group::Mounts,
        claim: "A fanotify mark of the host on a directory of a container's overlay receives the container's writes.",
        source: "fanotify(7), as a remedy in articles about containers",
        method: "As container-write; only fanotify counts.",
        rests_on: &[Listener::Fanotify],
        run: written_inside,
        decide: |evidence| match evidence.total(Listener::Fanotify, "MODIFY") {
            0 => Ruling::refuted("fanotify received no MODIFY"),
            _ => Ruling::confirmed("fanotify received MODIFY"),
        },
    },
    Experiment {
        name: "container-host-write",
        group: Group::Mounts,
        claim: "A watch in a container receives what the host writes to the upperdir of its overlay.",
        source: "bug reports about edits in the directories of a container engine",
        method: "Watch /app as a container of crun has it, and write to upper/app/f on the host.",
        rests_on: INOTIFY,
        run: |bench| {
            let setting = Setting::new(bench, "run/told", None)?;
            let inside = setting.container.path("app");
            bench.watch("container", &inside)?;
            let file = setting.layers.upper.join("app/f");
            bench.compare("upper/app/f", &file);
            bench.operate(|_| overwrite(&file, b"22\n"))?;
            bench.done(holds(&file, b"22\n"));
            bench.control("container", || overwrite(&setting.layers.merged.join("app/f"), b"3\n"))
        },
        decide: |evidence| receives_anything(evidence, "container"),
    },
    Experiment {
        name: "container-bind",
        group: Group::Mounts,
        claim: "A watch in a container receives what the host writes to a directory that is bind-mounted there.",
        source: "articles about containers, as a remedy",
        method: "Bind-mount shared/ into a container of crun, watch it as the container has it, and write to it on the host.",
        rests_on: INOTIFY,
        run: |bench| {
            let shared = bench.dir("shared")?;
            let file = shared.join("f");
            old_file(&file, b"1\n")?;
            let setting = Setting::new(bench, "run/told", Some(&shared))?;
            bench.watch("container", &setting.container.path("shared"))?;
            bench.compare("shared/f", &file);
            bench.operate(|_| overwrite(&file, b"22\n"))?;
            bench.done(holds(&setting.container.path("shared/f"), b"22\n"));
            Ok(())
        },
        decide: |evidence| receives(evidence, "container", "MODIFY"),
    },
    Experiment {
        name: "container-socket",
        group: Group::Mounts,
        claim: "A listener on the host can report to a container, over a socket, a change that the container's watch misses.",
        source: "articles about containers, as a remedy",
        method: "As container-host-write; the host watches upper/app, and sends what it receives to the container's process.",
        rests_on: INOTIFY,
        run: reported_over_a_socket,
        decide: |evidence| {
            let told = evidence.fact("told_bytes");
            let why = format!("the container's process received {told} bytes over its socket");
            let own = receives_nothing(evidence, "container");
            match (told, evidence.heard_any("container")) {
                (0, _) => Ruling::refuted("the container's process received nothing over its socket"),
                (_, 0) => Ruling { why: format!("{why}; {}", own.why), ..own },
                _ => Ruling::partly(format!("{why}, and its own watch the change too")),
            }
        },
    },
];

/// A container that runs, and the layers of its root.
struct Setting {
    layers: Layers,
    container: Container,
}

impl Setting {
    /// A container whose process appends to `file`; `shared` is bind-mounted to `/shared`.
    fn new(bench: &mut Bench<'_>, file: &str, shared: Option<&Path>) -> Result<Self, Stop> {
        let bundle = bench.dir("bundle")?;
        let layers = bench.overlay(|layers| {
            fill(&layers.lower).during("prepare a container's root")?;
            // In the upper layer, so that nothing is copied up later.
            fs::create_dir(layers.upper.join("app")).during("make a directory")?;
            old_file(&layers.upper.join("app/f"), b"1\n")
        })?;
        bench.unify_control_groups()?;
        let bind = shared.map(|dir| (dir, "/shared"));
        let container = Container::start(&Start { bundle: &bundle, root: &layers.merged, file, bind })?;
        Ok(Self { layers, container })
    }
}

fn written_inside(bench: &mut Bench<'_>) -> Result<(), Stop> {
    let mut setting = Setting::new(bench, "app/f", None)?;
    let dir = setting.layers.merged.join("app");
    let file = dir.join("f");
    bench.watch("merged/app", &dir)?;
    bench.compare("merged/app/f", &file);
    bench.operate(|_| setting.container.send(b"22\n").during("send to a container"))?;
    bench.done(holds(&file, b"1\n22\n"));
    bench.control("merged/app", || overwrite(&file, b"3\n"))
}

fn reported_over_a_socket(bench: &mut Bench<'_>) -> Result<(), Stop> {
    let mut setting = Setting::new(bench, "run/told", None)?;
    let upper = setting.layers.upper.join("app");
    let file = upper.join("f");
    bench.watch("container", &setting.container.path("app"))?;
    bench.compare("upper/app/f", &file);
    let told = setting.layers.merged.join("run/told");
    let listener = HostListener::new(&upper)?;
    bench.operate(|_| {
        overwrite(&file, b"22\n")?;
        match listener.next()? {
            Some(line) => setting.container.send(&line).during("send to a container"),
            None => Ok(false),
        }
    })?;
    bench.fact("told_bytes", fs::metadata(&told).during("look at what was reported")?.len());
    bench.done(holds(&file, b"22\n"));
    bench.control("container", || overwrite(&setting.layers.merged.join("app/f"), b"3\n"))
}

/// The host's side of the remedy: an inotify instance of its own.
struct HostListener(OwnedFd);

impl HostListener {
    fn new(dir: &Path) -> Result<Self, Stop> {
        let inotify = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).during("start inotify")?;
        add_watch(&inotify, dir, WatchFlags::MODIFY).during("add a watch")?;
        Ok(Self(inotify))
    }

    /// A line about the next event; none when none comes.
    fn next(&self) -> Result<Option<Vec<u8>>, Stop> {
        let patience = Timespec::try_from(PATIENCE).ok();
        poll(&mut [PollFd::new(&self.0, PollFlags::IN)], patience.as_ref()).during("wait for an event")?;
        let mut buffer = [MaybeUninit::uninit(); 1024];
        match Reader::new(&self.0, &mut buffer).next() {
            Ok(event) => {
                let name = event.file_name().map_or(&b""[..], CStr::to_bytes);
                Ok(Some([b"MODIFY ", name, b"\n"].concat()))
            }
            Err(Errno::AGAIN) => Ok(None),
            Err(errno) => Err(errno).during("read an event"),
        }
    }
}
