//! In which PID namespace a process is, and its number there: what a subscriber in that namespace may know of it.
//!
//! In: a process of a record. Out: its namespace, unless it has ended or another process has its number.

use std::fs;
use std::os::unix::fs::MetadataExt;

/// The inode of the process's PID namespace, and its number there.
pub(super) fn namespace_of(pid: u32, tid: u32, comm: &[u8]) -> Option<(u64, u32)> {
    let inode = || fs::metadata(format!("/proc/{pid}/ns/pid")).ok().map(|data| data.ino());
    let before = inode()?;
    let its = fs::read(format!("/proc/{pid}/task/{tid}/comm")).ok()?;
    if its.strip_suffix(b"\n").unwrap_or(&its) != comm {
        return None;
    }
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    let inner = numbers.split_ascii_whitespace().next_back()?.parse().ok()?;
    (inode()? == before).then_some((before, inner))
}

/// Whether the administrator hides processes of other users: a mount of `/proc` that the agent sees says so.
pub(super) fn are_hidden(table: &crate::mounts::MountTable) -> bool {
    let mut proc = table.mounts().iter().filter(|mount| mount.fs_type == "proc");
    proc.any(|mount| {
        let mut options = mount.super_options.split(|byte| *byte == b',');
        options.any(|option| {
            option.strip_prefix(b"hidepid=").is_some_and(|value| !matches!(value, b"0" | b"off"))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mounts::MountTable;

    #[test]
    fn this_process_has_its_namespace_and_another_name_has_none() {
        let own = fs::metadata("/proc/self/ns/pid").unwrap().ino();
        let pid = std::process::id();
        let comm = fs::read("/proc/self/comm").unwrap();
        let comm = comm.strip_suffix(b"\n").unwrap();
        assert_eq!(namespace_of(pid, pid, comm), Some((own, pid)));
        assert_eq!(namespace_of(pid, pid, b"another"), None);
    }

    #[test]
    fn hidden_processes_are_known_by_the_mount() {
        let line = |options: &str| format!("22 1 0:20 / /proc rw - proc proc rw,{options}\n");
        for (options, hidden) in [
            ("relatime", false),
            ("hidepid=0", false),
            ("hidepid=invisible", true),
            ("hidepid=2,gid=4", true),
        ] {
            assert_eq!(are_hidden(&MountTable::parse(line(options).as_bytes())), hidden, "{options}");
        }
    }
}
