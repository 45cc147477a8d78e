//! Why inotify did not hear of a change: the cause, from what the kernel side saw and what the channel knows.

use hotr_common::hook::Hook;
use hotr_common::record::{Delivery, FLAG_KTHREAD, FLAG_OTHER_NAME, Record};

use crate::event::{Change, Channel, Layer, Missed};
use crate::source::inotify::Coverage;

/// What is known besides the record.
pub(super) struct Context {
    /// Whether the directory of the changed name was watched when the change was made.
    pub(super) coverage: Coverage,
    /// The queue overflowed, and the watches are not rebuilt yet.
    pub(super) overflowed: bool,
}

/// The cause of a change that no inotify event covers. Only called after draining: absence is proven.
pub(super) fn missed(change: &Change, record: &Record, hook: Hook, context: &Context) -> Missed {
    let (cause, why) = cause(change, record, hook, context);
    Missed { channel: Channel::Inotify, cause, why: why.into() }
}

fn cause(change: &Change, record: &Record, hook: Hook, context: &Context) -> (&'static str, &'static str) {
    let is = |word: &str| change.detail.iter().any(|detail| detail == word);
    if context.overflowed || Delivery::from_u8(record.delivery) == Delivery::Overflow {
        return ("queue-overflow", "the inotify queue was full, the kernel dropped the event");
    }
    match change.layer {
        Some(Layer::Upper) => {
            return (
                "layer-bypass",
                "made in the upperdir: the overlay's inode, which is watched, was not told",
            );
        }
        Some(Layer::Lower) => {
            return (
                "layer-bypass",
                "made in a lowerdir: the overlay's inode, which is watched, was not told",
            );
        }
        _ => {}
    }
    if is("mmap") || hook == Hook::Mmap {
        return ("mmap", "stores through a mapping notify nobody");
    }
    if is("aio") || is("io_uring") {
        return ("aio", "this kernel notifies nobody of this asynchronous write");
    }
    match context.coverage {
        Coverage::Limit => {
            return ("limit", "the directory has no watch: fs.inotify.max_user_watches was reached");
        }
        Coverage::Unwatched => {
            return (
                "never-watched",
                "the directory had no watch: it is newer than the last look at its parent",
            );
        }
        Coverage::Watched { since_mono_ns } if since_mono_ns > record.time => {
            return ("never-watched", "made in a new directory before the watch on it was there");
        }
        Coverage::Watched { .. } => {}
    }
    if record.flags & FLAG_OTHER_NAME != 0 {
        return (
            "hardlink-alias",
            "written through another name of the file, in a directory that is not watched",
        );
    }
    if record.flags & FLAG_KTHREAD != 0 {
        return ("kernel-writer", "written by the kernel itself, which notifies nobody of it");
    }
    if is("chattr") {
        return ("kernel-writer", "this kernel notifies nobody of inode flags");
    }
    if Delivery::from_u8(record.delivery) == Delivery::Merged {
        return ("merged", "merged with an equal event that was not read yet");
    }
    ("kernel-writer", "the kernel made no notification call for this way of changing a file")
}
