//! What a failure shows: the differences, and what hotr said and the writers did about those names.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::observed::Observed;

/// Differences that are explained; the others are counted.
const SHOWN: usize = 3;
/// Differences that are named after those.
const NAMED: usize = 30;
/// Lines of each kind about a difference.
const LINES: usize = 25;

/// One round, as far as a report needs it.
pub struct Round<'a> {
    /// The traced directory.
    pub root: &'a Path,
    /// hotr's lines of the round.
    pub lines: &'a [Observed],
    /// Lines that are no changes.
    pub others: &'a [String],
    /// What the writers did, by time.
    pub log: &'a [String],
}

/// The text of a failure.
pub fn failure(round: &Round<'_>, differences: &[(PathBuf, String)]) -> String {
    let mut text = String::new();
    for (path, what) in differences.iter().take(SHOWN) {
        let _ = writeln!(text, "  {}: {what}", path.display());
        let path = path.strip_prefix(round.root).unwrap_or(path);
        let lines = round.lines.iter().filter(|line| concerns(line, round.root, path));
        last(&mut text, "hotr", lines.map(|line| line.text.as_str()));
        let names = shown(path);
        last(&mut text, "did", round.log.iter().map(String::as_str).filter(|line| is_about(line, &names)));
    }
    for (path, what) in differences.iter().skip(SHOWN).take(NAMED) {
        let _ = writeln!(text, "  {}: {what}", path.display());
    }
    if differences.len() > SHOWN + NAMED {
        let _ = writeln!(text, "  and {} more", differences.len() - SHOWN - NAMED);
    }
    last(&mut text, "hotr", round.others.iter().map(String::as_str));
    text
}

/// Everything of a round, in the order of time.
pub fn whole(round: &Round<'_>) -> String {
    let mut text = String::new();
    for line in round.log {
        let _ = writeln!(text, "{line}");
    }
    for line in round.others {
        let _ = writeln!(text, "{line}");
    }
    for line in round.lines {
        let _ = writeln!(text, "{}", line.text);
    }
    text
}

/// The lines about a name are those about it and about directories above it.
fn concerns(line: &Observed, root: &Path, path: &Path) -> bool {
    let about = |said: &Path| {
        said.strip_prefix(root)
            .is_ok_and(|said| path == said || (path.starts_with(said) && line.op != "attrib"))
    };
    about(&line.path) || line.old_path.as_deref().is_some_and(about)
}

/// A name and the directories above it, as the writers log them.
fn shown(path: &Path) -> Vec<String> {
    path.ancestors()
        .filter(|path| !path.as_os_str().is_empty())
        .map(|path| format!("in/{}", path.display()))
        .collect()
}

fn is_about(line: &str, names: &[String]) -> bool {
    line.ends_with("= ok") && line.split([' ', ';']).any(|word| names.iter().any(|name| name == word))
}

fn last<'a>(text: &mut String, who: &str, lines: impl Iterator<Item = &'a str>) {
    let lines: Vec<_> = lines.collect();
    for line in &lines[lines.len().saturating_sub(LINES)..] {
        let _ = writeln!(text, "    {who}: {line}");
    }
}
