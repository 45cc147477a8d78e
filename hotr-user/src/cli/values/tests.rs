//! Tables of option values.

use super::*;

#[test]
fn durations_carry_a_unit() {
    let ms = |n| Ok(Duration::from_millis(n));
    let too_long = || Err("longer than ten years, or finer than a nanosecond".to_owned());
    let unit = |word: &str| Err(format!("a unit is needed, as in {word}s"));
    for (word, want) in [
        ("10s", ms(10_000)),
        ("500ms", ms(500)),
        ("1m 30s", ms(90_000)),
        ("1h30m", ms(5_400_000)),
        ("0s", ms(0)),
        ("3650days", Ok(Duration::from_secs(3650 * 86_400))),
        ("3651days", too_long()),
        ("18446744073709551615s", too_long()),
        ("18446744073709551616s", too_long()),
        ("18446744073709551615years", too_long()),
        ("0.1ns", too_long()),
        ("10", unit("10")),
        ("1.5", unit("1.5")),
        ("", Err("value was empty; write it as 10s, 5m or 1h30m".to_owned())),
        ("-1s", Err("expected number at 0; write it as 10s, 5m or 1h30m".to_owned())),
    ] {
        assert_eq!(duration(word), want, "{word}");
    }
}

#[test]
fn channels_are_auto_or_named() {
    let of = |ebpf, inotify, required| Ok(Channels { ebpf, inotify, required });
    for (word, want) in [
        ("auto", of(true, true, false)),
        ("ebpf", of(true, false, true)),
        ("inotify", of(false, true, true)),
        ("inotify,ebpf", of(true, true, true)),
        ("ebpf,auto", Err("auto cannot be combined with a channel".to_owned())),
        ("poll", Err("'poll' is not a channel; write auto, ebpf, inotify or ebpf,inotify".to_owned())),
        ("", Err("'' is not a channel; write auto, ebpf, inotify or ebpf,inotify".to_owned())),
    ] {
        assert_eq!(channels(word), want, "{word}");
    }
}

#[test]
fn operations_have_the_names_of_other_tools_too() {
    use clap::builder::TypedValueParser as _;
    let command = clap::Command::new("x");
    let read = |word: &str| op().parse_ref(&command, None, word.as_ref()).ok();
    for (word, want) in [
        ("write", Some(Op::Write)),
        ("modify", Some(Op::Write)),
        ("remove", Some(Op::Remove)),
        ("delete", Some(Op::Remove)),
        ("attrib", Some(Op::Attrib)),
        ("open", None),
        ("", None),
    ] {
        assert_eq!(read(word), want, "{word}");
    }
}

#[test]
fn kinds_have_the_names_of_operations() {
    use clap::builder::TypedValueParser as _;
    let command = clap::Command::new("x");
    let read = |word: &str| kind().parse_ref(&command, None, word.as_ref()).ok();
    for (word, want) in [
        ("create", Some(Kind::Created)),
        ("modify", Some(Kind::Written)),
        ("written", Some(Kind::Written)),
        ("delete", Some(Kind::Removed)),
        ("rename", Some(Kind::Renamed)),
        ("link", Some(Kind::Link)),
        ("attrib", None),
    ] {
        assert_eq!(read(word), want, "{word}");
    }
}

#[test]
fn excludes_work_as_in_gitignore() {
    for (pattern, path, want) in [
        ("*.tmp", "a.tmp", true),
        ("*.tmp", "d/e/a.tmp", true),
        ("*.tmp", "a.tmpx", false),
        (".git", ".git", true),
        (".git", "d/.git/objects/aa", true),
        (".git", ".github", false),
        ("target/", "x/target/debug", true),
        ("/build", "build/x", true),
        ("/build", "d/build", false),
        ("a/*.log", "a/x.log", true),
        ("a/*.log", "a/b/x.log", false),
        ("a/**/x", "a/b/c/x", true),
        ("*.{swp,bak}", "d/x.bak", true),
    ] {
        let set = exclude_set([pattern]).unwrap();
        assert_eq!(set.is_match(path), want, "{pattern} on {path}");
    }
}

#[test]
fn a_comma_is_part_of_a_pattern() {
    let set = exclude_set(["a,b"]).unwrap();
    assert!(set.is_match("a,b"));
    assert!(!set.is_match("a"));
}

#[test]
fn bad_patterns_are_refused() {
    for (pattern, want) in [
        ("a[", "bad pattern: unclosed character class; missing ']'"),
        ("{a", "bad pattern: unclosed alternate group; missing '}' (maybe escape '{' with '[{]'?)"),
        ("", "an empty pattern matches nothing"),
        ("/", "an empty pattern matches nothing"),
    ] {
        assert_eq!(glob(pattern), Err(want.to_owned()), "{pattern}");
    }
}
