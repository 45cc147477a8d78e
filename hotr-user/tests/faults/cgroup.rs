//! A cgroup of the unified hierarchy, made for a test.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Removed at the end of a test, with the ones above it that were made for it.
pub(crate) struct Cgroup {
    mount: PathBuf,
    dir: PathBuf,
}

impl Cgroup {
    /// Makes it, with this path below the root; says so where there is no unified hierarchy, or none that can be changed.
    pub(crate) fn new(path: &str) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let mount = mounts.lines().find_map(|line| {
            let mut words = line.split(' ');
            let (place, kind) = (words.nth(1)?, words.next()?);
            (kind == "cgroup2").then(|| PathBuf::from(place))
        });
        let Some(mount) = mount else {
            eprintln!("not run: no unified hierarchy of cgroups");
            return None;
        };
        let dir = mount.join(path);
        if let Err(error) = fs::create_dir_all(&dir) {
            eprintln!("not run: make a cgroup: {error}");
            return None;
        }
        Some(Self { mount, dir })
    }

    /// Runs a program in it to its end.
    pub(crate) fn run(&self, command: &mut Command) {
        let procs = fs::OpenOptions::new().write(true).open(self.dir.join("cgroup.procs")).unwrap();
        let enter = move || {
            // Zero is the writing process (kernel: kernel/cgroup/cgroup.c `cgroup_procs_write_start`).
            rustix::io::write(&procs, b"0")?;
            Ok(())
        };
        // SAFETY: the closure makes one system call: it neither allocates nor takes a lock.
        unsafe { command.pre_exec(enter) };
        assert!(command.stdin(Stdio::null()).status().unwrap().success());
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let made = self.dir.ancestors().take_while(|dir| *dir != self.mount);
        made.for_each(|dir| drop(fs::remove_dir(dir)));
    }
}
