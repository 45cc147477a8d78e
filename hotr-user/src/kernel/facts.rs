//! What this machine allows: read once from `/proc` and `/sys`, judged by [`missing_for_ebpf`].
//!
//! No version is compared anywhere: the release is for printing. Whether a hook attaches is found out by attaching;
//! these facts only name the reason when nothing can.

use std::fs;
use std::path::{Path, PathBuf};

use crate::mounts::MountTable;

/// What to do where lockdown forbids tracing.
pub const UNLOCK: &str = "boot with lockdown=integrity or without lockdown";

/// What the kernel's lockdown forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lockdown {
    /// Nothing.
    None,
    /// Changing the running kernel; programs may still read its memory.
    Integrity,
    /// Also reading kernel memory, and so every tracing program.
    Confidentiality,
}

impl Lockdown {
    /// From `/sys/kernel/security/lockdown`: the mode in force is in brackets.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once('[')?.1.split_once(']')?.0 {
            "none" => Some(Self::None),
            "integrity" => Some(Self::Integrity),
            "confidentiality" => Some(Self::Confidentiality),
            _ => None,
        }
    }

    /// The kernel's own word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Integrity => "integrity",
            Self::Confidentiality => "confidentiality",
        }
    }
}

/// A set of capabilities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps(pub u64);

impl Caps {
    /// Read any file and search any directory.
    pub const DAC_READ_SEARCH: u32 = 2;
    /// Look into other processes.
    pub const SYS_PTRACE: u32 = 19;
    /// Nearly everything.
    pub const SYS_ADMIN: u32 = 21;
    /// Raise limits such as the locked memory that programs count against before Linux 5.11.
    pub const SYS_RESOURCE: u32 = 24;
    /// Attach tracing programs.
    pub const PERFMON: u32 = 38;
    /// Load programs.
    pub const BPF: u32 = 39;

    /// Whether the capability of this number is in the set.
    #[must_use]
    pub const fn has(self, capability: u32) -> bool {
        self.0 >> capability & 1 == 1
    }
}

/// The machine as this process finds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Facts {
    /// Kernel release, for humans.
    pub release: String,
    /// The kernel describes its own types (`/sys/kernel/btf/vmlinux`).
    pub btf: bool,
    /// Effective user id.
    pub euid: u32,
    /// Effective capabilities; inside a user namespace they count for nothing here.
    pub caps: Caps,
    /// `/proc` is not mounted: of what follows nothing is known that is read there.
    pub without_proc: bool,
    /// In the initial user namespace.
    pub initial_user_ns: bool,
    /// In the initial pid namespace: actor pids in records can be looked up in our `/proc`.
    pub initial_pid_ns: bool,
    /// A seccomp filter is on this process (containers): it may forbid bpf(2).
    pub seccomp_filter: bool,
    /// Lockdown mode; `None` when the kernel has none or securityfs is not mounted.
    pub lockdown: Option<Lockdown>,
    /// Where tracefs is mounted. Syscall tracepoints by name need it.
    pub tracefs: Option<PathBuf>,
    /// The kernel has kprobes that can be attached by number (`CONFIG_KPROBE_EVENTS`).
    pub kprobe_events: bool,
    /// `kernel.unprivileged_bpf_disabled`: 0 everyone may load simple programs, 1 or 2 only with privilege.
    pub unprivileged_bpf_disabled: Option<u8>,
    /// `kernel.perf_event_paranoid`.
    pub perf_event_paranoid: Option<i8>,
    /// `net.core.bpf_jit_enable`; 0 means that programs are interpreted.
    pub bpf_jit: Option<u8>,
    /// `fs.inotify.max_user_watches`.
    pub inotify_max_user_watches: Option<u64>,
    /// `fs.inotify.max_user_instances`.
    pub inotify_max_user_instances: Option<u64>,
    /// `fs.inotify.max_queued_events`.
    pub inotify_max_queued_events: Option<u64>,
}

impl Facts {
    /// Asks the running kernel. What cannot be read is absent or false, never an error.
    #[must_use]
    pub fn gather() -> Self {
        let mut facts = Self::from_texts(Path::new("/"));
        facts.euid = rustix::process::geteuid().as_raw();
        facts.initial_pid_ns = crate::procinfo::in_initial_pid_namespace();
        facts
    }

    /// The part that is read from files, below another root directory in tests.
    fn from_texts(root: &Path) -> Self {
        let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
        let status = read("proc/self/status");
        let mounts = fs::read(root.join("proc/self/mountinfo")).unwrap_or_default();
        let exists = |path: &str| root.join(path).exists();
        Self {
            release: read("proc/sys/kernel/osrelease").trim().to_owned(),
            btf: exists("sys/kernel/btf/vmlinux"),
            caps: Caps(
                field(&status, "CapEff:").and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or(0),
            ),
            without_proc: !exists("proc/self/status"),
            initial_user_ns: is_identity_map(&read("proc/self/uid_map")),
            seccomp_filter: field(&status, "Seccomp:") == Some("2"),
            lockdown: Lockdown::parse(&read("sys/kernel/security/lockdown")),
            tracefs: tracefs(&MountTable::parse(&mounts)),
            kprobe_events: exists("sys/bus/event_source/devices/kprobe/type"),
            unprivileged_bpf_disabled: number(&read("proc/sys/kernel/unprivileged_bpf_disabled")),
            perf_event_paranoid: number(&read("proc/sys/kernel/perf_event_paranoid")),
            bpf_jit: number(&read("proc/sys/net/core/bpf_jit_enable")),
            inotify_max_user_watches: number(&read("proc/sys/fs/inotify/max_user_watches")),
            inotify_max_user_instances: number(&read("proc/sys/fs/inotify/max_user_instances")),
            inotify_max_queued_events: number(&read("proc/sys/fs/inotify/max_queued_events")),
            ..Self::default()
        }
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.trim().parse().ok()
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// The initial user namespace maps every id to itself. Before Linux 3.8 there is no such file and no such namespace,
/// but without BTF there is no eBPF either.
fn is_identity_map(uid_map: &str) -> bool {
    uid_map.split_ascii_whitespace().eq(["0", "0", "4294967295"])
}

fn tracefs(table: &MountTable) -> Option<PathBuf> {
    let mounted = |kind: &str| table.mounts().iter().find(|mount| mount.fs_type == kind);
    // debugfs mounts tracefs inside itself on first access, and only then it is in the table.
    mounted("tracefs")
        .map(|mount| mount.mount_point.clone())
        .or_else(|| mounted("debugfs").map(|mount| mount.mount_point.join("tracing")))
}

/// Why no eBPF program can run here: one line with the cause and the next step; `None` when nothing stands against
/// trying.
#[must_use]
pub fn missing_for_ebpf(facts: &Facts) -> Option<String> {
    if facts.without_proc {
        return Some("/proc is not mounted; run `mount -t proc proc /proc`".to_owned());
    }
    if !facts.initial_user_ns {
        return Some(
            "this is a user namespace, where capabilities do not reach the kernel's tracing; \
             run hotr as root of the host"
                .to_owned(),
        );
    }
    let caps = facts.caps;
    if !caps.has(Caps::SYS_ADMIN) {
        let missing: Vec<_> = [(Caps::BPF, "CAP_BPF"), (Caps::PERFMON, "CAP_PERFMON")]
            .iter()
            .filter(|(capability, _)| !caps.has(*capability))
            .map(|(_, name)| *name)
            .collect();
        if !missing.is_empty() {
            let missing = missing.join(" and ");
            let next =
                if facts.euid == 0 { "add them to the container or service" } else { "run hotr as root" };
            return Some(format!("{missing} missing (CAP_SYS_ADMIN would do as well); {next}"));
        }
    }
    if facts.lockdown == Some(Lockdown::Confidentiality) {
        return Some(format!(
            "the kernel is in lockdown mode confidentiality, which forbids tracing programs; {UNLOCK}"
        ));
    }
    if !facts.btf {
        return Some(
            "/sys/kernel/btf/vmlinux is missing; mount sysfs, or boot a kernel built with CONFIG_DEBUG_INFO_BTF"
                .to_owned(),
        );
    }
    None
}

#[cfg(test)]
mod tests;
