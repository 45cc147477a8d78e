//! The figures of a benchmark, by key.
//!
//! In: the JSON Lines of `hotr-load`. Out: numbers, or the reason why there is none.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::Deserialize;

/// One line of `hotr-load`.
#[derive(Deserialize)]
struct Line {
    key: String,
    value: Option<f64>,
    text: Option<String>,
}

/// Numbers and texts by key, for example `cost/hotr/other/writer`.
#[derive(Debug, Default, Clone)]
pub(crate) struct Figures {
    values: BTreeMap<String, f64>,
    texts: BTreeMap<String, String>,
}

impl Figures {
    /// Reads lines, with `prefix` before each key; lines of others on the same line are an error.
    pub(crate) fn read<'a>(&mut self, prefix: &str, lines: impl IntoIterator<Item = &'a str>) -> Result<()> {
        for line in lines {
            let Line { key, value, text } =
                serde_json::from_str(line).with_context(|| format!("read the figure {line:?}"))?;
            let key = format!("{prefix}{key}");
            if let Some(value) = value {
                self.values.insert(key.clone(), value);
            }
            if let Some(text) = text {
                self.texts.insert(key, text);
            }
        }
        Ok(())
    }

    /// A number; not a number when it was not measured, which is below and above no bar.
    pub(crate) fn get(&self, key: &str) -> f64 {
        self.values.get(key).copied().unwrap_or(f64::NAN)
    }

    /// Why there is no number.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.texts.get(key).map(String::as_str)
    }

    /// The numbers whose key starts with `prefix`, which is cut off.
    pub(crate) fn below<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        self.values.iter().filter_map(move |(key, value)| Some((key.strip_prefix(prefix)?, *value)))
    }

    /// Takes over the cost figures of `tool` from a guest of its own, with that guest's plain write.
    pub(crate) fn beside(&mut self, tool: &str, other: &Self) {
        for (from, to) in [("none", format!("none@{tool}")), (tool, tool.to_owned())] {
            for (key, value) in other.below(&format!("cost/{from}/")) {
                self.values.insert(format!("cost/{to}/{key}"), value);
            }
        }
        let key = format!("cost/{tool}");
        self.texts.extend(other.text(&key).map(|text| (key.clone(), text.to_owned())));
    }

    /// Instructions that `subject` adds to a write at `place`, by the clock `clock`.
    pub(crate) fn added(&self, subject: &str, place: &str, clock: &str) -> f64 {
        let plain = self.values.get(&format!("cost/none@{subject}/{place}/{clock}")).copied();
        let plain = plain.unwrap_or_else(|| self.get(&format!("cost/none/{place}/{clock}")));
        self.get(&format!("cost/{subject}/{place}/{clock}")) - plain
    }
}

#[cfg(test)]
impl Figures {
    /// For the tests of the bars.
    pub(crate) fn of(values: &[(&str, f64)]) -> Self {
        Self {
            values: values.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect(),
            texts: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_numbers_and_texts() {
        let mut figures = Figures::default();
        let lines = [
            "{\"key\":\"a/b\",\"value\":2}",
            "{\"key\":\"a/c\",\"value\":1.5}",
            "{\"key\":\"d\",\"text\":\"no\"}",
        ];
        figures.read("x/", lines).expect("the lines are right");
        assert_eq!(figures.below("x/a/").collect::<Vec<_>>(), [("b", 2.0), ("c", 1.5)]);
        assert_eq!(figures.text("x/d"), Some("no"));
        assert!(figures.get("absent").is_nan());
        assert!(figures.read("", ["[   1.0] kernel message"]).is_err());
    }
}
