//! From what the sources gave to what is reported: decode, correlate, filter, settle.

pub mod callpath;
pub mod confirm;
pub mod correlate;
pub mod decode;
pub mod filter;
pub mod heard;
pub mod late;
pub mod settle;
pub mod syscall;
