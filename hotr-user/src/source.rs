//! Sources of changes: each turns its world into the types of [`crate::event`].

mod arena;
mod clock;
pub mod ebpf;
mod fsinfo;
pub mod inotify;
pub mod poll;
pub mod snapshot;
mod walk;

pub(crate) use clock::mono_ns;
pub(crate) use fsinfo::device;
