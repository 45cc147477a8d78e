//! Which kernel modules a guest needs, in the order they must be loaded.
//!
//! In: a module folder, as the kernel's package or `/lib/modules` has it. Out: decompressed modules, dependencies
//! first. Dependencies come from each module's own `.modinfo`, so no `modules.dep` (which packages do not ship) and
//! no `depmod` is needed. A name without a file is taken to be built in: a mount that fails later says otherwise.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::cmd;

/// What every guest needs of a kernel; the filesystems of its disks come on top.
const ALWAYS: [&str; 4] = ["virtio_pci", "virtio_blk", "loop", "overlay"];

/// A module ready to be loaded.
pub(crate) struct Module {
    /// Its name, with underscores.
    pub(crate) name: String,
    /// The decompressed file.
    pub(crate) bytes: Vec<u8>,
}

/// The modules for `filesystems` and all they depend on, in load order.
pub(crate) fn needed(folder: &Path, filesystems: &[&str]) -> Result<Vec<Module>> {
    let mut files = BTreeMap::new();
    index(folder, &mut files).with_context(|| format!("list the modules in {}", folder.display()))?;
    let mut loaded: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let roots: Vec<&str> = ALWAYS.iter().chain(filesystems).copied().collect();
    let order = closure(&roots, |name| {
        let Some(file) = files.get(name) else { return Ok(None) };
        let bytes = decompressed(file)?;
        let mut depends = hard(&bytes);
        for algorithm in soft(&bytes) {
            depends.extend(implementations(&algorithm, files.keys()));
        }
        loaded.insert(name.to_owned(), bytes);
        Ok(Some(depends))
    })?;
    Ok(order
        .into_iter()
        .filter_map(|name| loaded.remove(&name).map(|bytes| Module { name, bytes }))
        .collect())
}

/// Every module file below `folder` by its normalised name. Links (`build`, `source`) are not followed.
fn index(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            index(&entry.path(), files)?;
        } else if let Some(name) = module_name(&entry.file_name().to_string_lossy()) {
            files.insert(name, entry.path());
        }
    }
    Ok(())
}

/// `virtio-rng.ko.xz` is the module `virtio_rng`.
fn module_name(file: &str) -> Option<String> {
    let (stem, rest) = file.split_once(".ko")?;
    matches!(rest, "" | ".xz" | ".zst" | ".gz").then(|| stem.replace('-', "_"))
}

fn decompressed(file: &Path) -> Result<Vec<u8>> {
    let tool = match file.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => return fs::read(file).with_context(|| format!("read {}", file.display())),
    };
    cmd::capture(Command::new(tool).args(["-q", "-dc"]).arg(file), "unpack a kernel module")
}

/// The modules in the `depends=` entries of a module's `.modinfo`, whose entries are NUL-terminated strings.
fn hard(module: &[u8]) -> Vec<String> {
    entries(module, b"depends=")
        .flat_map(|list| list.split(',').filter(|name| !name.is_empty()).map(normalised).collect::<Vec<_>>())
        .collect()
}

/// The names after `pre:` in the `softdep=` entries: modules, or algorithms by their alias.
fn soft(module: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    for list in entries(module, b"softdep=") {
        let mut before = false;
        for word in list.split_whitespace() {
            match word {
                "pre:" => before = true,
                "post:" => before = false,
                name if before => names.push(name.trim_start_matches("crypto-").to_owned()),
                _ => {}
            }
        }
    }
    names
}

fn entries<'a>(module: &'a [u8], key: &'static [u8]) -> impl Iterator<Item = String> + 'a {
    module
        .split(|byte| *byte == 0)
        .filter_map(move |entry| entry.strip_prefix(key))
        .map(|value| String::from_utf8_lossy(value).into_owned())
}

/// Modules named for an algorithm: `blake2b-256` is in `blake2b_generic`, `crc32c` in `crc32c_cryptoapi` or others.
/// Reading every module for its aliases would take seconds.
fn implementations<'a>(algorithm: &str, modules: impl Iterator<Item = &'a String>) -> Vec<String> {
    let base = normalised(algorithm.split('-').next().unwrap_or(algorithm));
    let of_base =
        |name: &str| name.strip_prefix(&base).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'));
    modules.filter(|name| of_base(name)).cloned().collect()
}

fn normalised(name: &str) -> String {
    name.trim().replace('-', "_")
}

/// Names reachable from `roots`, each after what it depends on. `load` gives a module's dependencies, or `None` when
/// there is no such module.
fn closure(roots: &[&str], mut load: impl FnMut(&str) -> Result<Option<Vec<String>>>) -> Result<Vec<String>> {
    let mut order = Vec::new();
    let mut seen = BTreeSet::new();
    // A name is met twice: to push its dependencies, and, when these are done, to take its place.
    let mut stack: Vec<(String, bool)> = roots.iter().rev().map(|name| ((*name).to_owned(), false)).collect();
    while let Some((name, ready)) = stack.pop() {
        if ready {
            order.push(name);
        } else if seen.insert(name.clone())
            && let Some(depends) = load(&name)?
        {
            stack.push((name, true));
            stack.extend(depends.into_iter().rev().map(|name| (name, false)));
        }
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modinfo_gives_hard_and_soft_dependencies() {
        let module = b"\x7fELF\0softdep=pre: crypto-crc32c pre: blake2b-256 post: x\0depends=raid6_pq,lib-crc\0name=btrfs\0";
        assert_eq!(hard(module), ["raid6_pq", "lib_crc"]);
        assert_eq!(soft(module), ["crc32c", "blake2b-256"]);
        assert!(hard(b"depends=\0").is_empty());
    }

    #[test]
    fn an_algorithm_is_found_by_its_implementations() {
        let modules =
            ["blake2b_generic", "crc32c_cryptoapi", "crc32c_intel", "crc32", "libcrc32c"].map(str::to_owned);
        assert_eq!(implementations("crc32c", modules.iter()), ["crc32c_cryptoapi", "crc32c_intel"]);
        assert_eq!(implementations("blake2b-256", modules.iter()), ["blake2b_generic"]);
        assert!(implementations("sha256", modules.iter()).is_empty());
    }

    #[test]
    fn dependencies_are_loaded_first_and_once() {
        let load = |name: &str| {
            let names: &[&str] = match name {
                "xfs" => &["libcrc32c", "absent"],
                "btrfs" => &["xor", "libcrc32c"],
                // A circle must end.
                "xor" => &["btrfs"],
                "libcrc32c" => &[],
                _ => return Ok(None),
            };
            Ok(Some(names.iter().map(|name| (*name).to_owned()).collect()))
        };
        assert_eq!(
            closure(&["xfs", "ext4", "btrfs"], load).expect("load never fails"),
            ["libcrc32c", "xfs", "xor", "btrfs"]
        );
    }

    #[test]
    fn file_names_are_normalised() {
        assert_eq!(module_name("virtio-rng.ko.xz").as_deref(), Some("virtio_rng"));
        assert_eq!(module_name("xfs.ko").as_deref(), Some("xfs"));
        assert_eq!(module_name("modules.order"), None);
        assert_eq!(module_name("a.kora"), None);
    }
}
