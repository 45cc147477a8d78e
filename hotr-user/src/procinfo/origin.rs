//! Where a writer belongs, from `/proc` and from its cgroup.
//!
//! In: a task whose process is there, and is sure to be the one that made the change. Out: an [`Origin`]. Its user comes from
//! the record, its container and unit from the path of its cgroup: these are known of a process that has exited, too.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use hotr_events::{Origin, Parent};
use rustix::time::{ClockId, clock_gettime};

use super::cgroup;
use crate::accounts::UserNames;

/// The login of a process without one (kernel: include/linux/audit.h `AUDIT_UID_UNSET`).
const NO_LOGIN: u32 = u32::MAX;

/// What `/proc/<pid>/stat` says of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    /// Field 4: its parent, 0 for none.
    pub(super) parent: u32,
    /// Field 22: when it started, in clock ticks since boot.
    pub(super) start: u64,
}

impl Stat {
    pub(super) fn read(stat: &File) -> io::Result<Self> {
        // 52 numbers of at most 20 digits, most of them short, and a comm: the wanted fields are in the first half.
        let mut text = [0; 1024];
        let len = stat.read_at(&mut text, 0)?;
        Self::parse(&text[..len]).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// The comm before the fields may hold spaces and parentheses.
    pub(super) fn parse(stat: &[u8]) -> Option<Self> {
        let after_comm = &stat[stat.iter().rposition(|&byte| byte == b')')? + 1..];
        // The state is field 3.
        let mut fields = std::str::from_utf8(after_comm).ok()?.split_ascii_whitespace().skip(1);
        let parent = fields.next()?.parse().ok()?;
        let start = fields.nth(22 - 5)?.parse().ok()?;
        Some(Self { parent, start })
    }

    /// Whether it was there at a time by `CLOCK_MONOTONIC`: a process that started later has the same id by chance. Ticks are
    /// rounded down, so the one that made a change always was.
    pub(super) fn was_there(self, made_ns: u64) -> bool {
        let ns = |clock| {
            let now = clock_gettime(clock);
            now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
        };
        let asleep_ns = ns(ClockId::Boottime).saturating_sub(ns(ClockId::Monotonic));
        let ticks_per_second = rustix::param::clock_ticks_per_second().max(1);
        let started_ns = u128::from(self.start) * 1_000_000_000 / u128::from(ticks_per_second);
        started_ns.saturating_sub(asleep_ns.into()) <= made_ns.into()
    }
}

/// What is known only while a process is there.
#[derive(Clone, Debug, Default)]
pub(super) struct Kin {
    pub(super) login_uid: Option<u32>,
    pub(super) parent: Option<Parent>,
}

impl Kin {
    /// Asks a process; its parent is the one that `stat` names. Only sure while the process is there and has that parent.
    pub(super) fn ask(proc_root: &Path, dir: &Path, stat: Stat) -> Self {
        let mut text = [0; 64];
        let login_uid = read(&dir.join("loginuid"), &mut text)
            .and_then(|text| std::str::from_utf8(text).ok()?.trim_ascii().parse().ok())
            .filter(|uid| *uid != NO_LOGIN);
        let mut text = [0; 64];
        let parent = (stat.parent != 0).then(|| proc_root.join(format!("{}/comm", stat.parent)));
        let parent = parent.and_then(|file| {
            let comm = read(&file, &mut text)?;
            Some(Parent { pid: stat.parent, comm: comm.strip_suffix(b"\n").unwrap_or(comm).to_vec() })
        });
        Self { login_uid, parent }
    }
}

fn read<'a>(file: &Path, text: &'a mut [u8]) -> Option<&'a [u8]> {
    let len = File::open(file).and_then(|file| file.read_at(text, 0)).ok()?;
    Some(&text[..len])
}

/// Puts together what is known; none where that is nothing.
pub(super) fn origin(
    users: &mut UserNames,
    uid: u32,
    kin: &Kin,
    path: Option<&str>,
    now: Instant,
) -> Option<Arc<Origin>> {
    let mut origin = Origin::default();
    origin.user = users.name(uid, now);
    origin.login_uid = kin.login_uid;
    origin.login_user = kin.login_uid.and_then(|uid| users.name(uid, now));
    origin.parent.clone_from(&kin.parent);
    origin.container = path.and_then(cgroup::container_of).map(Arc::from);
    origin.unit = path.and_then(cgroup::unit_of).map(Arc::from);
    (origin != Origin::default()).then(|| Arc::new(origin))
}
