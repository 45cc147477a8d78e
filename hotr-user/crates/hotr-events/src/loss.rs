//! Why something was lost: the closed list of reasons of the `loss` lines.

use crate::Channel;

/// A reason. Its word is part of the output contract; docs/output.md lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum LossReason {
    /// The kernel's inotify queue was full (`IN_Q_OVERFLOW`).
    QueueOverflow,
    /// An event of a watch that hotr does not know.
    UnknownWatch,
    /// The kernel took a watch away without a deletion.
    WatchRemoved,
    /// The consumer left too many events unread.
    OwnQueue,
    /// A filesystem below a root was unmounted.
    Unmounted,
    /// A root, or the directory a root file lies in, was deleted.
    RootDeleted,
    /// A root's path leads nowhere, for whatever reason.
    RootGone,
    /// A root was renamed, or its path leads elsewhere.
    RootMoved,
    /// Something was mounted over a root.
    MountedOver,
    /// The ring buffer was full.
    RingFull,
    /// A path was longer than a record can hold.
    Oversize,
    /// The kernel did not run a program.
    ProgramSkipped,
    /// The path of a call could not be followed.
    Unresolved,
    /// A path is too long for the kernel to follow.
    TooDeep,
    /// A signal ended the run first.
    Interrupted,
    /// Too much was reported since a loss to know what it was.
    Unsearched,
    /// A directory above was renamed at about that time.
    RenamedAbove,
    /// There was no room to keep an event until its record came.
    Unmatched,
    /// Records of deliveries to followed instances were lost.
    DeliveriesSkipped,
    /// More changes waited for what becomes of them in a watcher than there is room for.
    Unjudged,
}

impl LossReason {
    /// Every reason.
    pub const ALL: [Self; 20] = [
        Self::QueueOverflow,
        Self::UnknownWatch,
        Self::WatchRemoved,
        Self::OwnQueue,
        Self::Unmounted,
        Self::RootDeleted,
        Self::RootGone,
        Self::RootMoved,
        Self::MountedOver,
        Self::RingFull,
        Self::Oversize,
        Self::ProgramSkipped,
        Self::Unresolved,
        Self::TooDeep,
        Self::Interrupted,
        Self::Unsearched,
        Self::RenamedAbove,
        Self::Unmatched,
        Self::DeliveriesSkipped,
        Self::Unjudged,
    ];

    /// The word of the output contract.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::QueueOverflow => "queue-overflow",
            Self::UnknownWatch => "unknown-watch",
            Self::WatchRemoved => "watch-removed",
            Self::OwnQueue => "own-queue",
            Self::Unmounted => "unmounted",
            Self::RootDeleted => "root-deleted",
            Self::RootGone => "root-gone",
            Self::RootMoved => "root-moved",
            Self::MountedOver => "mounted-over",
            Self::RingFull => "ring-full",
            Self::Oversize => "oversize",
            Self::ProgramSkipped => "program-skipped",
            Self::Unresolved => "unresolved",
            Self::TooDeep => "too-deep",
            Self::Interrupted => "interrupted",
            Self::Unsearched => "unsearched",
            Self::RenamedAbove => "renamed-above",
            Self::Unmatched => "unmatched",
            Self::DeliveriesSkipped => "deliveries-skipped",
            Self::Unjudged => "unjudged",
        }
    }

    /// What it means, and what hotr does then, in one sentence for humans.
    #[must_use]
    pub const fn sentence(self, channel: Channel) -> &'static str {
        match self {
            Self::RootGone => "its path leads nowhere; it is watched again when something is there",
            Self::RootDeleted => "it was deleted; its path is traced again when something is there",
            Self::RootMoved if matches!(channel, Channel::Ebpf) => {
                "it was renamed; it is still traced under its old name, until its path leads to something else: that is watched then"
            }
            Self::RootMoved => {
                "it was renamed, or its path leads to something else; what is there now is watched"
            }
            Self::Unmounted => "its filesystem was unmounted; what its path leads to now is watched",
            Self::MountedOver => "something was mounted over it; that is watched until it is unmounted",
            Self::RingFull => "the ring buffer was full; hotr looks for changed files by their times",
            Self::Oversize => {
                "a path was too long for a record, or requests were too many or could not be told apart; hotr looks for changed files by their times"
            }
            Self::ProgramSkipped => {
                "the kernel did not run a program; hotr looks for changed files by their times"
            }
            Self::Unresolved => {
                "the path of a call could not be followed; hotr looks for changed files by their times"
            }
            Self::QueueOverflow => "the kernel's queue was full; hotr rebuilds all watches",
            Self::TooDeep => "its path is longer than 8192 bytes; hotr does not look below such a directory",
            Self::Interrupted => "a signal ended the run before this was read, searched or written",
            Self::Unsearched => {
                "too many changes were reported since then to know which were lost; hotr does not look for them"
            }
            Self::RenamedAbove => {
                "a directory above was renamed at about that time, so it is not certain which files they were of; records report those"
            }
            Self::Unmatched => {
                "more events waited for their records than there is room for, so it is not certain which eBPF missed; records report the others"
            }
            Self::OwnQueue => "hotr was too slow; it rebuilds all watches",
            Self::UnknownWatch | Self::WatchRemoved => {
                "the kernel's watches differ from hotr's; hotr rebuilds all of them"
            }
            Self::DeliveriesSkipped => {
                "records of deliveries were lost; changes that lack one are not judged"
            }
            Self::Unjudged => {
                "more changes waited for what becomes of them in the process than there is room for; they are reported without it"
            }
        }
    }
}

crate::words::words!(LossReason);

#[cfg(test)]
mod tests {
    use super::LossReason;

    #[test]
    fn every_reason_is_read_by_its_word() {
        for reason in LossReason::ALL {
            let word = serde_json::to_string(&reason).unwrap();
            assert_eq!(word, format!("\"{reason}\""));
            assert_eq!(serde_json::from_str::<LossReason>(&word).unwrap(), reason);
        }
        assert!(serde_json::from_str::<LossReason>("\"none\"").is_err());
    }
}
