//! The verdict on one cell: a pure function of what was expected, what came, and what the table says.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::exceptions::{Exception, Instead, Word};
use crate::expect::{Expect, compare, compare_with_disk};
use crate::observed::Observed;
use crate::ops::OpError;

/// What became of a cell.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Exactly the expected lines.
    Pass,
    /// Exactly what the table of exceptions says.
    Exception,
    /// Anything else.
    Fail,
}

/// Everything that is known about a cell after its run.
pub(crate) struct Facts<'a> {
    /// What the operation says about itself.
    pub(crate) expect: &'a [Expect],
    /// The lines that came for it.
    pub(crate) lines: &'a [&'a Observed],
    /// The barrier interval in which it ran.
    pub(crate) phase: usize,
    /// How long it took.
    pub(crate) elapsed: Duration,
    /// Whether its system calls worked.
    pub(crate) result: &'a Result<(), OpError>,
    /// Whether the barriers around it were reported, and why not.
    pub(crate) barrier: Result<(), String>,
    /// Whether inode numbers and sizes of the lines are those of the files by their paths.
    pub(crate) on_disk: bool,
    /// The entry of the table.
    pub(crate) exception: Option<&'a Exception>,
}

/// Decides, with the reason of everything that is not a plain pass.
pub(crate) fn decide(facts: &Facts<'_>) -> (Verdict, String) {
    let fail = |why: String| (Verdict::Fail, format!("{why}{}", came(facts.lines)));
    if let Err(error) = facts.result {
        return match facts.exception {
            Some(listed)
                if listed.expect == Instead::Word(Word::Unsupported)
                    && error.is_unsupported()
                    && facts.lines.is_empty() =>
            {
                (Verdict::Exception, listed.reason.clone())
            }
            _ => fail(format!("the operation failed: {}", error.what)),
        };
    }
    if let Err(why) = &facts.barrier {
        return fail(why.clone());
    }
    let plain = differences(facts, facts.lines, facts.expect);
    match facts.exception {
        None if plain.is_empty() => (Verdict::Pass, String::new()),
        None => fail(format!("{}{}", plain.join("; "), wanted(facts.expect))),
        Some(listed) if plain.is_empty() || listed.expect == Instead::Word(Word::Unsupported) => {
            fail("an exception is listed and does not occur: remove it from docs/coverage.toml".to_owned())
        }
        Some(listed) => match differences_from(facts, &listed.expect) {
            same if same.is_empty() => (Verdict::Exception, listed.reason.clone()),
            others => fail(format!("not as the exception says: {}", others.join("; "))),
        },
    }
}

fn differences_from(facts: &Facts<'_>, instead: &Instead) -> Vec<String> {
    match instead {
        Instead::Word(Word::Unseen) => {
            let others: Vec<&Observed> =
                facts.lines.iter().filter(|line| !is_of_inotify_alone(line)).copied().collect();
            compare(&[], &others, facts.phase, facts.elapsed)
        }
        Instead::Word(_) => differences(facts, facts.lines, &[]),
        Instead::Fields(fields) => match fields.apply(facts.expect) {
            Ok(expect) => {
                let is_unseen = |line: &&&Observed| {
                    is_of_inotify_alone(line)
                        && facts.expect.iter().any(|it| it.op == line.op && fields.leaves_out(it))
                };
                let lines: Vec<&Observed> =
                    facts.lines.iter().filter(|line| !is_unseen(line)).copied().collect();
                differences(facts, &lines, &expect)
            }
            Err(error) => vec![error.to_string()],
        },
    }
}

/// Whether inotify received what the programs did not see: that is reported a moment later, if the run is not over then.
fn is_of_inotify_alone(line: &Observed) -> bool {
    line.seen_by == ["inotify"] && line.missed_by == ["ebpf:no-record"]
}

fn differences(facts: &Facts<'_>, lines: &[&Observed], expect: &[Expect]) -> Vec<String> {
    let mut out = compare(expect, lines, facts.phase, facts.elapsed);
    if facts.on_disk {
        out.extend(compare_with_disk(lines));
    }
    out
}

/// What should have come, for the reader of a failure.
fn wanted(expect: &[Expect]) -> String {
    let one = |line: &Expect| {
        let old = line.old_path.as_ref().map_or_else(String::new, |old| format!(" from {old:?}"));
        format!("\n    expected: {} {:?} {:?}{old}", line.op, line.detail, line.path)
    };
    if expect.is_empty() {
        return "\n    expected: no line".to_owned();
    }
    expect.iter().map(one).collect()
}

/// What came; a storm is shown by its beginning.
fn came(lines: &[&Observed]) -> String {
    const SHOWN: usize = 8;
    let one = |line: &&Observed| format!("\n    came in interval {}: {}", line.phase, line.text);
    let mut out: String = lines.iter().take(SHOWN).map(one).collect();
    if lines.len() > SHOWN {
        out.push_str(&format!("\n    and {} more", lines.len() - SHOWN));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exceptions::Exceptions;

    fn verdict(table: &str, line: Option<&str>, errno: Option<i32>) -> Verdict {
        let table = if table.is_empty() {
            String::new()
        } else {
            format!("[[exception]]\nop = '*'\nexpect = {table}\nreason = 'r'")
        };
        let table = Exceptions::parse(&table).expect("a valid table");
        let lines: Vec<Observed> =
            line.into_iter().filter_map(|text| crate::observed::sample(text, 1)).collect();
        let lines: Vec<&Observed> = lines.iter().collect();
        let expect = Expect { pid: None, ..Expect::data("/a", "aio", 5).by_worker() };
        let facts = Facts {
            expect: &[expect],
            lines: &lines,
            phase: 1,
            elapsed: Duration::ZERO,
            result: &errno.map_or(Ok(()), |e| Err(std::io::Error::from_raw_os_error(e).into())),
            barrier: Ok(()),
            on_disk: false,
            exception: table.entries.first(),
        };
        decide(&facts).0
    }

    const BOTH: &str = r#"{"type":"change","op":"write","detail":["aio"],"path":"/a","file_type":"file",
        "writes":1,"bytes":5,"seen_by":["ebpf","inotify"],"actor":{"pid":1,"tid":1,"uid":0,"comm":"w"}}"#;
    const ONE: &str = r#"{"type":"change","op":"write","detail":["aio"],"path":"/a","file_type":"file",
        "writes":1,"bytes":5,"seen_by":["ebpf"],"missed_by":[{"channel":"inotify","cause":"aio","why":"x"}],
        "actor":{"pid":1,"tid":1,"uid":0,"comm":"w"}}"#;
    const ALONE: &str = r#"{"type":"change","op":"write","detail":[],"path":"/a","file_type":"file",
        "seen_by":["inotify"],"missed_by":[{"channel":"ebpf","cause":"no-record","why":"x"}]}"#;
    const LEFT_OUT: &str = "{ without = ['aio'] }";
    const MISSED: &str = "{ seen_by = ['ebpf'], missed_by = ['inotify:aio'] }";

    #[test]
    fn a_cell_neither_passes_nor_is_excused_silently() {
        use Verdict::{Exception, Fail, Pass};
        for (table, line, errno, expected) in [
            ("", Some(BOTH), None, Pass),
            ("", Some(ONE), None, Fail),
            ("", None, None, Fail),
            ("", None, Some(libc::EOPNOTSUPP), Fail),
            ("'absent'", None, None, Exception),
            ("'absent'", Some(BOTH), None, Fail),
            ("'absent'", Some(ONE), None, Fail),
            ("'absent'", None, Some(libc::EOPNOTSUPP), Fail),
            ("'unsupported'", None, Some(libc::EOPNOTSUPP), Exception),
            ("'unsupported'", None, Some(libc::EIO), Fail),
            ("'unsupported'", Some(BOTH), Some(libc::EOPNOTSUPP), Fail),
            ("'unsupported'", Some(BOTH), None, Fail),
            ("'unsupported'", None, None, Fail),
            (MISSED, Some(ONE), None, Exception),
            (MISSED, Some(BOTH), None, Fail),
            (MISSED, None, None, Fail),
            (LEFT_OUT, None, None, Exception),
            (LEFT_OUT, Some(ALONE), None, Exception),
            (LEFT_OUT, Some(ONE), None, Fail),
            (LEFT_OUT, Some(BOTH), None, Fail),
            ("", Some(ALONE), None, Fail),
        ] {
            assert_eq!(verdict(table, line, errno), expected, "{table} {line:?} {errno:?}");
        }
    }
}
