//! JSON in one line, in which also that is escaped which a terminal would act on; and times in it.

use std::fmt;
use std::io::{self, Write};
use std::time::SystemTime;

use jiff::civil::DateTime;
use jiff::fmt::StdFmtWrite;
use jiff::fmt::temporal::DateTimePrinter;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::{CharEscape, CompactFormatter, Formatter};

/// Appends a value to a buffer, without a line's end.
///
/// # Errors
/// The value cannot be JSON, as a map whose keys are no strings; none of this crate is such a value.
pub fn append(buffer: &mut Vec<u8>, value: &impl Serialize) -> Result<(), serde_json::Error> {
    write(buffer, value)
}

/// Writes a value piece by piece, without a line's end: for one that may be large, and a writer with a buffer.
///
/// # Errors
/// As [`append`], and those of the writer.
pub fn write(writer: impl Write, value: &impl Serialize) -> Result<(), serde_json::Error> {
    value.serialize(&mut Serializer::with_formatter(writer, TerminalSafe))
}

/// serde_json's formatter for it.
#[derive(Clone, Copy, Debug)]
pub struct TerminalSafe;

impl Formatter for TerminalSafe {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.bytes().position(may_command_terminal) {
            // Such a byte begins a character, because no later byte of one has its value.
            let c = rest[at..].chars().next().unwrap_or_default();
            let after = at + c.len_utf8();
            if commands_terminal(c) {
                writer.write_all(&rest.as_bytes()[..at])?;
                write!(writer, "\\u{:04x}", u32::from(c))?;
            } else {
                writer.write_all(&rest.as_bytes()[..after])?;
            }
            rest = &rest[after..];
        }
        writer.write_all(rest.as_bytes())
    }

    fn write_char_escape<W: ?Sized + Write>(&mut self, writer: &mut W, escape: CharEscape) -> io::Result<()> {
        match escape {
            // As every other control character that has no letter in most languages.
            CharEscape::Backspace => writer.write_all(b"\\u0008"),
            CharEscape::FormFeed => writer.write_all(b"\\u000c"),
            _ => CompactFormatter.write_char_escape(writer, escape),
        }
    }
}

/// Whether a character that begins with this byte may be one of [`commands_terminal`].
const fn may_command_terminal(first: u8) -> bool {
    matches!(first, 0x7f | 0xc2 | 0xd8 | 0xe2)
}

/// Characters that a terminal acts on instead of showing them.
#[must_use]
pub fn commands_terminal(c: char) -> bool {
    c.is_control() || reorders_text(c)
}

/// Characters that make a terminal show a name in another order, or on another line, than it is stored.
const fn reorders_text(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A time as RFC 3339 in UTC with nanoseconds: `2026-01-02T03:04:05.123456789Z`. Times outside the years 0 to 9999, which
/// RFC 3339 cannot write, are moved to the nearest it can.
#[derive(Clone, Copy, Debug)]
pub struct Rfc3339(pub SystemTime);

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(9));
        const FIRST: DateTime = DateTime::constant(0, 1, 1, 0, 0, 0, 0);
        let result = match Timestamp::try_from(self.0) {
            Ok(time) if time >= Timestamp::UNIX_EPOCH => PRINTER.print_timestamp(&time, StdFmtWrite(&mut *f)),
            // Before 1970, or in the last hours of the year 9999, where not every time zone has a date.
            _ => {
                let epoch = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);
                let time = epoch.saturating_add(since_1970(self.0)).max(FIRST);
                PRINTER.print_datetime(&time, StdFmtWrite(&mut *f)).and_then(|()| {
                    f.write_str("Z").map_err(|_error| jiff::Error::from_args(format_args!("write a time")))
                })
            }
        };
        result.map_err(|_error| fmt::Error)
    }
}

/// Since 1970, negative before; the most that can be told where it is longer.
#[must_use]
pub fn since_1970(time: SystemTime) -> SignedDuration {
    let is_late = time > SystemTime::UNIX_EPOCH;
    SignedDuration::system_until(SystemTime::UNIX_EPOCH, time).unwrap_or(if is_late {
        SignedDuration::MAX
    } else {
        SignedDuration::MIN
    })
}

/// For `#[serde(with = "…")]`: a time as [`Rfc3339`].
pub(crate) mod time {
    use std::borrow::Cow;
    use std::time::SystemTime;

    use jiff::Timestamp;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use super::Rfc3339;

    pub(crate) fn serialize<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Rfc3339(*time))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse::<Timestamp>().map(SystemTime::from).map_err(D::Error::custom)
    }
}

/// For `#[serde(with = "…")]`: a duration in whole milliseconds.
pub(crate) mod duration_ms {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

/// The same where there may be none.
pub(crate) mod maybe_duration_ms {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => super::duration_ms::serialize(duration, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_millis))
    }
}
