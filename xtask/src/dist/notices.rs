//! What the licences of the crates in the program ask for: their texts go with it.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result};

use super::components::Component;

/// How the files begin that have them; `UNLICENSE` is a licence too.
const NAMES: [&str; 6] = ["license", "licence", "copying", "notice", "unlicense", "copyright"];

const HEAD: &str = "\
hotr contains the code of others. This file lists every crate that is linked into the program or into its kernel
side, with the texts that its licence asks to pass on, as they are in the crate's package. Besides, the program
contains Rust's standard library (MIT or Apache-2.0) and glibc (LGPL-2.1 or later).
";

/// The crates, and each text once with the crates that have it.
pub(super) fn text(components: &[Component]) -> Result<Vec<u8>> {
    let mut out = HEAD.to_owned();
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    out.push('\n');
    // A crate of this repository has the licence of hotr.
    for one in components.iter().filter(|one| one.sha256.is_some()) {
        let name = format!("{} {}", one.name, one.version);
        let licence = one.licence.as_deref().unwrap_or("licence not named");
        let found = in_folder(&one.folder)?;
        let note = if found.is_empty() { "; its package has no text" } else { "" };
        out.push_str(&format!("{name}: {licence}{note}\n"));
        for text in found {
            texts.entry(text).or_default().push(name.clone());
        }
    }
    let mut texts: Vec<(Vec<String>, String)> =
        texts.into_iter().map(|(text, names)| (names, text)).collect();
    texts.sort();
    for (names, text) in texts {
        out.push_str(&format!("\n{}\n{}\n\n{text}\n", "=".repeat(80), names.join(", ")));
    }
    Ok(out.into_bytes())
}

/// The texts in a crate's folder; lines end alike, so that equal texts are found.
fn in_folder(folder: &Path) -> Result<Vec<String>> {
    let what = || format!("read the licences in {}", folder.display());
    let mut texts = Vec::new();
    for entry in fs::read_dir(folder).with_context(what)? {
        let entry = entry.with_context(what)?;
        let name = entry.file_name().to_string_lossy().to_lowercase();
        let is_text = NAMES.iter().any(|begin| name.starts_with(begin)) && !name.ends_with(".rs");
        if is_text && entry.path().is_file() {
            let bytes = fs::read(entry.path()).with_context(what)?;
            let text = String::from_utf8_lossy(&bytes).replace("\r\n", "\n");
            texts.push(text.trim().to_owned());
        }
    }
    texts.sort();
    texts.dedup();
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_two_crates_is_there_once() {
        let folder = tempfile::tempdir().unwrap();
        let component = |name: &str, files: &[(&str, &str)]| {
            let within = folder.path().join(name);
            fs::create_dir(&within).unwrap();
            files.iter().for_each(|(file, text)| fs::write(within.join(file), text).unwrap());
            Component {
                name: name.to_owned(),
                version: "1".to_owned(),
                licence: Some("MIT".to_owned()),
                sha256: Some("00".to_owned()),
                folder: within,
            }
        };
        let all = [
            component("a", &[("LICENSE-MIT", "be free\r\n"), ("license.rs", "code")]),
            component("b", &[("LICENCE", "be free\n"), ("README", "b")]),
            component("c", &[]),
            Component { sha256: None, ..component("own", &[("LICENSE", "ours")]) },
        ];
        let text = String::from_utf8(text(&all).unwrap()).unwrap();
        let body = text.strip_prefix(HEAD).unwrap();
        let expected = format!(
            "\na 1: MIT\nb 1: MIT\nc 1: MIT; its package has no text\n\n{}\na 1, b 1\n\nbe free\n",
            "=".repeat(80)
        );
        assert_eq!(body, expected);
    }
}
