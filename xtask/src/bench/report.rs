//! Results as data, as Markdown, and as JSON.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use serde::Serialize;

/// A figure and its bar.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Row {
    /// What was measured.
    pub(crate) figure: String,
    /// The value, for humans; a missed bar says by how much.
    pub(crate) measured: String,
    /// The bar.
    pub(crate) bar: String,
    /// Whether it was met.
    pub(crate) met: bool,
    /// Measures it again.
    pub(crate) command: String,
}

impl Row {
    /// A row of the benchmark `name`.
    pub(crate) fn new(name: &str, figure: &str, measured: String, bar: &str, met: bool) -> Self {
        Self {
            figure: figure.to_owned(),
            measured,
            bar: bar.to_owned(),
            met,
            command: format!("cargo xtask bench --only {name}"),
        }
    }

    /// A benchmark that gave no figures: its bars are missed.
    pub(crate) fn failed(name: String, why: &str) -> Self {
        Self::new(&name, &name, why.to_owned(), "it can be measured", false)
    }
}

/// A table without bars.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Table {
    pub(crate) title: String,
    /// What a reader must know.
    pub(crate) about: String,
    pub(crate) header: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
    pub(crate) command: String,
}

/// Everything of one run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Vec<(String, String)>,
    pub(crate) rows: Vec<Row>,
    pub(crate) tables: Vec<Table>,
}

impl Report {
    /// Nothing measured yet, on `machine`.
    pub(crate) fn new(machine: Vec<(String, String)>) -> Self {
        Self { machine, rows: Vec::new(), tables: Vec::new() }
    }

    /// bench/RESULTS.md.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::from(
            "# Benchmark results\n\nWritten by `cargo xtask bench`, everything from one run. What is compared was \
             measured in turns on the same machine;\nabsolute times are those of this machine and its load.\n\n\
             ## Figures and bars\n\n",
        );
        let rows: Vec<Vec<String>> = self
            .rows
            .iter()
            .map(|row| {
                let met = if row.met { "yes" } else { "**no**" };
                let command = format!("`{}`", row.command);
                vec![row.figure.clone(), row.measured.clone(), row.bar.clone(), met.to_owned(), command]
            })
            .collect();
        grid(&mut text, &["figure", "measured", "bar", "met", "again"].map(str::to_owned), &rows);
        for table in &self.tables {
            // Writing to a string cannot fail.
            let _ = write!(text, "\n## {}\n\n{} Again: `{}`.\n\n", table.title, table.about, table.command);
            grid(&mut text, &table.header, &table.rows);
        }
        text.push_str("\n## Machine\n\n");
        let machine: Vec<Vec<String>> =
            self.machine.iter().map(|(what, is)| vec![what.clone(), is.clone()]).collect();
        grid(&mut text, &["what", "is"].map(str::to_owned), &machine);
        text
    }

    /// bench/data/results.json.
    pub(crate) fn json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self).context("write the results as JSON")? + "\n")
    }
}

fn grid(text: &mut String, header: &[String], rows: &[Vec<String>]) {
    let mut line = |cells: &[String]| {
        for cell in cells {
            text.push_str("| ");
            text.push_str(&cell.replace('|', "\\|").replace('\n', " "));
            text.push(' ');
        }
        text.push_str("|\n");
    };
    line(header);
    line(&vec!["---".to_owned(); header.len()]);
    rows.iter().for_each(|row| line(row));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_a_document() {
        let mut report = Report::new(vec![("kernel".into(), "6.12".into())]);
        report.rows.push(Row::new("storm", "a|b", "1".into(), "≤ 2", true));
        let text = report.markdown();
        assert!(text.contains("| a\\|b | 1 | ≤ 2 | yes | `cargo xtask bench --only storm` |"), "{text}");
        assert!(text.ends_with("| kernel | 6.12 |\n"), "{text}");
    }
}
