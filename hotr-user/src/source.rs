//! Sources of changes: each turns its world into the types of [`crate::event`].

mod arena;
mod clock;
pub mod difference;
pub mod ebpf;
mod fsinfo;
pub mod heart;
pub mod inotify;
pub mod poll;
pub mod since;
mod walk;

pub(crate) use clock::{inode_clock_ns, mono_ns};
pub(crate) use fsinfo::device;
