//! Overlay super options in, layers out.
//!
//! What the kernel prints differs by age: `lowerdir=a:b::data` with the mounter's own backslash escapes (up to 6.4,
//! and whenever it was mounted that way), or `lowerdir+=a,lowerdir+=b,datadir+=data` where every value is one path.
//! Around that, `seq_show_option` escapes `,= \t\n\\` in octal (fs/overlayfs/params.c, `ovl_show_options`; before
//! 6.5 in super.c), so a comma in the text always separates options.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::Mount;
use super::parse::unescape_octal;

/// What a layer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LayerKind {
    /// Takes the writes.
    Upper,
    /// Overlay's scratch directory beside the upper one; never part of what is seen.
    Work,
    /// Read-only, merged by name.
    Lower,
    /// Read-only, holds content that other layers refer to; its names are not merged.
    Data,
}

/// A layer of an overlay mount, topmost first.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OverlayLayer {
    /// What it is for.
    pub kind: LayerKind,
    /// Its directory as the mounter named it: in the mounter's namespace, and possibly relative to the mounter's
    /// working directory.
    pub dir: PathBuf,
    /// `dir` without taking backslashes away, when there are any: a layer given by file descriptor is printed
    /// without the escapes that one given by name has.
    pub literal: Option<PathBuf>,
}

impl OverlayLayer {
    fn new(kind: LayerKind, escaped: &[u8]) -> Self {
        let literal = escaped.contains(&b'\\').then(|| path(escaped.to_vec()));
        Self { kind, dir: path(unescape_backslash(escaped)), literal }
    }

    fn plain(kind: LayerKind, name: Vec<u8>) -> Self {
        Self { kind, dir: path(name), literal: None }
    }

    /// The names under which the directory may be found, most likely first; none when they are relative.
    pub(super) fn candidates(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(self.dir.as_path()).chain(self.literal.as_deref()).filter(|dir| dir.is_absolute())
    }
}

fn path(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes))
}

/// `ovl_unescape`: a backslash quotes the byte after it.
fn unescape_backslash(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(&byte) = rest.next() {
        match byte {
            b'\\' => bytes.extend(rest.next()),
            other => bytes.push(other),
        }
    }
    bytes
}

/// Splits at colons that no backslash quotes. `::` makes everything after it data-only.
fn split_lower(text: &[u8]) -> Vec<OverlayLayer> {
    let mut parts = vec![Vec::new()];
    let mut rest = text.iter();
    while let Some(&byte) = rest.next() {
        let last = parts.len() - 1;
        match byte {
            b':' => parts.push(Vec::new()),
            b'\\' => {
                parts[last].push(byte);
                parts[last].extend(rest.next());
            }
            other => parts[last].push(other),
        }
    }
    let mut kind = LayerKind::Lower;
    let mut layers = Vec::new();
    for part in parts {
        if part.is_empty() {
            kind = LayerKind::Data;
        } else {
            layers.push(OverlayLayer::new(kind, &part));
        }
    }
    layers
}

/// The layers of an overlay mount, upper first, then the lower ones from top to bottom; empty for other mounts.
#[must_use]
pub fn overlay_layers(mount: &Mount) -> Vec<OverlayLayer> {
    if !mount.is_overlay() {
        return Vec::new();
    }
    let mut layers = Vec::new();
    for option in mount.super_options.split(|&byte| byte == b',') {
        let Some(equals) = option.iter().position(|&byte| byte == b'=') else { continue };
        let value = unescape_octal(&option[equals + 1..]);
        match &option[..equals] {
            b"upperdir" => layers.push(OverlayLayer::new(LayerKind::Upper, &value)),
            b"workdir" => layers.push(OverlayLayer::new(LayerKind::Work, &value)),
            b"lowerdir" => layers.extend(split_lower(&value)),
            b"lowerdir+" => layers.push(OverlayLayer::plain(LayerKind::Lower, value)),
            b"datadir+" => layers.push(OverlayLayer::plain(LayerKind::Data, value)),
            _ => {}
        }
    }
    // Stable: the order among the lower layers is the order of merging.
    layers.sort_by_key(|layer| layer.kind != LayerKind::Upper);
    layers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mounts::parse;

    fn layers(options: &str) -> Vec<(LayerKind, String)> {
        let line = format!("1 2 0:5 / /m rw - overlay overlay {options}");
        let mount = parse::line(line.as_bytes()).expect("documented form");
        let text = |dir: PathBuf| dir.into_os_string().into_string().expect("tests are UTF-8");
        overlay_layers(&mount).into_iter().map(|layer| (layer.kind, text(layer.dir))).collect()
    }

    #[test]
    fn every_known_way_of_printing_layers() {
        use LayerKind::{Data, Lower, Upper, Work};
        let cases: &[(&str, &[(LayerKind, &str)])] = &[
            ("rw,lowerdir=/l,upperdir=/u,workdir=/w", &[(Upper, "/u"), (Lower, "/l"), (Work, "/w")]),
            ("ro,lowerdir=/a:/b:/c", &[(Lower, "/a"), (Lower, "/b"), (Lower, "/c")]),
            ("ro,lowerdir=/a::/d1::/d2", &[(Lower, "/a"), (Data, "/d1"), (Data, "/d2")]),
            ("ro,lowerdir+=/a,lowerdir+=/b:c,datadir+=/d", &[(Lower, "/a"), (Lower, "/b:c"), (Data, "/d")]),
            // `lowerdir=/a\:b` and a backslash that quotes itself, as octal of seq_show_option.
            ("rw,lowerdir=/a\\134:b:/c\\134\\134d", &[(Lower, "/a:b"), (Lower, "/c\\d")]),
            ("rw,lowerdir=/x\\134\\054y,upperdir=/u\\040v", &[(Upper, "/u v"), (Lower, "/x,y")]),
            ("rw,lowerdir=rel:../up,xino=off,userxattr", &[(Lower, "rel"), (Lower, "../up")]),
            ("rw,xino=on", &[]),
        ];
        for (options, expected) in cases {
            let expected: Vec<_> = expected.iter().map(|(kind, dir)| (*kind, (*dir).to_owned())).collect();
            assert_eq!(layers(options), expected, "{options}");
        }
    }

    #[test]
    fn a_backslash_may_also_be_part_of_the_name() {
        let layer = OverlayLayer::new(LayerKind::Upper, b"/u\\v");
        let names: Vec<_> = layer.candidates().collect();
        assert_eq!(names, [Path::new("/uv"), Path::new("/u\\v")]);
        assert_eq!(OverlayLayer::new(LayerKind::Upper, b"u").candidates().count(), 0);
    }

    #[test]
    fn other_file_systems_have_no_layers() {
        let mount = parse::line(b"1 2 0:5 / /m rw - ext4 x lowerdir=/l").expect("documented form");
        assert_eq!(overlay_layers(&mount), []);
    }
}
