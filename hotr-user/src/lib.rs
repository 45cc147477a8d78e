//! hotr, as a library: trace file changes in the kernel, correlate them with inotify, and say what was missed.
//!
//! Data flows one way: kernel → ring buffer → [`source`] → [`pipeline`] → [`output`]. A stage never calls back.

/// What hotr reports, as types.
pub use hotr_events as events;

mod accounts;
pub mod action;
pub mod agent;
pub mod beneath;
pub mod confirmed;
pub mod diagnose;
pub mod doctor;
pub mod ending;
pub mod error;
mod json;
pub mod kernel;
pub mod memory;
pub mod mounts;
pub mod options;
pub mod output;
pub mod pipeline;
mod private_mount;
pub mod procinfo;
pub mod reload;
mod sched;
pub mod session;
pub mod source;
pub mod text;
mod timer;
mod tree_key;
#[cfg(feature = "verify")]
pub mod verify;
mod vfork;
pub mod watch;
