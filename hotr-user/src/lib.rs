//! hotr, as a library: trace file changes in the kernel, correlate them with inotify, and say what was missed.
//!
//! Data flows one way: kernel → ring buffer → [`source`] → [`pipeline`] → [`output`]. A stage never calls back.

pub mod action;
pub mod doctor;
pub mod error;
pub mod event;
pub mod kernel;
pub mod memory;
pub mod mounts;
pub mod options;
pub mod output;
pub mod pipeline;
pub mod procinfo;
pub mod reload;
pub mod report;
mod sched;
pub mod source;
mod timer;
pub mod trace;
pub mod watch;
