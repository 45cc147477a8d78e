//! The text of `/proc/PID/fdinfo/FD` in, watches and marks out.
//!
//! The kernel writes every number in hexadecimal, and the device as it keeps it: 12 bits of major, 20 of minor
//! (kernel: fs/notify/fdinfo.c `inotify_fdinfo`, `fanotify_fdinfo`).

use crate::mounts::DevId;

/// Largest file handle (kernel: include/linux/exportfs.h `MAX_HANDLE_SZ`).
pub(super) const MAX_HANDLE: usize = 128;

/// A file handle as the filesystem made it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Handle {
    /// Which form it has.
    pub kind: i32,
    /// Its bytes.
    pub bytes: Box<[u8]>,
}

/// A watched inode: an inotify watch, or an inode mark of fanotify.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Watch {
    /// Number of the watch in its instance; 0 for fanotify.
    pub wd: i32,
    /// Inode number as the kernel keeps it.
    pub ino: u64,
    /// The superblock.
    pub dev: DevId,
    /// What it asks for.
    pub mask: u32,
    /// How to open it again.
    pub handle: Option<Handle>,
}

/// A mark of fanotify that is on more than an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WideMark {
    /// On what.
    pub on: Wide,
    /// What it asks for.
    pub mask: u64,
}

/// What a wide mark is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wide {
    /// A mount, by its id.
    Mount(u64),
    /// A whole filesystem.
    Filesystem(DevId),
}

/// What an instance has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Marks {
    /// Watched inodes.
    pub watches: Vec<Watch>,
    /// Marks of fanotify on mounts and filesystems.
    pub wide: Vec<WideMark>,
    /// Flags of a fanotify group.
    pub group_flags: Option<u32>,
}

/// Reads the text. Lines of another form are left out.
pub(super) fn parse(text: &[u8]) -> Marks {
    let mut marks = Marks::default();
    for line in text.split(|&byte| byte == b'\n') {
        let Some(space) = line.iter().position(|&byte| byte == b' ') else { continue };
        let (kind, rest) = line.split_at(space);
        match kind {
            b"inotify" => marks.watches.extend(watch(&Fields::of(rest))),
            b"fanotify" => fanotify(&Fields::of(rest), &mut marks),
            _ => {}
        }
    }
    marks
}

/// `key:value` pairs of a line.
#[derive(Default)]
struct Fields<'a> {
    wd: Option<u64>,
    ino: Option<u64>,
    sdev: Option<u64>,
    mask: Option<u64>,
    mnt_id: Option<u64>,
    flags: Option<u64>,
    handle_type: Option<u64>,
    handle: Option<&'a [u8]>,
}

impl<'a> Fields<'a> {
    fn of(text: &'a [u8]) -> Self {
        let mut fields = Self::default();
        for pair in text.split(|&byte| byte == b' ') {
            let Some(colon) = pair.iter().position(|&byte| byte == b':') else { continue };
            let value = &pair[colon + 1..];
            match &pair[..colon] {
                b"wd" => fields.wd = hex(value),
                b"ino" => fields.ino = hex(value),
                b"sdev" => fields.sdev = hex(value),
                b"mask" => fields.mask = hex(value),
                b"mnt_id" => fields.mnt_id = hex(value),
                b"flags" => fields.flags = hex(value),
                b"fhandle-type" => fields.handle_type = hex(value),
                b"f_handle" => fields.handle = Some(value),
                _ => {}
            }
        }
        fields
    }

    fn handle(&self) -> Option<Handle> {
        let text = self.handle?;
        if text.is_empty() || text.len() % 2 != 0 || text.len() > 2 * MAX_HANDLE {
            return None;
        }
        let bytes = text.chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?));
        let kind = i32::try_from(self.handle_type?).ok()?;
        Some(Handle { kind, bytes: bytes.collect::<Option<_>>()? })
    }
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

fn hex(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 16 {
        return None;
    }
    text.iter().try_fold(0, |sum, &byte| Some(sum << 4 | u64::from(digit(byte)?)))
}

fn device(sdev: u64) -> Option<DevId> {
    let sdev = u32::try_from(sdev).ok()?;
    Some(DevId::from_kernel(sdev))
}

fn watch(fields: &Fields<'_>) -> Option<Watch> {
    Some(Watch {
        wd: i32::try_from(fields.wd?).ok()?,
        ino: fields.ino?,
        dev: device(fields.sdev?)?,
        mask: u32::try_from(fields.mask?).ok()?,
        handle: fields.handle(),
    })
}

fn fanotify(fields: &Fields<'_>, marks: &mut Marks) {
    let Some(mask) = fields.mask else {
        marks.group_flags = fields.flags.and_then(|flags| u32::try_from(flags).ok());
        return;
    };
    let sdev = fields.sdev.and_then(device);
    match (fields.ino, sdev, fields.mnt_id) {
        (Some(ino), Some(dev), _) => {
            let mask = (mask & 0xffff_ffff) as u32;
            marks.watches.push(Watch { wd: 0, ino, dev, mask, handle: fields.handle() });
        }
        (None, Some(dev), _) => marks.wide.push(WideMark { on: Wide::Filesystem(dev), mask }),
        (None, None, Some(id)) => marks.wide.push(WideMark { on: Wide::Mount(id), mask }),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inotify_instance() {
        let text = b"pos:\t0\nflags:\t02004000\nmnt_id:\t15\nino:\t1038\n\
            inotify wd:1f ino:9ce01b sdev:fe00000 mask:fff ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:1be09c00271025f8\n\
            inotify wd:2 ino:1 sdev:15 mask:2 ignored_mask:0 \n";
        let marks = parse(text);
        let handle = Handle { kind: 1, bytes: [0x1b, 0xe0, 0x9c, 0, 0x27, 0x10, 0x25, 0xf8].into() };
        let dev = DevId { major: 254, minor: 0 };
        assert_eq!(
            marks.watches,
            [
                Watch { wd: 31, ino: 0x9c_e01b, dev, mask: 0xfff, handle: Some(handle) },
                Watch { wd: 2, ino: 1, dev: DevId { major: 0, minor: 0x15 }, mask: 2, handle: None },
            ]
        );
        assert_eq!((marks.wide.len(), marks.group_flags), (0, None));
    }

    #[test]
    fn a_fanotify_group() {
        let marks = parse(
            b"fanotify flags:10 event-flags:88002\n\
              fanotify mnt_id:1b mflags:0 mask:38 ignored_mask:0\n\
              fanotify sdev:fe00000 mflags:0 mask:8 ignored_mask:0\n\
              fanotify ino:2 sdev:fe00000 mflags:0 mask:3b ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:0200000000000000\n",
        );
        assert_eq!(marks.group_flags, Some(0x10));
        let dev = DevId { major: 254, minor: 0 };
        assert_eq!(
            marks.wide,
            [WideMark { on: Wide::Mount(0x1b), mask: 0x38 }, WideMark { on: Wide::Filesystem(dev), mask: 8 },]
        );
        assert_eq!(marks.watches.iter().map(|w| (w.ino, w.mask)).collect::<Vec<_>>(), [(2, 0x3b)]);
    }

    #[test]
    fn what_is_of_another_form_is_left_out() {
        for text in [
            "inotify",
            "inotify wd:x ino:1 sdev:1 mask:1",
            "inotify wd:1 ino:1 sdev:1",
            "inotify wd:1 ino:11111111111111111 sdev:1 mask:1",
            "eventfd wd:1 ino:1 sdev:1 mask:1",
        ] {
            assert_eq!(parse(text.as_bytes()), Marks::default(), "{text}");
        }
        for odd in ["f_handle:1", "f_handle:zz", "f_handle:"] {
            let text = format!("inotify wd:1 ino:1 sdev:1 mask:1 fhandle-type:1 {odd}");
            assert_eq!(parse(text.as_bytes()).watches[0].handle, None, "{odd}");
        }
    }
}
