//! Values of options: each function turns one word into what the engine reads, or says what is wrong with it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use clap::builder::{OsStringValueParser, PossibleValue, PossibleValuesParser, TypedValueParser};
use hotr_events::{Kind, Op};
use hotr_user::options::Channels;
pub(super) use hotr_user::options::patterns as exclude_set;
use hotr_user::output::template::{Template, TemplateError};
use rustix::process::Signal;

/// Longer times are a slip of the finger, and would end no clock's count.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// A duration with its unit: `10s`, `1m 30s`, `500ms`; ten years at most.
pub(super) fn duration(word: &str) -> Result<Duration, String> {
    if !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Err(format!("a unit is needed, as in {word}s"));
    }
    match humantime::parse_duration(word) {
        Ok(time) if time <= LONGEST => Ok(time),
        Ok(_) | Err(humantime::DurationError::NumberOverflow) => {
            Err("longer than ten years, or finer than a nanosecond".to_owned())
        }
        Err(error) => Err(format!("{error}; write it as 10s, 5m or 1h30m")),
    }
}

/// An interval between two audits that the user set; none adapts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PollInterval(pub(super) Option<Duration>);

/// `auto`, or a duration of 100 ms at least.
pub(super) fn poll_interval(word: &str) -> Result<PollInterval, String> {
    if word == "auto" {
        return Ok(PollInterval(None));
    }
    let interval = duration(word)?;
    if interval < Duration::from_millis(100) {
        return Err("the interval between two audits must be at least 100ms".to_owned());
    }
    Ok(PollInterval(Some(interval)))
}

/// A share in percent, above 0 and at most 100, as a number up to 1.
pub(super) fn share(word: &str) -> Result<f64, String> {
    let number = word.strip_suffix('%').unwrap_or(word).parse::<f64>().ok();
    let share = number.filter(|share| *share > 0.0 && *share <= 100.0);
    share.map(|share| share / 100.0).ok_or_else(|| "write it as 10%, above 0% and at most 100%".to_owned())
}

/// The number of a user.
pub(super) fn user() -> impl TypedValueParser<Value = u32> {
    OsStringValueParser::new().try_map(|named| hotr_user::action::identity::uid_of(&named))
}

/// `auto`, or the channels that must run.
pub(super) fn channels(word: &str) -> Result<Channels, String> {
    if word == "auto" {
        return Ok(Channels::AUTO);
    }
    let mut channels = Channels { ebpf: false, inotify: false, required: true };
    for name in word.split(',') {
        match name {
            "ebpf" => channels.ebpf = true,
            "inotify" => channels.inotify = true,
            "auto" => return Err("auto cannot be combined with a channel".to_owned()),
            _ => return Err(format!("'{name}' is not a channel; write auto, ebpf, inotify or ebpf,inotify")),
        }
    }
    Ok(channels)
}

/// One of the contract's five operations, also by the names that other tools give them.
pub(super) fn op() -> impl TypedValueParser<Value = Op> {
    let words = Op::ALL.map(|op| PossibleValue::new(op.as_str()).aliases(other_names(op)));
    PossibleValuesParser::new(words).try_map(|word| {
        let is_it = |op: &Op| op.as_str() == word || other_names(*op).contains(&word.as_str());
        Op::ALL.into_iter().find(is_it).ok_or("not an operation")
    })
}

/// One of the kinds of confirmed changes, by the names that `trace` and other tools give them too.
pub(super) fn kind() -> impl TypedValueParser<Value = Kind> {
    let words = Kind::ALL.map(|kind| {
        let (name, others) = kind_names(kind);
        PossibleValue::new(name).aliases(others)
    });
    PossibleValuesParser::new(words).try_map(|word| {
        let is_it = |kind: &Kind| {
            let (name, others) = kind_names(*kind);
            name == word || others.contains(&word.as_str())
        };
        Kind::ALL.into_iter().find(is_it).ok_or("not a kind of change")
    })
}

/// What a kind is called, and what else.
const fn kind_names(kind: Kind) -> (&'static str, &'static [&'static str]) {
    match kind {
        Kind::Created => ("create", &["created"]),
        Kind::Removed => ("remove", &["removed", "delete"]),
        Kind::Renamed => ("rename", &["renamed"]),
        Kind::Written => ("write", &["written", "modify"]),
        Kind::Link => ("link", &[]),
    }
}

/// What inotifywait and fswatch call an operation.
const fn other_names(op: Op) -> &'static [&'static str] {
    match op {
        Op::Write => &["modify"],
        Op::Remove => &["delete"],
        Op::Create | Op::Attrib | Op::Rename => &[],
    }
}

/// A pattern of paths to leave out; checked here, joined with the others by [`exclude_set`].
pub(super) fn glob(word: &str) -> Result<String, String> {
    exclude_set([word]).map(|_| word.to_owned())
}

/// The beginning of a container's id, long enough to mean one.
pub(super) fn container_id(text: &str) -> Result<String, String> {
    let id = text.to_ascii_lowercase();
    if (4..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(id);
    }
    Err("a container's id is hexadecimal; give at least 4 digits of it".to_owned())
}

/// A cgroup: its path from the root of the unified hierarchy, or names on one.
pub(super) fn cgroup(text: &str) -> Result<String, String> {
    if text.split('/').any(|name| !name.is_empty()) || text == "/" {
        return Ok(text.to_owned());
    }
    Err("write it as in /proc/PID/cgroup, as in /system.slice".to_owned())
}

/// Lines of the user's own.
pub(super) fn template(text: &str) -> Result<Template, String> {
    Template::parse(text).map_err(|error| match &error {
        TemplateError::Unknown(name) => {
            let distance = |known: &&str| strsim::damerau_levenshtein(name, known);
            let nearest = Template::names().min_by_key(distance).unwrap_or("path");
            format!("{error}; the nearest is {{{nearest}}}")
        }
        _ => error.to_string(),
    })
}

/// A number of bytes: `512`, `64M`, `1G`.
pub(super) fn size(word: &str) -> Result<u64, String> {
    let (digits, shift) = match word.as_bytes().last() {
        Some(b'K' | b'k') => (&word[..word.len() - 1], 10),
        Some(b'M' | b'm') => (&word[..word.len() - 1], 20),
        Some(b'G' | b'g') => (&word[..word.len() - 1], 30),
        _ => (word, 0),
    };
    let number = digits.parse::<u64>().map_err(|_| "write it as 512, 64K, 64M or 1G".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "too large".to_owned())
}

/// A signal by name, with or without SIG, or by number.
pub(super) fn signal(word: &str) -> Result<Signal, String> {
    let upper = word.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let known = [
        ("HUP", Signal::HUP),
        ("INT", Signal::INT),
        ("QUIT", Signal::QUIT),
        ("KILL", Signal::KILL),
        ("USR1", Signal::USR1),
        ("USR2", Signal::USR2),
        ("TERM", Signal::TERM),
        ("CONT", Signal::CONT),
        ("STOP", Signal::STOP),
        ("WINCH", Signal::WINCH),
        ("ALRM", Signal::ALARM),
    ];
    let by_name = known.iter().find(|(known, _)| *known == name).map(|(_, signal)| *signal);
    by_name
        .or_else(|| name.parse().ok().and_then(Signal::from_named_raw))
        .ok_or_else(|| format!("'{word}' is not a signal; write {}", known.map(|(name, _)| name).join(", ")))
}

/// `KEY=VALUE`, of any bytes.
pub(super) fn variable() -> impl TypedValueParser<Value = (OsString, OsString)> {
    OsStringValueParser::new().try_map(|word| {
        let bytes = word.as_bytes();
        let equals = bytes.iter().position(|byte| *byte == b'=').filter(|at| *at > 0);
        let text = |bytes: &[u8]| OsStr::from_bytes(bytes).to_owned();
        equals.map(|at| (text(&bytes[..at]), text(&bytes[at + 1..]))).ok_or("write it as KEY=VALUE")
    })
}

/// A name of any bytes, but for none at all.
pub(super) fn name() -> impl TypedValueParser<Value = OsString> {
    OsStringValueParser::new().try_map(|word| if word.is_empty() { Err("it is empty") } else { Ok(word) })
}

/// A file's extension, with its dot or without.
pub(super) fn extension() -> impl TypedValueParser<Value = OsString> {
    OsStringValueParser::new().try_map(|word| match word.as_bytes() {
        [] | [b'.'] => Err("it is empty; write it as toml"),
        [b'.', rest @ ..] => Ok(OsStr::from_bytes(rest).to_owned()),
        _ => Ok(word),
    })
}

#[cfg(test)]
mod tests;
