//! `/proc/<pid>/mountinfo` text in, [`Mount`] values out.
//!
//! The procfs crate has a parser as well. It is not used here because it expects UTF-8, leaves the octal escapes in
//! place, and keeps super options in a `HashMap`, which loses all but one of overlay's repeated `lowerdir+=`. The
//! kernel escapes space, tab, newline, backslash (and since 6.x `#` in the source) as `\ooo`: fs/proc_namespace.c,
//! `show_mountinfo`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::{DevId, Mount};

/// Replaces the kernel's `\ooo` escapes by the bytes they stand for; anything else stays as it is.
pub(super) fn unescape_octal(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        match tail {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] if first == b'\\' => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    bytes
}

fn path(field: &[u8]) -> PathBuf {
    PathBuf::from(os(field))
}

fn os(field: &[u8]) -> OsString {
    OsString::from_vec(unescape_octal(field))
}

fn number<T: std::str::FromStr>(field: &[u8]) -> Option<T> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

/// One line without its newline; `None` when it is not of the documented form.
pub(super) fn line(text: &[u8]) -> Option<Mount> {
    // A source may be the empty string, so two spaces in a row are two separators.
    let mut fields = text.split(|&byte| byte == b' ');
    let id = number(fields.next()?)?;
    let parent = number(fields.next()?)?;
    let dev = fields.next()?;
    let colon = dev.iter().position(|&byte| byte == b':')?;
    let dev = DevId { major: number(&dev[..colon])?, minor: number(&dev[colon + 1..])? };
    let mut root = path(fields.next()?).into_os_string().into_vec();
    // A bind mount whose source directory was removed.
    let deleted = root.ends_with(b"//deleted");
    if deleted {
        root.truncate(root.len() - b"//deleted".len());
    }
    let mount_point = path(fields.next()?);
    let options = fields.next()?.to_vec();
    // Any number of optional fields (`shared:1`, `master:2`, …) up to a lone dash.
    fields.by_ref().find(|field| *field == b"-")?;
    let fs_type = os(fields.next()?);
    let source = os(fields.next()?);
    let super_options = fields.next().unwrap_or_default().to_vec();
    Some(Mount {
        id,
        parent,
        dev,
        root: PathBuf::from(OsString::from_vec(root)),
        deleted,
        mount_point,
        fs_type,
        source,
        options,
        super_options,
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_byte_survives_the_kernels_escape() {
        for byte in 1..=255_u8 {
            let escaped = match byte {
                b' ' | b'\t' | b'\n' | b'\\' | b'#' => format!("\\{byte:03o}").into_bytes(),
                other => vec![other],
            };
            let text = [b"a".as_slice(), &escaped, b"7"].concat();
            assert_eq!(unescape_octal(&text), [b'a', byte, b'7'], "byte {byte:#x}");
        }
    }

    #[test]
    fn what_is_no_escape_stays() {
        for (text, bytes) in [
            (&b"\\"[..], &b"\\"[..]),
            (b"\\04", b"\\04"),
            (b"\\048", b"\\048"),
            (b"\\477", b"\\477"),
            (b"\\0400", b" 0"),
            (b"\\134040", b"\\040"),
            (b"", b""),
        ] {
            assert_eq!(unescape_octal(text), bytes);
        }
    }

    #[test]
    fn a_line_with_everything_nasty_in_it() {
        let text =
            b"41 27 0:38 /a\\040b\xff /mnt/x\\012y\\134 rw,relatime shared:7 master:1 - fuse.sshfs  rw,opt=1";
        let mount = line(text).expect("documented form");
        assert_eq!((mount.id, mount.parent, mount.dev), (41, 27, DevId { major: 0, minor: 38 }));
        assert_eq!(mount.root, Path::new(OsStr::from_bytes(b"/a b\xff")));
        assert_eq!(mount.mount_point, Path::new("/mnt/x\ny\\"));
        assert_eq!(
            (mount.fs_type.as_os_str(), mount.source.as_os_str()),
            (OsStr::new("fuse.sshfs"), OsStr::new(""))
        );
        assert_eq!(mount.super_options, b"rw,opt=1");
        assert!(!mount.deleted);
    }

    #[test]
    fn a_removed_bind_source_is_marked() {
        let mount = line(b"1 2 8:1 /gone//deleted /m rw - ext4 /dev/a rw").expect("documented form");
        assert_eq!((mount.root.as_path(), mount.deleted), (Path::new("/gone"), true));
    }

    #[test]
    fn other_forms_are_refused() {
        for text in
            ["", "1", "x 2 8:1 / / rw - ext4 a rw", "1 2 81 / / rw - ext4 a rw", "1 2 8:1 / / rw ext4 a rw"]
        {
            assert!(line(text.as_bytes()).is_none(), "{text}");
        }
    }
}
