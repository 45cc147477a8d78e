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
use std::mem::zeroed;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use aya_obj::generated::{bpf_attr, bpf_cmd, bpf_map_info, bpf_map_type};

const HASHES: [u32; 2] = [bpf_map_type::BPF_MAP_TYPE_HASH as u32, bpf_map_type::BPF_MAP_TYPE_LRU_HASH as u32];

/// What made it deaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Every link was detached.
    Links,
    /// The kernel detaches no such link by id; the maps were emptied.
    Maps,
}

/// Attributes that are all zero, but for what is filled in.
fn attributes(fill: impl FnOnce(&mut bpf_attr)) -> bpf_attr {
    // SAFETY: all members of the union are numbers and arrays of numbers, of which zero is one.
    let mut attributes = unsafe { zeroed() };
    fill(&mut attributes);
    attributes
}

fn address<T>(of: *mut T) -> u64 {
    of.expose_provenance() as u64
}

fn bpf(command: bpf_cmd, attr: &bpf_attr) -> io::Result<libc::c_int> {
    // SAFETY: the attribute has the size that is given; pointers in it are of buffers that live over the call and have
    // the size of the map's keys, or the size that is given.
    let answer = unsafe {
        libc::syscall(libc::SYS_bpf, command as libc::c_long, std::ptr::from_ref(attr), size_of::<bpf_attr>())
    };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(libc::c_int::try_from(answer).unwrap_or(0)) }
}

fn descriptor(command: bpf_cmd, id: u32) -> io::Result<OwnedFd> {
    // The ids of maps and links are at the same place.
    let fd = bpf(command, &attributes(|attr| attr.__bindgen_anon_6.__bindgen_anon_1.map_id = id))?;
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
        let link = descriptor(bpf_cmd::BPF_LINK_GET_FD_BY_ID, id)?;
        match bpf(bpf_cmd::BPF_LINK_DETACH, &attributes(|attr| attr.link_detach.link_fd = raw(&link))) {
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
    let map = descriptor(bpf_cmd::BPF_MAP_GET_FD_BY_ID, id)?;
    // SAFETY: all members of the structure are numbers and arrays of numbers, of which zero is one.
    let mut info: bpf_map_info = unsafe { zeroed() };
    let ask = attributes(|attr| {
        attr.info.bpf_fd = raw(&map);
        attr.info.info_len = size_of::<bpf_map_info>() as u32;
        attr.info.info = address(&raw mut info);
    });
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &ask)?;
    let (kind, key_size) = (info.type_, info.key_size as usize);
    let name: Vec<u8> = info.name.iter().map(|byte| byte.cast_unsigned()).collect();
    let element = |key: u64, value: u64| {
        attributes(|attr| {
            // SAFETY: every member of the union is made of numbers, and all are zero.
            let element = unsafe { &mut attr.__bindgen_anon_2 };
            (element.map_fd, element.key, element.__bindgen_anon_1.value) = (raw(&map), key, value);
        })
    };
    if name.starts_with(b".bss\0") {
        let (mut first, mut zeros) = (0_u32, vec![0_u8; info.value_size as usize]);
        bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &element(address(&raw mut first), address(zeros.as_mut_ptr())))?;
    }
    if !HASHES.contains(&kind) {
        return Ok(());
    }
    let mut key = vec![0_u8; key_size];
    let key = address(key.as_mut_ptr());
    // Without a key before it, the first; it is written where a value would be.
    while bpf(bpf_cmd::BPF_MAP_GET_NEXT_KEY, &element(0, key)).is_ok() {
        match bpf(bpf_cmd::BPF_MAP_DELETE_ELEM, &element(key, 0)) {
            Ok(_) => {}
            // A program was faster.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
