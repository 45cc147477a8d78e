//! A real container, by Debian's crun: a process in namespaces of its own, with an overlay for its root.
//!
//! In: a directory for the root, and a file in it. Out: a running tee(1) that appends to the file what it is sent. It ends with its socket,
//! so no container stays behind, however hotr ends.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Signal, set_parent_process_death_signal};
use serde_json::{Value, json};

use crate::ending;

/// A container that does not run by then never will.
const PATIENCE: Duration = Duration::from_secs(8);
/// Where crun looks for control groups.
pub(super) const CONTROL_GROUPS: &str = "/sys/fs/cgroup";

/// The running container; ends with this.
pub(super) struct Container {
    crun: Child,
    /// What its process reads from; nothing once it is to end.
    socket: Option<UnixStream>,
    pid: String,
    /// The file that its process appends to, as the host has it.
    file: PathBuf,
}

/// What a container is started with.
pub(super) struct Start<'a> {
    /// A new directory for what crun needs.
    pub(super) bundle: &'a Path,
    /// The container's root, prepared by [`fill`].
    pub(super) root: &'a Path,
    /// The file that its process appends to, below the root.
    pub(super) file: &'a str,
    /// A directory of the host, and where it is in the container.
    pub(super) bind: Option<(&'a Path, &'a str)>,
}

/// Puts into an empty root what a container needs: links to the host's programs, and empty directories.
pub(super) fn fill(root: &Path) -> io::Result<()> {
    for dir in ["usr", "proc", "dev", "app", "run", "shared"] {
        fs::create_dir(root.join(dir))?;
    }
    ["bin", "lib", "lib64"].into_iter().try_for_each(|name| symlink(format!("usr/{name}"), root.join(name)))
}

impl Container {
    /// Starts it, and waits until its process has opened the file.
    ///
    /// # Errors
    /// A sentence: crun is not installed, or what it says.
    pub(super) fn start(start: &Start<'_>) -> Result<Self, String> {
        let fault = |what: &str, error: &dyn std::fmt::Display| format!("{what}: {error}");
        let (state, pid_file) = (start.bundle.join("state"), start.bundle.join("pid"));
        fs::write(start.bundle.join("config.json"), configuration(start).to_string())
            .map_err(|error| fault("write a container's configuration", &error))?;
        let (socket, stdin) = UnixStream::pair().map_err(|error| fault("make a socket", &error))?;
        let said = memfd_create("hotr-crun", MemfdFlags::CLOEXEC);
        let said = File::from(said.map_err(|errno| fault("make a file in memory", &errno))?);
        let mut command = Command::new("crun");
        command.arg("--root").arg(&state).args(["--cgroup-manager=disabled", "run", "--bundle"]);
        command.arg(start.bundle).arg("--pid-file").arg(&pid_file);
        command.arg(format!("hotr-verify-{}", std::process::id()));
        let stderr = said.try_clone().map_err(|error| fault("make a file in memory", &error))?;
        command.stdin(OwnedFd::from(stdin)).stdout(Stdio::null()).stderr(stderr);
        // SAFETY: between fork and exec only one system call is made.
        unsafe {
            command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
        }
        let crun = command.spawn().map_err(|error| match error.kind() {
            ErrorKind::NotFound => "crun is not installed; install Debian's package crun".to_owned(),
            _ => fault("run crun", &error),
        })?;
        // The command holds the container's end of the socket.
        drop(command);
        let file = start.root.join(start.file);
        let mut container = Self { crun, socket: Some(socket), pid: String::new(), file };
        let over = Instant::now() + PATIENCE;
        while !container.is_running() {
            container.pid = fs::read_to_string(&pid_file).unwrap_or_default().trim().to_owned();
            let has_ended =
                container.crun.try_wait().map_err(|error| fault("wait for crun", &error))?.is_some();
            if has_ended || Instant::now() >= over || ending::is_asked() {
                return Err(fault("run crun", &first_line(&said)));
            }
            std::thread::yield_now();
        }
        Ok(container)
    }

    /// Whether its process is there and has made its file.
    fn is_running(&self) -> bool {
        let program = Path::new("/proc").join(&self.pid).join("comm");
        !self.pid.is_empty() && fs::read(program).is_ok_and(|name| name == b"tee\n") && self.file.exists()
    }

    /// A path of the container, which leads where it leads for a process in it.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        Path::new("/proc").join(&self.pid).join("root").join(path)
    }

    /// Sends this to its process, and waits until that has appended it to its file; whether it has.
    pub(super) fn send(&mut self, line: &[u8]) -> io::Result<bool> {
        let Some(socket) = &mut self.socket else { return Ok(false) };
        socket.write_all(line)?;
        let over = Instant::now() + PATIENCE;
        while !fs::read(&self.file)?.ends_with(line) {
            if Instant::now() >= over || ending::is_asked() {
                return Ok(false);
            }
            std::thread::yield_now();
        }
        Ok(true)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // Its process reads to the end and ends, and so does crun, which then removes what it has of the container.
        drop(self.socket.take());
        let over = Instant::now() + PATIENCE;
        while matches!(self.crun.try_wait(), Ok(None)) && Instant::now() < over {
            std::thread::yield_now();
        }
        let _ = self.crun.kill();
        let _ = self.crun.wait();
    }
}

/// What crun said first.
fn first_line(said: &File) -> String {
    use std::os::unix::fs::FileExt;
    let mut text = vec![0; 1024];
    let length = said.read_at(&mut text, 0).unwrap_or(0);
    let text = String::from_utf8_lossy(&text[..length]).into_owned();
    text.lines().next().unwrap_or("the container did not start").to_owned()
}

/// The container as the OCI runtime specification describes one.
fn configuration(start: &Start<'_>) -> Value {
    let bind = |source: &Path, destination: &str, access: &str| json!({ "destination": destination, "type": "bind", "source": source, "options": ["rbind", access] });
    let mut mounts = vec![
        bind(Path::new("/usr"), "/usr", "ro"),
        json!({ "destination": "/proc", "type": "proc", "source": "proc" }),
    ];
    mounts.extend(start.bind.map(|(source, destination)| bind(source, destination, "rw")));
    let namespaces = ["mount", "pid", "ipc", "uts"].map(|kind| json!({ "type": kind }));
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": ["/usr/bin/tee", "-a", format!("/{}", start.file)],
            "env": ["PATH=/usr/bin"],
            "cwd": "/",
        },
        "root": { "path": start.root },
        "mounts": mounts,
        "linux": { "namespaces": namespaces },
    })
}
