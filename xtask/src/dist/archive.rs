//! Tar and gzip without anything of the machine or the moment: owners are root, times are the commit's, names are sorted.

use std::io::Write as _;

use anyhow::{Context as _, Result, ensure};
use flate2::{Compression, GzBuilder};
use tar::{Builder, EntryType, Header};

use super::tree::{File, Tree, folders};

/// Most bytes of a name in the oldest header, which every reader knows.
const NAME: usize = 100;

/// An archive of the files and of the folders above them. Every name begins with `prefix`.
pub(super) fn tar(tree: &Tree, prefix: &str, time: u64) -> Result<Vec<u8>> {
    let mut builder = Builder::new(Vec::new());
    let mut add = |name: &str, kind: EntryType, mode: u32, content: &[u8]| -> Result<()> {
        let mut header = Header::new_gnu();
        let bytes = name.as_bytes();
        ensure!(bytes.len() <= NAME, "archive {name}: its name has more than {NAME} bytes; shorten it");
        header.as_old_mut().name[..bytes.len()].copy_from_slice(bytes);
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(u64::try_from(content.len()).context("archive a file")?);
        header.set_mtime(time);
        header.set_uid(0);
        header.set_gid(0);
        header.set_username("root").context("archive a file")?;
        header.set_groupname("root").context("archive a file")?;
        header.set_cksum();
        builder.append(&header, content).with_context(|| format!("archive {name}"))
    };
    if !prefix.is_empty() {
        add(prefix, EntryType::Directory, 0o755, &[])?;
    }
    // A folder's name is the beginning of all names in it, so order of names puts it first.
    let mut entries: Vec<(String, Option<&File>)> =
        folders(tree).into_iter().map(|name| (format!("{prefix}{name}/"), None)).collect();
    entries.extend(tree.iter().map(|(name, file)| (format!("{prefix}{name}"), Some(file))));
    entries.sort_by(|left, right| left.0.cmp(&right.0));
    for (name, file) in entries {
        match file {
            None => add(&name, EntryType::Directory, 0o755, &[])?,
            Some(file) => add(&name, EntryType::Regular, file.mode, &file.content)?,
        }
    }
    builder.into_inner().context("end the archive")
}

/// Compressed as well as gzip can, with no time and no name inside.
pub(super) fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzBuilder::new().write(Vec::new(), Compression::best());
    encoder.write_all(bytes).context("compress")?;
    encoder.finish().context("compress")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dist::tree::file;

    #[test]
    fn an_archive_has_folders_before_files_and_nothing_of_the_machine() {
        let tree = Tree::from([
            ("usr/share/a".to_owned(), file("a")),
            ("usr/bin/hotr".to_owned(), File { mode: 0o755, content: b"program".to_vec() }),
        ]);
        let bytes = tar(&tree, "./", 7).unwrap();
        let mut archive = tar::Archive::new(&*bytes);
        let entries: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                assert_eq!(
                    (header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()),
                    (0, 0, 7)
                );
                (
                    String::from_utf8(entry.path_bytes().to_vec()).unwrap(),
                    header.mode().unwrap(),
                    header.size().unwrap(),
                )
            })
            .collect();
        let names: Vec<_> = entries.iter().map(|entry| entry.0.as_str()).collect();
        assert_eq!(names, ["./", "./usr/", "./usr/bin/", "./usr/bin/hotr", "./usr/share/", "./usr/share/a"]);
        assert_eq!((entries[3].1, entries[3].2), (0o755, 7));
        assert_eq!(gzip(&bytes).unwrap(), gzip(&bytes).unwrap());
        let long = Tree::from([("x".repeat(101), file(""))]);
        assert!(tar(&long, "", 0).unwrap_err().to_string().contains("shorten it"));
    }
}
