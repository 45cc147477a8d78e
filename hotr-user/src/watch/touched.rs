//! What is known of one path of a batch, in little room: a storm touches as many paths as there are files.
//!
//! In: changes of the path. Out: what a [`Confirmed`] change says of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::pipeline::confirm::Confirmed;
use hotr_events::{Actor, Channel};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Touched {
    /// Its name before. A path by itself would take three times the room where there is none.
    old: Option<Box<PathBuf>>,
    /// Who made the changes that may have changed its content or name.
    actors: Actors,
    /// Who reported it.
    pub(super) seen_by: Channels,
    /// The first report is that the name appeared.
    pub(super) born: bool,
    /// The last report of it is of a directory.
    pub(super) is_dir: bool,
}
const _: () = assert!(size_of::<Touched>() <= 32);

/// Channels, each once, in the order of their reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Channels([Option<Channel>; Channel::ALL.len()]);

/// Who made the changes: in most cases one process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Actors {
    #[default]
    Unknown,
    One(Arc<Actor>),
    #[expect(clippy::box_collection, reason = "rare, and a vector by itself would make every path larger")]
    Several(Box<Vec<Arc<Actor>>>),
}

impl Touched {
    /// Its name before.
    pub(super) fn old(&self) -> Option<&Path> {
        self.old.as_ref().map(|old| old.as_path())
    }

    pub(super) fn set_old(&mut self, old: Option<&Path>) {
        self.old = old.map(|old| Box::new(old.to_owned()));
    }

    /// The same path when nothing but its name before is of interest.
    pub(super) fn take_name(&mut self) -> Option<Self> {
        let old = self.old.take()?;
        Some(Self { old: Some(old), ..Self::default() })
    }

    pub(super) fn made_by(&mut self, actor: &Arc<Actor>) {
        self.actors.add(actor);
    }

    /// Who made the changes.
    pub(super) fn into_actors(self) -> Vec<Arc<Actor>> {
        match self.actors {
            Actors::Unknown => Vec::new(),
            Actors::One(actor) => vec![actor],
            Actors::Several(actors) => *actors,
        }
    }

    /// Puts what was reported earlier before this.
    pub(super) fn put_before(&mut self, earlier: Self) {
        self.born = earlier.born;
        self.old = self.old.take().or(earlier.old);
        self.is_dir |= earlier.is_dir;
        self.seen_by.extend(earlier.seen_by.iter());
        let later = std::mem::replace(&mut self.actors, earlier.actors);
        later.list().iter().for_each(|actor| self.actors.add(actor));
    }
}

impl Channels {
    pub(super) fn iter(self) -> impl Iterator<Item = Channel> {
        self.0.into_iter().flatten()
    }

    /// Adds those that are not among them.
    pub(super) fn extend(&mut self, channels: impl Iterator<Item = Channel>) {
        for channel in channels {
            if let Some(place) = self.0.iter_mut().find(|one| one.is_none_or(|one| one == channel)) {
                *place = Some(channel);
            }
        }
    }

    pub(super) fn to_vec(self) -> Vec<Channel> {
        self.iter().collect()
    }
}

impl FromIterator<Channel> for Channels {
    fn from_iter<T: IntoIterator<Item = Channel>>(channels: T) -> Self {
        let mut all = Self::default();
        all.extend(channels.into_iter());
        all
    }
}

impl Actors {
    fn list(&self) -> &[Arc<Actor>] {
        match self {
            Self::Unknown => &[],
            Self::One(actor) => std::slice::from_ref(actor),
            Self::Several(actors) => actors,
        }
    }

    fn add(&mut self, actor: &Arc<Actor>) {
        let is_known = self.list().iter().any(|one| Arc::ptr_eq(one, actor) || one == actor);
        if is_known || self.list().len() >= Confirmed::MOST_ACTORS {
            return;
        }
        match self {
            Self::Unknown => *self = Self::One(Arc::clone(actor)),
            Self::One(first) => {
                *self = Self::Several(Box::new(vec![Arc::clone(first), Arc::clone(actor)]));
            }
            Self::Several(actors) => actors.push(Arc::clone(actor)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_channel_is_named_once_in_the_order_of_the_reports() {
        let mut channels: Channels =
            [Channel::Inotify, Channel::Ebpf, Channel::Inotify].into_iter().collect();
        assert_eq!(channels.to_vec(), [Channel::Inotify, Channel::Ebpf]);
        channels.extend([Channel::Poll, Channel::Ebpf].into_iter());
        assert_eq!(channels.to_vec(), [Channel::Inotify, Channel::Ebpf, Channel::Poll]);
    }

    #[test]
    fn each_actor_is_named_once_and_no_more_than_are_remembered() {
        let actor = |pid| {
            let comm = b"cp".to_vec();
            Arc::new(Actor { pid, tid: pid, uid: 0, comm, exe: None, cgroup: None, origin: None })
        };
        let pids = |touched: &Touched| -> Vec<u32> {
            touched.clone().into_actors().iter().map(|actor| actor.pid).collect()
        };
        let (mut touched, mut earlier) = (Touched::default(), Touched::default());
        assert_eq!(pids(&touched), [0; 0]);
        [7, 7, 8].map(actor).iter().for_each(|actor| touched.made_by(actor));
        assert_eq!(pids(&touched), [7, 8]);
        earlier.made_by(&actor(9));
        touched.put_before(earlier);
        assert_eq!(pids(&touched), [9, 7, 8]);
        (0..40).map(actor).for_each(|actor| touched.made_by(&actor));
        assert_eq!(pids(&touched).len(), Confirmed::MOST_ACTORS);
    }
}
