//! Attaches programs to kprobes and kretprobes through tracefs.
//!
//! A kretprobe follows as many calls at a time as it has instances, and sees nothing of the others: by default as many
//! as there are CPUs, or ten (kernel/kprobes.c `register_kretprobe`). So few are taken by writers to full pipes and
//! openers of fifos that wait for their reader. Only tracefs allows more. It also shows how many calls a probe missed,
//! on kernels whose links do not.
//!
//! In: a function, a loaded program. Out: a probe of the kernel's own, with an event that the program hangs on. The
//! probe has a name there, and must be removed by it; killed, hotr leaves names behind, with nothing attached to them,
//! which the next hotr removes.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU32, Ordering};

use aya::programs::ProbeKind;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{Pid, getpid, test_kill_process};

use super::perf::Events;

/// Calls of one function at a time that a kretprobe follows; the kernel's most is 4096. Some 100 bytes each.
const INSTANCES: u32 = 1024;
/// The group of hotr's probes.
const GROUP: &str = "hotr";
/// The file with all probes of this kind.
const PROBES: &str = "kprobe_events";
/// The same with what each saw and missed.
const PROFILE: &str = "kprobe_profile";

/// The probes of this process.
pub(super) struct Probes {
    tracefs: Events,
    owner: Owner,
    /// Name of the program, and what it hangs on.
    attached: Vec<(String, OwnedFd)>,
    /// The last known number of missed calls.
    missed: Cell<u64>,
}

impl Probes {
    /// Opens tracefs, and removes the names of those that were killed.
    ///
    /// # Errors
    /// When there is none, or it may not be changed.
    pub(super) fn open() -> io::Result<Self> {
        let tracefs = Events::open()?;
        let probes = Self { owner: Owner::new()?, tracefs, attached: Vec::new(), missed: Cell::new(0) };
        for name in probes.read(PROBES)?.lines().filter_map(listed) {
            if Owner::of(name).is_some_and(|other| other.left_it_behind(&probes.owner)) {
                // Refused as long as something hangs on it, and then it is not left behind.
                let _ = probes.remove(name);
            }
        }
        Ok(probes)
    }

    /// Runs a loaded program wherever a function is entered or left.
    ///
    /// # Errors
    /// When the kernel refuses; nothing is attached then.
    pub(super) fn attach(
        &mut self,
        program: &str,
        kind: ProbeKind,
        function: &str,
        descriptor: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let name = self.owner.name(program);
        let probe = match kind {
            ProbeKind::Entry => "p".to_owned(),
            ProbeKind::Return => format!("r{INSTANCES}"),
        };
        self.write(&format!("{probe}:{GROUP}/{name} {function}\n"))?;
        match self.tracefs.attach(&format!("{GROUP}/{name}"), descriptor) {
            Ok(event) => {
                self.attached.push((name, event));
                Ok(())
            }
            Err(error) => {
                let _ = self.remove(&name);
                Err(error)
            }
        }
    }

    /// Takes a program off; one that is not attached stays so.
    pub(super) fn detach(&mut self, program: &str) {
        let name = self.owner.name(program);
        if let Some(at) = self.attached.iter().position(|(attached, _)| *attached == name) {
            drop(self.attached.swap_remove(at));
            let _ = self.remove(&name);
        }
    }

    /// Calls that the probes did not handle (kernel/trace/trace_kprobe.c `probes_profile_seq_show`); as many as the last
    /// time when that cannot be read now.
    #[must_use]
    pub(super) fn missed(&self) -> u64 {
        if self.attached.is_empty() {
            return 0;
        }
        let Ok(profile) = self.read(PROFILE) else { return self.missed.get() };
        let missed = |line: &str| {
            let mut words = line.split_whitespace();
            let name = words.next()?;
            self.attached.iter().find(|(attached, _)| attached == name)?;
            words.nth(1)?.parse::<u64>().ok()
        };
        self.missed.set(profile.lines().filter_map(missed).sum());
        self.missed.get()
    }

    /// Removes a probe. Those that cannot be removed now, the next hotr removes.
    fn remove(&self, name: &str) -> io::Result<()> {
        self.write(&format!("-:{GROUP}/{name}\n"))
    }

    fn write(&self, line: &str) -> io::Result<()> {
        // Opened to be truncated, it would lose all probes of the machine.
        let file = self.tracefs.open_file(PROBES, OFlags::WRONLY | OFlags::APPEND)?;
        File::from(file).write_all(line.as_bytes())
    }

    fn read(&self, name: &str) -> io::Result<String> {
        let mut text = String::new();
        File::from(self.tracefs.open_file(name, OFlags::RDONLY)?).read_to_string(&mut text)?;
        Ok(text)
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        for (name, event) in std::mem::take(&mut self.attached) {
            drop(event);
            let _ = self.remove(&name);
        }
    }
}

/// The name of one of hotr's probes in a line such as `r1024:hotr/n4026531836_417_0_kretprobe_open do_filp_open`.
fn listed(line: &str) -> Option<&str> {
    let (_, event) = line.split_whitespace().next()?.split_once(':')?;
    event.strip_prefix(GROUP)?.strip_prefix('/')
}

/// Who made a probe, as its name says: all probes of the machine have one list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owner {
    /// Inode of its PID namespace, and its number there.
    namespace: u64,
    pid: i32,
    /// Which set of probes of the process.
    set: u32,
}

impl Owner {
    fn new() -> io::Result<Self> {
        static SETS: AtomicU32 = AtomicU32::new(0);
        let namespace = std::fs::metadata("/proc/self/ns/pid")?.ino();
        let pid = getpid().as_raw_nonzero().get();
        Ok(Self { namespace, pid, set: SETS.fetch_add(1, Ordering::Relaxed) })
    }

    fn name(self, program: &str) -> String {
        format!("n{}_{}_{}_{program}", self.namespace, self.pid, self.set)
    }

    fn of(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix('n')?.split('_');
        let mut next = || parts.next()?.parse::<u64>().ok();
        let (namespace, pid, set) = (next()?, next()?, next()?);
        Some(Self { namespace, pid: pid.try_into().ok()?, set: set.try_into().ok()? })
    }

    /// Whether it is gone, or no relative of `asker`'s, as far as can be known: a process of another namespace that
    /// attaches its probes just now loses one that nothing uses yet, and gets an error.
    fn left_it_behind(self, asker: &Self) -> bool {
        if self.namespace != asker.namespace || self.pid == asker.pid {
            return true;
        }
        let pid = Pid::from_raw(self.pid.max(0));
        pid.is_none_or(|pid| test_kill_process(pid) == Err(Errno::SRCH))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_says_who_made_it() {
        let owner = Owner { namespace: 4_026_531_836, pid: 417, set: 2 };
        let name = owner.name("kretprobe_open");
        let line = format!("r1024:hotr/{name} do_filp_open");
        assert_eq!(listed(&line), Some(name.as_str()));
        assert_eq!(Owner::of(&name), Some(owner));
        assert_eq!(listed("p:kprobes/mine vfs_write"), None);
        assert_eq!(Owner::of("mine"), None);
    }

    #[test]
    fn probes_of_the_dead_are_left_behind() {
        let me = Owner::new().expect("a PID namespace");
        let dead = Owner { pid: i32::MAX, ..me };
        let parent = rustix::process::getppid().expect("a parent").as_raw_nonzero().get();
        assert!(dead.left_it_behind(&me));
        assert!(!Owner { pid: parent, ..me }.left_it_behind(&me));
    }
}
