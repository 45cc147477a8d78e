//! What an operation must be reported as, and the comparison with what was reported.
//!
//! In: the expected lines of one cell and the `change` lines that hotr printed for it. Out: a list of
//! differences in words, empty when every line is there, in order, with every field, and nothing else is.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::observed::Observed;

/// The width of hotr's coalescing window: a storm may be reported in one line per window, plus the first and the last.
const WINDOW: Duration = Duration::from_millis(100);

/// One expected `change` line. `None` in an optional check means that the value is not deterministic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expect {
    /// One of the five words of the output contract.
    pub op: String,
    /// The exact `detail` list.
    pub detail: Vec<String>,
    /// The path under the traced directory (for a rename: the new name).
    pub path: PathBuf,
    /// The former name.
    pub old_path: Option<PathBuf>,
    /// The exact `file_type`.
    pub file_type: String,
    /// Number of writes.
    pub writes: Option<u64>,
    /// Number of bytes.
    pub bytes: Option<u64>,
    /// The exact `layer`, or that there is none.
    pub layer: Option<String>,
    /// The channels that saw it, as a set.
    pub seen_by: Vec<String>,
    /// `channel:cause` for each channel that missed it, as a set.
    pub missed_by: Vec<String>,
    /// Process id of the writer.
    pub pid: Option<u32>,
    /// Thread id of the writer.
    pub tid: Option<u32>,
    /// User id of the writer.
    pub uid: Option<u32>,
    /// Command name of the writer.
    pub comm: Option<String>,
    /// Many equal changes: one or more lines whose `writes` and `bytes` add up to the exact totals.
    pub repeated: bool,
}

impl Expect {
    /// A change by this very thread, received by both channels, of a regular file.
    pub fn new(op: &str, detail: &[&str], path: impl Into<PathBuf>) -> Self {
        let pid = std::process::id();
        Self {
            op: op.to_owned(),
            detail: detail.iter().map(|&word| word.to_owned()).collect(),
            path: path.into(),
            old_path: None,
            file_type: "file".to_owned(),
            writes: None,
            bytes: None,
            layer: None,
            seen_by: vec!["ebpf".to_owned(), "inotify".to_owned()],
            missed_by: Vec::new(),
            pid: Some(pid),
            tid: Some(pid),
            uid: Some(0),
            comm: Some("hotr-matrix".to_owned()),
            repeated: false,
        }
    }

    /// A write of so many bytes in one call.
    pub fn data(path: impl Into<PathBuf>, detail: &str, bytes: u64) -> Self {
        Self { writes: Some(1), bytes: Some(bytes), ..Self::new("write", &[detail], path) }
    }

    /// With a former name.
    #[must_use]
    pub fn from(self, old_path: impl Into<PathBuf>) -> Self {
        Self { old_path: Some(old_path.into()), ..self }
    }

    /// Of a file of this type.
    #[must_use]
    pub fn kind(self, file_type: &str) -> Self {
        Self { file_type: file_type.to_owned(), ..self }
    }

    /// Come in by this layer.
    #[must_use]
    pub fn layer(self, layer: &str) -> Self {
        Self { layer: Some(layer.to_owned()), ..self }
    }

    /// Missed by inotify, for this cause.
    #[must_use]
    pub fn unheard(self, cause: &str) -> Self {
        Self { seen_by: vec!["ebpf".to_owned()], missed_by: vec![format!("inotify:{cause}")], ..self }
    }

    /// Done by a thread whose id and name cannot be known before (kernel workers on behalf of the process).
    #[must_use]
    pub fn by_worker(self) -> Self {
        Self { tid: None, comm: None, ..self }
    }

    /// The differences between this expectation and one line, or the totals of several.
    fn differences(&self, seen: &Observed) -> Vec<String> {
        let mut out = Vec::new();
        let mut check = |what: &str, expected: String, got: String| {
            if expected != got {
                out.push(format!("{what}: expected {expected}, got {got}"));
            }
        };
        check("op", self.op.clone(), seen.op.clone());
        check("detail", format!("{:?}", self.detail), format!("{:?}", seen.detail));
        check("path", format!("{:?}", self.path), format!("{:?}", seen.path));
        check("old_path", format!("{:?}", self.old_path), format!("{:?}", seen.old_path));
        check(
            "file_type",
            self.file_type.clone(),
            seen.file_type
                .clone()
                .unwrap_or_else(|| if self.file_type.is_empty() { String::new() } else { absent() }),
        );
        check("layer", format!("{:?}", self.layer), format!("{:?}", seen.layer));
        check("seen_by", set(&self.seen_by), set(&seen.seen_by));
        check("missed_by", set(&self.missed_by), set(&seen.missed_by));
        let mut number = |what: &str, expected: Option<u64>, got: Option<u64>| {
            if let Some(expected) = expected {
                check(what, expected.to_string(), got.map_or_else(absent, |got| got.to_string()));
            }
        };
        number("writes", self.writes, seen.writes);
        number("bytes", self.bytes, seen.bytes);
        let actor = seen.actor.as_ref();
        number("actor.pid", self.pid.map(u64::from), actor.map(|actor| actor.pid.into()));
        number("actor.tid", self.tid.map(u64::from), actor.map(|actor| actor.tid.into()));
        number("actor.uid", self.uid.map(u64::from), actor.map(|actor| actor.uid.into()));
        if let Some(comm) = &self.comm {
            check(
                "actor.comm",
                comm.clone(),
                actor.map_or_else(absent, |actor| String::from_utf8_lossy(&actor.comm).into_owned()),
            );
        }
        if let Some(problem) = &seen.encoding_problem {
            out.push(problem.clone());
        }
        out
    }

    /// Whether a line is one of the repeats of this change.
    fn repeats(&self, seen: &Observed) -> bool {
        self.repeated && self.op == seen.op && self.path == seen.path
    }
}

fn absent() -> String {
    "nothing".to_owned()
}

fn set(words: &[String]) -> String {
    let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
    words.sort_unstable();
    format!("{words:?}")
}

/// Compares the lines of one cell. `phase` is the number of the barrier interval in which the operation ran: a
/// line that came later is a difference, unless it belongs to a repeated change. `elapsed` is how long the
/// operation took and limits the number of lines of a repeated one.
pub fn compare(expected: &[Expect], seen: &[&Observed], phase: usize, elapsed: Duration) -> Vec<String> {
    let mut out = Vec::new();
    let mut rest = seen;
    for (number, expect) in expected.iter().enumerate() {
        let count = match rest {
            [] => 0,
            [..] if expect.repeated => rest.iter().take_while(|line| expect.repeats(line)).count().max(1),
            [..] => 1,
        };
        let (these, others) = rest.split_at(count);
        rest = others;
        let Some((first, more)) = these.split_first() else {
            out.push(format!("line {number}: missing"));
            continue;
        };
        let mut total = (*first).clone();
        for line in more {
            if line.layer != expect.layer
                || line.missed_by.iter().any(|missed| !expect.missed_by.contains(missed))
            {
                let (layer, missed_by) = (&line.layer, &line.missed_by);
                out.push(format!("line {number}: a repeat has layer {layer:?}, missed_by {missed_by:?}"));
            }
            total.writes = total.writes.zip(line.writes).map(|(a, b)| a + b);
            total.bytes = total.bytes.zip(line.bytes).map(|(a, b)| a + b);
        }
        let limit = elapsed.as_nanos() / WINDOW.as_nanos() + 2;
        if expect.repeated && these.len() as u128 > limit {
            out.push(format!("line {number}: {} lines for one storm, at most {limit} allowed", these.len()));
        }
        if !expect.repeated && first.phase != phase {
            out.push(format!("line {number}: came after the barrier"));
        }
        out.extend(expect.differences(&total).into_iter().map(|text| format!("line {number}: {text}")));
    }
    out.extend(rest.iter().map(|line| format!("unexpected: {} {:?} {:?}", line.op, line.detail, line.path)));
    out
}

/// Checks `ino` and `size` of the reported lines with what the filesystem says now. Only the last line of a path has
/// its present size.
pub fn compare_with_disk(seen: &[&Observed]) -> Vec<String> {
    let mut out = Vec::new();
    for (number, line) in seen.iter().enumerate().filter(|(_, line)| line.op != "remove") {
        let Some((ino, size)) = stat(&line.path) else { continue };
        if line.ino.is_some_and(|told| told != ino) {
            out.push(format!("line {number}: ino: expected {ino}, got {:?}", line.ino));
        }
        let last = !seen[number + 1..].iter().any(|later| later.path == line.path);
        let regular = line.file_type.as_deref() == Some("file");
        if last && regular && line.size.is_some_and(|told| told != size) {
            out.push(format!("line {number}: size: expected {size}, got {:?}", line.size));
        }
    }
    out
}

fn stat(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    std::fs::symlink_metadata(path).ok().map(|meta| (meta.ino(), meta.size()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(phase: usize, json: &str) -> Observed {
        crate::observed::sample(json, phase).expect("a change line")
    }

    fn sample(extra: &str) -> String {
        let pid = std::process::id();
        format!(
            r#"{{"type":"change","op":"write","detail":["pwrite64"],"path":"/t/a","file_type":"file",
            "writes":1,"bytes":5,"seen_by":["ebpf","inotify"],
            "actor":{{"pid":{pid},"tid":{pid},"uid":0,"comm":"hotr-matrix"}}{extra}}}"#
        )
    }

    #[test]
    fn equal_lines_have_no_difference_and_each_field_counts() {
        let good = Expect::data("/t/a", "pwrite64", 5);
        let seen = line(1, &sample(""));
        assert_eq!(compare(std::slice::from_ref(&good), &[&seen], 1, WINDOW), Vec::<String>::new());
        let wrong: [(&str, Expect); 10] = [
            ("op", Expect { op: "create".into(), ..good.clone() }),
            ("detail", Expect { detail: vec!["write".into()], ..good.clone() }),
            ("path", Expect { path: "/t/b".into(), ..good.clone() }),
            ("old_path", good.clone().from("/t/c")),
            ("file_type", good.clone().kind("dir")),
            ("layer", good.clone().layer("bind")),
            ("bytes", Expect { bytes: Some(6), ..good.clone() }),
            ("seen_by", good.clone().unheard("aio")),
            ("actor.uid", Expect { uid: Some(7), ..good.clone() }),
            ("actor.comm", Expect { comm: Some("vim".into()), ..good }),
        ];
        for (field, expect) in wrong {
            let found = compare(&[expect], &[&seen], 1, WINDOW);
            assert!(found.iter().any(|text| text.contains(field)), "{field}: {found:?}");
        }
    }

    #[test]
    fn missing_extra_late_and_unordered_lines_are_differences() {
        let (a, b) = (line(1, &sample("")), line(1, &sample(r#","layer":"upper""#)));
        let expect = Expect::data("/t/a", "pwrite64", 5);
        let upper = expect.clone().layer("upper");
        assert_eq!(compare(std::slice::from_ref(&expect), &[], 1, WINDOW), ["line 0: missing"]);
        assert!(compare(&[], &[&a], 1, WINDOW)[0].starts_with("unexpected"));
        assert_eq!(compare(std::slice::from_ref(&expect), &[&line(2, &sample(""))], 1, WINDOW).len(), 1);
        assert!(compare(&[expect.clone(), upper.clone()], &[&a, &b], 1, WINDOW).is_empty());
        assert_eq!(compare(&[expect, upper], &[&b, &a], 1, WINDOW).len(), 2);
    }

    #[test]
    fn a_storm_is_the_exact_total_in_few_lines() {
        let (first, rest) = (line(1, &sample("")), line(2, &sample("")));
        let total = |writes, bytes| Expect {
            writes: Some(writes),
            bytes: Some(bytes),
            repeated: true,
            ..Expect::data("/t/a", "pwrite64", 5)
        };
        assert!(compare(&[total(2, 10)], &[&first, &rest], 1, Duration::ZERO).is_empty());
        assert_eq!(compare(&[total(3, 10)], &[&first, &rest], 1, Duration::ZERO).len(), 1);
        assert_eq!(compare(&[total(3, 15)], &[&first, &rest, &rest], 1, Duration::ZERO).len(), 1);
    }
}
