//! A `change` line as hotr printed it, in words that can be compared.

use std::path::PathBuf;

use anyhow::{Context, Result};
use hotr_events::{Actor, Channel, Line, json};

/// One `change` line.
#[derive(Clone, Debug)]
pub struct Observed {
    /// How many barriers had been seen before it.
    pub phase: usize,
    /// `seq`.
    pub number: u64,
    /// `time`; as a text in the order of time.
    pub time: String,
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
    pub actor: Option<Actor>,
    /// It is not written as hotr writes what it says.
    pub encoding_problem: Option<String>,
    /// The line itself.
    pub text: String,
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
        let line: Line<'_> = serde_json::from_str(text).with_context(|| format!("parse line {text}"))?;
        let mut again = Vec::new();
        json::append(&mut again, &line)?;
        let encoding_problem = (again != text.as_bytes())
            .then(|| format!("what it says is written as {}", String::from_utf8_lossy(&again)));
        let Line::Change { seq, change } = line else { return Ok(None) };
        let change = change.into_owned();
        let counts = Some(change.written).filter(|written| written.writes > 0);
        let words = |all: &[Channel]| all.iter().map(ToString::to_string).collect();
        Ok(Some(Self {
            phase,
            number: seq,
            time: json::Rfc3339(change.time).to_string(),
            op: change.op.to_string(),
            detail: change.detail.into_iter().map(Into::into).collect(),
            path: change.path,
            old_path: change.old_path,
            file_type: change.file_type.map(|word| word.to_string()),
            ino: change.id.map(|id| id.ino),
            size: change.size,
            writes: counts.map(|written| written.writes),
            bytes: counts.map(|written| written.bytes),
            layer: change.layer.map(|word| word.to_string()),
            seen_by: words(&change.seen_by),
            missed_by: change.missed_by.iter().map(|one| format!("{}:{}", one.channel, one.cause)).collect(),
            actor: change.actor,
            encoding_problem,
            text: text.to_owned(),
        }))
    }
}

/// A line of which a test says only what matters to it.
#[cfg(test)]
pub(crate) fn sample(text: &str, phase: usize) -> Option<Observed> {
    let mut line = serde_json::json!({
        "seq": 1, "time": "2026-01-01T00:00:00.000000000Z", "detail": [], "seen_by": [], "missed_by": []
    });
    let given: serde_json::Map<_, _> = serde_json::from_str(text).expect("a JSON object");
    line.as_object_mut().expect("an object").extend(given);
    let line: Line<'_> = serde_json::from_value(line).expect("a line of the contract");
    let mut whole = Vec::new();
    json::append(&mut whole, &line).expect("a line is JSON");
    Observed::parse(std::str::from_utf8(&whole).expect("UTF-8"), phase).expect("a line of the contract")
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn a_line_of_the_contract_is_read_whole() {
        let text = concat!(
            r#"{"type":"change","seq":1,"time":"2026-01-01T00:00:00.000000000Z","op":"rename","#,
            r#""detail":["rename","moved-in"],"path":"/t/�","path_b64":"L3Qv/w==","old_path":"/o/a","#,
            r#""file_type":"file","ino":7,"size":5,"layer":"bind","#,
            r#""actor":{"pid":4,"tid":5,"uid":6,"comm":"vim","exe":"/x"},"seen_by":["ebpf"],"#,
            r#""missed_by":[{"channel":"inotify","cause":"mmap","why":"x"}]}"#
        );
        let seen = Observed::parse(text, 3).expect("valid").expect("change");
        assert_eq!(seen.path.as_os_str().as_bytes(), b"/t/\xff");
        assert_eq!(seen.old_path, Some(PathBuf::from("/o/a")));
        assert_eq!((seen.phase, seen.ino, seen.actor.map(|actor| actor.tid)), (3, Some(7), Some(5)));
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
            let text = format!(
                concat!(
                    r#"{{"type":"change","seq":1,"time":"2026-01-01T00:00:00.000000000Z","op":"write","#,
                    r#""detail":[],"path":"{}","path_b64":"{}","seen_by":[],"missed_by":[]}}"#
                ),
                path, base64
            );
            Observed::parse(&text, 0).expect("valid").expect("change").encoding_problem.is_some()
        };
        assert!(with("a", "YQ=="));
        assert!(with("b", "/w=="));
        assert!(!with("\u{fffd}", "/w=="));
    }
}
