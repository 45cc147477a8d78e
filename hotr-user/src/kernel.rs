//! The kernel as hotr meets it: its types, what it allows, and hotr's programs in it.

pub(crate) mod bpf_call;
pub mod btf;
pub mod error;
pub mod facts;
pub mod load;
pub mod log;
pub mod offsets;
pub mod perf;
pub mod plan;
mod preload;
mod probes;
mod rules;
mod sections;
pub mod syscalls;
pub mod sysno;
pub mod table;
pub mod tracepoints;
mod trampolines;
pub mod types;
pub mod uring;
pub mod wanted;
