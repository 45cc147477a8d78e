//! What an experiment says about its claim.

/// The answer to a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Verdict {
    /// This kernel does what the claim says.
    Confirmed,
    /// It does something else.
    Refuted,
    /// Part of the claim holds.
    Partly,
    /// It could not be found out here.
    NotTestable,
}

impl Verdict {
    /// Every value.
    pub const ALL: [Self; 4] = [Self::Confirmed, Self::Refuted, Self::Partly, Self::NotTestable];

    /// The word in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Refuted => "refuted",
            Self::Partly => "partly",
            Self::NotTestable => "not-testable",
        }
    }

    /// The verdict of a word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verdict| verdict.as_str() == word)
    }
}

/// A verdict with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ruling {
    /// The verdict.
    pub verdict: Verdict,
    /// What it rests upon, or why there is none: a part of a sentence, lower case.
    pub why: String,
}

impl Ruling {
    /// This kernel does what the claim says.
    pub(crate) fn confirmed(why: impl Into<String>) -> Self {
        Self { verdict: Verdict::Confirmed, why: why.into() }
    }

    /// It does something else.
    pub(crate) fn refuted(why: impl Into<String>) -> Self {
        Self { verdict: Verdict::Refuted, why: why.into() }
    }

    /// Part of the claim holds.
    pub(crate) fn partly(why: impl Into<String>) -> Self {
        Self { verdict: Verdict::Partly, why: why.into() }
    }

    /// It could not be found out.
    pub(crate) fn not_testable(why: impl Into<String>) -> Self {
        Self { verdict: Verdict::NotTestable, why: why.into() }
    }
}
