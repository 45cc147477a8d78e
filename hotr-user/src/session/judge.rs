//! Why inotify missed a change: the cause, from what the kernel side saw and what the channel knows.

use std::path::Path;

use hotr_common::hook::Hook;
use hotr_common::record::{Delivery, FLAG_IO_WORKER, FLAG_KTHREAD, FLAG_OTHER_NAME, Record};

use crate::pipeline::correlate::RecordedChanges;
use crate::session::held_records::is_unfinished;
use crate::source::inotify::Coverage;
use hotr_events::Cause;
use hotr_events::{Change, Channel, Layer, Missed};

/// What is known besides the record.
pub(super) struct Context {
    /// Whether the directory of the changed name was watched when the change was made.
    pub(super) coverage: Coverage,
    /// The queue overflowed, and the watches are not rebuilt yet.
    pub(super) overflowed: bool,
    /// The file is mounted by itself where it was changed: its directory for the kernel is the one it is mounted from.
    pub(super) is_mounted: bool,
}

/// What the record of `count` changes says of the events they may have queued.
pub(super) fn made(change: &Change, record: &Record, hook: Hook, count: u64, root: &Path) -> RecordedChanges {
    let is = |word: &str| change.detail.iter().any(|detail| detail == word);
    let by_nobody = hook == Hook::Mmap || ["mmap", "aio", "chattr"].into_iter().any(is);
    let elsewhere = matches!(change.layer, Some(Layer::Upper | Layer::Lower));
    // A file that is itself a root is watched under all its names.
    let by_other_name = record.flags & FLAG_OTHER_NAME != 0 && change.path != root;
    let is_silent = by_nobody || elsewhere || by_other_name;
    // The first of several writes to a page is recorded.
    let is_unfinished = is_unfinished(record);
    // When an asynchronous write of io_uring is complete, its submitter notifies (io_uring/rw.c `io_req_rw_complete`).
    // What a kernel thread writes to an overlay may be recorded when its layer is written, before the overlay's notification.
    let is_before = is_unfinished || matches!(hook, Hook::UringComplete | Hook::IterWrite);
    let events = if is_unfinished { u64::MAX } else { events(change, count) };
    RecordedChanges { last_ns: record.time, events, is_silent, unread: false, is_before }
}

/// Whether the kernel notifies once more after the record (io_uring/sync.c `io_fallocate`, after fs/open.c `vfs_fallocate`).
pub(super) fn notifies_again(record: &Record, hook: Hook) -> bool {
    hook == Hook::Fallocate && record.flags & FLAG_IO_WORKER != 0
}

/// The same of changes that were only counted.
pub(super) fn counted(change: &Change, last_ns: u64) -> RecordedChanges {
    let is_before = change.detail.iter().any(|detail| detail == "io_uring" || detail == "kernel-write");
    RecordedChanges {
        last_ns,
        events: events(change, change.written.writes),
        is_silent: true,
        unread: true,
        is_before,
    }
}

/// The most events that changes queue: some calls write part by part, and the kernel queues an event for each part
/// (fs/read_write.c `do_iter_write`, of fs/splice.c `iter_file_splice_write`). A fallocate of io_uring queues two: see
/// [`notifies_again`], and where it is recorded when it is complete both are queued before.
fn events(change: &Change, count: u64) -> u64 {
    let has = |words: &[&str]| change.detail.iter().any(|detail| words.contains(&&**detail));
    if has(&["sendfile", "splice", "copy_file_range", "aio", "io_uring"]) {
        u64::MAX
    } else if has(&["fallocate"]) {
        count.max(1).saturating_mul(2)
    } else {
        count.max(1)
    }
}

/// The cause of a change that no inotify event covers. Only called after draining: absence is proven.
pub(super) fn missed(change: &Change, record: &Record, hook: Hook, context: &Context) -> Missed {
    let (cause, why) = cause(change, record, hook, context);
    Missed { channel: Channel::Inotify, cause, why: why.into() }
}

fn cause(change: &Change, record: &Record, hook: Hook, context: &Context) -> (Cause, &'static str) {
    let is = |word: &str| change.detail.iter().any(|detail| detail == word);
    if context.overflowed || Delivery::from_u8(record.delivery) == Delivery::Overflow {
        return (Cause::QueueOverflow, "the inotify queue was full, the kernel dropped the event");
    }
    match change.layer {
        Some(Layer::Upper) => {
            return (
                Cause::LayerBypass,
                "made in the upperdir: the overlay's inode, which is watched, got no notification",
            );
        }
        Some(Layer::Lower) => {
            return (
                Cause::LayerBypass,
                "made in a lowerdir: the overlay's inode, which is watched, got no notification",
            );
        }
        _ => {}
    }
    if is("mmap") || hook == Hook::Mmap {
        return (Cause::Mmap, "stores through a mapping send no notification");
    }
    if is("aio") || is("io_uring") {
        return (Cause::Aio, "this kernel sends no notification of this asynchronous write");
    }
    match context.coverage {
        Coverage::Limit => {
            return (Cause::Limit, "the directory has no watch: fs.inotify.max_user_watches was reached");
        }
        Coverage::Unwatched => {
            return (
                Cause::NeverWatched,
                "the directory had no watch: it is newer than the last look at its parent",
            );
        }
        Coverage::Watched { since_mono_ns } if since_mono_ns > record.time => {
            return (Cause::NeverWatched, "made in a new directory before it had a watch");
        }
        Coverage::Watched { .. } => {}
    }
    if context.is_mounted {
        return (
            Cause::FileMount,
            "the file is mounted by itself: the kernel notifies the directory it is mounted from, which is not watched",
        );
    }
    if record.flags & FLAG_OTHER_NAME != 0 {
        return (
            Cause::HardlinkAlias,
            "written through another name of the file, in a directory that is not watched",
        );
    }
    if record.flags & FLAG_KTHREAD != 0 {
        return (Cause::KernelWriter, "written by the kernel itself, which sends no notification of it");
    }
    if is("chattr") {
        return (Cause::KernelWriter, "this kernel sends no notification of inode flags");
    }
    if Delivery::from_u8(record.delivery) == Delivery::Merged {
        return (Cause::Merged, "merged with an equal event that was not read yet");
    }
    (Cause::KernelWriter, "the kernel made no notification call for this way of changing a file")
}
