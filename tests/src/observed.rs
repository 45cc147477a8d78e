//! A `change` line as hotr printed it, parsed: the only place that knows the JSON names.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// Who made the change, as far as the line says.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Actor {
    /// Process id.
    pub pid: Option<u32>,
    /// Thread id.
    pub tid: Option<u32>,
    /// User id.
    pub uid: Option<u32>,
    /// Command name.
    pub comm: Option<String>,
}

/// One `change` line.
#[derive(Clone, Debug)]
pub struct Observed {
    /// How many barriers had been seen before it.
    pub phase: usize,
    /// `op`.
    pub op: String,
    /// `detail`.
    pub detail: Vec<String>,
    /// `path`, exactly.
    pub path: PathBuf,
    /// `old_path`, exactly.
    pub old_path: Option<PathBuf>,
    /// `file_type`.
    pub file_type: Option<String>,
    /// `ino`.
    pub ino: Option<u64>,
    /// `size`.
    pub size: Option<u64>,
    /// `writes`.
    pub writes: Option<u64>,
    /// `bytes`.
    pub bytes: Option<u64>,
    /// `layer`.
    pub layer: Option<String>,
    /// `seen_by`.
    pub seen_by: Vec<String>,
    /// `missed_by` as `channel:cause`.
    pub missed_by: Vec<String>,
    /// `actor`.
    pub actor: Actor,
    /// `path` and `path_b64` do not agree, or the second is there without need.
    pub encoding_problem: Option<String>,
    /// The line itself.
    pub text: String,
}

#[derive(Deserialize)]
struct Missed {
    channel: String,
    cause: String,
}

#[derive(Deserialize)]
struct Wire {
    op: String,
    #[serde(default)]
    detail: Vec<String>,
    path: String,
    path_b64: Option<String>,
    old_path: Option<String>,
    old_path_b64: Option<String>,
    file_type: Option<String>,
    ino: Option<u64>,
    size: Option<u64>,
    writes: Option<u64>,
    bytes: Option<u64>,
    layer: Option<String>,
    #[serde(default)]
    seen_by: Vec<String>,
    #[serde(default)]
    missed_by: Vec<Missed>,
    #[serde(default)]
    actor: Actor,
}

impl Observed {
    /// Parses a line; `None` when its `type` is another than `change`.
    ///
    /// # Errors
    /// The line is no JSON object, or a `change` without the fields that each has.
    pub fn parse(text: &str, phase: usize) -> Result<Option<Self>> {
        let value: serde_json::Value =
            serde_json::from_str(text).with_context(|| format!("parse line {text}"))?;
        if value.get("type").and_then(|word| word.as_str()) != Some("change") {
            return Ok(None);
        }
        let wire: Wire = serde_json::from_value(value).with_context(|| format!("parse change {text}"))?;
        let (path, mut encoding_problem) = exact(wire.path, wire.path_b64.as_deref())?;
        let old_path = match wire.old_path {
            Some(old) => {
                let (old, problem) = exact(old, wire.old_path_b64.as_deref())?;
                encoding_problem = encoding_problem.or(problem);
                Some(old)
            }
            None => None,
        };
        Ok(Some(Self {
            phase,
            op: wire.op,
            detail: wire.detail,
            path,
            old_path,
            file_type: wire.file_type,
            ino: wire.ino,
            size: wire.size,
            writes: wire.writes,
            bytes: wire.bytes,
            layer: wire.layer,
            seen_by: wire.seen_by,
            missed_by: wire.missed_by.iter().map(|m| format!("{}:{}", m.channel, m.cause)).collect(),
            actor: wire.actor,
            encoding_problem,
            text: text.to_owned(),
        }))
    }
}

/// The exact path, and what is wrong with the pair of encodings.
fn exact(lossy: String, base64: Option<&str>) -> Result<(PathBuf, Option<String>)> {
    let Some(base64) = base64 else { return Ok((PathBuf::from(lossy), None)) };
    let path = PathBuf::from(OsString::from_vec(decode_base64(base64)?));
    let printed = String::from_utf8_lossy(path.as_os_str().as_bytes());
    let problem = if path.to_str().is_some() {
        Some("path_b64 stands beside a path that is UTF-8".to_owned())
    } else if printed != lossy {
        Some(format!("path is {lossy:?}, and the lossy form of path_b64 is {printed:?}"))
    } else {
        None
    };
    Ok((path, problem))
}

/// Standard base64 with padding.
fn decode_base64(text: &str) -> Result<Vec<u8>> {
    if !text.len().is_multiple_of(4) {
        bail!("base64 {text:?} is not a multiple of four characters");
    }
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    for quad in text.as_bytes().chunks(4) {
        let padding = quad.iter().rev().take_while(|&&byte| byte == b'=').count();
        let mut bits = 0_u32;
        for &byte in quad {
            let value = match byte {
                b'A'..=b'Z' => byte - b'A',
                b'a'..=b'z' => byte - b'a' + 26,
                b'0'..=b'9' => byte - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                b'=' => 0,
                _ => bail!("base64 {text:?} holds a character of another alphabet"),
            };
            bits = bits << 6 | u32::from(value);
        }
        out.extend_from_slice(&bits.to_be_bytes()[1..4 - padding.min(2)]);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_in_all_lengths() {
        for (text, bytes) in
            [("", &b""[..]), ("YQ==", b"a"), ("YWI=", b"ab"), ("YWJj", b"abc"), ("/w==", b"\xff")]
        {
            assert_eq!(decode_base64(text).expect("valid"), bytes);
        }
        assert!(decode_base64("abc").is_err());
        assert!(decode_base64("ab!d").is_err());
    }

    #[test]
    fn a_line_of_the_contract_is_read_whole() {
        let text = r#"{"type":"change","seq":1,"time":"2026-01-01T00:00:00.000000000Z","op":"rename",
            "detail":["rename","moved-in"],"path":"/t/\ufffd","path_b64":"L3Qv/w==","old_path":"/o/a",
            "file_type":"file","ino":7,"size":5,"layer":"bind","missed_by":[{"channel":"inotify","cause":"mmap",
            "why":"…"}],"seen_by":["ebpf"],"actor":{"pid":4,"tid":5,"uid":6,"comm":"vim","exe":"/x"}}"#;
        let seen = Observed::parse(text, 3).expect("valid").expect("change");
        assert_eq!(seen.path.as_os_str().as_bytes(), b"/t/\xff");
        assert_eq!(seen.old_path, Some(PathBuf::from("/o/a")));
        assert_eq!((seen.phase, seen.ino, seen.actor.tid), (3, Some(7), Some(5)));
        assert_eq!(seen.missed_by, ["inotify:mmap"]);
        assert!(seen.encoding_problem.is_none());
    }

    #[test]
    fn other_types_are_no_changes_and_rubbish_is_an_error() {
        assert!(Observed::parse(r#"{"type":"ready"}"#, 0).expect("valid").is_none());
        assert!(Observed::parse("hotr: 3 changes", 0).is_err());
        assert!(Observed::parse(r#"{"type":"change","op":"write"}"#, 0).is_err());
    }

    #[test]
    fn a_needless_or_wrong_base64_path_is_noticed() {
        let with = |path: &str, base64: &str| {
            let text = format!(r#"{{"type":"change","op":"write","path":"{path}","path_b64":"{base64}"}}"#);
            Observed::parse(&text, 0).expect("valid").expect("change").encoding_problem.is_some()
        };
        assert!(with("a", "YQ=="));
        assert!(with("b", "/w=="));
        assert!(!with("\u{fffd}", "/w=="));
    }
}
