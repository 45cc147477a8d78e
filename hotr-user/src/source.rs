//! Sources of changes: each turns what it reads into the types of [`hotr_events`].

mod arena;
mod clock;
pub mod difference;
pub mod ebpf;
mod fsinfo;
pub mod heartbeat;
pub mod inotify;
pub mod poll;
pub mod since;
mod walk;

pub(crate) use clock::{Clock, inode_clock_ns, mono_ns};
pub(crate) use fsinfo::device;
