//! The kernel conformance matrix: every way to change a file, on every filesystem, in every tier, judged by the
//! exact lines that hotr prints for it, present and absent.
//!
//! `ops` does and describes, `session` runs hotr and puts barriers, `expect` compares, `exceptions` is the table of
//! what is known to differ, `verdict` decides, `run` puts a run together, `render` writes the documentation. `group` makes
//! cases that are no cells of the matrix: `roots` are what may become of a traced directory, `crowd` tasks that wait where
//! the programs are, `faults` what `hotr watch` has to bear: clocks that are set, `poller` how it looks at a tmpfs, `lockdown` a
//! kernel that forbids.
//! `fuzz` compares the tree that the lines of random operations describe with the real one. `outside` cuts programs off by id, `aio` submits requests.

pub mod aio;
pub mod asleep;
pub mod crowd;
pub mod diagnose;
pub mod exceptions;
pub mod expect;
pub mod faults;
pub mod fuzz;
pub mod group;
pub mod groups;
pub mod lockdown;
pub mod native;
pub mod observed;
pub mod ops;
pub mod outside;
pub mod own_child;
pub mod place;
pub mod poller;
pub mod render;
pub mod roots;
pub mod run;
pub mod selftest;
pub mod session;
pub mod verdict;
