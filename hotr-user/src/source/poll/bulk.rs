//! Which files of a directory are untouched, for many inodes at a time: of xfs, of ext4's inode tables (`ext4`), or of
//! the kernel's memory where all of a directory is there (tmpfs).
//!
//! In: a directory's records. Out: the slots whose inode has the generation, mode and times of its record. They need no
//! `statx`; every other file gets one, so this decides nothing but what need not be asked: a change of content or
//! attributes changes the change time (fs/xfs/xfs_itable.c, `xfs_bulkstat_one_int`, reads the inode in memory). Sizes
//! are left out: the size here is that on disk, which lags behind.

pub(super) mod ext4;

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use hotr_common::children::Child;

use super::attr::Attr;
use super::pace::Pace;
use crate::source::ebpf::children::Lane;

/// `XFS_IOC_BULKSTAT`: `_IOR('X', 127, struct xfs_bulkstat_req)`, of whose size the head counts.
const BULKSTAT: libc::Ioctl = 0x8040_587f_u32 as libc::Ioctl;
/// Inodes requested in one call.
const CHUNK: usize = 512;
/// Fewer files than this are queried one by one: a call has its own cost.
const FEWEST: usize = 32;
/// Of the inodes that a call returns, one in so many must be of this directory, or the rest is queried one by one.
const SPARSE: usize = 3;
/// Bits of a number of nanoseconds.
const NANOS: u32 = (1 << 30) - 1;
/// The same where they are only copied.
const SPARSE_TABLE: usize = 16;

/// `struct xfs_bulk_ireq`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Head {
    /// In: the first inode. Out: where to continue.
    ino: u64,
    flags: u32,
    count: u32,
    told: u32,
    group: u32,
    reserved: [u64; 5],
}

/// `struct xfs_bulkstat`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Stat {
    ino: u64,
    size: u64,
    blocks: u64,
    xflags: u64,
    atime: i64,
    mtime: i64,
    ctime: i64,
    btime: i64,
    gen_: u32,
    uid: u32,
    gid: u32,
    project: u32,
    atime_nsec: u32,
    mtime_nsec: u32,
    ctime_nsec: u32,
    btime_nsec: u32,
    rest: [u32; 7],
    short: [u16; 4],
    mode: u16,
    padding: u16,
    more: [u64; 7],
}

/// `struct xfs_bulkstat_req`.
#[repr(C)]
struct Request {
    head: Head,
    told: [Stat; CHUNK],
}
const _: () = assert!(size_of::<Head>() == 64 && size_of::<Stat>() == 192);

/// Who is asked.
#[derive(Clone, Copy)]
pub(super) enum Requester<'a> {
    /// The filesystem of this directory.
    Xfs(BorrowedFd<'a>),
    /// The filesystem's tables.
    Ext4(&'a ext4::Table),
    /// The dentry cache.
    Cached(&'a Lane, BorrowedFd<'a>),
}

/// What is returned for an inode; times are seconds and nanoseconds.
#[derive(Clone, Copy, Debug)]
struct InodeStat {
    generation: u32,
    mode: u16,
    mtime: (i64, u32),
    ctime: (i64, u32),
}

/// Requested by one thread of a scan.
pub(super) struct Bulk {
    request: Box<Request>,
    buffer: Vec<u8>,
    /// Inode and slot of the files at hand, by inode.
    wanted: Vec<(u64, u32)>,
    same: Vec<bool>,
}

impl Bulk {
    pub(super) fn new() -> Self {
        let none = Stat {
            ino: 0,
            size: 0,
            blocks: 0,
            xflags: 0,
            atime: 0,
            mtime: 0,
            ctime: 0,
            btime: 0,
            gen_: 0,
            uid: 0,
            gid: 0,
            project: 0,
            atime_nsec: 0,
            mtime_nsec: 0,
            ctime_nsec: 0,
            btime_nsec: 0,
            rest: [0; 7],
            short: [0; 4],
            mode: 0,
            padding: 0,
            more: [0; 7],
        };
        let request = Request { head: Head::default(), told: [none; CHUNK] };
        Self { request: Box::new(request), buffer: Vec::new(), wanted: Vec::new(), same: Vec::new() }
    }

    /// Looks at those of the `count` records that are requested. `works` is cleared where the filesystem, or a missing
    /// `CAP_SYS_ADMIN`, refuses; [`Self::is_same`] then says no.
    pub(super) fn look(
        &mut self,
        whom: Option<Requester<'_>>,
        works: &AtomicBool,
        pace: &mut Pace<'_>,
        count: usize,
        known: impl Fn(u32) -> Attr,
        is_asked: impl Fn(&Attr) -> bool,
    ) {
        self.same.clear();
        let Some(whom) = whom.filter(|_| count >= FEWEST && works.load(Ordering::Relaxed)) else { return };
        self.same.resize(count, false);
        self.wanted.clear();
        for slot in 0..count as u32 {
            let attr = known(slot);
            if is_asked(&attr) {
                self.wanted.push((attr.ino, slot));
            }
        }
        self.wanted.sort_unstable();
        let mut at = 0;
        while self.wanted.len() - at >= FEWEST && pace.look() {
            let (begin, first) = (at, self.wanted[at].0);
            let answer = match whom {
                Requester::Xfs(dir) => self.take_told(dir, &mut at, &known).map(|told| told.div_ceil(SPARSE)),
                Requester::Ext4(table) => {
                    self.take_read(table, first, &mut at, &known).map(|read| read.div_ceil(SPARSE_TABLE))
                }
                Requester::Cached(lane, dir) => {
                    self.take_cached(lane, dir, &mut at, pace, &known).map(|()| 1)
                }
            };
            if answer.is_none() {
                works.store(false, Ordering::Relaxed);
            }
            if answer.is_none_or(|least| at - begin < least.max(1)) {
                return;
            }
        }
    }

    /// Requests inodes from that of `at` on, and passes those that were returned; their number.
    fn take_told(
        &mut self,
        dir: BorrowedFd<'_>,
        at: &mut usize,
        known: &impl Fn(u32) -> Attr,
    ) -> Option<usize> {
        let told = self.ask(dir, self.wanted[*at].0)?;
        for stat in &self.request.told[..told] {
            while self.wanted.get(*at).is_some_and(|(ino, _)| *ino < stat.ino) {
                *at += 1;
            }
            // Two names of one file follow each other.
            while let Some((_, slot)) = self.wanted.get(*at).filter(|(ino, _)| *ino == stat.ino) {
                self.same[*slot as usize] = stat.inode_stat().is(&known(*slot));
                *at += 1;
            }
        }
        Some(told)
    }

    /// Reads inodes from `first` on, and passes those that the answer is about; their number.
    fn take_read(
        &mut self,
        table: &ext4::Table,
        first: u64,
        at: &mut usize,
        known: &impl Fn(u32) -> Attr,
    ) -> Option<usize> {
        let count = table.read(first, &mut self.buffer)?;
        while let Some((ino, slot)) = self.wanted.get(*at).filter(|(ino, _)| *ino - first < count) {
            let told = table.inode_stat(&self.buffer, ino - first);
            self.same[*slot as usize] = told.is_some_and(|told| told.is(&known(*slot)));
            *at += 1;
        }
        usize::try_from(count).ok()
    }

    /// Goes through all names that a directory has in the dentry cache, in whatever order they are there, and passes all
    /// that are wanted.
    fn take_cached(
        &mut self,
        lane: &Lane,
        dir: BorrowedFd<'_>,
        at: &mut usize,
        pace: &mut Pace<'_>,
        known: &impl Fn(u32) -> Attr,
    ) -> Option<()> {
        *at = self.wanted.len();
        let (mut from, mut told, mut near) = (0, 0, 0);
        // A list that changes under way may lead in a circle.
        while told <= 2 * self.same.len() && pace.look() {
            let answer = lane.read(dir, from).ok()?;
            let files = answer.files.get(..answer.told as usize).unwrap_or_default();
            told += files.len();
            for file in files {
                let Some(first) = self.find(file.ino, near) else { continue };
                near = first;
                // All names of one file follow each other.
                for (_, slot) in self.wanted[first..].iter().take_while(|(ino, _)| *ino == file.ino) {
                    self.same[*slot as usize] = told_by(file).is(&known(*slot));
                }
            }
            from = answer.next;
            if from == 0 || files.is_empty() {
                break;
            }
        }
        Some(())
    }

    /// Where an inode is first among those that are wanted. Most are next to the one that was returned before.
    fn find(&self, ino: u64, near: usize) -> Option<usize> {
        let is_first = |at: &usize| {
            self.wanted.get(*at).is_some_and(|one| one.0 == ino) && (*at == 0 || self.wanted[*at - 1].0 < ino)
        };
        let beside = [near.wrapping_sub(1), near + 1].into_iter().find(is_first);
        beside.or_else(|| Some(self.wanted.partition_point(|one| one.0 < ino)).filter(is_first))
    }

    /// Whether a file is as its record says; `false` when that is not known.
    pub(super) fn is_same(&self, slot: u32) -> bool {
        self.same.get(slot as usize).copied().unwrap_or(false)
    }

    /// The number of inodes returned, from `first` on.
    fn ask(&mut self, dir: BorrowedFd<'_>, first: u64) -> Option<usize> {
        self.request.head = Head { ino: first, count: CHUNK as u32, ..Head::default() };
        let request: *mut Request = &raw mut *self.request;
        // SAFETY: the request has room for as many inodes as its head says, and any bytes make valid numbers.
        let answer = unsafe { libc::ioctl(dir.as_raw_fd(), BULKSTAT, request) };
        (answer == 0).then(|| (self.request.head.told as usize).min(CHUNK))
    }
}

impl Stat {
    const fn inode_stat(&self) -> InodeStat {
        InodeStat {
            generation: self.gen_,
            mode: self.mode,
            mtime: (self.mtime, self.mtime_nsec),
            ctime: (self.ctime, self.ctime_nsec),
        }
    }
}

fn told_by(child: &Child) -> InodeStat {
    InodeStat {
        generation: child.generation,
        mode: (child.mode & 0xffff) as u16,
        mtime: (child.mtime, child.mtime_nsec),
        ctime: (child.ctime, child.ctime_nsec & NANOS),
    }
}

impl InodeStat {
    fn is(&self, known: &Attr) -> bool {
        let time =
            |(seconds, nanos): (i64, u32)| seconds.checked_mul(1_000_000_000)?.checked_add(i64::from(nanos));
        self.generation == known.ident
            && self.mode == known.mode
            && time(self.mtime) == Some(known.mtime)
            && time(self.ctime) == Some(known.ctime)
    }
}

/// The mount table of this process, by its content: no inode shows what is mounted over a file.
pub(super) fn mounts() -> Option<Vec<u8>> {
    std::fs::read("/proc/self/mountinfo").ok()
}
