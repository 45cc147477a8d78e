//! The kernel-path laboratory of `hotr verify`: it makes a situation for real, lets every kind of watcher listen, and decides
//! about a claim from what they received.
//!
//! In: names of experiments. Out: a [`Finding`] for each, with its evidence. Everything happens in a mount namespace of its
//! own ([`lab`]), which disappears with the process.

mod bench;
pub mod catalogue;
mod child;
mod container;
pub mod evidence;
pub mod experiment;
mod experiments;
mod fuse;
mod hidden_tree;
mod kernel_path;
mod lab;
mod listen;
mod loop_device;
mod make_filesystem;
mod nfs;
mod rulings;
pub mod runner;
pub mod saved;
mod stop;
mod strace;
pub mod verdict;

pub use experiment::{Experiment, Group};
pub use runner::{Finding, Options, run};
pub use verdict::{Ruling, Verdict};
