//! All groups of cases beside the matrix.

use crate::group::Group;
use crate::{crowd, diagnose, faults, lockdown, poller, roots};

/// In this order: what is done to a machine for good comes last.
pub const GROUPS: [Group; 7] = [
    roots::GROUP,
    crowd::GROUP,
    faults::GROUP,
    poller::GROUP,
    diagnose::GROUP,
    lockdown::INTEGRITY,
    lockdown::CONFIDENTIALITY,
];
