//! Loop devices that free themselves.
//!
//! In: an open file. Out: a device node's path, and a descriptor; once neither that nor a mount holds the device, the kernel
//! takes it away from the file (drivers/block/loop.c, `lo_release` with `LO_FLAGS_AUTOCLEAR`), also after `kill -9`.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use rustix::io::Errno;

const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4c82;
const LOOP_CONFIGURE: libc::c_ulong = 0x4c0a;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
/// Others take free devices as well; more tries than that mean another fault.
const TRIES: u32 = 64;

/// `struct loop_info64` of linux/loop.h.
#[repr(C)]
struct Info {
    ids: [u64; 3],
    offset: u64,
    size_limit: u64,
    number: u32,
    encryption: [u32; 2],
    flags: u32,
    names: [[u8; 64]; 2],
    key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config` of linux/loop.h.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<Config>() == 304);

/// A device that is bound to a file as long as this or a mount of it is there.
pub(super) struct LoopDevice {
    /// Its node.
    pub(super) path: PathBuf,
    /// Open for reading and writing.
    pub(super) device: File,
}

impl LoopDevice {
    /// Binds a free device to a file.
    ///
    /// # Errors
    /// A sentence: no loop devices here, or none is free.
    pub(super) fn of(file: &File) -> Result<Self, String> {
        let control = "/dev/loop-control";
        let open = |path: &std::path::Path| File::options().read(true).write(true).open(path);
        let control = open(control.as_ref()).map_err(|error| format!("open {control}: {error}"))?;
        for _ in 0..TRIES {
            // SAFETY: this request takes no argument.
            let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
            if number < 0 {
                return Err(format!("find a free loop device: {}", std::io::Error::last_os_error()));
            }
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let device = open(&path).map_err(|error| format!("open {}: {error}", path.display()))?;
            match bind(&device, file) {
                Ok(()) => return Ok(Self { path, device }),
                // Another program was faster.
                Err(Errno::BUSY) => {}
                Err(errno) => return Err(format!("bind {}: {errno}", path.display())),
            }
        }
        Err("other programs took every free loop device".to_owned())
    }
}

fn bind(device: &File, file: &File) -> Result<(), Errno> {
    let mut name = [0; 64];
    name[..11].copy_from_slice(b"hotr-verify");
    let info = Info {
        ids: [0; 3],
        offset: 0,
        size_limit: 0,
        number: 0,
        encryption: [0; 2],
        flags: LO_FLAGS_AUTOCLEAR,
        names: [name, [0; 64]],
        key: [0; 32],
        init: [0; 2],
    };
    let fd = u32::try_from(file.as_raw_fd()).map_err(|_| Errno::BADF)?;
    let config = Config { fd, block_size: 0, info, reserved: [0; 8] };
    // SAFETY: the request reads one `loop_config`, which is live and has its layout.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) };
    if result == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    Err(Errno::from_io_error(&error).unwrap_or(Errno::IO))
}
