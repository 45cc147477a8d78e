//! A file of an overlay and what it was in a lower layer in, how they differ out.
//!
//! Overlay copies a file up before it is written, and when it is merely opened for writing; the directories above with it
//! (fs/overlayfs/copy_up.c `ovl_copy_up_flags`). The copy has new birth and change times, the modification time, owner,
//! mode and attributes are those of the original.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Statx, StatxFlags, statx};

use super::watched_directories::WatchedDirectory;
use crate::mounts::join;
use crate::pipeline::callpath::CallRoot;
use hotr_events::Layer;

/// Where a file below one of the traced paths is in a lower layer, or was. `roots` are those of the bases in their order.
pub(super) fn lower(roots: &[CallRoot], bases: &[WatchedDirectory], file: &Path) -> Option<PathBuf> {
    let (root, path) =
        roots.iter().zip(bases.iter().map(|base| &base.shown)).find(|(_, path)| file.starts_with(path))?;
    let rel = file.strip_prefix(path).ok()?;
    let layers = root.aliases.iter().filter(|alias| alias.layer == Some(Layer::Lower));
    layers
        .filter_map(|alias| Some(join(&alias.dir, rel.strip_prefix(&alias.prefix).ok()?)))
        .find(|file| file.symlink_metadata().is_ok())
}

/// How a file differs from the one in the lower layer; the first that does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Difference {
    /// It was only copied up.
    Nothing,
    /// Owner, mode or extended attributes.
    Attributes,
    /// Modification time or size; of a directory, the names in it.
    Content,
}

/// Compares them; nothing when there is none of its type in the lower layer.
pub(super) fn difference(file: &Path, lower: &Path) -> Option<Difference> {
    let (now, before) = (look(file)?, look(lower)?);
    if file_type(&now) != file_type(&before) {
        return None;
    }
    let content = |stat: &Statx| {
        let size = if file_type(stat) == libc::S_IFDIR { 0 } else { stat.stx_size };
        (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec, size)
    };
    let attributes = |stat: &Statx| (stat.stx_mode, stat.stx_uid, stat.stx_gid);
    Some(if content(&now) != content(&before) {
        Difference::Content
    } else if attributes(&now) != attributes(&before) || xattrs(file) != xattrs(lower) {
        Difference::Attributes
    } else {
        Difference::Nothing
    })
}

fn look(path: &Path) -> Option<Statx> {
    statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, StatxFlags::BASIC_STATS).ok()
}

fn file_type(stat: &Statx) -> u32 {
    u32::from(stat.stx_mode) & libc::S_IFMT
}

/// All extended attributes but overlay's own, which it hides.
fn xattrs(path: &Path) -> BTreeMap<OsString, Vec<u8>> {
    let names = xattr::list(path).into_iter().flatten();
    let visible = names.filter(|name| !name.as_bytes().starts_with(b"trusted.overlay."));
    let with_values = visible.filter_map(|name| {
        let value = xattr::get(path, &name).ok()??;
        Some((name, value))
    });
    with_values.collect()
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::fs::{self, File, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use rustix::fs::{XattrFlags, setxattr};
    use rustix::mount::{MountFlags, mount};

    use super::*;
    use crate::mounts::tests::in_private_namespace;

    #[test]
    fn what_was_only_copied_up_is_no_difference() {
        in_private_namespace(|dir| {
            let [lower, upper, work, merged] =
                ["lower", "upper", "work", "merged"].map(|name| dir.join(name));
            for dir in [&lower.join("opened"), &lower.join("made-in"), &upper, &work, &merged] {
                fs::create_dir_all(dir).unwrap();
            }
            for name in ["opened/f", "written", "chmod", "xattr"] {
                fs::write(lower.join(name), "old").unwrap();
            }
            let options = ["lowerdir", "upperdir", "workdir"].into_iter().zip([&lower, &upper, &work]);
            let options: Vec<String> = options.map(|(key, dir)| format!("{key}={}", dir.display())).collect();
            let options = CString::new(options.join(",")).unwrap();
            mount("hotr", &merged, "overlay", MountFlags::empty(), &*options).unwrap();
            let difference = |name: &str| difference(&merged.join(name), &lower.join(name));

            drop(File::options().append(true).open(merged.join("opened/f")).unwrap());
            assert_eq!(difference("opened/f"), Some(Difference::Nothing));
            assert_eq!(difference("opened"), Some(Difference::Nothing));
            fs::write(merged.join("written"), "new").unwrap();
            assert_eq!(difference("written"), Some(Difference::Content));
            fs::write(merged.join("made-in/f"), "new").unwrap();
            assert_eq!(difference("made-in"), Some(Difference::Content));
            assert_eq!(difference("made-in/f"), None, "it is in no lower layer");
            fs::set_permissions(merged.join("chmod"), Permissions::from_mode(0o600)).unwrap();
            assert_eq!(difference("chmod"), Some(Difference::Attributes));
            setxattr(merged.join("xattr"), "trusted.hotr", b"x", XattrFlags::empty()).unwrap();
            assert_eq!(difference("xattr"), Some(Difference::Attributes));
            // A file in place of the directory is another file.
            fs::remove_dir_all(merged.join("opened")).unwrap();
            fs::write(merged.join("opened"), "new").unwrap();
            assert_eq!(difference("opened"), None);
        });
    }
}
