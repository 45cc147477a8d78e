//! Values of options: each function turns one word into what the engine reads, or says what is wrong with it.

use std::time::Duration;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use hotr_user::event::Op;
use hotr_user::options::Channels;

/// A duration with its unit: `10s`, `1m 30s`, `500ms`.
pub(super) fn duration(word: &str) -> Result<Duration, String> {
    if !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Err(format!("a unit is needed, as in {word}s"));
    }
    humantime::parse_duration(word).map_err(|error| format!("{error}; write it as 10s, 5m or 1h30m"))
}

/// `auto`, or the channels that must run.
pub(super) fn channels(word: &str) -> Result<Channels, String> {
    if word == "auto" {
        return Ok(Channels { ebpf: true, inotify: true, required: false });
    }
    let mut channels = Channels { ebpf: false, inotify: false, required: true };
    for name in word.split(',') {
        match name {
            "ebpf" => channels.ebpf = true,
            "inotify" => channels.inotify = true,
            "auto" => return Err("auto stands alone".to_owned()),
            _ => return Err(format!("'{name}' is not a channel; write auto, ebpf, inotify or ebpf,inotify")),
        }
    }
    Ok(channels)
}

/// One of the contract's five operations.
pub(super) fn op(word: &str) -> Result<Op, String> {
    Op::ALL.into_iter().find(|op| op.as_str() == word).ok_or_else(|| format!("'{word}' is not an operation"))
}

/// A pattern of paths to leave out; checked here, joined with the others by [`exclude_set`].
pub(super) fn glob(word: &str) -> Result<String, String> {
    exclude_set([word]).map(|_| word.to_owned())
}

/// Patterns as in .gitignore: one without a slash matches a name at any depth, one with a slash is relative to
/// the root; both also match everything below what they match.
pub(super) fn exclude_set<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<GlobSet, String> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let name = pattern.strip_suffix('/').unwrap_or(pattern);
        let (prefix, name) = match name.strip_prefix('/') {
            Some(anchored) => ("", anchored),
            None if name.contains('/') => ("", name),
            None => ("**/", name),
        };
        if name.is_empty() {
            return Err("an empty pattern matches nothing".to_owned());
        }
        for whole in [format!("{prefix}{name}"), format!("{prefix}{name}/**")] {
            let glob = GlobBuilder::new(&whole)
                .literal_separator(true)
                .build()
                .map_err(|error| format!("bad pattern: {}", error.kind()))?;
            set.add(glob);
        }
    }
    set.build().map_err(|error| format!("bad pattern: {}", error.kind()))
}

#[cfg(test)]
mod tests;
