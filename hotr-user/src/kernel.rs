//! The kernel as hotr meets it: its types, what it allows, and hotr's programs in it.

mod ask;
pub mod btf;
pub mod facts;
pub mod load;
pub mod offsets;
pub mod perf;
mod preload;
mod probes;
mod rules;
mod sections;
pub mod syscalls;
pub mod sysno;
pub mod table;
pub mod tracepoints;
pub mod types;
