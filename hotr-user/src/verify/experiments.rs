//! The experiments, one topic a file.

mod content;
mod handles;
mod identity;
mod mounts;
mod names;
mod overlay;
mod polling;
mod replaced;
mod watches;

use super::experiment::Experiment;

/// Every experiment, in the order in which they are listed and made.
pub(super) const ALL: &[&[Experiment]] = &[
    overlay::ALL,
    names::ALL,
    replaced::ALL,
    content::ALL,
    handles::ALL,
    watches::ALL,
    mounts::ALL,
    identity::ALL,
    polling::ALL,
];
