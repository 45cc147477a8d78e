//! The experiments, one topic a file.

mod containers;
mod content;
mod core_dump;
mod fuse;
mod handles;
mod identity;
mod layers;
mod limits;
mod mounts;
mod names;
mod nfs;
mod overlay;
mod polling;
mod recursion;
mod renames;
mod replaced;
mod uring;
mod watches;

use super::experiment::Experiment;

/// Every experiment, in the order in which they are listed and made.
pub(super) const ALL: &[&[Experiment]] = &[
    overlay::ALL,
    layers::ALL,
    names::ALL,
    renames::ALL,
    replaced::ALL,
    uring::NAMES,
    content::ALL,
    uring::CONTENT,
    core_dump::ALL,
    handles::ALL,
    watches::ALL,
    limits::ALL,
    recursion::ALL,
    mounts::ALL,
    containers::ALL,
    fuse::ALL,
    nfs::ALL,
    identity::ALL,
    polling::ALL,
];
