//! Why a change does not reach a watcher, or a channel of hotr: the closed list of causes, the same words everywhere.

/// A cause. Its word is part of the output contract; docs/causes.md explains those of `missed_by`, docs/diagnose.md those
/// that `hotr diagnose` finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Cause {
    /// Nothing watches the directory or file.
    NeverWatched,
    /// The name belongs to another inode than the watched one.
    ReplacedFile,
    /// The watch does not ask for this kind of change.
    MaskMismatch,
    /// The queue of unread events is full.
    QueueOverflow,
    /// Equal to the last unread event.
    Merged,
    /// Queued, and the program does not read it.
    Unread,
    /// A limit forbids more watches or instances.
    Limit,
    /// Another layer of an overlay.
    LayerBypass,
    /// A hard link of an overlay's lower file after its copy-up.
    IdentitySplit,
    /// Stored elsewhere.
    Remote,
    /// A store through a mapping.
    Mmap,
    /// Asynchronous I/O without a notification.
    Aio,
    /// Changed through another name of the file.
    HardlinkAlias,
    /// Something is mounted over the watched inode.
    MountedOver,
    /// The filesystem of the watched inode is not mounted any more.
    Unmounted,
    /// A symbolic link on the path leads to another inode now.
    SymlinkSwap,
    /// Opened by handle, without a path.
    Disconnected,
    /// A second watch on the same inode replaced the mask of the first.
    WdAlias,
    /// The watch no longer exists, or ends with its first event.
    MarkGone,
    /// The file was opened without notifications.
    NoNotify,
    /// Written by the kernel without a notification.
    KernelWriter,
    /// A filesystem that shows kernel state.
    PseudoFs,
    /// Changed below the filesystem.
    BlockLevel,
    /// No memory for the event.
    NoMemory,
    /// The program read the event and did nothing.
    Application,
    /// The file was replaced, and the program set its watch again too late.
    RewatchRace,
    /// The program used the file before its last write, and not again.
    ReadEarly,
    /// The file is mounted by itself, from a directory that is not watched.
    FileMount,
    /// inotify alone received it, and no eBPF program.
    NoRecord,
    /// There was no room for its record.
    RingFull,
    /// The kernel did not run a program.
    ProgramSkipped,
    /// The path of a root led elsewhere before hotr watched what is there.
    RootMoved,
    /// The path of a call could not be followed.
    Unresolved,
    /// System calls alone do not show it.
    TracepointTier,
    /// The kernel has no function to attach the hook to.
    HookMissing,
    /// An audit found it, and inotify received nothing.
    NoEvent,
    /// The channel was not able to receive changes.
    Degraded,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 37] = [
        Self::NeverWatched,
        Self::ReplacedFile,
        Self::MaskMismatch,
        Self::QueueOverflow,
        Self::Merged,
        Self::Unread,
        Self::Limit,
        Self::LayerBypass,
        Self::IdentitySplit,
        Self::Remote,
        Self::Mmap,
        Self::Aio,
        Self::HardlinkAlias,
        Self::MountedOver,
        Self::Unmounted,
        Self::SymlinkSwap,
        Self::Disconnected,
        Self::WdAlias,
        Self::MarkGone,
        Self::NoNotify,
        Self::KernelWriter,
        Self::PseudoFs,
        Self::BlockLevel,
        Self::NoMemory,
        Self::Application,
        Self::RewatchRace,
        Self::ReadEarly,
        Self::FileMount,
        Self::NoRecord,
        Self::RingFull,
        Self::ProgramSkipped,
        Self::RootMoved,
        Self::Unresolved,
        Self::TracepointTier,
        Self::HookMissing,
        Self::NoEvent,
        Self::Degraded,
    ];

    /// The word of the output contract.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NeverWatched => "never-watched",
            Self::ReplacedFile => "replaced-file",
            Self::MaskMismatch => "mask-mismatch",
            Self::QueueOverflow => "queue-overflow",
            Self::Merged => "merged",
            Self::Unread => "unread",
            Self::Limit => "limit",
            Self::LayerBypass => "layer-bypass",
            Self::IdentitySplit => "identity-split",
            Self::Remote => "remote",
            Self::Mmap => "mmap",
            Self::Aio => "aio",
            Self::HardlinkAlias => "hardlink-alias",
            Self::MountedOver => "mounted-over",
            Self::Unmounted => "unmounted",
            Self::SymlinkSwap => "symlink-swap",
            Self::Disconnected => "disconnected",
            Self::WdAlias => "wd-alias",
            Self::MarkGone => "mark-gone",
            Self::NoNotify => "nonotify",
            Self::KernelWriter => "kernel-writer",
            Self::PseudoFs => "pseudo-fs",
            Self::BlockLevel => "block-level",
            Self::NoMemory => "no-memory",
            Self::Application => "application",
            Self::RewatchRace => "rewatch-race",
            Self::ReadEarly => "read-early",
            Self::FileMount => "file-mount",
            Self::NoRecord => "no-record",
            Self::RingFull => "ring-full",
            Self::ProgramSkipped => "program-skipped",
            Self::RootMoved => "root-moved",
            Self::Unresolved => "unresolved",
            Self::TracepointTier => "tracepoint-tier",
            Self::HookMissing => "hook-missing",
            Self::NoEvent => "no-event",
            Self::Degraded => "degraded",
        }
    }

    /// What ends it, where one step does.
    #[must_use]
    pub const fn remedy(self) -> Option<&'static str> {
        Some(match self {
            Self::NeverWatched => "watch the directory too, and look through it once its watch is there",
            Self::ReplacedFile => {
                "watch the directory, for IN_MOVED_TO and IN_CLOSE_WRITE, and compare the name"
            }
            Self::MaskMismatch => "add IN_CLOSE_WRITE and IN_MOVED_TO to the mask of the watch",
            Self::QueueOverflow => {
                "read the queue in a thread of its own, raise fs.inotify.max_queued_events, and look at everything after IN_Q_OVERFLOW"
            }
            Self::Unread => {
                "let the program read its queue: it is busy, stopped, or waits for something else"
            }
            Self::HardlinkAlias => "watch the file itself, or the directories of all its names",
            Self::LayerBypass => "write through the overlay, or watch the layer that is written",
            Self::Mmap | Self::Aio | Self::KernelWriter => {
                "compare the file from time to time: nobody is notified"
            }
            Self::Application => {
                "look into the program: its filter of names, its debounce, what it does with an event"
            }
            Self::RewatchRace => {
                "read the file once more when the new watch is set, or watch the directory for IN_MOVED_TO"
            }
            Self::ReadEarly => {
                "let the program read on IN_CLOSE_WRITE or IN_MOVED_TO, or once no event has come for a while"
            }
            Self::NoMemory => "give the machine, or the cgroup of the writer, more memory",
            _ => return None,
        })
    }

    /// One sentence, as a part of a longer one: without a capital letter and a full stop.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::NeverWatched => "no watch was set on the directory or file that changes",
            Self::ReplacedFile => "the file was replaced, and the watch stayed with the old one",
            Self::MaskMismatch => "the watch does not ask for this kind of change",
            Self::QueueOverflow => "the queue of unread events is full, and the kernel drops what comes next",
            Self::Merged => "the event equals the last unread one, and the kernel keeps one of them",
            Self::Unread => "events are queued, and the program does not read them",
            Self::Limit => "a limit of the kernel allows no further watch or instance",
            Self::LayerBypass => {
                "overlay layers have inodes of their own, and watches on one miss the others"
            }
            Self::IdentitySplit => "a hard link of a lower file has a different inode once it is copied up",
            Self::Remote => "changes made by a server or another machine never reach this kernel",
            Self::Mmap => "stores through a mapping send no notification",
            Self::Aio => "asynchronous writes of this kind send no notification",
            Self::HardlinkAlias => "changes through another name of the file are reported in its directory",
            Self::MountedOver => "something is mounted over it; the path leads to another inode now",
            Self::Unmounted => "the filesystem is no longer mounted where the program looks for it",
            Self::SymlinkSwap => "a symbolic link on the path leads to another inode now",
            Self::Disconnected => "the file was opened by its handle, and the kernel knows no name for it",
            Self::WdAlias => "a second watch on the same inode replaced the mask of the first",
            Self::MarkGone => "the watch no longer exists, or the kernel removes it by itself",
            Self::NoNotify => "the file was opened in a way that sends no notification",
            Self::KernelWriter => "the kernel writes here without sending a notification",
            Self::PseudoFs => "values of this filesystem change without a write",
            Self::BlockLevel => "the change was made below the filesystem",
            Self::NoMemory => "the kernel had no memory for the event",
            Self::Application => "the program read the event and did not act on it",
            Self::RewatchRace => {
                "the file was replaced, and the program set its watch on the new one after this change"
            }
            Self::ReadEarly => "the program read the file before its last write, and not again",
            Self::FileMount => {
                "the file is mounted by itself: the kernel notifies the directory it is mounted from, which is not watched"
            }
            Self::NoRecord => {
                "no hook saw it: made elsewhere (network, another ebpf path), or its record was lost"
            }
            Self::RingFull => "no room for its record; found by looking at change times",
            Self::ProgramSkipped => {
                "the kernel did not run a program while another one ran; found by looking at change times"
            }
            Self::RootMoved => {
                "its path led elsewhere before hotr watched what is there; found by looking at change times"
            }
            Self::Unresolved => {
                "its process, and all others of its mount namespace, had exited before the path of a call could be followed; found by looking at change times"
            }
            Self::TracepointTier => "the tracepoint tier sees system calls, and not this change",
            Self::HookMissing => "no program could be attached where this change is made",
            Self::NoEvent => "the kernel sent no notification, or not to this watch",
            Self::Degraded => "the channel missed changes that it should have received",
        }
    }
}

crate::words::words!(Cause);

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::Cause;

    #[test]
    fn words_and_sentences_are_distinct_and_of_one_form() {
        let words: HashSet<_> = Cause::ALL.iter().map(|cause| cause.as_str()).collect();
        let sentences: HashSet<_> = Cause::ALL.iter().map(|cause| cause.sentence()).collect();
        assert_eq!((words.len(), sentences.len()), (Cause::ALL.len(), Cause::ALL.len()));
        for cause in Cause::ALL {
            assert!(cause.as_str().bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{cause:?}");
            assert!(!cause.sentence().ends_with('.'), "{cause:?}");
        }
    }
}
