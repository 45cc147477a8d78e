//! Names and paths at the edges: newline, quotes, no UTF-8, the longest name, a deep path.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::{Cell, DATA, Operation, Step, all_fs, done, exactly, open_rw, step};
use crate::expect::Expect;

/// Levels of the deep path.
const LEVELS: usize = 100;

pub(super) const OPS: &[Operation] = &[
    all_fs("name-newline", |c| create(c, b"a\nb\tc")),
    all_fs("name-quote", |c| create(c, br#"a"b'c\d $(e)"#)),
    all_fs("name-not-utf8", |c| create(c, b"a\xff\xfe\xc3(b")),
    all_fs("name-255-bytes", |c| create(c, &[b'n'; 255])),
    all_fs("name-not-utf8-rename", |c| {
        let from = c.file(OsStr::from_bytes(b"from\xff"))?;
        let to = c.inside(OsStr::from_bytes(b"to\xfe"));
        step(vec![Expect::new("rename", &["rename"], &to).from(&from)], move || {
            Ok(rustix::fs::rename(&from, &to)?)
        })
    }),
    all_fs("path-100-levels", |c| {
        let levels: PathBuf = std::iter::repeat_n("d", LEVELS).collect();
        std::fs::create_dir_all(c.inside(&levels))?;
        let path = c.file(levels.join("f"))?;
        let file = open_rw(&path)?;
        step(vec![Expect::data(path, "write", DATA.len() as u64)], move || {
            exactly(rustix::io::write(&file, DATA)?, DATA.len())
        })
    }),
    all_fs("path-100-levels-create", |c| {
        let levels: PathBuf = std::iter::repeat_n("d", LEVELS).collect();
        std::fs::create_dir_all(c.inside(&levels))?;
        create(c, levels.join("f").as_os_str().as_bytes())
    }),
];

fn create(c: &Cell<'_>, name: &[u8]) -> Step {
    let path = c.inside(OsStr::from_bytes(name));
    step(vec![Expect::new("create", &["open"], &path)], move || done(std::fs::File::create_new(&path)))
}
