//! Deliveries that wait for the change that they were made for.
//!
//! In: records of the kernel programs. Out: for a change, the deliveries that belong to it, each once.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use hotr_common::delivery::{OFFERED, Offer};

use super::instance::Instance;
use super::verdict::ReportedChange;
use crate::diagnose::view::bits;
use hotr_events::{Change, Op};

/// Kinds of event that a change makes.
pub(super) const OF_CHANGES: u32 = bits::CREATE
    | bits::MODIFY
    | bits::ATTRIB
    | bits::ACCESS
    | bits::MOVED_FROM
    | bits::MOVED_TO
    | bits::MOVE_SELF
    | bits::DELETE
    | bits::DELETE_SELF;

/// Kinds that come after the change that they tell of.
const AFTERWARDS: u32 = bits::CLOSE_WRITE | bits::APPEARED | bits::DELETE_SELF;

/// A delivery.
#[derive(Clone, Debug)]
pub(super) struct Offered {
    pub(super) time: u64,
    pub(super) event: u64,
    pub(super) ino: u64,
    pub(super) dev: u32,
    pub(super) tid: u32,
    pub(super) wd: i32,
    pub(super) mask: u32,
    pub(super) result: i32,
    /// Unread events, and the most that there may be.
    pub(super) queue: (u32, u32),
    name: Box<[u8]>,
}

impl Offered {
    pub(super) fn of(offer: &Offer, name: &[u8]) -> Self {
        Self {
            time: offer.time,
            event: offer.event,
            ino: offer.ino,
            dev: offer.dev,
            tid: offer.tid,
            wd: offer.wd,
            mask: offer.mask,
            result: offer.result,
            // Offered: this one will be in the queue, too.
            queue: (offer.queued + u32::from(offer.kind == OFFERED), offer.limit),
            name: name.into(),
        }
    }

    fn is_refused_by(&self, refused: &Offer) -> bool {
        (self.event, self.time) == (refused.event, refused.time)
    }

    fn refuse(&mut self, refused: &Offer) {
        (self.result, self.queue) = (refused.result, (refused.queued, refused.limit));
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Offers {
    /// Of each instance and thread, in the order in which the thread made them.
    by_thread: HashMap<(u32, u32), VecDeque<Offered>>,
    /// Of each instance and inode: those that come after their change.
    by_file: HashMap<(u32, u64), VecDeque<Offered>>,
}

impl Offers {
    pub(super) fn add(&mut self, slot: u32, offered: Offered) {
        if offered.mask & AFTERWARDS != 0 {
            self.by_file.entry((slot, offered.ino)).or_default().push_back(offered.clone());
        }
        if offered.mask & OF_CHANGES != 0 {
            self.by_thread.entry((slot, offered.tid)).or_default().push_back(offered);
        }
    }

    /// What was offered was not queued.
    pub(super) fn refuse(&mut self, refused: &Offer) {
        let by_thread = self.by_thread.get_mut(&(refused.slot, refused.tid));
        let by_file = self.by_file.get_mut(&(refused.slot, refused.ino));
        for all in [by_thread, by_file].into_iter().flatten() {
            if let Some(offered) = all.iter_mut().rev().find(|one| one.is_refused_by(refused)) {
                offered.refuse(refused);
            }
        }
    }

    /// Whether there are deliveries for a change.
    pub(super) fn has(&self, instance: &Instance, made: &ReportedChange) -> bool {
        self.threads(instance.slot, made).iter().any(|key| {
            let all = self.by_thread.get(key).into_iter().flatten();
            all.take_while(|one| one.time <= made.made_ns).any(|one| fits(one, instance, made))
        })
    }

    /// Takes the deliveries that were made for a change.
    pub(super) fn take(&mut self, instance: &Instance, made: &ReportedChange) -> Vec<Offered> {
        for key in self.threads(instance.slot, made) {
            let Some(offers) = self.by_thread.get_mut(&key) else { continue };
            let mut found = Vec::new();
            let mut at = 0;
            while offers.get(at).is_some_and(|one| one.time <= made.made_ns) {
                if fits(&offers[at], instance, made) {
                    found.extend(offers.remove(at));
                } else {
                    at += 1;
                }
            }
            if offers.is_empty() {
                self.by_thread.remove(&key);
            }
            if !found.is_empty() {
                return found;
            }
        }
        Vec::new()
    }

    /// The threads that may have made the deliveries of a change: its own; and all, the own one first, of what may be
    /// completed by another thread, or when it is not known who made it.
    fn threads(&self, slot: u32, made: &ReportedChange) -> Vec<(u32, u32)> {
        let own = made.tid().map(|tid| (slot, tid));
        if own.is_some() && !made.is_asynchronous() {
            return own.into_iter().collect();
        }
        let others = self.by_thread.keys().filter(|key| key.0 == slot && Some(**key) != own);
        own.into_iter().chain(others.copied()).collect()
    }

    /// The first delivery of these kinds about this inode from then on.
    pub(super) fn afterwards(&mut self, slot: u32, ino: u64, by: u32, from: u64) -> Option<Offered> {
        let settles = |one: &Offered| one.ino == ino && one.mask & by != 0 && one.time >= from;
        if by & AFTERWARDS != 0 {
            let found = self.by_file.get(&(slot, ino)).and_then(|all| all.iter().find(|one| settles(one)));
            if found.is_some() {
                return found.cloned();
            }
        }
        if by & !AFTERWARDS == 0 {
            return None;
        }
        let threads = self.by_thread.iter_mut().filter(|(key, _)| key.0 == slot);
        threads.into_iter().find_map(|(_, all)| {
            let at = all.iter().position(settles)?;
            all.remove(at)
        })
    }

    /// Forgets those that no change came for.
    pub(super) fn forget_before(&mut self, time: u64) {
        let keep = |offers: &mut VecDeque<Offered>| {
            while offers.front().is_some_and(|first| first.time < time) {
                offers.pop_front();
            }
            !offers.is_empty()
        };
        self.by_thread.retain(|_, offers| keep(offers));
        self.by_file.retain(|_, offers| keep(offers));
    }
}

/// Whether a delivery is for a change, by what both are about.
fn fits(offered: &Offered, instance: &Instance, made: &ReportedChange) -> bool {
    let change = &made.change;
    let same_thread = Some(offered.tid) == made.tid();
    let kinds = match change.op {
        Op::Create => bits::CREATE,
        Op::Write => bits::MODIFY,
        // Setting only one of the times counts as a write, or as a read.
        Op::Attrib => bits::ATTRIB | bits::MODIFY | bits::ACCESS,
        Op::Rename => bits::MOVED_FROM | bits::MOVED_TO | bits::MOVE_SELF,
        Op::Remove => bits::DELETE | bits::DELETE_SELF | bits::ATTRIB,
    };
    let is_same_file = change.id.is_some_and(|id| id.ino == offered.ino);
    if offered.mask & kinds != 0 && (is_same_file || same_thread && is_named(offered, change)) {
        return true;
    }
    // The file that the rename replaces has an event of its own.
    let victim = bits::ATTRIB | bits::DELETE_SELF;
    same_thread
        && matches!(change.op, Op::Rename | Op::Remove)
        && offered.mask & victim != 0
        && offered.name.is_empty()
        && instance.watch(offered.wd).is_some_and(|watch| watch.path.as_deref() == Some(&change.path))
}

fn is_named(offered: &Offered, change: &Change) -> bool {
    let name = OsStr::from_bytes(&offered.name);
    let is = |path: Option<&Path>| path.and_then(Path::file_name) == Some(name);
    !name.is_empty() && (is(Some(&change.path)) || is(change.old_path.as_deref()))
}
