//! From the places of watches to findings. Each judge looks at one kind of fault.
//!
//! In: a [`View`] of a process. Out: findings. A judge says nothing of what is not known: a watch whose path could not
//! be found is left out by those that need one.

mod filesystems;
mod gone;
mod masks;
mod polls;
mod reader;
mod tree;

use super::finding::Finding;
use super::namespaces::Namespaces;
use super::view::View;

pub(super) use polls::polls;
pub(super) use reader::Later;

/// Everything to be said of a process.
pub(super) fn process(view: &View<'_>, space: &Namespaces, later: &Later, no_room: bool) -> Vec<Finding> {
    let mut findings = gone::judge(view, space);
    reader::judge(view, later, &mut findings);
    masks::judge(view, &mut findings);
    filesystems::judge(view, &mut findings);
    tree::judge(view, no_room, &mut findings);
    findings
}
