//! A fanotify group of the laboratory, which reports directories and names where the kernel can.
//!
//! In: paths to mark. Out: what was queued up to a barrier. A group has one queue, as an inotify instance.

use std::fs::File;
use std::io;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::{PATIENCE, put, wait};
use crate::verify::evidence::{Account, Event, Listener, State};

/// Everything that a directory's mark can ask for, of itself and its files.
const MASK: u64 = libc::FAN_CREATE
    | libc::FAN_DELETE
    | libc::FAN_MOVED_FROM
    | libc::FAN_MOVED_TO
    | libc::FAN_MODIFY
    | libc::FAN_ATTRIB
    | libc::FAN_CLOSE_WRITE
    | libc::FAN_DELETE_SELF
    | libc::FAN_MOVE_SELF
    | libc::FAN_ONDIR
    | libc::FAN_EVENT_ON_CHILD;

/// The same without what only a group that reports names can be asked for.
const MASK_OF_DESCRIPTORS: u64 =
    libc::FAN_MODIFY | libc::FAN_CLOSE_WRITE | libc::FAN_ONDIR | libc::FAN_EVENT_ON_CHILD;

/// The words for the bits, in inotify's way.
const WORDS: [(u64, &str); 10] = [
    (libc::FAN_MODIFY, "MODIFY"),
    (libc::FAN_ATTRIB, "ATTRIB"),
    (libc::FAN_CLOSE_WRITE, "CLOSE_WRITE"),
    (libc::FAN_MOVED_FROM, "MOVED_FROM"),
    (libc::FAN_MOVED_TO, "MOVED_TO"),
    (libc::FAN_CREATE, "CREATE"),
    (libc::FAN_DELETE, "DELETE"),
    (libc::FAN_DELETE_SELF, "DELETE_SELF"),
    (libc::FAN_MOVE_SELF, "MOVE_SELF"),
    (libc::FAN_Q_OVERFLOW, "Q_OVERFLOW"),
];

/// `sizeof(struct fanotify_event_metadata)`.
const HEAD: usize = 24;
/// `struct fanotify_event_info_fid` up to its file handle, and that up to its bytes.
const INFO_HEAD: usize = 4 + 8 + 8;

/// See the module.
pub(in crate::verify) struct Fanotify {
    queue: File,
    events: Vec<Event>,
    state: State,
    /// What has a mark, the directory of barriers first.
    marked: Vec<PathBuf>,
    /// It reports open files, where the kernel cannot report names of one of the filesystems.
    has_descriptors: bool,
    /// A path was to be marked.
    used: bool,
    /// Why a path could not be marked.
    refused: Option<String>,
}

impl Fanotify {
    /// A group that watches the directory of barriers.
    ///
    /// # Errors
    /// The kernel has no fanotify, or none that reports names.
    pub(in crate::verify) fn new(barriers: &Path) -> io::Result<Self> {
        let queue = open_group(libc::FAN_REPORT_FID | libc::FAN_REPORT_DFID_NAME)?;
        let mut group = Self {
            queue,
            events: Vec::new(),
            state: State::Listening,
            marked: Vec::new(),
            has_descriptors: false,
            used: false,
            refused: None,
        };
        group.mark(barriers, MASK)?;
        group.marked.push(barriers.to_path_buf());
        Ok(group)
    }

    fn mark(&mut self, path: &Path, mask: u64) -> io::Result<()> {
        let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
        // SAFETY: a live string that ends in NUL; the descriptor is open.
        let result = unsafe {
            libc::fanotify_mark(
                self.queue.as_raw_fd(),
                libc::FAN_MARK_ADD,
                mask,
                libc::AT_FDCWD,
                path.as_ptr(),
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Marks a path.
    pub(in crate::verify) fn add(&mut self, at: &'static str, path: &Path) {
        self.used = true;
        self.marked.push(path.to_path_buf());
        let mask = if self.has_descriptors { MASK_OF_DESCRIPTORS } else { MASK };
        let result = self.mark(path, mask).or_else(|error| match error.raw_os_error() {
            // The filesystem has no identity, or no file handles.
            Some(libc::EXDEV | libc::ENODEV | libc::EOPNOTSUPP) if !self.has_descriptors => {
                self.report_descriptors()
            }
            _ => Err(error),
        });
        if let Err(error) = result {
            self.refused = Some(format!("the kernel refuses a mark on {at}: {error}"));
        }
    }

    /// Goes on with a group that reports open files: every filesystem can be marked in it.
    fn report_descriptors(&mut self) -> io::Result<()> {
        self.queue = open_group(0)?;
        self.has_descriptors = true;
        let marked = self.marked.clone();
        marked.iter().try_for_each(|path| self.mark(path, MASK_OF_DESCRIPTORS))
    }

    /// Whether the experiment has a mark.
    pub(in crate::verify) const fn is_used(&self) -> bool {
        self.used
    }

    /// Forgets what was received so far.
    pub(in crate::verify) fn forget(&mut self) {
        self.events.clear();
        self.state = State::Silent;
    }

    /// Whether it was received: reads up to the barrier of this name, or to the end of a queue that has overflowed.
    pub(in crate::verify) fn read_to(&mut self, barrier: &[u8]) -> bool {
        let over = Instant::now() + PATIENCE;
        self.state = State::Silent;
        loop {
            match self.read(barrier) {
                Ok(true) => {
                    self.state = State::Listening;
                    return true;
                }
                Ok(false) => {}
                Err(_) => return false,
            }
            if !wait(self.queue.as_fd(), over) {
                return false;
            }
        }
    }

    /// Reads what is queued; whether the barrier was in it, or room for one was not.
    fn read(&mut self, barrier: &[u8]) -> io::Result<bool> {
        let mut buffer = vec![0; 1 << 16];
        let mut found = false;
        let mut overflown = false;
        loop {
            let length = match self.queue.read(&mut buffer) {
                Ok(0) => return Ok(found),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(found || overflown),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let mut rest = &buffer[..length];
            while let Some((whole, next)) = first(rest) {
                rest = next;
                let Some((mask, name)) = parse(whole) else { continue };
                if name.as_deref().is_some_and(|name| name.starts_with(BARRIER)) {
                    found |= name.as_deref() == Some(barrier);
                    continue;
                }
                overflown |= mask & libc::FAN_Q_OVERFLOW != 0;
                let what = WORDS.iter().filter(|(bit, _)| mask & bit != 0);
                let what = what.map(|(_, word)| (*word).to_owned()).collect();
                // A directory's own events have "." for a name.
                let name = name.filter(|name| name != b".");
                put(&mut self.events, Event { at: "", what, name, cookie: 0, count: 1 });
            }
        }
    }

    /// What was received.
    pub(in crate::verify) fn account(&self) -> Account {
        let state = self.refused.clone().map_or_else(|| self.state.clone(), State::Off);
        Account { listener: Listener::Fanotify, state, events: self.events.clone() }
    }
}

/// How names of barriers begin.
pub(in crate::verify) const BARRIER: &[u8] = b".hotr-barrier-";

/// A new group with these flags beside the usual ones.
fn open_group(flags: libc::c_uint) -> io::Result<File> {
    let flags = libc::FAN_CLASS_NOTIF | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK | flags;
    let of_files = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK;
    // SAFETY: no pointer is involved.
    let fd = unsafe { libc::fanotify_init(flags, of_files.cast_unsigned()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else has.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// The first event of a buffer, and the rest.
fn first(buffer: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = usize::try_from(u32::from_ne_bytes(*buffer.first_chunk()?)).ok()?;
    (length >= HEAD).then(|| buffer.split_at_checked(length))?
}

/// Mask and name of an event.
fn parse(event: &[u8]) -> Option<(u64, Option<Vec<u8>>)> {
    let mask = u64::from_ne_bytes(*event.get(8..)?.first_chunk()?);
    let mut info = event.get(HEAD..)?;
    while let [kind, _, low, high, ..] = info {
        let length = usize::from(u16::from_ne_bytes([*low, *high]));
        let (record, rest) = info.split_at_checked(length.max(4))?;
        if *kind == libc::FAN_EVENT_INFO_TYPE_DFID_NAME {
            let handle = usize::try_from(u32::from_ne_bytes(*record.get(12..)?.first_chunk()?)).ok()?;
            let name = record.get(INFO_HEAD + handle..)?.split(|byte| *byte == 0).next()?;
            return Some((mask, Some(name.to_vec())));
        }
        info = rest;
    }
    Some((mask, opened(event)))
}

/// The name of the file that came open with an event, which is closed.
fn opened(event: &[u8]) -> Option<Vec<u8>> {
    let fd = i32::from_ne_bytes(*event.get(16..)?.first_chunk()?);
    if fd < 0 {
        return None;
    }
    // SAFETY: the kernel made this descriptor for the reader of the event, and nobody else has it.
    let file = unsafe { OwnedFd::from_raw_fd(fd) };
    let path = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
    path.file_name().map(|name| name.as_bytes().to_vec())
}
