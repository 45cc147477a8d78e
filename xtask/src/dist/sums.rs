//! Hashes of files, as `sha256sum --check` reads them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

/// SHA-256, in hexadecimal.
pub(super) fn sha256(bytes: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(bytes))
}

/// One line for each file below the folder, sorted by name.
pub(super) fn of(folder: &Path) -> Result<Vec<u8>> {
    let mut lines = String::new();
    for name in files(folder)? {
        let file = folder.join(&name);
        let bytes = fs::read(&file).with_context(|| format!("read {}", file.display()))?;
        lines.push_str(&format!("{}  {}\n", sha256(&bytes), name.display()));
    }
    Ok(lines.into_bytes())
}

/// Every file below a folder, sorted, by its name from there.
pub(super) fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut names = Vec::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(within) = waiting.pop() {
        let path = folder.join(&within);
        for entry in fs::read_dir(&path).with_context(|| format!("read {}", path.display()))? {
            let entry = entry.with_context(|| format!("read {}", path.display()))?;
            let name = within.join(entry.file_name());
            if entry.file_type().with_context(|| format!("read {}", path.display()))?.is_dir() {
                waiting.push(name);
            } else {
                names.push(name);
            }
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_of_sha256sum() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("d")).unwrap();
        fs::write(folder.path().join("d/abc"), "abc").unwrap();
        fs::write(folder.path().join("a"), "").unwrap();
        let expected = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  a\n\
            ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  d/abc\n";
        assert_eq!(String::from_utf8(of(folder.path()).unwrap()).unwrap(), expected);
    }
}
