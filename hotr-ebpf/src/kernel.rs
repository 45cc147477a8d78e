//! The only reads of kernel fields: memory access by tier, and the few structures hotr looks at.

pub mod access;
pub mod near;
pub mod task;

pub use access::{Direct, Mem, Probe, number};
pub use near::{Layout, Near};
