//! Ways to change content: through a mapping, a pipe, an asynchronous request, a device.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{
    FallocateFlags, IFlags, fallocate, ftruncate, ioctl_ficlone, ioctl_getflags, ioctl_setflags,
};
use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};
use rustix::pipe::{SpliceFlags, pipe, splice};

use crate::verify::bench::{Bench, During, Stop, holds, old_file, overwrite, set_old};
use crate::verify::evidence::Listener;
use crate::verify::experiment::{Experiment, Group};
use crate::verify::loop_device::LoopDevice;
use crate::verify::make_filesystem::Disk;
use crate::verify::rulings::{receives, receives_none};
use crate::verify::verdict::{Ruling, Verdict};

const INOTIFY: &[Listener] = &[Listener::Inotify];
const PAGE: usize = 4096;

pub(super) const ALL: &[Experiment] = &[
    Experiment {
        name: "mmap-store",
        group: Group::Content,
        claim: "A store through a shared mapping is not received as IN_MODIFY.",
        source: "inotify(7): the API does not report mmap(2), msync(2) and munmap(2)",
        method: "Store into a mapping of an ext4 file in a watched directory, and call msync.",
        rests_on: INOTIFY,
        run: |bench| {
            let dir = bench.dir_on(Disk::Ext4)?;
            store(bench, &dir)
        },
        decide: |evidence| receives_none(evidence, "d", &["MODIFY"]),
    },
    Experiment {
        name: "mmap-store-ebpf",
        group: Group::Content,
        claim: "A store through a shared mapping of an ext4 file is seen by eBPF and by no watch.",
        source: "documentation of hotr",
        method: "As mmap-store.",
        rests_on: &[Listener::Inotify, Listener::Fanotify, Listener::Ebpf],
        run: |bench| {
            let dir = bench.dir_on(Disk::Ext4)?;
            store(bench, &dir)
        },
        decide: |evidence| {
            let watches = evidence.heard("d", "MODIFY") + evidence.total(Listener::Fanotify, "MODIFY");
            match (watches, evidence.total(Listener::Ebpf, "mmap")) {
                (0, 1..) => Ruling::confirmed("ebpf received it; inotify and fanotify received no MODIFY"),
                (0, 0) => Ruling::refuted("ebpf did not receive it either"),
                _ => Ruling::refuted("a watch received MODIFY"),
            }
        },
    },
    Experiment {
        name: "mmap-store-tmpfs",
        group: Group::Content,
        claim: "A store into a mapped tmpfs file is received by no watch, and changes neither mtime nor ctime.",
        source: "mm/shmem.c: no page_mkwrite",
        method: "As mmap-store, on a tmpfs.",
        rests_on: &[Listener::Inotify, Listener::Poll],
        run: |bench| {
            let dir = bench.dir("d")?;
            store(bench, &dir)
        },
        decide: |evidence| {
            let times = ["mtime", "ctime"].into_iter().filter(|word| evidence.differs("d/f", word));
            let times: Vec<&str> = times.collect();
            let ruling = receives_none(evidence, "d", &["MODIFY"]);
            match (ruling.verdict, times.is_empty()) {
                (Verdict::Confirmed, false) => {
                    Ruling::partly(format!("{}, but {} changed", ruling.why, times.join(" and ")))
                }
                _ => ruling,
            }
        },
    },
    Experiment {
        name: "fallocate-keep-size",
        group: Group::Content,
        claim: "An fallocate that changes neither content nor size is received as IN_MODIFY.",
        source: "fs/open.c, vfs_fallocate",
        method: "Call fallocate with FALLOC_FL_KEEP_SIZE on an ext4 file in a watched directory.",
        rests_on: INOTIFY,
        run: allocated,
        decide: |evidence| receives(evidence, "d", "MODIFY"),
    },
    Experiment {
        name: "reflink-btrfs",
        group: Group::Content,
        claim: "A reflink into a file is received as IN_MODIFY.",
        source: "fs/remap_range.c, vfs_clone_file_range",
        method: "Clone one btrfs file into another in a watched directory (FICLONE).",
        rests_on: INOTIFY,
        run: cloned,
        decide: |evidence| receives(evidence, "d", "MODIFY"),
    },
    Experiment {
        name: "chattr",
        group: Group::Content,
        claim: "A change of inode flags by chattr is received as IN_ATTRIB.",
        source: "inotify(7): IN_ATTRIB is for metadata",
        method: "Set the flag `d` of an ext4 file in a watched directory (FS_IOC_SETFLAGS).",
        rests_on: INOTIFY,
        run: flagged,
        decide: |evidence| receives(evidence, "d", "ATTRIB"),
    },
    Experiment {
        name: "truncate-same-size",
        group: Group::Content,
        claim: "A truncation to the size that the file has is received as IN_MODIFY.",
        source: "fs/attr.c, notify_change",
        method: "Call ftruncate with the file's own size in a watched directory.",
        rests_on: INOTIFY,
        run: |bench| {
            let path = bench.watched_file()?;
            let result = bench.operate(|_| {
                let file = File::options().write(true).open(&path)?;
                ftruncate(&file, 2).during("truncate a file")
            })?;
            bench.done(result.is_some() && holds(&path, b"1\n"));
            Ok(())
        },
        decide: |evidence| receives(evidence, "d", "MODIFY"),
    },
    Experiment {
        name: "truncate",
        group: Group::Content,
        claim: "A truncation is received as IN_MODIFY.",
        source: "inotify(7)",
        method: "Truncate a file in a watched directory.",
        rests_on: INOTIFY,
        run: |bench| {
            let path = bench.watched_file()?;
            bench.operate(|_| {
                let file = File::options().write(true).open(&path)?;
                ftruncate(&file, 0).during("truncate a file")
            })?;
            bench.done(holds(&path, b""));
            Ok(())
        },
        decide: |evidence| receives(evidence, "d", "MODIFY"),
    },
    Experiment {
        name: "splice",
        group: Group::Content,
        claim: "A splice from a pipe into a file is received as IN_MODIFY.",
        source: "fs/splice.c, do_splice",
        method: "Splice from a pipe into a file in a watched directory.",
        rests_on: INOTIFY,
        run: spliced,
        decide: |evidence| receives(evidence, "d", "MODIFY"),
    },
    Experiment {
        name: "libaio-write",
        group: Group::Content,
        claim: "A write by io_submit is not received as IN_MODIFY.",
        source: "fs/aio.c, aio_write: no notification call",
        method: "Write to a file in a watched directory by io_submit.",
        rests_on: INOTIFY,
        run: submitted,
        decide: |evidence| receives_none(evidence, "d", &["MODIFY"]),
    },
    Experiment {
        name: "loop-device-write",
        group: Group::Content,
        claim: "A write to a loop device is received as IN_MODIFY of its backing file.",
        source: "drivers/block/loop.c, and what kernels up to 6.1 did",
        method: "Write to a loop device and sync it, while the directory of its backing file is watched.",
        rests_on: INOTIFY,
        run: through_loop,
        decide: |evidence| receives(evidence, "d", "MODIFY"),
    },
];

fn store(bench: &mut Bench<'_>, dir: &std::path::Path) -> Result<(), Stop> {
    let path = dir.join("f");
    old_file(&path, &[b'1'; PAGE])?;
    // Only the first store into a clean page asks the filesystem.
    File::open(&path)?.sync_all().during("sync a file")?;
    bench.watch("d", dir)?;
    bench.compare("d/f", &path);
    bench.operate(|_| {
        let file = File::options().read(true).write(true).open(&path)?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address that the kernel chooses, of a file of one page that nobody truncates; it is
        // removed below and no reference into it remains.
        unsafe {
            let start = mmap(std::ptr::null_mut(), PAGE, protection, MapFlags::SHARED, &file, 0)
                .during("map a file")?;
            start.cast::<u8>().write_volatile(b'2');
            let synced = msync(start, PAGE, MsyncFlags::SYNC);
            munmap(start, PAGE).during("unmap a file")?;
            synced.during("sync a mapping")
        }
    })?;
    bench.done(fs::read(&path)?.first() == Some(&b'2'));
    bench.control("d", || overwrite(&path, b"3"))
}

fn allocated(bench: &mut Bench<'_>) -> Result<(), Stop> {
    let dir = bench.dir_on(Disk::Ext4)?;
    let path = dir.join("f");
    old_file(&path, b"1\n")?;
    let blocks = || Ok::<_, Stop>(fs::metadata(&path).during("look at a file")?.blocks());
    let before = blocks()?;
    bench.watch("d", &dir)?;
    bench.compare("d/f", &path);
    bench.operate(|_| {
        let file = File::options().write(true).open(&path)?;
        fallocate(&file, FallocateFlags::KEEP_SIZE, 0, 1 << 20).during("allocate")
    })?;
    bench.done(holds(&path, b"1\n") && blocks()? > before);
    bench.control("d", || overwrite(&path, b"3"))
}

fn cloned(bench: &mut Bench<'_>) -> Result<(), Stop> {
    let dir = bench.dir_on(Disk::Btrfs)?;
    let (source, path) = (dir.join("source"), dir.join("f"));
    old_file(&source, &[b'2'; PAGE])?;
    old_file(&path, b"1\n")?;
    bench.watch("d", &dir)?;
    bench.compare("d/f", &path);
    bench.operate(|_| {
        let file = File::options().write(true).open(&path)?;
        ioctl_ficlone(&file, File::open(&source)?).during("clone a file")
    })?;
    bench.done(holds(&path, &[b'2'; PAGE]));
    bench.control("d", || overwrite(&path, b"3"))
}

fn flagged(bench: &mut Bench<'_>) -> Result<(), Stop> {
    let dir = bench.dir_on(Disk::Ext4)?;
    let path = dir.join("f");
    old_file(&path, b"1\n")?;
    let file = File::open(&path)?;
    bench.watch("d", &dir)?;
    bench.compare("d/f", &path);
    bench.operate(|_| {
        let flags = ioctl_getflags(&file).during("read inode flags")?;
        ioctl_setflags(&file, flags | IFlags::NODUMP).during("set an inode flag")
    })?;
    bench.done(ioctl_getflags(&file).during("read inode flags")?.contains(IFlags::NODUMP));
    bench.control("d", || overwrite(&path, b"3"))
}

fn spliced(bench: &mut Bench<'_>) -> Result<(), Stop> {
    let dir = bench.dir("d")?;
    let path = dir.join("f");
    old_file(&path, b"1\n")?;
    bench.watch("d", &dir)?;
    bench.compare("d/f", &path);
    bench.operate(|_| {
        let file = File::options().write(true).open(&path)?;
        let (reader, writer) = pipe().during("make a pipe")?;
        File::from(writer).write_all(b"22\n").during("fill a pipe")?;
        splice(&reader, None, &file, None, 3, SpliceFlags::empty()).during("splice")
    })?;
    bench.done(holds(&path, b"22\n"));
    Ok(())
}

/// `struct iocb` of linux/aio_abi.h on a little-endian machine.
#[repr(C)]
#[derive(Default)]
struct Request {
    data: u64,
    key: u32,
    rw_flags: u32,
    opcode: u16,
    priority: i16,
    fd: u32,
    buffer: u64,
    length: u64,
    rest: [u64; 3],
}

const _: () = assert!(size_of::<Request>() == 64);

fn submitted(bench: &mut Bench<'_>) -> Result<(), Stop> {
    let dir = bench.dir("d")?;
    let path = dir.join("f");
    old_file(&path, b"1\n")?;
    bench.watch("d", &dir)?;
    bench.compare("d/f", &path);
    bench.operate(|_| {
        let file = File::options().write(true).open(&path)?;
        submit(&file, b"22\n").during("write by io_submit")
    })?;
    bench.done(holds(&path, b"22\n"));
    bench.control("d", || overwrite(&path, b"3"))
}

/// One write at the start of a file, complete when this returns.
fn submit(file: &File, content: &[u8]) -> std::io::Result<()> {
    use std::os::fd::AsRawFd;
    const PWRITE: u16 = 1;
    let checked = |result: libc::c_long| {
        if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(result) }
    };
    let mut request = Request {
        opcode: PWRITE,
        fd: file.as_raw_fd().cast_unsigned(),
        buffer: content.as_ptr().addr() as u64,
        length: content.len() as u64,
        ..Request::default()
    };
    let mut context: libc::c_ulong = 0;
    // SAFETY: the kernel writes the new context's id into `context`.
    checked(unsafe { libc::syscall(libc::SYS_io_setup, 1, &raw mut context) })?;
    let mut list = [&raw mut request];
    let mut events = [[0_u64; 4]; 1];
    // SAFETY: the request and its buffer live until the event of its completion was read, and the kernel writes one event.
    let result = unsafe {
        checked(libc::syscall(libc::SYS_io_submit, context, 1_i64, list.as_mut_ptr())).and_then(|_| {
            let none = std::ptr::null::<libc::timespec>();
            checked(libc::syscall(libc::SYS_io_getevents, context, 1_i64, 1_i64, events.as_mut_ptr(), none))
        })
    };
    // SAFETY: a context of this function that has no request any more.
    unsafe { libc::syscall(libc::SYS_io_destroy, context) };
    result.map(|_| ())
}

fn through_loop(bench: &mut Bench<'_>) -> Result<(), Stop> {
    let dir = bench.dir("d")?;
    let path = dir.join("backing");
    fs::write(&path, vec![b'1'; 1 << 20]).during("make a backing file")?;
    set_old(&path)?;
    let backing = File::options().read(true).write(true).open(&path)?;
    let mut device = LoopDevice::of(&backing)?;
    drop(backing);
    bench.watch("d", &dir)?;
    bench.compare("d/backing", &path);
    bench.operate(|_| {
        device.device.write_all(&[b'2'; PAGE]).during("write to a loop device")?;
        device.device.sync_all().during("sync a loop device")
    })?;
    bench.done(fs::read(&path)?.first() == Some(&b'2'));
    bench.control("d", || overwrite(&path, b"3"))
}
