//! The filesystems of the matrix on this machine, out of image files, in a mount namespace of their own.
//!
//! Everything lies on one tmpfs that is mounted in the private namespace, and loop devices detach themselves at
//! their last unmount: whatever way the program ends, the kernel takes all of it away with the namespace.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Every filesystem of the matrix.
pub const FILESYSTEMS: [&str; 6] = ["ext4", "xfs", "btrfs", "tmpfs", "ovl-ext4", "ovl-xfs"];

/// Size of an image: mkfs.xfs refuses less than 300 MB. The file is sparse.
const IMAGE_SIZE: u64 = 512 << 20;

const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4c82;
const LOOP_SET_FD: libc::c_ulong = 0x4c00;
const LOOP_SET_STATUS64: libc::c_ulong = 0x4c04;
const LOOP_CLR_FD: libc::c_ulong = 0x4c01;

/// The mounted filesystems; unmounted on drop.
pub struct Native {
    top: PathBuf,
    mounts: Vec<PathBuf>,
    /// Name and path of each, as `--dir` wants them.
    pub dirs: Vec<(String, PathBuf)>,
}

impl Native {
    /// Makes and mounts the filesystems of these names.
    ///
    /// # Errors
    /// No root, a missing mkfs, or a mount that this kernel refuses.
    pub fn new(filesystems: &[String]) -> Result<Self> {
        // SAFETY: no other thread runs yet, and only the mount namespace is changed.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.context("make a mount namespace; run it as root")?;
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
            .context("make the mounts of the new namespace private")?;
        let top = std::env::temp_dir().join(format!("hotr-matrix-{}", std::process::id()));
        std::fs::create_dir(&top).with_context(|| format!("make {}", top.display()))?;
        let mut native = Self { top: top.clone(), mounts: Vec::new(), dirs: Vec::new() };
        native.mount("tmpfs", "tmpfs", &top)?;
        for fs in filesystems {
            let dir = top.join(fs);
            std::fs::create_dir(&dir).with_context(|| format!("make {}", dir.display()))?;
            let base = fs.strip_prefix("ovl-").unwrap_or(fs);
            native.filesystem(base, &dir).with_context(|| format!("set up {fs}"))?;
            if base != fs {
                native.overlay(&dir)?;
            }
            native.dirs.push((fs.clone(), dir));
        }
        Ok(native)
    }

    fn mount(&mut self, source: impl AsRef<Path>, fs: &str, target: &Path) -> Result<()> {
        let source = source.as_ref();
        mount(source, target, fs, MountFlags::empty(), None)
            .with_context(|| format!("mount {} ({fs}) on {}", source.display(), target.display()))?;
        self.mounts.push(target.to_owned());
        Ok(())
    }

    fn filesystem(&mut self, fs: &str, target: &Path) -> Result<()> {
        let options: &[&str] = match fs {
            "tmpfs" => return self.mount("tmpfs", "tmpfs", target),
            "ext4" => &["-q", "-F"],
            "xfs" | "btrfs" => &["-q", "-f"],
            other => bail!("unknown filesystem {other}; known are {}", FILESYSTEMS.join(", ")),
        };
        let image = target.with_extension("img");
        File::create_new(&image)?.set_len(IMAGE_SIZE)?;
        let status = Command::new(format!("mkfs.{fs}"))
            .args(options)
            .arg(&image)
            .status()
            .with_context(|| format!("start mkfs.{fs}; install the package that has it"))?;
        ensure!(status.success(), "mkfs.{fs}: {status}");
        // The open device keeps the image attached until the mount below holds it.
        let (device, _open) = attach(&image)?;
        self.mount(device, fs, target)
    }

    fn overlay(&mut self, dir: &Path) -> Result<()> {
        for layer in ["lower", "upper", "work", "merged"] {
            std::fs::create_dir(dir.join(layer))?;
        }
        let merged = dir.join("merged");
        let path = |layer: &str| dir.join(layer).display().to_string();
        let options =
            format!("lowerdir={},upperdir={},workdir={}", path("lower"), path("upper"), path("work"));
        let options = std::ffi::CString::new(options)?;
        mount("overlay", &merged, "overlay", MountFlags::empty(), Some(options.as_c_str()))
            .with_context(|| format!("mount overlay on {}", merged.display()))?;
        self.mounts.push(merged);
        Ok(())
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        for target in self.mounts.iter().rev() {
            if let Err(error) = unmount(target, UnmountFlags::DETACH) {
                eprintln!("unmount {}: {error}; it ends with this program", target.display());
            }
        }
        if let Err(error) = std::fs::remove_dir(&self.top) {
            eprintln!("remove {}: {error}; remove it by hand", self.top.display());
        }
    }
}

/// Attaches an image to a free loop device that detaches itself after its last use.
fn attach(image: &Path) -> Result<(PathBuf, File)> {
    /// `struct loop_info64` of linux/loop.h.
    #[repr(C)]
    struct Info {
        numbers: [u64; 5],
        number: u32,
        encrypt_type: u32,
        encrypt_key_size: u32,
        flags: u32,
        names: [u8; 64 + 64 + 32],
        init: [u64; 2],
    }
    const LO_FLAGS_AUTOCLEAR: u32 = 4;
    const TRIES: usize = 16;
    let backing = OpenOptions::new().read(true).write(true).open(image)?;
    let control = File::open("/dev/loop-control").context("open /dev/loop-control")?;
    // Between asking for a free device and taking it, somebody else may take it.
    for _ in 0..TRIES {
        // SAFETY: the request takes no argument.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) };
        ensure!(number >= 0, "find a free loop device: {}", std::io::Error::last_os_error());
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = OpenOptions::new().read(true).write(true).open(&path)?;
        // SAFETY: the argument is an open descriptor.
        if unsafe { libc::ioctl(device.as_raw_fd(), LOOP_SET_FD as _, backing.as_raw_fd()) } != 0 {
            continue;
        }
        let info = Info {
            numbers: [0; 5],
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags: LO_FLAGS_AUTOCLEAR,
            names: [0; 160],
            init: [0; 2],
        };
        // SAFETY: the argument is the structure that this request reads, and lives over the call.
        if unsafe { libc::ioctl(device.as_raw_fd(), LOOP_SET_STATUS64 as _, &raw const info) } != 0 {
            let error = std::io::Error::last_os_error();
            // SAFETY: the request takes no argument.
            unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CLR_FD as _, 0) };
            return Err(error).with_context(|| format!("make {} detach itself", path.display()));
        }
        return Ok((path, device));
    }
    bail!("every free loop device was taken by somebody else {TRIES} times")
}
