//! Figures on their way out: one JSON object a line, so that a benchmark that stops half-way leaves what it had.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::Path,
};

use anyhow::{Context as _, Result};
use serde_json::json;

/// Where figures go.
pub(crate) struct Figures {
    out: Box<dyn Write>,
}

impl Figures {
    /// Standard output, or a file that is there or is made.
    pub(crate) fn new(file: Option<&Path>) -> Result<Self> {
        let out: Box<dyn Write> = match file {
            None => Box::new(io::stdout()),
            Some(file) => Box::new(open(file).with_context(|| format!("open {}", file.display()))?),
        };
        Ok(Self { out })
    }

    /// A number.
    pub(crate) fn value(&mut self, key: impl AsRef<str>, value: f64) -> Result<()> {
        self.line(&json!({ "key": key.as_ref(), "value": value }))
    }

    /// A count; exact below 2^53, which no benchmark reaches.
    pub(crate) fn count(&mut self, key: impl AsRef<str>, count: u64) -> Result<()> {
        self.line(&json!({ "key": key.as_ref(), "value": count }))
    }

    /// What a number cannot say: why there is none.
    pub(crate) fn text(&mut self, key: impl AsRef<str>, text: &str) -> Result<()> {
        self.line(&json!({ "key": key.as_ref(), "text": text }))
    }

    fn line(&mut self, line: &serde_json::Value) -> Result<()> {
        // One write a line: a serial line may carry other messages as well.
        let written = self.out.write_all(format!("{line}\n").as_bytes()).and_then(|()| self.out.flush());
        written.context("write a figure")
    }
}

fn open(file: &Path) -> io::Result<File> {
    let device = fs::metadata(file).is_ok_and(|meta| !meta.is_file());
    OpenOptions::new().write(true).create(!device).truncate(!device).open(file)
}

/// The middle one; the mean of two middle ones. 0 for no values.
pub(crate) fn median(values: &[f64]) -> f64 {
    let sorted = sorted(values);
    match sorted.len() {
        0 => 0.0,
        count if count % 2 == 1 => sorted[count / 2],
        count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
    }
}

/// The value that `percent` of the values do not exceed (nearest rank). 0 for no values.
pub(crate) fn percentile(values: &[f64], percent: usize) -> f64 {
    let sorted = sorted(values);
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn middle_and_rank() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert!((percentile(&hundred, 99) - 99.0).abs() < f64::EPSILON);
        assert!((percentile(&hundred, 50) - 50.0).abs() < f64::EPSILON);
        assert!((percentile(&[7.0], 99) - 7.0).abs() < f64::EPSILON);
        assert!(percentile(&[], 99).abs() < f64::EPSILON);
    }
}
