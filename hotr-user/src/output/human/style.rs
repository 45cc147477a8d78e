//! Colours, marks and sizes of the readable lines.

use crate::event::Op;
use crate::report::ChannelState;

/// A way to show text; each is one ANSI "select graphic rendition" sequence.
#[derive(Clone, Copy, Debug)]
pub(super) enum Paint {
    Bold,
    Dim,
    Red,
    Green,
    Yellow,
    Magenta,
    Cyan,
}

impl Paint {
    const fn code(self) -> &'static [u8] {
        match self {
            Self::Bold => b"\x1b[1m",
            Self::Dim => b"\x1b[2m",
            Self::Red => b"\x1b[31m",
            Self::Green => b"\x1b[32m",
            Self::Yellow => b"\x1b[33m",
            Self::Magenta => b"\x1b[35m",
            Self::Cyan => b"\x1b[36m",
        }
    }

    /// Appends text, painted when there is colour.
    pub(super) fn push(self, buf: &mut Vec<u8>, color: bool, text: &[u8]) {
        self.wrap(buf, color, |buf| buf.extend_from_slice(text));
    }

    /// Paints what `fill` appends.
    pub(super) fn wrap(self, buf: &mut Vec<u8>, color: bool, fill: impl FnOnce(&mut Vec<u8>)) {
        if color {
            buf.extend_from_slice(self.code());
        }
        fill(buf);
        if color {
            buf.extend_from_slice(b"\x1b[0m");
        }
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
pub(super) fn bytes_text(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let unit = bytes.ilog2() as usize / 10;
    let tenths = (u128::from(bytes) * 10) >> (10 * unit);
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit - 1])
}

/// Columns of a painted text: its characters, without the colour sequences. Wide characters count as one, so
/// a line of them may still wrap at the terminal's edge; nothing is lost by that.
pub(super) fn columns(painted: &[u8]) -> usize {
    let mut count = 0;
    let mut in_sequence = false;
    for &byte in painted {
        match byte {
            0x1b => in_sequence = true,
            b'm' if in_sequence => in_sequence = false,
            // The second and later bytes of a character.
            0x80..0xc0 => {}
            _ => count += usize::from(!in_sequence),
        }
    }
    count
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
        for (text, want) in [("", 0), ("mum", 3), ("\x1b[31mred\x1b[0m", 3), ("● é", 3)] {
            assert_eq!(columns(text.as_bytes()), want);
        }
    }
}
