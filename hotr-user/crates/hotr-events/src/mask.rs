//! The names of inotify's mask bits (kernel: include/uapi/linux/inotify.h).

use std::borrow::Cow;

/// Every bit that the kernel may set in an event that a reader gets.
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
pub fn names(mask: u32) -> Vec<Cow<'static, str>> {
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

/// What a watch may ask for besides events.
const FLAGS: [(u32, &str); 5] = [
    (0x0100_0000, "IN_ONLYDIR"),
    (0x0200_0000, "IN_DONT_FOLLOW"),
    (0x0400_0000, "IN_EXCL_UNLINK"),
    (0x2000_0000, "IN_MASK_ADD"),
    (0x8000_0000, "IN_ONESHOT"),
];

/// The names of a watch's mask, or of an fanotify mark's, which has the same bits.
pub fn watch_names(mask: u32, fanotify: bool) -> Vec<Cow<'static, str>> {
    if fanotify {
        const ON_CHILD: u32 = 0x0800_0000;
        let mut all: Vec<_> = names(mask & !ON_CHILD)
            .into_iter()
            .map(|name| match name.strip_prefix("IN_") {
                Some("ISDIR") => Cow::Borrowed("FAN_ONDIR"),
                Some(rest) => Cow::Owned(format!("FAN_{rest}")),
                None => name,
            })
            .collect();
        all.extend((mask & ON_CHILD != 0).then_some(Cow::Borrowed("FAN_EVENT_ON_CHILD")));
        return all;
    }
    let flags = FLAGS.iter().fold(0, |all, (bit, _)| all | bit);
    let mut all = names(mask & !flags);
    all.extend(FLAGS.iter().filter(|(bit, _)| mask & bit != 0).map(|(_, name)| Cow::Borrowed(*name)));
    all
}

/// The bits of inotify's names, as [`names`] and [`watch_names`] give them; nothing when one is not a name.
pub fn bits(names: &[String]) -> Option<u32> {
    names.iter().try_fold(0, |mask, text| {
        let known = NAMES.iter().chain(&FLAGS).find(|(_, name)| name == text).map(|(bit, _)| *bit);
        let bit = known.or_else(|| u32::from_str_radix(text.strip_prefix("0x")?, 16).ok())?;
        Some(mask | bit)
    })
}

#[cfg(test)]
mod tests {
    use super::{bits, names, watch_names};

    #[test]
    fn names_become_bits_again() {
        for mask in [0, 0x80, 0x4000_0100, 0x8400_0002, 0x0010_0000] {
            let names: Vec<_> = watch_names(mask, false).into_iter().map(String::from).collect();
            assert_eq!(bits(&names), Some(mask));
        }
        assert_eq!(bits(&["IN_NOTHING".to_owned()]), None);
    }

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

    #[test]
    fn a_watch_has_flags_too() {
        for (mask, fanotify, want) in [
            (0x8400_0002, false, "IN_MODIFY IN_EXCL_UNLINK IN_ONESHOT"),
            (0x4800_000a, true, "FAN_MODIFY FAN_CLOSE_WRITE FAN_ONDIR FAN_EVENT_ON_CHILD"),
        ] {
            assert_eq!(watch_names(mask, fanotify).join(" "), want);
        }
    }
}
