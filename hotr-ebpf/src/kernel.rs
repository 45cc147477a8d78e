//! The only reads of kernel fields: memory access by tier, and the few structures hotr looks at.

pub mod access;
pub mod dentry_fields;
pub mod task;

pub use access::{Direct, Mem, Probe, number};
pub use dentry_fields::{DentryFields, Layout};

/// The bits of `i_mode` that say what a file is.
pub const S_IFMT: u16 = 0o170_000;
/// A directory.
pub const S_IFDIR: u16 = 0o040_000;
