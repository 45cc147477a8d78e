//! Colours, marks and sizes of the readable lines.

use anstyle::{AnsiColor, Style};
use unicode_width::UnicodeWidthStr;

use hotr_events::ChannelState;
use hotr_events::Op;

/// A way to show text; each is one ANSI "select graphic rendition" sequence.
#[derive(Clone, Copy, Debug)]
pub(in crate::output) enum Paint {
    Bold,
    Dim,
    Red,
    Green,
    Yellow,
    Magenta,
    Cyan,
}

impl Paint {
    const fn style(self) -> Style {
        match self {
            Self::Bold => Style::new().bold(),
            Self::Dim => Style::new().dimmed(),
            Self::Red => AnsiColor::Red.on_default(),
            Self::Green => AnsiColor::Green.on_default(),
            Self::Yellow => AnsiColor::Yellow.on_default(),
            Self::Magenta => AnsiColor::Magenta.on_default(),
            Self::Cyan => AnsiColor::Cyan.on_default(),
        }
    }

    /// Appends text, painted when there is colour.
    pub(in crate::output) fn push(self, buf: &mut Vec<u8>, color: bool, text: &[u8]) {
        self.wrap(buf, color, |buf| buf.extend_from_slice(text));
    }

    /// Paints what `fill` appends.
    pub(in crate::output) fn wrap(self, buf: &mut Vec<u8>, color: bool, fill: impl FnOnce(&mut Vec<u8>)) {
        let style = if color { self.style() } else { Style::new() };
        // Writing to memory does not fail.
        let _ = style.write_to(buf);
        fill(buf);
        let _ = style.write_reset_to(buf);
    }
}

pub(super) const fn op_paint(op: Op) -> Paint {
    match op {
        Op::Create => Paint::Green,
        Op::Write => Paint::Yellow,
        Op::Attrib => Paint::Cyan,
        Op::Rename => Paint::Magenta,
        Op::Remove => Paint::Red,
    }
}

pub(super) const fn state_paint(state: ChannelState) -> Paint {
    match state {
        ChannelState::Active => Paint::Green,
        ChannelState::Degraded => Paint::Yellow,
        ChannelState::Idle => Paint::Dim,
        ChannelState::Off => Paint::Red,
    }
}

/// Bytes in the largest binary unit that leaves a number of at least 1.
pub(in crate::output) fn bytes_text(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let unit = bytes.ilog2() as usize / 10;
    let tenths = (u128::from(bytes) * 10) >> (10 * unit);
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit - 1])
}

/// Columns that a painted text takes on a terminal: wide characters take two, colour sequences none.
pub(in crate::output) fn columns(painted: &[u8]) -> usize {
    let text = String::from_utf8_lossy(painted);
    let mut rest = &*text;
    let mut columns = 0;
    while let Some((shown, sequence)) = rest.split_once('\x1b') {
        columns += shown.width();
        rest = sequence.split_once('m').map_or("", |(_, rest)| rest);
    }
    columns + rest.width()
}

#[cfg(test)]
mod tests {
    use super::{bytes_text, columns};

    #[test]
    fn sizes() {
        for (bytes, want) in
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1_572_864, "1.5 MiB"), (u64::MAX, "15.9 EiB")]
        {
            assert_eq!(bytes_text(bytes), want);
        }
    }

    #[test]
    fn colour_has_no_columns() {
        for (text, want) in [
            ("", 0),
            ("mum", 3),
            ("\x1b[31mred\x1b[0m", 3),
            ("● é", 3),
            ("\x1b[2m日本語\x1b[0m.txt", 10),
            ("e\u{301}", 1),
        ] {
            assert_eq!(columns(text.as_bytes()), want);
        }
    }
}
