//! The names of inotify's mask bits (kernel: include/uapi/linux/inotify.h).

use std::borrow::Cow;

/// Every bit that the kernel may set in an event it hands out.
const NAMES: [(u32, &str); 16] = [
    (0x0000_0001, "IN_ACCESS"),
    (0x0000_0002, "IN_MODIFY"),
    (0x0000_0004, "IN_ATTRIB"),
    (0x0000_0008, "IN_CLOSE_WRITE"),
    (0x0000_0010, "IN_CLOSE_NOWRITE"),
    (0x0000_0020, "IN_OPEN"),
    (0x0000_0040, "IN_MOVED_FROM"),
    (0x0000_0080, "IN_MOVED_TO"),
    (0x0000_0100, "IN_CREATE"),
    (0x0000_0200, "IN_DELETE"),
    (0x0000_0400, "IN_DELETE_SELF"),
    (0x0000_0800, "IN_MOVE_SELF"),
    (0x0000_2000, "IN_UNMOUNT"),
    (0x0000_4000, "IN_Q_OVERFLOW"),
    (0x0000_8000, "IN_IGNORED"),
    (0x4000_0000, "IN_ISDIR"),
];

/// The names of the set bits; bits without a name come last, as one hexadecimal number, so that nothing the
/// kernel said is left out.
pub(super) fn names(mask: u32) -> Vec<Cow<'static, str>> {
    let mut names = Vec::new();
    let mut rest = mask;
    for (bit, name) in NAMES {
        if mask & bit != 0 {
            names.push(Cow::Borrowed(name));
            rest &= !bit;
        }
    }
    if rest != 0 {
        names.push(Cow::Owned(format!("{rest:#x}")));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn bits_become_names() {
        for (mask, want) in [
            (0x80, "IN_MOVED_TO"),
            (0x4000_0100, "IN_CREATE IN_ISDIR"),
            (0x4000, "IN_Q_OVERFLOW"),
            (0x0100_0002, "IN_MODIFY 0x1000000"),
            (0x0100_0000, "0x1000000"),
            (0, ""),
        ] {
            assert_eq!(names(mask).join(" "), want);
        }
    }
}
