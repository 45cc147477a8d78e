//! The kinds of programs that a hook can have, and their numbers in a record.

/// fexit and fentry programs.
pub const FENTRY: u16 = 0;
/// kprobes and kretprobes.
pub const KPROBE: u16 = 1;
/// Tracepoints.
pub const TRACEPOINT: u16 = 2;
/// A tracepoint through perf, which does not let the program be preempted. For readers of records it is a tracepoint.
pub const PERF_TRACEPOINT: u16 = 3;

/// Kind of program a hook runs as, the best first.
#[cfg(feature = "user")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// fentry and fexit.
    Fentry,
    /// kprobe and kretprobe.
    Kprobe,
    /// Tracepoints.
    Tracepoint,
}

#[cfg(feature = "user")]
impl Tier {
    /// The word used in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
            Self::Tracepoint => "tracepoint",
        }
    }

    /// From the number in a record.
    #[must_use]
    pub const fn from_u8(number: u8) -> Self {
        match number as u16 {
            FENTRY => Self::Fentry,
            KPROBE => Self::Kprobe,
            _ => Self::Tracepoint,
        }
    }
}
