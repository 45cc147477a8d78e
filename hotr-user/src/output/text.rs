//! Bytes into text: times, numbers, base64, JSON strings, and names made safe for a terminal.
//!
//! In: values of a report. Out: bytes appended to a printer's buffer; nothing here allocates for itself.

use std::time::{SystemTime, UNIX_EPOCH};

/// Appends a decimal number.
pub fn push_u64(buf: &mut Vec<u8>, mut n: u64) {
    let mut digits = [0_u8; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            break;
        }
    }
    buf.extend_from_slice(&digits[start..]);
}

/// Appends a number with leading zeros, `width` digits wide (at most 9 digits of it are printed).
pub fn push_padded(buf: &mut Vec<u8>, n: u32, width: usize) {
    let mut digits = [b'0'; 9];
    let mut rest = n;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    buf.extend_from_slice(&digits[digits.len() - width.min(digits.len())..]);
}

/// Seconds since 1970 (negative before) and nanoseconds within the second.
#[must_use]
pub fn unix_time(time: SystemTime) -> (i64, u32) {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => (i64::try_from(after.as_secs()).unwrap_or(i64::MAX), after.subsec_nanos()),
        Err(before) => {
            let before = before.duration();
            let secs = -i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
            match before.subsec_nanos() {
                0 => (secs, 0),
                nanos => (secs - 1, 1_000_000_000 - nanos),
            }
        }
    }
}

/// Appends a time as RFC 3339 in UTC with nanoseconds: `2026-01-02T03:04:05.123456789Z`.
pub fn push_rfc3339(buf: &mut Vec<u8>, time: SystemTime) {
    let (secs, nanos) = unix_time(time);
    let (year, month, day) = civil_date(secs.div_euclid(86_400));
    let second = u32::try_from(secs.rem_euclid(86_400)).expect("a remainder of 86400 fits");
    push_padded(buf, year, 4);
    buf.push(b'-');
    push_padded(buf, month, 2);
    buf.push(b'-');
    push_padded(buf, day, 2);
    buf.push(b'T');
    push_clock(buf, (second / 3600, second / 60 % 60, second % 60));
    buf.push(b'.');
    push_padded(buf, nanos, 9);
    buf.push(b'Z');
}

/// Appends hours, minutes and seconds as `HH:MM:SS`.
pub fn push_clock(buf: &mut Vec<u8>, (hours, minutes, seconds): (u32, u32, u32)) {
    push_padded(buf, hours, 2);
    buf.push(b':');
    push_padded(buf, minutes, 2);
    buf.push(b':');
    push_padded(buf, seconds, 2);
}

/// Year, month and day of a day counted from 1970-01-01, in the proleptic Gregorian calendar.
///
/// Years start in March here, so that the leap day is the last one of a year and months need no table.
/// Days outside the years 0 to 9999, which RFC 3339 cannot write, are moved to the nearest it can.
fn civil_date(days: i64) -> (u32, u32, u32) {
    let days = u32::try_from(days.clamp(-719_528, 2_932_896) + 719_468 + 146_097)
        .expect("clamped to positive day numbers");
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + 400 * era + u32::from(month <= 2) - 400;
    (year, month, day)
}

/// Appends standard base64 with padding (RFC 4648, section 4).
pub fn push_base64(buf: &mut Vec<u8>, bytes: &[u8]) {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for chunk in bytes.chunks(3) {
        let byte = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * i) & 63) as usize];
            buf.push(if i > chunk.len() { b'=' } else { letter });
        }
    }
}

/// Appends a JSON string with its quotes. Bytes that are not UTF-8 become U+FFFD; returns whether there were any.
pub fn push_json_string(buf: &mut Vec<u8>, bytes: &[u8]) -> bool {
    let mut lossy = false;
    buf.push(b'"');
    for chunk in bytes.utf8_chunks() {
        push_json_escaped(buf, chunk.valid().as_bytes());
        if !chunk.invalid().is_empty() {
            lossy = true;
            buf.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
    buf.push(b'"');
    lossy
}

fn push_json_escaped(buf: &mut Vec<u8>, utf8: &[u8]) {
    let mut done = 0;
    for (i, &byte) in utf8.iter().enumerate() {
        let short = match byte {
            b'"' | b'\\' => byte,
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0..0x20 => 0,
            _ => continue,
        };
        buf.extend_from_slice(&utf8[done..i]);
        done = i + 1;
        if short == 0 {
            buf.extend_from_slice(b"\\u00");
            push_hex(buf, byte);
        } else {
            buf.extend_from_slice(&[b'\\', short]);
        }
    }
    buf.extend_from_slice(&utf8[done..]);
}

fn push_hex(buf: &mut Vec<u8>, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    buf.extend_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
}

/// Appends a name so that it can neither leave its line nor command a terminal, and reads back without doubt.
///
/// Control characters, invisible direction marks and bytes that are not UTF-8 are written as escapes, and a
/// backslash is doubled.
pub fn push_visible(buf: &mut Vec<u8>, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => buf.extend_from_slice(b"\\\\"),
                '\n' => buf.extend_from_slice(b"\\n"),
                '\r' => buf.extend_from_slice(b"\\r"),
                '\t' => buf.extend_from_slice(b"\\t"),
                '\0'..='\x1f' | '\x7f' => push_byte_escape(buf, c as u8),
                _ if c.is_control() || reorders_text(c) => {
                    buf.extend(c.escape_unicode().map(|c| c as u8));
                }
                _ => buf.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        for &byte in chunk.invalid() {
            push_byte_escape(buf, byte);
        }
    }
}

fn push_byte_escape(buf: &mut Vec<u8>, byte: u8) {
    buf.extend_from_slice(b"\\x");
    push_hex(buf, byte);
}

/// Characters that make a terminal show a name in another order, or on another line, than it is stored.
const fn reorders_text(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests;
