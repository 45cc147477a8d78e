//! Tables for the text functions.

use std::time::{Duration, UNIX_EPOCH};

use super::*;

fn text(f: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut buf = Vec::new();
    f(&mut buf);
    String::from_utf8(buf).unwrap()
}

#[test]
fn times_are_rfc_3339_in_utc_with_nanoseconds() {
    for (secs, nanos, want) in [
        (0, 0, "1970-01-01T00:00:00.000000000Z"),
        (1, 5, "1970-01-01T00:00:01.000000005Z"),
        (951_782_399, 999_999_999, "2000-02-28T23:59:59.999999999Z"),
        (951_782_400, 0, "2000-02-29T00:00:00.000000000Z"),
        (1_767_323_045, 123_456_789, "2026-01-02T03:04:05.123456789Z"),
        (4_107_542_400, 0, "2100-03-01T00:00:00.000000000Z"),
        (253_402_300_799, 0, "9999-12-31T23:59:59.000000000Z"),
    ] {
        let time = UNIX_EPOCH + Duration::new(secs, nanos);
        assert_eq!(text(|buf| push_rfc3339(buf, time)), want);
    }
    let before = UNIX_EPOCH - Duration::new(1, 250_000_000);
    assert_eq!(text(|buf| push_rfc3339(buf, before)), "1969-12-31T23:59:58.750000000Z");
    assert_eq!(unix_time(before), (-2, 750_000_000));
}

#[test]
fn times_that_rfc_3339_cannot_write_are_the_nearest_it_can() {
    for (time, want) in [
        (UNIX_EPOCH - Duration::from_secs(62_167_219_200), "0000-01-01T00:00:00.000000000Z"),
        (UNIX_EPOCH - Duration::from_secs(62_167_219_201), "0000-01-01T00:00:00.000000000Z"),
        (UNIX_EPOCH - Duration::from_secs(1 << 60), "0000-01-01T00:00:00.000000000Z"),
        (UNIX_EPOCH + Duration::from_secs(1 << 60), "9999-12-31T23:59:59.999999999Z"),
    ] {
        assert_eq!(text(|buf| push_rfc3339(buf, time)), want);
    }
}

#[test]
fn times_agree_with_humantime_on_every_day_of_four_centuries() {
    for day in 0..146_097_u64 {
        let time = UNIX_EPOCH + Duration::from_secs(day * 86_400 + day % 86_400);
        assert_eq!(text(|buf| push_rfc3339(buf, time)), humantime::format_rfc3339_nanos(time).to_string());
    }
}

#[test]
fn numbers() {
    for n in [0, 9, 10, 4096, u64::MAX] {
        assert_eq!(text(|buf| push_u64(buf, n)), n.to_string());
    }
}

#[test]
fn base64_as_in_rfc_4648() {
    for (bytes, want) in [
        (&b""[..], ""),
        (b"f", "Zg=="),
        (b"fo", "Zm8="),
        (b"foo", "Zm9v"),
        (b"foobar", "Zm9vYmFy"),
        (b"\xff\xfe\xfd", "//79"),
    ] {
        assert_eq!(text(|buf| push_base64(buf, bytes)), want);
    }
}

#[test]
fn json_strings_read_back() {
    for (bytes, want, lossy) in [
        (&b"/srv/a"[..], "/srv/a", false),
        (b"a\"b\\c\nd\re\tf\x01\x1f\x7f", "a\"b\\c\nd\re\tf\x01\x1f\x7f", false),
        ("zażółć\u{2028}".as_bytes(), "zażółć\u{2028}", false),
        (b"a\xffb\xc3", "a\u{fffd}b\u{fffd}", true),
    ] {
        let mut buf = Vec::new();
        assert_eq!(push_json_string(&mut buf, bytes), lossy);
        assert_eq!(serde_json::from_slice::<String>(&buf).unwrap(), want);
    }
}

#[test]
fn visible_names_neither_break_a_line_nor_command_a_terminal() {
    for (bytes, want) in [
        (&b"plain name"[..], "plain name"),
        ("zażółć".as_bytes(), "zażółć"),
        (b"two\nlines\r\t", "two\\nlines\\r\\t"),
        (b"\x1b[31mred", "\\x1b[31mred"),
        (b"\x7f", "\\x7f"),
        ("c1\u{9b}31m".as_bytes(), "c1\\u{9b}31m"),
        ("gpj.\u{202e}exe".as_bytes(), "gpj.\\u{202e}exe"),
        (b"back\\slash", "back\\\\slash"),
        (b"\xff\xc3(", "\\xff\\xc3("),
    ] {
        assert_eq!(text(|buf| push_visible(buf, bytes)), want);
    }
}

#[test]
fn json_escapes_what_a_terminal_acts_on() {
    let text = "a\u{1b}\u{7f}\u{80}\u{9b}\u{9f}\u{a0}\u{200e}\u{202e}\u{2028}\u{2066}\u{61c}é€\u{1f600}b";
    let mut buf = Vec::new();
    assert!(!push_json_string(&mut buf, text.as_bytes()));
    assert_eq!(serde_json::from_slice::<String>(&buf).unwrap(), text);
    let json = String::from_utf8(buf).unwrap();
    assert_eq!(self::text(|buf| assert!(!push_json_string(buf, b"\x08\x0c/"))), r#""\u0008\u000c/""#);
    let want = r#""a\u001b\u007f\u0080\u009b\u009f\#\u200e\u202e\u2028\u2066\u061cé€😀b""#;
    assert_eq!(json, want.replace("\\#", "\u{a0}"));
}

#[test]
fn messages_are_escaped_once() {
    for (text, want) in [
        ("watch /a: no such file", "watch /a: no such file"),
        (r"C:\x and \n", r"C:\x and \n"),
        ("a\nb\u{9b}\u{202e}\u{1b}[0m\\", "a\\nb\\u{9b}\\u{202e}\\x1b[0m\\"),
        ("é€\u{1f600}", "é€\u{1f600}"),
    ] {
        assert_eq!(visible_message(text), want);
    }
}
