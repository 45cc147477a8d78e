//! The fuzz test: random operations by several processes at once, and the tree that hotr's lines describe has to be the
//! tree that is there.
//!
//! In: a seed, a number of operations, filesystems. The writers (`writer`, `content`) change one small tree in rounds;
//! between rounds they rest, something is mounted or unmounted (`mounts`), and the model that was built of hotr's lines
//! alone (`model`) is compared with a walk of the tree (`real`). Out: every difference with the lines and operations
//! about it (`report`). The same seed gives the same operations of each writer; how they overlap is the machine's.

pub mod model;
pub mod mounts;
pub mod random;
pub mod real;
pub mod report;
pub mod run;
pub mod watch;
pub mod writer;
