//! The usual eBPF object has no instruction of the messages that `cargo xtask build --log-ebpf` gives to another.
//!
//! In: the sources of the kernel side. Out: an error, unless the object is the same, instruction by instruction, as one
//! compiled from sources without any `note!`. Cargo compiles that one again only when the sources have changed.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use object::{Object as _, ObjectSection as _, SectionKind};

use super::source;
use crate::{build, paths, setup};

/// What both sides of the kernel's crate need to be compiled elsewhere.
const COPIED: [&str; 5] =
    ["Cargo.toml", "hotr-ebpf/Cargo.toml", "hotr-ebpf/Cargo.lock", "hotr-common/Cargo.toml", "rustfmt.toml"];

/// The check.
pub(super) fn check() -> Result<()> {
    let rust = setup::build()?;
    let usual = programs(&build::object(&rust)?)?;
    let copy = paths::target().join("without-messages");
    copy_sources(&copy)?;
    let bare = programs(&build::object_in(&rust, &copy.join("hotr-ebpf"))?)?;
    ensure!(
        !usual.is_empty() && usual.keys().eq(bare.keys()),
        "the two objects have other sections of programs"
    );
    for (section, instructions) in &usual {
        ensure!(
            bare[section] == *instructions,
            "the programs of section `{section}` differ from those compiled without `note!`: {} and {} bytes; nothing outside of `note!` may depend on the feature `log`",
            instructions.len(),
            bare[section].len()
        );
    }
    Ok(())
}

/// The sections of an object that have instructions.
fn programs(object: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let bytes = fs::read(object).with_context(|| format!("read {}", object.display()))?;
    let file = object::File::parse(&*bytes).with_context(|| format!("read {}", object.display()))?;
    file.sections()
        .filter(|section| section.kind() == SectionKind::Text)
        .map(|section| Ok((section.name()?.to_owned(), section.data()?.to_vec())))
        .collect()
}

/// Copies the sources, and leaves every `note!` out. What is the same already is not written.
fn copy_sources(to: &Path) -> Result<()> {
    let root = paths::root();
    let mut files: Vec<PathBuf> = COPIED.iter().map(PathBuf::from).collect();
    for folder in ["hotr-ebpf/src", "hotr-common/src"] {
        for file in source::rust_files(&root.join(folder))? {
            files.push(file.strip_prefix(root)?.to_path_buf());
        }
    }
    for file in files {
        let text =
            fs::read_to_string(root.join(&file)).with_context(|| format!("read {}", file.display()))?;
        let text = if file.starts_with("hotr-ebpf/src") { without_notes(&text) } else { text };
        let copy = to.join(&file);
        if fs::read_to_string(&copy).is_ok_and(|there| there == text) {
            continue;
        }
        if let Some(folder) = copy.parent() {
            fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        }
        fs::write(&copy, text).with_context(|| format!("write {}", copy.display()))?;
    }
    Ok(())
}

/// A source without the statements `note!(…);`, and without the module that has the macro.
fn without_notes(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut is_note = false;
    for line in text.lines() {
        let code = line.trim();
        is_note |= code.starts_with("note!(");
        if !is_note && code != "mod note;" && code != "use crate::note::note;" {
            kept.push_str(line);
        }
        // The lines stay where they are: the verifier's log names them.
        kept.push('\n');
        is_note &= !code.ends_with(");");
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_left_out_and_nothing_else() {
        let text = "use crate::note::note;\na();\nnote!(x, y);\nnote!(when b => x,\n    y(z),\n);\nc(); // note!(d);\n";
        assert_eq!(without_notes(text), "\na();\n\n\n\n\nc(); // note!(d);\n");
    }
}
