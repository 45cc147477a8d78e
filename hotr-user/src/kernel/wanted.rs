//! Which of the kernel's types, functions and tracepoints hotr asks for: the sum of all tables.

use super::btf::Wanted;
use super::offsets::{STRUCTURES, TYPED_REGISTERS, TYPED_TASK};
use super::table::{DELIVERY, HELPERS, SITES, USAGE};
use super::{tracepoints, uring};

/// All of them.
#[must_use]
pub fn all() -> Wanted {
    let sites = SITES.iter().map(|site| site.function);
    let helpers = HELPERS.iter().chain(DELIVERY).chain(USAGE).map(|(function, _)| *function);
    Wanted {
        structures: STRUCTURES.iter().chain(uring::STRUCTURES).copied().collect(),
        functions: sites.chain(helpers).chain([TYPED_TASK, TYPED_REGISTERS]).collect(),
        tracepoints: tracepoints::ALL.iter().copied().collect(),
    }
}
