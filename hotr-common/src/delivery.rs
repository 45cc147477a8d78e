//! One record about an event that the kernel offered to the inotify instance of another process, or that was taken out
//! of its queue. Such records are made while a diagnosis runs, in a ring buffer of their own.

use crate::record::MAX_NAME;

/// Instances that can be followed at a time.
pub const MAX_GROUPS: u32 = 1024;

/// [`Offer::kind`]: the kernel offered an event.
pub const OFFERED: u32 = 1;
/// An event left the queue because the program read it.
pub const TAKEN: u32 = 2;
/// The instance goes away; its address may be given to another one.
pub const CLOSED: u32 = 3;

/// What the program read from the instance: a [`Chunk`].
pub const READ: u32 = 4;
/// The program set a watch: `wd` and `mask` are set.
pub const ADDED: u32 = 5;

/// Most bytes of a [`Chunk`].
pub const CHUNK: usize = 512;
/// Most chunks of one `read`; of a longer one records are lost.
pub const CHUNKS: u32 = 128;

/// A part of what a program read from its instance, where only system calls are seen.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Chunk {
    /// When the call ended; `CLOCK_MONOTONIC` nanoseconds.
    pub time: u64,
    /// [`READ`].
    pub kind: u32,
    /// Which instance.
    pub slot: u32,
    /// The thread that read.
    pub tid: u32,
    /// Where in the buffer of the call this part begins.
    pub at: u32,
    /// Bytes that the call returned.
    pub total: u32,
    /// Events in the queue afterwards.
    pub queued: u32,
    /// The bytes.
    pub bytes: [u8; CHUNK],
}

const _: () = assert!(size_of::<Chunk>() == 8 + 6 * 4 + CHUNK && size_of::<Chunk>() != size_of::<Offer>());

/// What a system call does that a diagnosis follows by its exit.
pub mod calls {
    /// Nothing.
    pub const NONE: u32 = 0;
    /// Returns a new descriptor.
    pub const OPENS: u32 = 1;
    /// Reads from its first argument to the buffer in its second.
    pub const READS: u32 = 2;
    /// Reads from its first argument otherwise.
    pub const USES: u32 = 3;
    /// Reads from its second argument.
    pub const SENDS: u32 = 4;
    /// Sets a watch.
    pub const WATCHES: u32 = 5;
    /// Numbers that are looked up.
    pub const NUMBERS: u32 = 512;
}

/// [`Offer::result`] until `fsnotify_insert_event` was called.
pub const NOT_INSERTED: i32 = i32::MIN;

/// See the module. With [`TAKEN`] and [`CLOSED`] only `kind`, `slot`, `time`, `pid`, `tid` and `event` are set.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Offer {
    /// Before the event was queued, or when it was taken; `CLOCK_MONOTONIC` nanoseconds.
    pub time: u64,
    /// Address of the `fsnotify_group`.
    pub group: u64,
    /// Address of the event; it is used again for another one once this has left the queue. 0 when there was none.
    pub event: u64,
    /// Number of the inode that the event is about.
    pub ino: u64,
    /// [`OFFERED`], [`TAKEN`] or [`CLOSED`].
    pub kind: u32,
    /// Which instance.
    pub slot: u32,
    /// Process that made the change, or read, in the initial pid namespace.
    pub pid: u32,
    /// Its thread.
    pub tid: u32,
    /// Device of that inode.
    pub dev: u32,
    /// Watch of the instance.
    pub wd: i32,
    /// Kinds of event.
    pub mask: u32,
    /// Joins the two events of a rename.
    pub cookie: u32,
    /// What `fsnotify_insert_event` returned: 0 queued, 1 merged, 2 not taken; or [`NOT_INSERTED`].
    pub result: i32,
    /// What `inotify_handle_inode_event` returned.
    pub status: i32,
    /// Events in the queue after that.
    pub queued: u32,
    /// Most it takes.
    pub limit: u32,
    /// The name in a watched directory, ended by NUL; empty when the inode itself is watched.
    pub name: [u8; MAX_NAME],
}

const _: () = assert!(size_of::<Offer>() == 4 * 8 + 12 * 4 + MAX_NAME);

/// A file in the hands of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Used {
    /// Its id, in the initial pid namespace.
    pub process: u32,
    /// Device of the file's inode.
    pub dev: u32,
    /// Number of the file's inode.
    pub ino: u64,
}

/// When it was used last; `CLOCK_MONOTONIC` nanoseconds, 0 for never.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Usage {
    /// Opened for reading.
    pub opened: u64,
    /// Read.
    pub read: u64,
}
