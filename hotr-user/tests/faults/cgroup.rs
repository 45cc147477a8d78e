//! A cgroup of the unified hierarchy, made for a test.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

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

    /// Runs a program in it to its end; its process id.
    pub(crate) fn run(&self, command: &mut Command) -> u32 {
        self.enter(command);
        let mut child = command.stdin(Stdio::null()).spawn().unwrap();
        let pid = child.id();
        assert!(child.wait().unwrap().success());
        pid
    }

    /// Runs something in it until that is dropped.
    pub(crate) fn hold(&self) -> Held {
        let mut command = Command::new("cat");
        self.enter(&mut command);
        Held(command.stdin(Stdio::piped()).spawn().unwrap())
    }

    fn enter(&self, command: &mut Command) {
        let procs = fs::OpenOptions::new().write(true).open(self.dir.join("cgroup.procs")).unwrap();
        let enter = move || {
            // Zero is the writing process (kernel: kernel/cgroup/cgroup.c `cgroup_procs_write_start`).
            rustix::io::write(&procs, b"0")?;
            Ok(())
        };
        // SAFETY: the closure makes one system call: it neither allocates nor takes a lock.
        unsafe { command.pre_exec(enter) };
    }
}

/// A process in a cgroup. To be dropped before that is.
pub(crate) struct Held(Child);

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let made = self.dir.ancestors().take_while(|dir| *dir != self.mount);
        made.for_each(|dir| drop(fs::remove_dir(dir)));
    }
}
