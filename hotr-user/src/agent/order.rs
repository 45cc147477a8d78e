//! Which changes are certainly of directories that the subscriber may read.
//!
//! In: changes in the order of their records, each with what the kernel answered when it was asked about its directories. Out: the
//! names that may be reported. The answer is of a later moment than the change. In between, somebody may have put another
//! directory in the place of the one that the change was made in, or given rights to it. Each of that is a record itself: an
//! answer counts only when all records up to its moment have been read and none of them, after the change, is of a
//! directory on the way. A name whose file is still there needs no proof that no record was lost.
//!
//! What is not certain is not reported.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};

use hotr_events::Op;

use super::seen::Delivery;

/// A record may be written a moment after what it is of can be seen: so long a name without its file waits.
pub(super) const GRACE_NS: u64 = 5_000_000;
/// Names that are remembered. Were there more, nothing that waits would be certain.
const MOST_WAYS: usize = 65_536;

/// What is known of one name of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The subscriber may not see it, or it cannot be decided.
    No,
    /// It may; the name has the changed file.
    Same,
    /// It may; the name has none, or another, or the changed file is not known.
    Other,
}

/// A change that waits to be decided.
#[derive(Debug)]
struct Held {
    number: u64,
    delivery: Delivery,
    new: Answer,
    old: Answer,
    /// When the kernel was asked, `CLOCK_MONOTONIC` nanoseconds.
    asked_ns: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Order {
    taken: u64,
    held: VecDeque<Held>,
    /// Names that lead elsewhere since, by root: with the number of the last change that made it so.
    ways: HashMap<(u32, PathBuf), u64>,
    /// Changes up to this number are uncertain: records were lost.
    lost: u64,
    /// The subscriber may read everything: rights change nothing.
    reads_all: bool,
}

impl Order {
    /// For one who may read everything, or not.
    pub(super) fn new(reads_all: bool) -> Self {
        Self { reads_all, ..Self::default() }
    }

    /// Takes a change.
    pub(super) fn take(&mut self, delivery: Delivery, new: Answer, old: Answer, asked_ns: u64) {
        self.taken += 1;
        let is_of_rights = delivery.seen.change.op == Op::Attrib;
        for path in delivery.changed_ways().filter(|_| !(is_of_rights && self.reads_all)) {
            self.ways.insert((delivery.root, path.to_path_buf()), self.taken);
        }
        if self.ways.len() > MOST_WAYS {
            self.ways.clear();
            self.lost = self.taken;
        }
        self.held.push_back(Held { number: self.taken, delivery, new, old, asked_ns });
    }

    /// Records were lost.
    pub(super) fn lost(&mut self) {
        self.lost = self.taken;
    }

    /// Whether a change waits.
    pub(super) fn waits(&self) -> bool {
        !self.held.is_empty()
    }

    /// Forgets what waits of a root.
    pub(super) fn forget(&mut self, root: u32) {
        self.held.retain(|held| held.delivery.root != root);
    }

    /// All that is decided now that records up to this time, in nanoseconds of `CLOCK_MONOTONIC`, have been read. Names that may not
    /// be reported are taken out of the changes.
    pub(super) fn decided(&mut self, read_ns: u64) -> Vec<Delivery> {
        let mut decided = Vec::new();
        while let Some(held) = self.held.pop_front_if(|held| {
            let is_known = [held.new, held.old].iter().all(|answer| *answer != Answer::Other);
            held.asked_ns + if is_known { 0 } else { GRACE_NS } <= read_ns
        }) {
            let Held { number, mut delivery, new, old, .. } = held;
            let root = delivery.root;
            let is_certain = |path: &PathBuf, answer| {
                answer != Answer::No
                    && (answer == Answer::Same || number > self.lost)
                    && !self.is_void(root, path, number)
            };
            delivery.new = delivery.new.filter(|path| is_certain(path, new));
            delivery.old = delivery.old.filter(|path| is_certain(path, old));
            if delivery.new.is_some() || delivery.old.is_some() {
                decided.push(delivery);
            }
        }
        if self.held.is_empty() {
            self.ways.clear();
        }
        decided
    }

    /// Whether a directory on the way to a name became another one after the change of this number.
    fn is_void(&self, root: u32, path: &Path, number: u64) -> bool {
        let mut above = path.ancestors().skip(1);
        above.any(|dir| self.ways.get(&(root, dir.to_path_buf())).is_some_and(|last| *last > number))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::SystemTime;

    use hotr_events::Change;

    use super::super::seen::{Seen, SeenActor};
    use super::*;

    fn delivery(op: Op, word: &'static str, new: &str, old: Option<&str>) -> Delivery {
        let mut change = Change::new(op, PathBuf::new(), SystemTime::UNIX_EPOCH);
        change.detail = vec![word.into()];
        let actor = SeenActor { pid: 1, tid: 1, uid: 0, comm: Vec::new(), namespace: None };
        let seen = Seen {
            change,
            actor,
            must_match: false,
            is_of_call: false,
            follows: false,
            opened: None,
            opened_at: None,
        };
        Delivery {
            seen: Arc::new(seen),
            root: 0,
            new: Some(new.into()),
            old: old.map(PathBuf::from),
            new_base: None,
            old_base: None,
            only_names: false,
            reach: None,
        }
    }

    fn paths(decided: &[Delivery]) -> Vec<&str> {
        decided.iter().filter_map(|one| one.new.as_ref()?.to_str()).collect()
    }

    #[test]
    fn an_answer_counts_when_all_records_up_to_it_were_read() {
        let mut order = Order::default();
        order.take(delivery(Op::Write, "write", "d/f", None), Answer::Same, Answer::No, 10);
        assert!(order.decided(9).is_empty());
        assert_eq!(paths(&order.decided(10)), ["d/f"]);
        order.take(delivery(Op::Remove, "unlink", "d/f", None), Answer::Other, Answer::No, 10);
        assert!(order.decided(10 + GRACE_NS - 1).is_empty());
        assert_eq!(paths(&order.decided(10 + GRACE_NS)), ["d/f"]);
        assert!(!order.waits());
    }

    #[test]
    fn a_directory_that_was_replaced_or_opened_up_after_the_change_proves_nothing() {
        for way in [
            delivery(Op::Rename, "rename", "x", Some("d")),
            delivery(Op::Rename, "exchange", "d", Some("public")),
            delivery(Op::Create, "mkdir", "d", None),
            delivery(Op::Remove, "unlink", "d", None),
            delivery(Op::Attrib, "chmod", "d", None),
            delivery(Op::Attrib, "xattr", "", None),
        ] {
            let mut order = Order::default();
            order.take(delivery(Op::Remove, "unlink", "d/e/f", None), Answer::Other, Answer::No, 1);
            order.take(delivery(Op::Write, "write", "d/g", None), Answer::Same, Answer::No, 1);
            order.take(way.clone(), Answer::No, Answer::No, 1);
            assert!(order.decided(u64::MAX).is_empty(), "{way:?}");
        }
    }

    #[test]
    fn what_came_before_the_change_or_gives_no_right_is_no_matter() {
        let mut order = Order::default();
        order.take(delivery(Op::Create, "mkdir", "d", None), Answer::Same, Answer::No, 1);
        order.take(delivery(Op::Create, "open", "d/f", None), Answer::Same, Answer::No, 1);
        order.take(delivery(Op::Attrib, "utimes", "d", None), Answer::Same, Answer::No, 1);
        order.take(delivery(Op::Attrib, "chmod", "d/f", None), Answer::Same, Answer::No, 1);
        assert_eq!(paths(&order.decided(1)), ["d", "d/f", "d", "d/f"]);
    }

    #[test]
    fn after_a_loss_only_a_name_with_its_file_is_certain() {
        let mut order = Order::default();
        order.take(delivery(Op::Remove, "unlink", "gone", None), Answer::Other, Answer::No, 1);
        order.take(delivery(Op::Write, "write", "there", None), Answer::Same, Answer::No, 1);
        order.lost();
        order.take(delivery(Op::Remove, "unlink", "later", None), Answer::Other, Answer::No, 1);
        assert_eq!(paths(&order.decided(u64::MAX)), ["there", "later"]);
    }

    #[test]
    fn each_end_of_a_rename_is_decided_by_itself() {
        let mut order = Order::default();
        let rename = delivery(Op::Rename, "rename", "secret/f", Some("open/f"));
        order.take(rename, Answer::No, Answer::Other, 1);
        let decided = order.decided(u64::MAX);
        assert_eq!((&decided[0].new, decided[0].old.as_deref()), (&None, Some(Path::new("open/f"))));
    }
}
