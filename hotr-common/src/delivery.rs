//! One record about an event that the kernel offered to the inotify instance of another process, or that was taken out
//! of its queue. Such records are made while a diagnosis runs, in a ring buffer of their own.

use crate::record::MAX_NAME;

/// Instances that can be followed at a time.
pub const MAX_GROUPS: u32 = 1024;

/// Threads to whom an event may be offered at a time, as a power of two; above the usual greatest number of a thread, so that
/// no two share an entry.
pub const NOTES: u32 = 1 << 15;

/// [`Offer::kind`]: the kernel offered an event.
pub const OFFERED: u32 = 1;
/// An event left the queue because the program read it: `event` is set.
pub const TAKEN: u32 = 2;
/// The instance goes away; its address may be given to another one.
pub const CLOSED: u32 = 3;

/// What the program read from the instance: a [`Chunk`].
pub const READ: u32 = 4;
/// The program set a watch: `wd` and `mask` are set.
pub const ADDED: u32 = 5;
/// The event that was offered last in this thread, with the same `time` and `event`, was not queued: all is set but `cookie` and
/// the name. It comes before its address can be that of another event.
pub const REFUSED: u32 = 6;

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

/// [`Offer::result`]: queued, unless a [`REFUSED`] of this event follows.
pub const QUEUED: i32 = 0;
/// [`Offer::result`]: an overflow was queued instead, because there was no memory for the event. Watch and name are not known.
pub const NO_MEMORY: i32 = -12;

/// Room for a name in a short record, with the NUL.
pub const SHORT_NAME: usize = 32;
/// Length of what is copied from an event besides the name: [`Offer::mask`], [`Offer::wd`], [`Offer::cookie`] and
/// [`Offer::name_len`], as they are in `struct inotify_event_info`.
pub const EVENT_HEAD: usize = 16;

/// See the module. A record of [`OFFERED`] is a [`NamedOffer`]; in those of the other kinds only `kind`, `slot` and `time` are
/// set, and what their constant says.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Offer {
    /// Before the event was queued, or when it was taken; `CLOCK_MONOTONIC` nanoseconds.
    pub time: u64,
    /// Address of the event; it is used again for another one once this has left the queue. 0 when there was none.
    pub event: u64,
    /// Number of the inode that the event is about.
    pub ino: u64,
    /// [`OFFERED`] or another kind.
    pub kind: u32,
    /// Which instance.
    pub slot: u32,
    /// Thread that made the change, in the initial pid namespace.
    pub tid: u32,
    /// Device of that inode.
    pub dev: u32,
    /// [`QUEUED`] or [`NO_MEMORY`]; of a [`REFUSED`] what `fsnotify_insert_event` returned: 1 merged, 2 not taken.
    pub result: i32,
    /// Events in the queue: before this one was offered, or after it was refused.
    pub queued: u32,
    /// Most it takes.
    pub limit: u32,
    /// Not set.
    pub reserved: u32,
    /// Kinds of event.
    pub mask: u32,
    /// Watch of the instance.
    pub wd: i32,
    /// Joins the two events of a rename.
    pub cookie: u32,
    /// Bytes of the name; 0 when the inode itself is watched.
    pub name_len: u32,
}

/// An event that was offered, with room for a name in a watched directory.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct NamedOffer<const ROOM: usize> {
    /// All but the name.
    pub head: Offer,
    /// [`Offer::name_len`] bytes and a NUL; the rest is not set.
    pub name: [u8; ROOM],
}

const _: () = assert!(size_of::<Offer>() == 3 * 8 + 12 * 4);
const _: () = assert!(size_of::<NamedOffer<MAX_NAME>>() < size_of::<Chunk>());

/// Instances that are found without a look-up in a hash table; a power of two.
pub const FIRST_GROUPS: usize = 8;

/// The first instances that are followed.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct FirstGroups {
    /// Their slots.
    pub slots: [u32; FIRST_GROUPS],
    /// Addresses of their `fsnotify_group`s; 0 for none. A place is used once: who finds the address finds its slot.
    pub groups: [u64; FIRST_GROUPS],
    /// How many places were used.
    pub used: u64,
    /// Not 0 once the hash table has others.
    pub has_more: u64,
}

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
    /// Read; [`UNSEEN`] when it was opened in a way by which its reading is not seen.
    pub read: u64,
}

/// [`Usage::read`]: perhaps at any time.
pub const UNSEEN: u64 = u64::MAX;
