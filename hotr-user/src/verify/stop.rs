//! Why an experiment ends without evidence, with the operation that failed.

use rustix::io::Errno;

/// Why an experiment ends without evidence.
#[derive(Debug)]
pub(super) struct Stop(pub(super) String);

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Self {
        Self(std::io::Error::from(errno).to_string())
    }
}

impl From<String> for Stop {
    fn from(why: String) -> Self {
        Self(why)
    }
}

/// Gives an error the operation that it is of.
pub(super) trait During<T> {
    /// As `operation: error`.
    fn during(self, operation: &str) -> Result<T, Stop>;
}

impl<T, E: Into<Stop>> During<T> for Result<T, E> {
    fn during(self, operation: &str) -> Result<T, Stop> {
        self.map_err(|error| Stop(format!("{operation}: {}", error.into().0)))
    }
}
