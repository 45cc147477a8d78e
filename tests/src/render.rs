//! The table section of docs/coverage.md out of result files.
//!
//! In: result files of `hotr-matrix run`. Out: Markdown with the totals of each run, one row an operation that is
//! not the same everywhere, and the exceptions with their reasons.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::exceptions::{Exceptions, Instead, Word};
use crate::groups::GROUPS;
use crate::run::Outcome;
use crate::verdict::Verdict;

const BEGIN: &str = "<!-- matrix: generated from the last run, do not edit -->";
const END: &str = "<!-- matrix: end -->";

/// Reads a result file.
///
/// # Errors
/// It cannot be read, holds another line, or has no end line: a run that was cut short proves nothing.
pub fn read(path: &Path) -> Result<Vec<Outcome>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let mut out = Vec::new();
    let mut cells = None;
    for line in text.lines() {
        let value: serde_json::Value =
            serde_json::from_str(line).with_context(|| format!("parse {} line {line}", path.display()))?;
        if value["end"] == true {
            cells = value["cells"].as_u64();
        } else {
            out.push(serde_json::from_value(value).with_context(|| format!("understand line {line}"))?);
        }
    }
    if cells != Some(out.len() as u64) {
        bail!("{}: {} cells, and the end line says {cells:?}; run it again", path.display(), out.len());
    }
    // Cases beside the matrix are no cells of the table.
    out.retain(|outcome: &Outcome| !GROUPS.iter().any(|group| group.place == outcome.fs));
    Ok(out)
}

/// The section.
///
/// # Errors
/// Formatting, which does not fail on a string.
pub fn section(outcomes: &[Outcome], table: &Exceptions) -> Result<String> {
    let mut out = format!("{BEGIN}\n\n## Runs\n\n| kernel | filesystem | tier | pass | exception | fail |\n");
    out.push_str("| --- | --- | --- | ---: | ---: | ---: |\n");
    for ((kernel, fs, tier), [pass, exception, fail]) in totals(outcomes) {
        writeln!(out, "| {kernel} | {fs} | {tier} | {pass} | {exception} | {fail} |")?;
    }
    out.push_str("\n## Operations\n\n");
    operations(&mut out, outcomes)?;
    out.push_str("\n## Exceptions\n\n| operation | filesystem | tier | kernel | instead | reason |\n");
    out.push_str("| --- | --- | --- | --- | --- | --- |\n");
    for entry in &table.entries {
        let instead = match &entry.expect {
            Instead::Word(Word::Absent) => "no line".to_owned(),
            Instead::Word(Word::Unseen) => "no line of the ebpf channel".to_owned(),
            Instead::Word(Word::Again) => "run again where hotr reports skipped programs".to_owned(),
            Instead::Word(Word::Unsupported) => "refused by the filesystem".to_owned(),
            Instead::Fields(fields) => changed_fields(fields),
        };
        let words = [&entry.op, &entry.fs, &entry.tier, &entry.kernel, &instead, &entry.reason];
        let words: Vec<String> = words.iter().map(|word| word.replace('|', ", ")).collect();
        writeln!(out, "| {} |", words.join(" | "))?;
    }
    out.push('\n');
    out.push_str(END);
    out.push('\n');
    Ok(out)
}

/// Passes, exceptions and failures of each (kernel, filesystem, tier).
pub fn totals(outcomes: &[Outcome]) -> BTreeMap<(&str, &str, &str), [usize; 3]> {
    let mut out = BTreeMap::new();
    for o in outcomes {
        let counts: &mut [usize; 3] = out.entry((&*o.kernel, &*o.fs, &*o.tier)).or_default();
        counts[o.result as usize] += 1;
    }
    out
}

/// One row an operation, one column a filesystem: `✓`, or which runs differ.
fn operations(out: &mut String, outcomes: &[Outcome]) -> Result<()> {
    let filesystems: BTreeSet<&str> = outcomes.iter().map(|o| &*o.fs).collect();
    let mut order: Vec<&str> = Vec::new();
    let mut known = BTreeSet::new();
    let mut cells: BTreeMap<(&str, &str), Vec<&Outcome>> = BTreeMap::new();
    for o in outcomes {
        if known.insert(&*o.op) {
            order.push(&o.op);
        }
        cells.entry((&o.op, &o.fs)).or_default().push(o);
    }
    writeln!(
        out,
        "`✓` all runs as specified, `≠` as an exception says, `✗` otherwise; a number: in how many runs.\n"
    )?;
    let names: Vec<&str> = filesystems.iter().copied().collect();
    writeln!(out, "| operation | {} |\n| --- |{}", names.join(" | "), " :---: |".repeat(names.len()))?;
    for op in order {
        write!(out, "| {op} |")?;
        for fs in &filesystems {
            write!(out, " {} |", cells.get(&(op, fs)).map_or_else(|| "–".to_owned(), |runs| mark(runs)))?;
        }
        out.push('\n');
    }
    Ok(())
}

fn mark(runs: &[&Outcome]) -> String {
    let count = |verdict| runs.iter().filter(|run| run.result == verdict).count();
    let kinds = [(Verdict::Pass, "✓"), (Verdict::Exception, "≠"), (Verdict::Fail, "✗")];
    let present: Vec<(usize, &str)> =
        kinds.into_iter().map(|(verdict, sign)| (count(verdict), sign)).filter(|(n, _)| *n > 0).collect();
    match present.as_slice() {
        [(_, sign)] => (*sign).to_owned(),
        several => several.iter().map(|(n, sign)| format!("{n}{sign}")).collect::<Vec<_>>().join(" "),
    }
}

fn changed_fields(fields: &crate::exceptions::Fields) -> String {
    let mut out = Vec::new();
    let mut list = |name: &str, words: Option<&Vec<String>>| {
        if let Some(words) = words {
            out.push(format!(
                "{name} {}",
                if words.is_empty() { "nothing".to_owned() } else { words.join(" ") }
            ));
        }
    };
    list("detail", fields.detail.as_ref());
    list("seen by", fields.seen_by.as_ref());
    list("missed by", fields.missed_by.as_ref());
    list("op", fields.op.clone().map(|word| vec![word]).as_ref());
    list("layer", fields.layer.clone().map(|word| vec![word]).as_ref());
    list("file type", fields.file_type.clone().map(|word| vec![word]).as_ref());
    if !fields.unknown.is_empty() {
        out.push(format!("unknown {}", fields.unknown.join(" ")));
    }
    out.join("; ")
}

/// Puts the section into a document in place of the former one.
///
/// # Errors
/// The document has no place for it.
pub fn replace(document: &str, section: &str) -> Result<String> {
    let begin = document.find(BEGIN).with_context(|| format!("no line `{BEGIN}` in the document"))?;
    let end = document[begin..].find(END).with_context(|| format!("no line `{END}` after it"))? + begin;
    let rest = document[end + END.len()..].trim_start_matches('\n');
    Ok(format!("{}{section}{rest}", &document[..begin]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(fs: &str, tier: &str, op: &str, result: Verdict) -> Outcome {
        Outcome {
            kernel: "6.12".into(),
            fs: fs.into(),
            tier: tier.into(),
            op: op.into(),
            result,
            why: String::new(),
        }
    }

    #[test]
    fn a_section_shows_totals_and_marks_and_replaces_the_former_one() {
        let outcomes = [
            outcome("ext4", "fentry", "write", Verdict::Pass),
            outcome("ext4", "kprobe", "write", Verdict::Fail),
            outcome("xfs", "fentry", "write", Verdict::Pass),
            outcome("xfs", "fentry", "clone", Verdict::Exception),
        ];
        let table = Exceptions::parse(
            "[[exception]]\nop = 'clone|write'\nfs = 'ext4'\nexpect = 'unsupported'\nreason = 'No reflinks.'",
        )
        .expect("a valid table");
        let text = section(&outcomes, &table).expect("no errors on strings");
        for line in [
            "| 6.12 | ext4 | kprobe | 0 | 0 | 1 |",
            "| 6.12 | xfs | fentry | 1 | 1 | 0 |",
            "| write | 1✓ 1✗ | ✓ |",
            "| clone | – | ≠ |",
            "| clone, write | ext4 | * | * | refused by the filesystem | No reflinks. |",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
        let document = format!("# Coverage\n\n{BEGIN}\nold\n{END}\n\nend\n");
        let new = replace(&document, &text).expect("there is a place");
        assert!(new.starts_with("# Coverage") && new.ends_with("end\n") && !new.contains("old"));
        assert_eq!(replace(&new, &text).expect("again"), new);
        assert!(replace("# Coverage", &text).is_err());
    }
}
