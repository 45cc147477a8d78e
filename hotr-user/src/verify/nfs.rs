//! The kernel's NFS server over loopback, in a network namespace of its own, and a mount of it.
//!
//! In: the directory to serve, and where to mount. Out: a mount, until this ends. The server is no process, so it would go on without
//! hotr: a process of its own keeps it, outside hotr's session, and stops it as soon as hotr closes a pipe or has ended.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, setsid};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::child::{Side, end, fork, reap};
use super::stop::{During, Stop};

/// What serves and what mounts, by their names in /proc/filesystems.
const NEEDED: [(&str, &str); 2] = [("nfsd", "server"), ("nfs4", "client")];
/// Answers of a server that was stopped are not waited for.
const OPTIONS: &str = "addr=127.0.0.1,clientaddr=127.0.0.1,vers=4.2,proto=tcp,port=2049,sec=sys,actimeo=0,soft,timeo=20,retrans=1";
/// `NFSEXP_INSECURE_PORT`, `NFSEXP_ASYNC`, `NFSEXP_NOSUBTREECHECK` and `NFSEXP_FSID` of fs/nfsd: any port, no fsid but that which is given.
const FLAGS: u32 = 0x2 | 0x10 | 0x400 | 0x2000;
/// The last second that the kernel's caches understand everywhere.
const NEVER: u32 = i32::MAX.cast_unsigned();

/// The served mount; ends with this.
pub(super) struct Nfs {
    keeper: Pid,
    /// Closing it stops the server.
    pipe: Option<File>,
}

impl Nfs {
    /// Serves `export`, an absolute path, and mounts it on `target`; `control` is an empty directory. This process must have one thread.
    ///
    /// # Errors
    /// The kernel has no server or no client, or what failed.
    pub(super) fn mount(export: &Path, target: &Path, control: &Path) -> Result<Self, Stop> {
        let known = fs::read_to_string("/proc/filesystems").during("read /proc/filesystems")?;
        for (name, what) in NEEDED {
            if !known.lines().any(|line| line.split_whitespace().last() == Some(name)) {
                return Err(Stop(format!(
                    "this kernel has no NFS {what}: {name} is not in /proc/filesystems; load the module {}",
                    if name == "nfs4" { "nfsv4" } else { name }
                )));
            }
        }
        let (lasting, pipe) = pipe_with(PipeFlags::CLOEXEC).during("make a pipe")?;
        let (answer, said) = pipe_with(PipeFlags::CLOEXEC).during("make a pipe")?;
        let keeper = match fork().during("start a process")? {
            Side::Child => {
                drop((pipe, answer));
                keep(export, target, control, lasting.into(), said.into());
                end(0)
            }
            Side::Parent(pid) => pid,
        };
        drop((lasting, said));
        let nfs = Self { keeper, pipe: Some(pipe.into()) };
        let mut why = String::new();
        File::from(answer).read_to_string(&mut why).during("read from a process")?;
        match why.as_str() {
            "" => Err(Stop("the process that keeps the NFS server ended".to_owned())),
            READY => Ok(nfs),
            why => Err(Stop(why.to_owned())),
        }
    }
}

const READY: &str = "ready";

impl Drop for Nfs {
    fn drop(&mut self) {
        drop(self.pipe.take());
        reap(self.keeper);
    }
}

/// The keeper's process: starts, says so, waits for the end of `lasting`, and stops.
fn keep(export: &Path, target: &Path, control: &Path, mut lasting: File, mut said: File) {
    let started = start(export, target, control);
    let answer = match &started {
        Ok(()) => READY,
        Err(Stop(why)) => why,
    };
    if said.write_all(answer.as_bytes()).is_ok() && started.is_ok() {
        drop(said);
        let _ = lasting.read(&mut [0]);
    }
    // The mount first: it needs its server for that.
    let _ = unmount(target, UnmountFlags::DETACH);
    let _ = fs::write(control.join("threads"), "0\n");
    let _ = unmount(control, UnmountFlags::DETACH);
}

fn start(export: &Path, target: &Path, control: &Path) -> Result<(), Stop> {
    // Otherwise Ctrl-C or the end of a session would end the keeper before its server.
    setsid().during("make a session")?;
    // SAFETY: descriptors stay shared; only the network is this process's own.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.during("make a network namespace")?;
    bring_up_loopback().during("bring up the loopback device")?;
    mount("nfsd", control, "nfsd", MountFlags::empty(), None).during("mount nfsd")?;
    let write = |path: &Path, text: &[u8]| {
        File::options()
            .write(true)
            .open(path)
            .and_then(|mut file| file.write_all(text))
            .during(&format!("write to {}", path.file_name().unwrap_or_default().to_string_lossy()))
    };
    // Versions before need a port mapper.
    write(&control.join("versions"), b"-2 -3 +4 +4.1 +4.2\n")?;
    // The shortest that the kernel takes: nobody has a state from before to claim again.
    write(&control.join("nfsv4gracetime"), b"10\n")?;
    write(&control.join("portlist"), b"tcp 2049\n")?;
    // What a mount daemon would answer: who asks is `hotr`, file handles with fsid 0 lead to the path, and it may be mounted.
    let path = export.as_os_str().as_bytes();
    let line = |parts: &[&[u8]]| [&parts.join(&b' ')[..], b"\n"].concat();
    let (never, flags) = (NEVER.to_string(), FLAGS.to_string());
    let (never, flags) = (never.as_bytes(), flags.as_bytes());
    let caches = Path::new("/proc/self/net/rpc");
    let channel = |cache: &str, parts: &[&[u8]]| write(&caches.join(cache).join("channel"), &line(parts));
    channel("auth.unix.ip", &[b"nfsd", b"127.0.0.1", never, b"hotr"])?;
    channel("nfsd.export", &[b"hotr", path, never, flags, b"65534", b"65534", b"0"])?;
    channel("nfsd.fh", &[b"hotr", b"1", b"\\x00000000", never, path])?;
    write(&control.join("threads"), b"1\n")?;
    let options = CString::new(OPTIONS).map_err(|error| Stop(error.to_string()))?;
    mount("127.0.0.1:/", target, "nfs4", MountFlags::empty(), Some(options.as_c_str())).during("mount nfs4")
}

/// Brings up `lo` of this network namespace.
fn bring_up_loopback() -> io::Result<()> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: a C struct of numbers and a union of such; all zeroes is one of its values.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(c"lo".to_bytes_with_nul()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_UP).map_err(io::Error::other)?;
    // SAFETY: the request reads one `ifreq`, which is live.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
