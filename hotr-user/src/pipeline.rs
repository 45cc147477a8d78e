//! Turns raw source events into reports: decode, correlate, filter, settle.

pub mod callpath;
pub mod chosen_names;
pub mod confirm;
pub mod correlate;
pub mod decode;
pub mod deferred_map;
pub mod filter;
pub mod inotify_changes;
pub mod settle;
pub mod syscall;
