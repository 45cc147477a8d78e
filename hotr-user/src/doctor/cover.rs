//! Whether a path can be fully covered, and by what. Pure: facts in, judgement out.

use std::path::{Path, PathBuf};

use super::PlanRow;
use super::filesystem::{LayerDir, PathFilesystem};
use crate::kernel::load::Tier;
use hotr_events::Cause;

/// What the eBPF channel can see on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ebpf {
    /// Every hook that sees changes has a tier.
    Full,
    /// Every such hook has one, and some have only the tracepoints of system calls.
    Tracepoints,
    /// These hooks have none.
    Partial(Vec<String>),
    /// It cannot run at all, and why.
    Off(String),
}

impl Ebpf {
    /// Reads it from the attach plan.
    #[must_use]
    pub fn from_plan(plan: &Result<Vec<PlanRow>, String>) -> Self {
        let rows = match plan {
            Ok(rows) => rows,
            Err(why) => return Self::Off(why.clone()),
        };
        if rows.iter().all(|row| row.tier.is_none()) {
            let why = rows.first().map_or("the plan has no hooks", |row| row.why.as_str());
            return Self::Off(why.to_owned());
        }
        let missing: Vec<_> = rows
            .iter()
            .filter(|row| row.tier.is_none() && !row.optional)
            .map(|row| row.hook.clone())
            .collect();
        if !missing.is_empty() {
            return Self::Partial(missing);
        }
        let by_calls = rows.iter().any(|row| row.tier == Some(Tier::Tracepoint.as_str()));
        if by_calls { Self::Tracepoints } else { Self::Full }
    }

    /// Whether it needs inotify for whole kinds of changes.
    #[must_use]
    pub fn sees_every_kind(&self) -> bool {
        matches!(self, Self::Full | Self::Tracepoints)
    }
}

/// A kind of change that no channel of hotr will see.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gap {
    /// Cause id, as in `missed_by`.
    pub cause: Cause,
    /// One sentence.
    pub why: String,
}

/// The judgement of one path.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cover {
    /// As the user named it, absolute.
    pub path: PathBuf,
    /// Filesystem type.
    pub fs: String,
    /// Where that filesystem is mounted.
    pub mount_point: PathBuf,
    /// Layers, when it is an overlay.
    pub layers: Vec<LayerDir>,
    /// Directories, when they had to be counted; the count stops at what inotify could take.
    pub directories: Option<u64>,
    /// `ebpf`, `inotify`: the channels that will receive changes here.
    pub by: Vec<&'static str>,
    /// What they will not receive.
    pub gaps: Vec<Gap>,
    /// What the user can do about it.
    pub next: Option<String>,
}

impl Cover {
    /// Nothing is left out.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.gaps.is_empty()
    }
}

/// Judges one path. `directories` is needed when eBPF does not see everything; `budget` is how many watches
/// hotr may use.
#[must_use]
pub fn judge(
    path: &Path,
    place: &PathFilesystem,
    ebpf: &Ebpf,
    directories: Option<u64>,
    budget: u64,
) -> Cover {
    let mut cover = Cover {
        path: path.to_owned(),
        fs: place.fs.clone(),
        mount_point: place.mount_point.clone(),
        layers: place.layers.clone(),
        directories,
        by: Vec::new(),
        gaps: Vec::new(),
        next: None,
    };
    if is_pseudo(&place.fs) {
        let why = format!("{} shows kernel state: values change without a write", place.fs);
        cover.gaps.push(Gap { cause: Cause::PseudoFs, why });
        cover.next = Some("read the values periodically instead".to_owned());
        return cover;
    }
    channels(&mut cover, ebpf, budget);
    layers(&mut cover, ebpf);
    remote(&mut cover, place);
    cover
}

/// Which changes made on this machine each channel can receive.
fn channels(cover: &mut Cover, ebpf: &Ebpf, budget: u64) {
    match ebpf {
        Ebpf::Full => cover.by = vec!["ebpf", "inotify"],
        Ebpf::Tracepoints => {
            cover.by = vec!["ebpf", "inotify"];
            let why = "the tracepoint tier does not see: writes of kernel threads (nfsd, loop devices), files \
                       that the kernel itself makes (core dumps), set-uid bits that a write removes, stores through a \
                       mapping to a page that is still dirty from a write, io_uring requests that ask for no \
                       completion, sockets bound by io_uring, and `io_submit` and `socketcall` of 32-bit programs; \
                       inotify receives part of them";
            cover.gaps.push(Gap { cause: Cause::TracepointTier, why: why.to_owned() });
            cover.next = Some("run hotr where the kernel allows fentry or kprobes".to_owned());
        }
        Ebpf::Partial(hooks) => {
            cover.by = vec!["ebpf", "inotify"];
            let why = format!("no eBPF program for: {}; inotify receives part of that", hooks.join(", "));
            cover.gaps.push(Gap { cause: Cause::HookMissing, why });
            cover.next = Some("see the attach plan for the reason of each hook".to_owned());
        }
        Ebpf::Off(_) => {
            cover.by = vec!["inotify"];
            for (cause, why) in [
                (Cause::Mmap, "inotify never receives stores through a mapping"),
                (Cause::Aio, "inotify never receives libaio writes"),
            ] {
                cover.gaps.push(Gap { cause, why: why.to_owned() });
            }
            cover.next = Some("make eBPF work: the attach plan says what is missing".to_owned());
        }
    }
    if let Some(directories) = cover.directories.filter(|directories| *directories > budget) {
        let why = format!("{directories} or more directories, and hotr may use {budget} inotify watches");
        cover.gaps.push(Gap { cause: Cause::Limit, why });
        cover.next = Some(format!("sysctl fs.inotify.max_user_watches={}", directories.saturating_mul(4)));
    }
}

/// Changes made directly in an overlay's layers need a way into these layers.
fn layers(cover: &mut Cover, ebpf: &Ebpf) {
    if cover.layers.is_empty() {
        return;
    }
    if let Ebpf::Off(_) = ebpf {
        let why = "inotify on an overlay does not receive changes made directly in its layers".to_owned();
        cover.gaps.push(Gap { cause: Cause::LayerBypass, why });
        return;
    }
    for layer in cover.layers.iter().filter(|layer| !layer.reachable) {
        let (which, path) = (layer.layer, layer.path.display());
        let (why, next) = if layer.path.is_absolute() {
            (
                format!("{which} layer {path} cannot be reached from here"),
                "run hotr in the mount namespace in which the overlay was mounted",
            )
        } else {
            (
                format!("{which} layer {path} cannot be found: the mount names it by a relative path"),
                "mount the overlay with absolute paths of its layers",
            )
        };
        cover.gaps.push(Gap { cause: Cause::LayerBypass, why });
        cover.next = Some(next.to_owned());
    }
}

/// Changes that other machines (or a daemon) make behind the filesystem never reach this kernel.
fn remote(cover: &mut Cover, place: &PathFilesystem) {
    let here = is_remote(&place.fs).then(|| place.fs.clone());
    let below = place
        .below
        .iter()
        .filter(|(_, fs)| is_remote(fs))
        .map(|(path, fs)| format!("{fs} at {}", path.display()));
    for fs in here.into_iter().chain(below) {
        let why = format!("{fs}: changes made by its server or by other clients never reach this kernel");
        cover.gaps.push(Gap { cause: Cause::Remote, why });
        cover.next = Some("run hotr where the files are stored".to_owned());
    }
}

pub(crate) fn is_pseudo(fs: &str) -> bool {
    const PSEUDO: [&str; 16] = [
        "proc",
        "sysfs",
        "debugfs",
        "tracefs",
        "cgroup",
        "cgroup2",
        "securityfs",
        "bpf",
        "configfs",
        "selinuxfs",
        "smackfs",
        "pstore",
        "efivarfs",
        "devpts",
        "binfmt_misc",
        "nsfs",
    ];
    PSEUDO.contains(&fs)
}

/// Filesystems with a server, a daemon or another machine behind them.
pub(crate) fn is_remote(fs: &str) -> bool {
    const REMOTE: [&str; 16] = [
        "nfs", "nfs4", "cifs", "smb3", "9p", "virtiofs", "fuse", "fuseblk", "ceph", "afs", "coda", "gfs2",
        "ocfs2", "lustre", "orangefs", "vboxsf",
    ];
    REMOTE.contains(&fs) || fs.starts_with("fuse.")
}

#[cfg(test)]
mod tests;
