//! An experiment: a claim, how to test it, and how to decide from the evidence.

use super::bench::{Bench, Stop};
use super::evidence::{DONE, Evidence, Listener, State};
use super::verdict::Ruling;

/// What experiments have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Group {
    /// Layers of overlay mounts.
    Overlay,
    /// Renames and replaced files.
    Names,
    /// Ways to change content.
    Content,
    /// What a watch itself does.
    Watches,
    /// Mounts, and mount namespaces.
    Mounts,
    /// The identity of files.
    Identity,
    /// Comparison of attributes.
    Polling,
}

impl Group {
    /// The word in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Overlay => "overlay",
            Self::Names => "names",
            Self::Content => "content",
            Self::Watches => "watches",
            Self::Mounts => "mounts",
            Self::Identity => "identity",
            Self::Polling => "polling",
        }
    }
}

/// One experiment.
#[derive(Clone, Copy)]
pub struct Experiment {
    /// Its name on the command line.
    pub name: &'static str,
    /// Its group.
    pub group: Group,
    /// What is claimed, in one sentence.
    pub claim: &'static str,
    /// Who claims it.
    pub source: &'static str,
    /// What is done, in one sentence.
    pub method: &'static str,
    /// The listeners that the verdict rests upon.
    pub rests_on: &'static [Listener],
    /// Does it.
    pub(super) run: fn(&mut Bench<'_>) -> Result<(), Stop>,
    /// Decides; asked only when all listeners that it rests upon have worked and the operation has left its trace.
    pub(super) decide: fn(&Evidence) -> Ruling,
}

impl Experiment {
    /// The ruling, from evidence only.
    #[must_use]
    pub fn judge(&self, evidence: &Evidence) -> Ruling {
        for listener in self.rests_on {
            let word = listener.as_str();
            match evidence.account(*listener).map(|account| &account.state) {
                Some(State::Listening) => {}
                Some(State::Silent) | None => {
                    return Ruling::not_testable(format!("{word} received not even the barrier"));
                }
                Some(State::Off(why)) => return Ruling::not_testable(format!("{word} is off: {why}")),
            }
        }
        if evidence.fact(DONE) == 0 {
            return Ruling::not_testable("the operation left no trace");
        }
        (self.decide)(evidence)
    }
}
