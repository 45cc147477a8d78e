//! What each hook was attached to: the answer of [`super::load`], for reports and `hotr doctor`.

use hotr_common::hook::Hook;
use hotr_common::tier::Tier;

/// What a hook got.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PlannedHook {
    /// The hook.
    pub hook: Hook,
    /// Its tier; `None` when nothing could be attached.
    pub tier: Option<Tier>,
    /// The kernel function or tracepoint.
    pub function: &'static str,
    /// Why no better tier: the kernel's answers.
    pub why: String,
}
