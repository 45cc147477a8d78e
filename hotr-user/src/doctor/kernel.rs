//! The kernel, what it allows, and what this process is allowed.
//!
//! In: /proc/sys, /sys/kernel, /proc/self/status. Out: typed facts, and each of them as a [`Check`].

use std::fs;
use std::path::Path;

use procfs::process::Process;

use super::{Check, Mark};

const BTF: &str = "/sys/kernel/btf/vmlinux";
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";

/// Facts about the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Kernel {
    /// As `uname -r` prints it.
    pub release: String,
    /// Size in bytes of the kernel's type information; `None` when it has none.
    pub btf_bytes: Option<u64>,
    /// `none`, `integrity` or `confidentiality`, or why that is not known.
    pub lockdown: Result<String, String>,
    /// `kernel.unprivileged_bpf_disabled`: 0, 1 or 2; `None` when the kernel has no such setting.
    pub unprivileged_bpf_disabled: Option<u64>,
}

impl Kernel {
    /// Reads them.
    #[must_use]
    pub fn read() -> Self {
        Self {
            release: fs::read_to_string("/proc/sys/kernel/osrelease")
                .map_or_else(|error| format!("not readable: {error}"), |text| text.trim().to_owned()),
            btf_bytes: fs::metadata(BTF).ok().map(|meta| meta.len()),
            lockdown: lockdown(),
            unprivileged_bpf_disabled: fs::read_to_string("/proc/sys/kernel/unprivileged_bpf_disabled")
                .ok()
                .and_then(|text| text.trim().parse().ok()),
        }
    }

    /// Each fact with its mark and next step.
    #[must_use]
    pub fn checks(&self) -> Vec<Check> {
        vec![
            Check::new("release", Mark::Good, &self.release),
            self.btf_check(),
            self.lockdown_check(),
            self.unprivileged_check(),
        ]
    }

    fn btf_check(&self) -> Check {
        match self.btf_bytes {
            Some(bytes) => Check::new("btf", Mark::Good, format!("{BTF}, {} KiB", bytes / 1024)),
            None => Check::new("btf", Mark::Bad, format!("{BTF} does not exist: no eBPF channel"))
                .next("boot a kernel built with CONFIG_DEBUG_INFO_BTF=y, or use --channels inotify"),
        }
    }

    fn lockdown_check(&self) -> Check {
        match self.lockdown.as_deref() {
            Ok("none") => Check::new("lockdown", Mark::Good, "none"),
            Ok("confidentiality") => {
                Check::new("lockdown", Mark::Bad, "confidentiality: eBPF may not read kernel memory")
                    .next("boot with lockdown=integrity, or use --channels inotify")
            }
            Ok(mode) => Check::new("lockdown", Mark::Good, format!("{mode}: eBPF may read kernel memory")),
            Err(why) => Check::new("lockdown", Mark::Note, why),
        }
    }

    fn unprivileged_check(&self) -> Check {
        let text = match self.unprivileged_bpf_disabled {
            Some(0) => "0: allowed, but tracing programs still need privileges".to_owned(),
            Some(1) => "1: disabled until the next boot".to_owned(),
            Some(n) => format!("{n}: disabled, an administrator may enable it"),
            None => "the kernel has no such setting".to_owned(),
        };
        Check::new("unprivileged_bpf_disabled", Mark::Good, text)
    }
}

fn lockdown() -> Result<String, String> {
    match fs::read_to_string(LOCKDOWN) {
        Ok(text) => chosen(&text).ok_or_else(|| format!("{LOCKDOWN} has no chosen mode: {}", text.trim())),
        Err(_) if !Path::new("/sys/kernel/security").exists() => {
            Err("not readable: sysfs is not mounted, or the kernel has no security modules".to_owned())
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !securityfs_mounted() => {
            Err("not readable: securityfs is not mounted".to_owned())
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err("the kernel has no lockdown module".to_owned())
        }
        Err(error) => Err(format!("not readable: {error}")),
    }
}

/// The word in brackets of a kernel file that lists choices: `none [integrity] confidentiality`.
fn chosen(text: &str) -> Option<String> {
    text.split_whitespace().find_map(|word| Some(word.strip_prefix('[')?.strip_suffix(']')?.to_owned()))
}

fn securityfs_mounted() -> bool {
    fs::read_to_string("/proc/self/mounts").is_ok_and(|text| text.contains(" securityfs "))
}

/// A capability that hotr can use.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capability {
    /// Its name.
    pub name: &'static str,
    /// This process has it in its effective set.
    pub effective: bool,
    /// Missing: what does not work without it. There: what it is for.
    pub check: Check,
}

/// Number (kernel: include/uapi/linux/capability.h), name, and what it is for.
const CAPABILITIES: [(u32, &str, &str); 5] = [
    (39, "CAP_BPF", "loads eBPF programs"),
    (38, "CAP_PERFMON", "attaches them and lets them read kernel memory"),
    (21, "CAP_SYS_ADMIN", "replaces CAP_BPF and CAP_PERFMON, opens files by handle"),
    (2, "CAP_DAC_READ_SEARCH", "reads every directory"),
    (24, "CAP_SYS_RESOURCE", "raises the memory limit of eBPF maps on kernels before 5.11"),
];

/// The effective capabilities of this process that matter here.
#[must_use]
pub fn capabilities() -> Vec<Capability> {
    let effective = Process::myself().and_then(|me| me.status()).map_or(0, |status| status.capeff);
    judge_capabilities(effective)
}

fn judge_capabilities(effective: u64) -> Vec<Capability> {
    let has = |number: u32| effective >> number & 1 == 1;
    let admin = has(21);
    let can_trace = admin || (has(39) && has(38));
    CAPABILITIES
        .iter()
        .map(|&(number, name, purpose)| {
            let check = match number {
                _ if has(number) => Check::new(name, Mark::Good, purpose),
                38 | 39 if admin => Check::new(name, Mark::Good, "missing; CAP_SYS_ADMIN replaces it"),
                38 | 39 => Check::new(name, Mark::Bad, format!("missing: it {purpose}")).next(WITHOUT_ROOT),
                21 if can_trace => {
                    Check::new(name, Mark::Good, "missing; CAP_BPF and CAP_PERFMON are enough")
                }
                21 => Check::new(name, Mark::Note, "missing; CAP_BPF and CAP_PERFMON would be enough"),
                2 => Check::new(
                    name,
                    Mark::Note,
                    "missing: hotr cannot look into directories that you may not read",
                ),
                _ => Check::new(name, Mark::Note, format!("missing: it {purpose}; not needed on later ones")),
            };
            Capability { name, effective: has(number), check }
        })
        .collect()
}

/// Whoever may run a file with these capabilities can find every file of the machine.
const WITHOUT_ROOT: &str = "run as root, or in a systemd unit with User= and AmbientCapabilities=CAP_BPF CAP_PERFMON \
     CAP_DAC_READ_SEARCH, or for one group and `hotr trace` only: chgrp GROUP FILE; chmod 0750 FILE; setcap \
     cap_bpf,cap_perfmon,cap_dac_read_search+ep FILE";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chosen_word_is_in_brackets() {
        for (text, want) in [
            ("none [integrity] confidentiality\n", Some("integrity")),
            ("[none] integrity confidentiality\n", Some("none")),
            ("", None),
            ("none integrity", None),
        ] {
            assert_eq!(chosen(text).as_deref(), want);
        }
    }

    #[test]
    fn capabilities_are_judged_together() {
        let marks = |bits: &[u32]| {
            let effective = bits.iter().map(|bit| 1_u64 << bit).sum();
            judge_capabilities(effective).iter().map(|cap| cap.check.mark.sign()).collect::<String>()
        };
        for (bits, want) in [
            (&[39, 38, 21, 2, 24][..], "✓✓✓✓✓"),
            (&[21], "✓✓✓!!"),
            (&[39, 38, 2], "✓✓✓✓!"),
            (&[39], "✓✗!!!"),
            (&[], "✗✗!!!"),
        ] {
            assert_eq!(marks(bits), want, "{bits:?}");
        }
    }

    #[test]
    fn what_cannot_work_has_a_next_step() {
        let kernel = Kernel {
            release: "6.1".to_owned(),
            btf_bytes: None,
            lockdown: Ok("confidentiality".to_owned()),
            unprivileged_bpf_disabled: Some(2),
        };
        let bad: Vec<_> = kernel
            .checks()
            .into_iter()
            .chain(judge_capabilities(0).into_iter().map(|capability| capability.check))
            .filter(|check| check.mark == Mark::Bad)
            .collect();
        assert_eq!(
            bad.iter().map(|check| check.name.as_str()).collect::<Vec<_>>(),
            ["btf", "lockdown", "CAP_BPF", "CAP_PERFMON"]
        );
        assert!(bad.iter().all(|check| check.next.is_some()));
    }
}
