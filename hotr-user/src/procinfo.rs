//! Who made a change: pid, tid and comm of a record in, the program's path and the cgroup out; where it was asked for, also where
//! the writer belongs (`origin`).
//!
//! Called for every change, so a hit costs no system call. What makes that sound:
//! - The key holds the comm that the kernel recorded. A fork that becomes another program changes its comm, and so
//!   is another key; the shell's redirection and the program it starts are not mixed up.
//! - An entry is trusted for [`ActorCache::TRUST`]. Pids are assigned in a circle (kernel/pid.c, `idr_alloc_cyclic`),
//!   so one comes back within that time only after `pid_max` forks. After it, the start time of the process is
//!   compared: another one means another process.
//! - A record may be read after its process has moved on. When `/proc` shows another comm than the record, the
//!   program is not the one that made the change, and nothing is said about it.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hotr_events::Origin;

use crate::accounts::UserNames;

pub mod cgroup;
mod origin;

pub use cgroup::CgroupPaths;
use origin::{Kin, Stat};

/// `PROC_PID_INIT_INO`: the inode of the initial pid namespace (include/linux/proc_ns.h).
const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// Whether pids in records (those of the initial pid namespace) are the pids of our `/proc`. If not, no lookup is
/// possible: `/proc/<pid>` would be somebody else.
#[must_use]
pub fn in_initial_pid_namespace() -> bool {
    fs::metadata("/proc/self/ns/pid").is_ok_and(|ns| ns.ino() == INITIAL_PID_NAMESPACE)
}

/// What the kernel keeps of a task's name: its first 15 bytes (`TASK_COMM_LEN` with the final zero).
#[must_use]
pub fn kept_of(name: &OsStr) -> &[u8] {
    let name = name.as_bytes();
    &name[..name.len().min(15)]
}

/// What a record says about its task.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Thread id in the initial pid namespace.
    pub tid: u32,
    /// Command name without padding.
    pub comm: &'a [u8],
    /// Id of the cgroup in the unified hierarchy; 0 when the record has none.
    pub cgroup_id: u64,
    /// User id.
    pub uid: u32,
    /// When it made the change, `CLOCK_MONOTONIC` nanoseconds.
    pub made_ns: u64,
}

/// What could be found out about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TaskInfo {
    /// The program. `None` for kernel threads, and when the process had ended or become another program.
    pub exe: Option<Arc<Path>>,
    /// The cgroup's path, `/` for the root cgroup.
    pub cgroup: Option<Arc<str>>,
    /// Where it belongs; `None` unless that was asked for.
    pub origin: Option<Arc<Origin>>,
}

#[derive(Debug)]
struct Entry {
    start: Option<u64>,
    kin: Kin,
    /// With the user that it is of: a process may change its user.
    origin: Option<Arc<Origin>>,
    uid: u32,
    exe: Option<Arc<Path>>,
    cgroup: Option<Arc<str>>,
    comm: Box<[u8]>,
    cgroup_id: u64,
    checked: Instant,
    used: Instant,
    /// It is in [`ActorCache::aging`].
    ages: bool,
}

impl Entry {
    fn info(&self) -> TaskInfo {
        TaskInfo { exe: self.exe.clone(), cgroup: self.cgroup.clone(), origin: self.origin.clone() }
    }
}

/// Looks tasks up in `/proc`, and remembers.
#[derive(Debug)]
pub struct ActorCache {
    entries: HashMap<(u32, u32), Entry>,
    /// Entries in use whose trust is half over.
    aging: Vec<(u32, u32)>,
    cgroups: CgroupPaths,
    possible: bool,
    proc_root: PathBuf,
    /// Names of users, where it is asked where a writer belongs.
    users: Option<UserNames>,
}

impl Default for ActorCache {
    fn default() -> Self {
        Self::new()
    }
}

impl ActorCache {
    /// How long an entry is used without looking whether the pid still is the same process.
    pub const TRUST: Duration = Duration::from_millis(100);
    /// Entries kept; when full, those not used for the longest time go first.
    pub const CAPACITY: usize = 4096;

    /// Empty.
    #[must_use]
    pub fn new() -> Self {
        Self::with_proc(PathBuf::from("/proc"), in_initial_pid_namespace())
    }

    fn with_proc(proc_root: PathBuf, possible: bool) -> Self {
        let cgroups = CgroupPaths::new();
        Self { entries: HashMap::new(), aging: Vec::new(), cgroups, possible, proc_root, users: None }
    }

    /// From now on it is looked up as well where a writer belongs.
    pub fn ask_origins(&mut self) {
        self.users.get_or_insert_default();
    }

    /// Why nothing can be looked up, for humans; `None` when it can.
    #[must_use]
    pub const fn impossible(&self) -> Option<&'static str> {
        if self.possible {
            return None;
        }
        Some(
            "hotr runs in a pid namespace of its own, so a writer's program and cgroup cannot be looked up; \
             run it in the host's pid namespace (docker: --pid=host)",
        )
    }

    /// Program and cgroup of a task. `now` is any monotonic time, taken once per batch.
    pub fn lookup(&mut self, task: &Task<'_>, now: Instant) -> TaskInfo {
        if !self.possible {
            // Cgroup ids are the same in every namespace.
            let cgroup = self.cgroups.path(task.cgroup_id, now);
            let users = self.users.as_mut();
            let origin = users
                .and_then(|users| origin::origin(users, task.uid, &Kin::default(), cgroup.as_deref(), now));
            return TaskInfo { exe: None, cgroup, origin };
        }
        let key = (task.pid, task.tid);
        if let Some(entry) = self.entries.get_mut(&key)
            && *entry.comm == *task.comm
            && entry.cgroup_id == task.cgroup_id
            && (now.saturating_duration_since(entry.checked) < Self::TRUST
                || still_the_same(&self.proc_root, task.pid, entry, now))
        {
            entry.used = now;
            if !entry.ages && now.saturating_duration_since(entry.checked) >= Self::TRUST / 2 {
                entry.ages = true;
                self.aging.push(key);
            }
            if let Some(users) = self.users.as_mut().filter(|_| entry.uid != task.uid) {
                entry.uid = task.uid;
                entry.origin = origin::origin(users, task.uid, &entry.kin, entry.cgroup.as_deref(), now);
            }
            return entry.info();
        }
        let entry = self.ask(task, now);
        let info = entry.info();
        if self.entries.len() >= Self::CAPACITY && !self.entries.contains_key(&key) {
            self.evict();
        }
        self.entries.insert(key, entry);
        info
    }

    fn ask(&mut self, task: &Task<'_>, now: Instant) -> Entry {
        let dir = self.proc_root.join(task.pid.to_string());
        let file = File::open(dir.join("stat")).ok();
        let stat = || Stat::read(file.as_ref()?).ok();
        let first = stat();
        let is_it = has_comm(&dir, task);
        let exe = if is_it { fs::read_link(dir.join("exe")).ok() } else { None };
        let asks = self.users.is_some() && is_it;
        let kin = first
            .filter(|stat| asks && stat.was_there(task.made_ns))
            .map(|stat| Kin::ask(&self.proc_root, &dir, stat));
        // The process may have been replaced between the reads; its open file shows no other.
        let last = (exe.is_some() || kin.is_some()).then(stat).flatten();
        let start = first.map(|stat| stat.start);
        let exe = exe.filter(|_| start.is_some() && last.map(|stat| stat.start) == start).map(Arc::from);
        // A process keeps its parent for as long as that is there, so it was there as well.
        let kin = kin.filter(|_| last == first).unwrap_or_default();
        let cgroup = self.cgroups.path(task.cgroup_id, now).or_else(|| cgroup::of_process(&dir));
        let users = self.users.as_mut();
        let origin = users.and_then(|users| origin::origin(users, task.uid, &kin, cgroup.as_deref(), now));
        Entry {
            start,
            kin,
            origin,
            uid: task.uid,
            exe,
            cgroup,
            comm: task.comm.into(),
            cgroup_id: task.cgroup_id,
            checked: now,
            used: now,
            ages: false,
        }
    }

    /// Looks whether the processes of entries in use still are the same, before a change has to wait for that.
    pub fn refresh(&mut self, now: Instant) {
        for key in self.aging.drain(..) {
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            entry.ages = false;
            if !still_the_same(&self.proc_root, key.0, entry, now) {
                self.entries.remove(&key);
            }
        }
    }

    /// Removes the half that was used least recently: rare, and linear.
    fn evict(&mut self) {
        let mut times: Vec<Instant> = self.entries.values().map(|entry| entry.used).collect();
        let middle = times.len() / 2;
        let (_, median, _) = times.select_nth_unstable(middle);
        let median = *median;
        let mut excess = self.entries.len() - middle;
        self.entries.retain(|_, entry| {
            let goes = excess > 0 && entry.used <= median;
            excess -= usize::from(goes);
            !goes
        });
    }
}

/// The pid has not become another process. One that has ended is still itself: late records of it are right.
fn still_the_same(proc_root: &Path, pid: u32, entry: &mut Entry, now: Instant) -> bool {
    let dir = proc_root.join(pid.to_string());
    let same = match File::open(dir.join("stat")).and_then(|file| Stat::read(&file)) {
        Ok(stat) => entry.start == Some(stat.start),
        Err(error) => is_gone(error.kind()),
    };
    if same {
        entry.checked = now;
    }
    same
}

fn is_gone(kind: ErrorKind) -> bool {
    // A process that ends between open and read gives ESRCH, which has no kind of its own.
    kind != ErrorKind::PermissionDenied
}

/// Whether the task is called what the record says.
fn has_comm(dir: &Path, task: &Task<'_>) -> bool {
    let file =
        if task.tid == task.pid { dir.join("comm") } else { dir.join(format!("task/{}/comm", task.tid)) };
    let mut comm = [0; 128];
    let Ok(len) = File::open(file).and_then(|file| file.read_at(&mut comm, 0)) else { return false };
    comm[..len].strip_suffix(b"\n").unwrap_or(&comm[..len]) == task.comm
}

#[cfg(test)]
mod tests;
