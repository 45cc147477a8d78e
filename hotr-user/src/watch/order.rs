//! What the worker is to reload for, and how two orders become one.

use std::collections::HashSet;
use std::path::Path;

use crate::pipeline::confirm::Confirmed;
use hotr_events::{Actor, Trigger};

/// What to reload for.
#[derive(Clone, Debug)]
pub(super) struct Order {
    pub(super) trigger: Trigger,
    pub(super) changes: Vec<Confirmed>,
}

impl Order {
    /// One reload for both: what changed twice is reported once, as it is now.
    pub(super) fn merge(&mut self, later: Self) {
        let again: HashSet<&Path> = later.changes.iter().map(|change| change.path.as_path()).collect();
        self.changes.retain(|change| !again.contains(change.path.as_path()));
        self.changes.extend(later.changes);
        let either = |trigger| self.trigger == trigger || later.trigger == trigger;
        // A request waits for nothing; and what changed beside a rollback may need a rollback itself.
        if either(Trigger::Request) {
            self.trigger = Trigger::Request;
        } else if either(Trigger::Change) {
            self.trigger = Trigger::Change;
        }
    }

    /// Who made the changes, each process with each of its names once; no more than are remembered of one change.
    pub(super) fn actors(&self) -> Vec<Actor> {
        let mut actors: Vec<Actor> = Vec::new();
        for actor in self.changes.iter().flat_map(|change| &change.actors) {
            let is_known = |one: &Actor| (one.pid, one.uid, &one.comm) == (actor.pid, actor.uid, &actor.comm);
            if !actors.iter().any(is_known) {
                actors.push(Actor::clone(actor));
            }
            if actors.len() == Confirmed::MOST_ACTORS {
                break;
            }
        }
        actors
    }

    /// What is said when nothing comes of it.
    pub(super) fn dropped(&self) -> String {
        match self.changes.len() {
            0 | 1 => "a change came while the command was running: dropped".to_owned(),
            many => format!("{many} changes came while the command was running: dropped"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::confirm::{Evidence, Kind, State};

    fn order(trigger: Trigger, kind: Kind, paths: impl IntoIterator<Item = String>) -> Order {
        let change =
            |path: String| Confirmed::new(kind, path.into(), Evidence::Name, Vec::new(), State::Absent);
        Order { trigger, changes: paths.into_iter().map(change).collect() }
    }

    #[test]
    fn what_changed_twice_is_told_once_as_it_is_now() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let mut both = order(Trigger::Change, Kind::Created, names(&["a", "b"]));
        both.merge(order(Trigger::Change, Kind::Removed, names(&["b", "c"])));
        let told: Vec<_> =
            both.changes.iter().map(|change| (change.path.to_str().unwrap(), change.kind)).collect();
        assert_eq!(told, [("a", Kind::Created), ("b", Kind::Removed), ("c", Kind::Removed)]);
    }

    #[test]
    fn large_orders_are_merged_without_comparing_each_with_each() {
        // Each with each would be 4 × 10^10 comparisons, for which the channels would not be read.
        let tree = |range: std::ops::Range<u32>| range.map(|number| format!("/srv/tree/{number}"));
        let mut both = order(Trigger::Change, Kind::Removed, tree(0..200_000));
        both.merge(order(Trigger::Change, Kind::Created, tree(100_000..300_000)));
        assert_eq!(both.changes.len(), 300_000);
    }

    #[test]
    fn a_change_counts_more_than_a_rollback_and_who_asks_most() {
        for (first, second, merged) in [
            (Trigger::Rollback, Trigger::Change, Trigger::Change),
            (Trigger::Change, Trigger::Rollback, Trigger::Change),
            (Trigger::Change, Trigger::Request, Trigger::Request),
            (Trigger::Request, Trigger::Change, Trigger::Request),
            (Trigger::Rollback, Trigger::Rollback, Trigger::Rollback),
        ] {
            let mut both = order(first, Kind::Written, []);
            both.merge(order(second, Kind::Written, []));
            assert_eq!(both.trigger, merged);
        }
    }
}
