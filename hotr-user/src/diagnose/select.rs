//! Which processes a diagnosis is about.
//!
//! In: what the user named. Out: process ids, or one sentence about why there are none.

use std::path::PathBuf;

use rustix::io::Errno;

use super::process::{self, ProcDir};
use crate::procinfo::{cgroup, kept_of};

/// What the user named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// A process.
    Pid(u32),
    /// All processes of this command name.
    Comm(String),
    /// All processes of a systemd unit.
    Unit(String),
    /// All processes of a container, by its id or the beginning of it.
    Container(String),
}

/// Why there is nothing to diagnose.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No process has this id.
    #[error("diagnose process {pid}: no such process{hidden}; `ps -e` lists the processes")]
    NoProcess {
        /// The id.
        pid: u32,
        /// A remark when `/proc` hides processes.
        hidden: &'static str,
    },
    /// It has no descriptors.
    #[error(
        "diagnose process {pid}: it is a kernel thread, which has no watches; name a process of a program"
    )]
    KernelThread {
        /// The id.
        pid: u32,
    },
    /// Its descriptors may not be read.
    #[error("diagnose process {pid}: permission denied; run as root, or as the user of that process")]
    Denied {
        /// The id.
        pid: u32,
    },
    /// It ended meanwhile.
    #[error("diagnose process {pid}: it has just exited; start it again, and run hotr while it runs")]
    Exited {
        /// The id.
        pid: u32,
    },
    /// Nothing has this name.
    #[error("diagnose {what} {name}: no process of it{hidden}; {next}")]
    Nobody {
        /// `command`, `unit`, `container`.
        what: &'static str,
        /// The name.
        name: String,
        /// A remark when `/proc` hides processes.
        hidden: &'static str,
        /// What to do.
        next: &'static str,
    },
    /// A path cannot be read.
    #[error("diagnose {}: {cause}; {next}", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// Why not.
        cause: String,
        /// What to do.
        next: &'static str,
    },
    /// The look needs a thread of its own.
    #[error("start a thread: {0}; raise the limit of processes (`ulimit -u`)")]
    NoThread(String),
    /// `/proc` is not there.
    #[error("read /proc: {0}; mount it: mount -t proc proc /proc")]
    NoProc(String),
}

impl Error {
    /// What follows the operation and its object in the message.
    pub(super) fn reason(&self) -> String {
        let text = self.to_string();
        text.split_once(": ").map_or_else(|| text.clone(), |(_, reason)| reason.to_owned())
    }
}

/// The processes of all choices, each once, and remarks for stderr.
pub(super) fn pids(choices: &[Choice]) -> Result<(Vec<u32>, Vec<String>), Error> {
    let all = process::all().map_err(|error| Error::NoProc(error.to_string()))?;
    let (mut pids, mut notes) = (Vec::new(), Vec::new());
    for choice in choices {
        let found = matching(choice, &all)?;
        if let (Choice::Comm(name), [_, _, ..]) = (choice, found.as_slice()) {
            let list = found.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
            notes.push(format!("{} processes are named {name}: {list}", found.len()));
        }
        pids.extend(found);
    }
    pids.sort_unstable();
    pids.dedup();
    Ok((pids, notes))
}

fn matching(choice: &Choice, all: &[u32]) -> Result<Vec<u32>, Error> {
    let own = std::process::id();
    let those = |test: &dyn Fn(&ProcDir) -> bool| -> Vec<u32> {
        let others = all.iter().copied().filter(|pid| *pid != own);
        others.filter(|pid| ProcDir::open(*pid).is_ok_and(|dir| test(&dir))).collect()
    };
    let cgroups = |test: &dyn Fn(&str) -> bool| {
        those(&|dir| dir.read("cgroup").is_ok_and(|text| process::cgroup_names(&text).any(test)))
    };
    let (what, name, found, next) = match choice {
        Choice::Pid(pid) => {
            // With hidepid the directory opens, and everything in it is not there.
            let seen = ProcDir::open(*pid).and_then(|dir| dir.read("stat"));
            match seen {
                Err(errno) if process::has_ended(errno) => {
                    return Err(Error::NoProcess { pid: *pid, hidden: hidden() });
                }
                Err(_) => return Err(Error::Denied { pid: *pid }),
                Ok(_) => {}
            }
            return Ok(vec![*pid]);
        }
        Choice::Comm(name) => {
            let kept = kept_of(name.as_ref());
            let same = |comm: Vec<u8>| comm.strip_suffix(b"\n").unwrap_or(&comm) == kept;
            ("command", name, those(&|dir| dir.read("comm").is_ok_and(same)), "`ps -e` lists the names")
        }
        Choice::Unit(name) => {
            let found = cgroups(&|one| cgroup::is_of_unit(one, name));
            ("unit", name, found, "`systemctl status` lists the units and their processes")
        }
        Choice::Container(name) => {
            let is_it = |one: &str| cgroup::container_id(one).is_some_and(|id| id.starts_with(name.as_str()));
            ("container", name, cgroups(&is_it), "give its id as `docker ps` or `podman ps` prints it")
        }
    };
    if found.is_empty() {
        return Err(Error::Nobody { what, name: name.clone(), hidden: hidden(), next });
    }
    Ok(found)
}

/// Why there is no process of what was named; none where there is one.
#[must_use]
pub fn lack(choice: &Choice) -> Option<String> {
    let all = process::all().ok()?;
    matching(choice, &all).err().map(|error| error.to_string())
}

/// A remark when processes of other users cannot even be seen.
fn hidden() -> &'static str {
    let hides = || {
        let me = ProcDir::open(std::process::id()).ok()?;
        let table = crate::mounts::MountTable::parse(&me.read("mountinfo").ok()?);
        let proc = table.mount_of(std::path::Path::new("/proc"))?;
        let mut options = proc.super_options.split(|&byte| byte == b',');
        Some(options.any(|option| {
            option.starts_with(b"hidepid=") && !option.ends_with(b"=0") && !option.ends_with(b"=off")
        }))
    };
    match hides() {
        Some(true) if !rustix::process::geteuid().is_root() => {
            " that you may see (/proc is mounted with hidepid)"
        }
        _ => "",
    }
}

/// What the failure to read a chosen process means.
pub(super) fn failed(pid: u32, errno: Errno) -> Error {
    match errno {
        errno if process::has_ended(errno) => Error::Exited { pid },
        _ => Error::Denied { pid },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_process_is_named() {
        assert_eq!(lack(&Choice::Pid(std::process::id())), None);
        let why = lack(&Choice::Unit("no such unit".to_owned())).unwrap();
        assert!(why.starts_with("diagnose unit no such unit: no process of it"), "{why}");
    }
}
