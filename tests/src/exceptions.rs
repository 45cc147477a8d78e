//! The one table of expected exceptions, `docs/coverage.toml`, compiled in.
//!
//! An exception changes what a cell expects; it never skips one. A cell that passes although an exception is
//! listed for it fails, so the table cannot grow stale.

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::expect::Expect;

/// The table as it was when this program was built.
const TABLE: &str = include_str!("../../docs/coverage.toml");

/// What happens instead of what the operation says.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(untagged)]
pub enum Instead {
    /// `absent`, `unseen` or `unsupported`.
    Word(Word),
    /// The lines differ in these fields.
    Fields(Box<Fields>),
}

/// The plain words.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Word {
    /// No line is printed.
    Absent,
    /// The programs do not see it. What only inotify receives is reported a moment later, if the run is not over then.
    Unseen,
    /// The system call itself is refused by this filesystem or kernel.
    Unsupported,
    /// The kernel may skip programs at any time. Cells that failed in a session in which hotr reported that are run
    /// again in another one, twice at the most; nothing is excused. Stands beside the other entries.
    Again,
}

/// Fields that differ, in every line of the cell or in one.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Fields {
    /// Only in the line of this number, from 0.
    pub line: Option<usize>,
    /// Only in lines of this `op`.
    pub of: Option<Box<str>>,
    /// Another `op`.
    pub op: Option<String>,
    /// Another `detail`.
    pub detail: Option<Vec<String>>,
    /// Other channels.
    pub seen_by: Option<Vec<String>>,
    /// Other `channel:cause` pairs.
    pub missed_by: Option<Vec<String>>,
    /// Another layer; the empty word means none.
    pub layer: Option<String>,
    /// Another file type; the empty word means none.
    pub file_type: Option<String>,
    /// Fields of the line that cannot be known here: `writes`, `bytes`, `pid`, `tid`, `uid`, `comm`.
    #[serde(default)]
    pub unknown: Vec<String>,
    /// The programs do not see lines with one of these words in `detail`, as with [`Word::Unseen`].
    #[serde(default)]
    pub without: Vec<String>,
}

/// One entry of the table. `op`, `fs` and `tier` are alternatives divided by `|`, with `*` for any characters.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exception {
    /// Which operations.
    pub op: String,
    /// On which filesystems.
    #[serde(default = "any")]
    pub fs: String,
    /// In which tiers.
    #[serde(default = "any")]
    pub tier: String,
    /// On which kernels: `*`, `6.12`, `<6.6`, `>=5.18`, or `5.10..6.1` with both ends. It describes kernels that
    /// were tried and is compared with the label of the run; nothing in hotr is selected by it.
    #[serde(default = "any")]
    pub kernel: String,
    /// What happens there.
    pub expect: Instead,
    /// Why, in one sentence for the reader of the documentation.
    pub reason: String,
}

fn any() -> String {
    "*".to_owned()
}

/// The table.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exceptions {
    /// Entries in the order of the file; the first that matches a cell counts.
    #[serde(default, rename = "exception")]
    pub entries: Vec<Exception>,
}

impl Exceptions {
    /// The table of this build.
    ///
    /// # Errors
    /// The table cannot be read, or an entry has an unknown kernel range.
    pub fn built_in() -> Result<Self> {
        Self::parse(TABLE).context("read docs/coverage.toml")
    }

    /// Reads a table.
    ///
    /// # Errors
    /// As [`Self::built_in`].
    pub fn parse(text: &str) -> Result<Self> {
        let table: Self = toml::from_str(text)?;
        for entry in &table.entries {
            kernel_matches(&entry.kernel, "6.12")
                .with_context(|| format!("kernel of the exception for {}", entry.op))?;
            ensure!(!entry.reason.is_empty(), "the exception for {} has no reason", entry.op);
        }
        Ok(table)
    }

    /// The first entry for a cell.
    pub fn find(&self, kernel: &str, fs: &str, tier: &str, op: &str) -> Option<&Exception> {
        self.matching(kernel, fs, tier, op).find(|entry| entry.expect != Instead::Word(Word::Again))
    }

    /// Whether cells of a session in which programs were skipped are run again.
    pub fn may_run_again(&self, kernel: &str, fs: &str, tier: &str) -> bool {
        self.matching(kernel, fs, tier, "*").any(|entry| entry.expect == Instead::Word(Word::Again))
    }

    fn matching(&self, kernel: &str, fs: &str, tier: &str, op: &str) -> impl Iterator<Item = &Exception> {
        self.entries.iter().filter(move |entry| {
            pattern_matches(&entry.op, op)
                && pattern_matches(&entry.fs, fs)
                && pattern_matches(&entry.tier, tier)
                && kernel_matches(&entry.kernel, kernel).unwrap_or(false)
        })
    }
}

impl Fields {
    /// The lines expected instead. Numbers count what is left of them.
    ///
    /// # Errors
    /// `unknown` names a field that cannot be left open.
    pub fn apply(&self, lines: &[Expect]) -> Result<Vec<Expect>> {
        let mut lines = lines.to_vec();
        lines.retain(|line| !self.leaves_out(line));
        for (number, line) in lines.iter_mut().enumerate() {
            if self.line.is_none_or(|only| only == number)
                && self.of.as_ref().is_none_or(|only| **only == *line.op)
            {
                self.apply_to(line)?;
            }
        }
        Ok(lines)
    }

    /// Whether the programs do not see what this line reports.
    pub fn leaves_out(&self, line: &Expect) -> bool {
        line.detail.iter().any(|word| self.without.contains(word))
    }

    fn apply_to(&self, line: &mut Expect) -> Result<()> {
        fn put<T: Clone>(target: &mut T, value: Option<&T>) {
            if let Some(value) = value {
                target.clone_from(value);
            }
        }
        put(&mut line.op, self.op.as_ref());
        put(&mut line.detail, self.detail.as_ref());
        put(&mut line.seen_by, self.seen_by.as_ref());
        put(&mut line.missed_by, self.missed_by.as_ref());
        put(&mut line.file_type, self.file_type.as_ref());
        if let Some(layer) = &self.layer {
            line.layer = Some(layer.clone()).filter(|word| !word.is_empty());
        }
        for field in &self.unknown {
            match field.as_str() {
                "writes" => line.writes = None,
                "bytes" => line.bytes = None,
                "pid" => line.pid = None,
                "tid" => line.tid = None,
                "uid" => line.uid = None,
                "comm" => line.comm = None,
                other => bail!("`unknown` of an exception names {other:?}"),
            }
        }
        Ok(())
    }
}

/// Whether one of the alternatives matches the whole word.
pub fn pattern_matches(pattern: &str, word: &str) -> bool {
    pattern.split('|').any(|one| {
        let Some((head, tail)) = one.split_once('*') else { return one == word };
        let Some(rest) = word.strip_prefix(head) else { return false };
        // Each further star takes the earliest place; the last piece has to be the end of the word.
        let pieces: Vec<&str> = tail.split('*').collect();
        let Some((last, middle)) = pieces.split_last() else { return true };
        let mut rest = rest;
        for piece in middle {
            let Some(at) = rest.find(piece) else { return false };
            rest = &rest[at + piece.len()..];
        }
        rest.ends_with(last)
    })
}

fn kernel_matches(range: &str, label: &str) -> Result<bool> {
    if range == "*" {
        return Ok(true);
    }
    let kernel = version(label)?;
    Ok(if let Some(below) = range.strip_prefix('<') {
        kernel < version(below)?
    } else if let Some(from) = range.strip_prefix(">=") {
        kernel >= version(from)?
    } else if let Some((from, to)) = range.split_once("..") {
        (version(from)?..=version(to)?).contains(&kernel)
    } else {
        kernel == version(range)?
    })
}

/// Major and minor number at the beginning of a release name.
fn version(label: &str) -> Result<(u32, u32)> {
    let mut numbers = label.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next().and_then(|digits| digits.parse().ok());
    next().zip(next()).with_context(|| format!("{label:?} does not begin with a kernel version like 6.12"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops;

    #[test]
    fn patterns() {
        for (pattern, word, expected) in [
            ("*", "x", true),
            ("ext4|xfs", "xfs", true),
            ("ext4|xfs", "btrfs", false),
            ("ovl-*", "ovl-xfs", true),
            ("*xfs", "ovl-xfs", true),
            ("uring-*-x", "uring-a-x", true),
            ("uring-*-x", "uring-x", false),
            ("a*b*c", "a1b2c", true),
            ("a*b*c", "a1c2b", false),
        ] {
            assert_eq!(pattern_matches(pattern, word), expected, "{pattern} {word}");
        }
    }

    #[test]
    fn kernel_ranges() {
        for (range, label, expected) in [
            ("*", "anything", true),
            ("6.1", "6.1.176-cloud", true),
            ("6.1", "6.12.1", false),
            ("<6.6", "6.1.0", true),
            ("<6.6", "6.18.44-fc", false),
            (">=5.18", "5.10.262", false),
            (">=5.18", "7.3-rc1", true),
            ("5.10..6.1", "6.1.9", true),
        ] {
            assert_eq!(kernel_matches(range, label).expect("valid"), expected, "{range} {label}");
        }
        assert!(kernel_matches("new", "6.1").is_err());
    }

    #[test]
    fn the_table_is_valid_and_names_only_operations_that_exist() {
        let table = Exceptions::built_in().expect("the table of the repository");
        for entry in &table.entries {
            assert!(
                ops::all().any(|op| pattern_matches(&entry.op, op.id)),
                "no operation is called {}",
                entry.op
            );
            if let Instead::Fields(fields) = &entry.expect {
                fields.apply(&[Expect::new("write", &["write"], "/a")]).expect("known fields");
            }
        }
    }

    #[test]
    fn fields_replace_only_what_they_name() {
        let fields = Fields {
            seen_by: Some(vec!["ebpf".into()]),
            unknown: vec!["pid".into()],
            line: Some(1),
            ..Fields::default()
        };
        let before = Expect::new("write", &["write"], "/a");
        let after = fields.apply(&[before.clone(), before.clone()]).expect("known fields");
        assert_eq!(after[0], before);
        assert_eq!(after[1], Expect { seen_by: vec!["ebpf".into()], pid: None, ..before.clone() });
        let fields = Fields { without: vec!["write".into()], ..Fields::default() };
        let other = Expect::new("create", &["open"], "/a");
        assert_eq!(fields.apply(&[before, other.clone()]).expect("known fields"), [other]);
    }
}
