//! Making the kernel side of a running hotr deaf from outside: by the ids of what it holds, as another privileged
//! process can.
//!
//! In: a process. Out: its programs are detached, or know no root any more. `BPF_LINK_DETACH` is what detaches by id;
//! it exists for links to cgroups, devices and namespaces. For tracepoints, trampolines and perf events the kernel
//! answers EOPNOTSUPP (kernel/bpf/syscall.c, `link_detach`: their `bpf_link_ops` have no `detach`), so on all kernels
//! of the matrix the maps are what can be reached: emptied, the programs run and reject every change. The map of `.bss`
//! says which filesystems they check further.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const MAP_UPDATE_ELEM: libc::c_long = 2;
const MAP_DELETE_ELEM: libc::c_long = 3;
const MAP_GET_NEXT_KEY: libc::c_long = 4;
const MAP_GET_FD_BY_ID: libc::c_long = 14;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const LINK_GET_FD_BY_ID: libc::c_long = 30;
const LINK_DETACH: libc::c_long = 34;
/// `BPF_MAP_TYPE_HASH` and `BPF_MAP_TYPE_LRU_HASH`.
const HASHES: [u32; 2] = [1, 9];

/// What made it deaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Every link was detached.
    Links,
    /// The kernel detaches no such link by id; the maps were emptied.
    Maps,
}

/// `union bpf_attr`, as far as the commands here read it.
#[repr(C, align(8))]
#[derive(Default)]
struct Attr([u32; 32]);

impl Attr {
    fn new(first: u32, second: u32) -> Self {
        let mut attr = Self::default();
        (attr.0[0], attr.0[1]) = (first, second);
        attr
    }

    /// A pointer at a multiple of 8 bytes.
    fn pointer(mut self, at: usize, pointer: *mut u8) -> Self {
        let address = pointer.expose_provenance() as u64;
        self.0[at] = u32::try_from(address & 0xffff_ffff).unwrap_or(0);
        self.0[at + 1] = u32::try_from(address >> 32).unwrap_or(0);
        self
    }
}

fn bpf(command: libc::c_long, attr: &Attr) -> io::Result<libc::c_int> {
    // SAFETY: the attribute has the size that is given; pointers in it are of buffers that live over the call and have
    // the size of the map's keys, or the size that is given.
    let answer =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<Attr>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(libc::c_int::try_from(answer).unwrap_or(0)) }
}

fn descriptor(command: libc::c_long, id: u32) -> io::Result<OwnedFd> {
    let fd = bpf(command, &Attr::new(id, 0))?;
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn raw(fd: &OwnedFd) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}

/// The ids that a process's descriptors have, by the word in `fdinfo`.
fn ids(pid: u32, word: &str) -> io::Result<Vec<u32>> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        let info = fs::read_to_string(entry?.path()).unwrap_or_default();
        let value = info.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(':'));
        ids.extend(value.and_then(|text| text.trim().parse::<u32>().ok()));
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

/// Makes the kernel side of a process deaf.
///
/// # Errors
/// It holds nothing of the kind, or it cannot be reached: CAP_SYS_ADMIN is needed.
pub fn cut(pid: u32) -> io::Result<Cut> {
    let mut by_link = true;
    for id in ids(pid, "link_id")? {
        match bpf(LINK_DETACH, &Attr::new(raw(&descriptor(LINK_GET_FD_BY_ID, id)?), 0)) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => by_link = false,
            Err(error) => return Err(error),
        }
    }
    let maps = ids(pid, "map_id")?;
    if maps.is_empty() {
        return Err(io::ErrorKind::NotFound.into());
    }
    if by_link && !ids(pid, "link_id")?.is_empty() {
        return Ok(Cut::Links);
    }
    maps.into_iter().try_for_each(empty)?;
    Ok(Cut::Maps)
}

fn empty(id: u32) -> io::Result<()> {
    let map = descriptor(MAP_GET_FD_BY_ID, id)?;
    // `struct bpf_map_info`: type, id, key_size, value_size, max_entries, map_flags, name.
    let mut info = [0_u32; 32];
    bpf(OBJ_GET_INFO_BY_FD, &Attr::new(raw(&map), 128).pointer(2, info.as_mut_ptr().cast()))?;
    let (kind, key_size) = (info[0], info[2] as usize);
    let name: Vec<u8> = info[6..10].iter().flat_map(|word| word.to_ne_bytes()).collect();
    if name.starts_with(b".bss\0") {
        let (mut first, mut zeros) = (0_u32, vec![0_u8; info[3] as usize]);
        let attr = Attr::new(raw(&map), 0).pointer(2, (&raw mut first).cast()).pointer(4, zeros.as_mut_ptr());
        bpf(MAP_UPDATE_ELEM, &attr)?;
    }
    if !HASHES.contains(&kind) {
        return Ok(());
    }
    let mut key = vec![0_u8; key_size];
    let key = key.as_mut_ptr();
    // Without a key before it, the first.
    let next = || Attr::new(raw(&map), 0).pointer(4, key);
    while bpf(MAP_GET_NEXT_KEY, &next()).is_ok() {
        match bpf(MAP_DELETE_ELEM, &Attr::new(raw(&map), 0).pointer(2, key)) {
            Ok(_) => {}
            // A program was faster.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
