//! Short lines on stderr, for people who watch a run: with the time, and coloured by how good the news is.
//!
//! In: a sentence and its tone. Out: one line, in which nothing commands the terminal but the colour.

use std::time::SystemTime;

use super::human::clock::Clock;
use super::human::style::Paint;
use crate::text::{push_clock, push_padded, unix_time, visible_message};

/// How good the news is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tone {
    /// Neither.
    Plain,
    /// Something has succeeded.
    Good,
    /// Something works less well than it could.
    Warning,
    /// Something has failed, or is lost.
    Bad,
}

/// How the lines look.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoticeStyle {
    /// In colour.
    pub color: bool,
    /// With the local time in front.
    pub timestamps: bool,
}

impl NoticeStyle {
    /// `hotr: TEXT`, or `HH:MM:SS.mmm  hotr: TEXT`, with its end of line.
    #[must_use]
    pub fn line(self, tone: Tone, text: &str, now: SystemTime) -> Vec<u8> {
        self.line_by(Clock::local, tone, text, now)
    }

    fn line_by(self, clock: fn() -> Clock, tone: Tone, text: &str, now: SystemTime) -> Vec<u8> {
        let mut line = Vec::new();
        if self.timestamps {
            let (secs, nanos) = unix_time(now);
            Paint::Dim.wrap(&mut line, self.color, |line| {
                push_clock(line, clock().at(secs));
                line.push(b'.');
                push_padded(line, nanos / 1_000_000, 3);
            });
            line.extend_from_slice(b"  ");
        }
        line.extend_from_slice(b"hotr: ");
        let text = visible_message(text);
        match tone {
            Tone::Plain => line.extend_from_slice(text.as_bytes()),
            Tone::Good => Paint::Green.push(&mut line, self.color, text.as_bytes()),
            Tone::Warning => Paint::Yellow.push(&mut line, self.color, text.as_bytes()),
            Tone::Bad => Paint::Red.push(&mut line, self.color, text.as_bytes()),
        }
        line.push(b'\n');
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::samples;

    fn line(color: bool, timestamps: bool, tone: Tone) -> String {
        let style = NoticeStyle { color, timestamps };
        String::from_utf8(style.line_by(Clock::utc, tone, "a\x1b[2J", samples::time())).unwrap()
    }

    #[test]
    fn time_and_colour_are_only_where_they_are_asked_for() {
        assert_eq!(line(false, false, Tone::Bad), "hotr: a\\x1b[2J\n");
        assert_eq!(line(false, true, Tone::Good), "03:04:05.123  hotr: a\\x1b[2J\n");
        assert_eq!(line(true, false, Tone::Plain), "hotr: a\\x1b[2J\n");
        assert_eq!(line(true, false, Tone::Bad), "hotr: \x1b[31ma\\x1b[2J\x1b[0m\n");
        assert_eq!(
            line(true, true, Tone::Warning),
            "\x1b[2m03:04:05.123\x1b[0m  hotr: \x1b[33ma\\x1b[2J\x1b[0m\n"
        );
    }
}
