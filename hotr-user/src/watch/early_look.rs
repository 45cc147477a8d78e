//! hotr looks at a batch shortly before it is due, so that only the start of the command is left to do then.
//!
//! In: what happens to the batch at hand, and the answer to that look. Out: when to look, and the result, if it is
//! still valid: a change that is reported after the look makes it void, and then the states it took are taken back.

use std::time::Duration;

use super::pending::Pending;
use crate::pipeline::confirm::Confirmed;

/// The look comes before the batch is due by a tenth of the quiet, and by this at most.
const LEAD: Duration = Duration::from_millis(10);
/// A shorter lead would be used up by the way to the thread that looks, and back.
const LEAST: Duration = Duration::from_millis(1);
/// A larger batch is a checkout or a copy, and takes its time.
const PATHS: usize = 512;

/// What a look found: what changed, and which paths did not.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Judged {
    pub(super) batch: Vec<Confirmed>,
    pub(super) nothing: Vec<std::path::PathBuf>,
}

/// How far the look is.
#[derive(Debug, Default)]
enum Step {
    /// Not requested.
    #[default]
    None,
    /// Requested; void when a change was reported since.
    Asked { void: bool },
    /// The batch was due before the answer came.
    Due(Pending),
    /// Answered; none: hotr must look at it when it is due.
    Known(Option<Judged>),
}

/// What to do with a batch that is due.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// This is what it is.
    Take(Judged),
    /// The answer to the early look is on its way.
    Wait,
    /// Look at it.
    Look(Pending),
    /// Look at it again, with what was reported since.
    Again(Pending),
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct EarlyLook {
    step: Step,
    undo: bool,
}

impl EarlyLook {
    /// How long before it is due hotr looks at this batch; none when that is done, or not worth it.
    pub(super) fn lead(&self, pending: &Pending, quiet: Duration) -> Option<Duration> {
        let lead = (quiet / 10).min(LEAD);
        let is_small = pending.dirs.is_empty()
            && pending.relinked.is_empty()
            && !pending.behind
            && pending.left_out.is_empty()
            && pending.touched.len() <= PATHS;
        (matches!(self.step, Step::None) && is_small && lead >= LEAST).then_some(lead)
    }

    /// hotr looks at it now.
    pub(super) fn ask(&mut self) {
        self.step = Step::Asked { void: false };
    }

    /// The batch was given back, for another look at its time and not before.
    pub(super) fn held(&mut self) {
        self.step = Step::Known(None);
    }

    /// More was reported: what was found, or will be, is not the whole batch.
    pub(super) fn more(&mut self) {
        match &mut self.step {
            Step::Asked { void } => *void = true,
            Step::Known(found) => {
                self.undo |= found.is_some();
                self.step = Step::None;
            }
            Step::None | Step::Due(_) => {}
        }
    }

    /// The answer to the look; what to do when the batch was waiting for it.
    pub(super) fn answered(&mut self, found: Option<Judged>) -> Option<Then> {
        match (std::mem::take(&mut self.step), found) {
            (Step::Asked { void: true }, found) => self.undo |= found.is_some(),
            (Step::Due(_), Some(found)) => return Some(Then::Take(found)),
            (Step::Due(pending), None) => return Some(Then::Again(pending)),
            (_, found) => self.step = Step::Known(found),
        }
        None
    }

    /// The batch is due.
    pub(super) fn due(&mut self, pending: Pending) -> Then {
        match std::mem::take(&mut self.step) {
            Step::Known(Some(found)) => Then::Take(found),
            Step::Asked { void: false } => {
                self.step = Step::Due(pending);
                Then::Wait
            }
            // Its answer comes before that of the look to be made now.
            step @ Step::Asked { void: true } => {
                self.step = step;
                Then::Look(pending)
            }
            Step::None | Step::Known(None) | Step::Due(_) => Then::Look(pending),
        }
    }

    /// Whether the next look must take the states of the last one back; returned once.
    pub(super) fn take_undo(&mut self) -> bool {
        std::mem::take(&mut self.undo) || matches!(self.step, Step::Asked { void: true })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Duration = Duration::from_millis(50);

    fn judged(name: &str) -> Judged {
        Judged { nothing: vec![name.into()], ..Judged::default() }
    }

    fn pending(name: &str) -> Pending {
        Pending { touched: [(name.into(), Default::default())].into(), ..Pending::default() }
    }

    fn asked() -> EarlyLook {
        let mut early = EarlyLook::default();
        assert_eq!(early.lead(&pending("a"), QUIET), Some(QUIET / 10));
        early.ask();
        assert_eq!(early.lead(&pending("a"), QUIET), None, "asked once");
        early
    }

    #[test]
    fn what_was_found_is_taken_when_it_is_due() {
        let mut early = asked();
        assert_eq!(early.answered(Some(judged("a"))), None);
        assert_eq!(early.lead(&pending("a"), QUIET), None);
        assert_eq!(early.due(pending("a")), Then::Take(judged("a")));
        assert!(!early.take_undo());
    }

    #[test]
    fn a_later_change_makes_it_void_before_and_after_the_answer() {
        let mut early = asked();
        early.answered(Some(judged("a")));
        early.more();
        assert!(early.lead(&pending("a"), QUIET).is_some(), "looked at again");
        assert_eq!(early.due(pending("a")), Then::Look(pending("a")));
        assert!(early.take_undo());
        assert!(!early.take_undo());

        let mut early = asked();
        early.more();
        assert_eq!(early.due(pending("a")), Then::Look(pending("a")));
        assert!(early.take_undo(), "the states are taken before the next look, whenever the answer is read");
        assert_eq!(early.answered(None), None);
        assert!(early.lead(&pending("a"), QUIET).is_some());
    }

    #[test]
    fn a_late_answer_is_waited_for() {
        for found in [Some(judged("a")), None] {
            let mut early = asked();
            assert_eq!(early.due(pending("a")), Then::Wait);
            // Reported for the next batch.
            early.more();
            let expected = if found.is_some() { Then::Take(judged("a")) } else { Then::Again(pending("a")) };
            assert_eq!(early.answered(found), Some(expected));
            assert!(!early.take_undo());
        }
    }

    #[test]
    fn what_could_not_be_told_early_is_looked_at_when_it_is_due() {
        let mut early = asked();
        early.answered(None);
        assert_eq!(early.lead(&pending("a"), QUIET), None);
        assert_eq!(early.due(pending("a")), Then::Look(pending("a")));
        early.held();
        assert_eq!(early.lead(&pending("a"), QUIET), None, "what holds it is looked at when it is time to");
        early.more();
        assert!(early.lead(&pending("a"), QUIET).is_some());
        let dirs = Pending { dirs: vec!["d".into()], ..Pending::default() };
        assert_eq!(early.lead(&dirs, QUIET), None);
        assert_eq!(early.lead(&pending("a"), Duration::from_millis(9)), None, "the quiet is too short");
    }
}
