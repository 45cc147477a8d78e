//! Bytes into text: times, numbers, base64, JSON strings, and names made safe for a terminal.
//!
//! In: values of a report. Out: bytes appended to a printer's buffer; only bytes that are not UTF-8 take memory beside it.

use std::borrow::Cow;
use std::io::Write;
use std::time::SystemTime;

use data_encoding::{BASE64, Encoding, HEXLOWER};
use hotr_events::json::{self, Rfc3339, commands_terminal, since_1970};

/// Appends a decimal number.
pub fn push_u64(buf: &mut Vec<u8>, n: u64) {
    let _ = write!(buf, "{n}");
}

/// Appends a number with leading zeros, at least `width` digits wide.
pub fn push_padded(buf: &mut Vec<u8>, n: u32, width: usize) {
    let _ = write!(buf, "{n:0width$}");
}

/// Seconds since 1970 (negative before) and nanoseconds within the second.
#[must_use]
pub fn unix_time(time: SystemTime) -> (i64, u32) {
    let since = since_1970(time);
    let (secs, nanos) = (since.as_secs(), since.subsec_nanos());
    match u32::try_from(nanos) {
        Ok(nanos) => (secs, nanos),
        Err(_) => (secs.saturating_sub(1), 1_000_000_000 - nanos.unsigned_abs()),
    }
}

/// Appends a time as [`Rfc3339`].
pub fn push_rfc3339(buf: &mut Vec<u8>, time: SystemTime) {
    // Writing to memory does not fail.
    let _ = write!(buf, "{}", Rfc3339(time));
}

/// Appends hours, minutes and seconds as `HH:MM:SS`.
pub fn push_clock(buf: &mut Vec<u8>, (hours, minutes, seconds): (u32, u32, u32)) {
    push_padded(buf, hours, 2);
    buf.push(b':');
    push_padded(buf, minutes, 2);
    buf.push(b':');
    push_padded(buf, seconds, 2);
}

/// Appends standard base64 with padding (RFC 4648, section 4).
pub fn push_base64(buf: &mut Vec<u8>, bytes: &[u8]) {
    append(buf, &BASE64, bytes);
}

fn append(buf: &mut Vec<u8>, encoding: &Encoding, bytes: &[u8]) {
    let start = buf.len();
    buf.resize(start + encoding.encode_len(bytes.len()), 0);
    encoding.encode_mut(bytes, &mut buf[start..]);
}

/// Appends a JSON string with its quotes. Bytes that are not UTF-8 become U+FFFD; returns whether there were any.
pub fn push_json_string(buf: &mut Vec<u8>, bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    // Writing to memory does not fail, and a string is always valid.
    let _ = json::append(buf, &text);
    matches!(text, Cow::Owned(_))
}

/// A message for a terminal, in one line: all that could command it, or show the text in another order, is escaped. What
/// is escaped already stays as it is.
#[must_use]
pub fn visible_message(text: &str) -> String {
    let mut line = Vec::with_capacity(text.len());
    for part in text.split_inclusive('\\') {
        let (plain, backslash) = part.strip_suffix('\\').map_or((part, ""), |plain| (plain, "\\"));
        push_visible(&mut line, plain.as_bytes());
        line.extend_from_slice(backslash.as_bytes());
    }
    String::from_utf8_lossy(&line).into_owned()
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
                _ if commands_terminal(c) => {
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
    append(buf, &HEXLOWER, &[byte]);
}

#[cfg(test)]
mod tests;
