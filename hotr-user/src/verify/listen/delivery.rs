//! What the kernel does with the laboratory's inotify instance: the events that it offers to it, and the marks on inodes.
//!
//! In: the instance, and paths. Out: offers up to a barrier, and numbers of marks and masks as a kernel program reads them from the
//! inodes. Offers are seen only where programs on functions are allowed; marks everywhere.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use hotr_common::config::NO_MARKS_FIELD;
use hotr_common::delivery::{OFFERED, Offer, REFUSED};
use rustix::fs::{Mode, OFlags, open};

use crate::options::TierChoice;
use crate::source::ebpf::{DeliverySeen, DeliverySource};
use crate::verify::kernel_path::{Marks, Offered};

/// Offers of one operation that are kept; all are counted.
const KEPT: usize = 20_000;

/// See the module.
pub(in crate::verify) struct Deliveries {
    source: DeliverySource,
    group: Option<u64>,
    offers: Vec<Offered>,
    left_out: u64,
    lost: u64,
}

impl Deliveries {
    /// Attaches the programs.
    ///
    /// # Errors
    /// A sentence: why the kernel refuses them.
    pub(in crate::verify) fn new() -> Result<Self, String> {
        let source = DeliverySource::start(TierChoice::Auto)?;
        Ok(Self { source, group: None, offers: Vec::new(), left_out: 0, lost: 0 })
    }

    /// Whether the programs see what is offered.
    pub(in crate::verify) fn sees_offers(&self) -> bool {
        self.group.is_some()
    }

    /// Follows this instance instead of the one before.
    pub(in crate::verify) fn follow(&mut self, instance: BorrowedFd<'_>) {
        self.leave();
        if !self.source.sees_offers() {
            return;
        }
        let Ok(group) = self.source.group_of(instance) else { return };
        if group != 0 && self.source.follow(group, 0).is_ok() {
            self.group = Some(group);
        }
    }

    /// Follows none.
    pub(in crate::verify) fn leave(&mut self) {
        if let Some(group) = self.group.take() {
            let _ = self.source.leave(group);
        }
    }

    /// Forgets what was offered so far.
    pub(in crate::verify) fn forget(&mut self) {
        while self.source.next().is_some() {}
        self.offers.clear();
        (self.left_out, self.lost) = (0, self.source.lost());
    }

    /// What was offered since; the number of offers that are missing.
    pub(in crate::verify) fn read(&mut self, watches: &HashMap<i32, &'static str>) -> (Vec<Offered>, u64) {
        let Self { source, offers, left_out, .. } = self;
        while let Some(record) = source.next() {
            let Some(DeliverySeen::Offer(offer, _)) = record.seen() else { continue };
            if offer.kind == REFUSED {
                let is_it = |one: &&mut Offered| (one.time, one.tid) == (offer.time, offer.tid);
                if let Some(refused) = offers.iter_mut().rev().find(is_it) {
                    (refused.result, refused.unread, refused.limit) =
                        (offer.result, offer.queued, offer.limit);
                }
                continue;
            }
            let Some(at) = watches.get(&offer.wd).filter(|_| offer.kind == OFFERED) else { continue };
            if offers.len() < KEPT { offers.push(offered(&offer, at)) } else { *left_out += 1 }
        }
        let lost = self.source.lost().saturating_sub(self.lost) + self.left_out;
        (std::mem::take(&mut self.offers), lost)
    }

    /// The marks on what a path leads to. No descriptor of it stays open: that would change what the kernel sends at its removal.
    pub(in crate::verify) fn marks(&mut self, name: String, path: &Path) -> Option<Marks> {
        let fd = open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let found = self.source.look(fd.as_fd()).ok()?;
        let is_known = found.marks != NO_MARKS_FIELD;
        Some(Marks {
            name,
            ino: found.ino,
            dev: u64::from(found.dev),
            asked: is_known.then_some(found.fsnotify_mask),
            count: is_known.then_some(found.marks),
        })
    }
}

fn offered(offer: &Offer, at: &'static str) -> Offered {
    Offered {
        time: offer.time,
        tid: offer.tid,
        mask: offer.mask,
        at,
        ino: offer.ino,
        result: offer.result,
        // This one included, as long as it is not refused.
        unread: offer.queued + 1,
        limit: offer.limit,
    }
}
