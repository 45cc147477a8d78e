//! Renames: in place, across directories and the border of the traced tree, and with flags.

use rustix::fs::{CWD, RenameFlags, rename, renameat_with};

use super::{Cell, DATA, Operation, Step, all_fs, exactly, make_file, open_rw, step};
use crate::expect::Expect;

pub(super) const OPS: &[Operation] = &[
    all_fs("rename", |c| {
        let from = c.file("from")?;
        let to = c.inside("to");
        plain(from, to, &["rename"], "file")
    }),
    all_fs("rename-across", |c| {
        std::fs::create_dir(c.inside("a"))?;
        std::fs::create_dir(c.inside("b"))?;
        let from = c.file("a/f")?;
        let to = c.inside("b/f");
        plain(from, to, &["rename"], "file")
    }),
    all_fs("rename-over", |c| {
        let (from, to) = (c.file("from")?, c.file("to")?);
        plain(from, to, &["rename"], "file")
    }),
    all_fs("rename-dir", |c| {
        let from = c.inside("from");
        std::fs::create_dir(&from)?;
        plain(from, c.inside("to"), &["rename"], "dir")
    }),
    all_fs("rename-noreplace", |c| {
        let from = c.file("from")?;
        flagged(c, from, &["rename", "noreplace"], RenameFlags::NOREPLACE)
    }),
    all_fs("rename-exchange", |c| {
        let from = c.file("from")?;
        c.file("to")?;
        flagged(c, from, &["rename", "exchange"], RenameFlags::EXCHANGE)
    }),
    all_fs("rename-whiteout", |c| {
        let from = c.file("from")?;
        flagged(c, from, &["rename", "whiteout"], RenameFlags::WHITEOUT)
    }),
    all_fs("rename-in", |c| {
        let from = make_file(c.outside("from"))?;
        plain(from, c.inside("to"), &["rename", "moved-in"], "file")
    }),
    all_fs("rename-out", |c| {
        let from = c.file("from")?;
        plain(from, c.outside("to"), &["rename", "moved-out"], "file")
    }),
    all_fs("rename-dir-above-open-file", dir_above_open_file),
];

fn plain(from: std::path::PathBuf, to: std::path::PathBuf, detail: &[&str], kind: &str) -> Step {
    let line = Expect::new("rename", detail, &to).from(&from).kind(kind);
    step(vec![line], move || Ok(rename(&from, &to)?))
}

fn flagged(c: &Cell<'_>, from: std::path::PathBuf, detail: &[&str], flags: RenameFlags) -> Step {
    let to = c.inside("to");
    let line = Expect::new("rename", detail, &to).from(&from);
    step(vec![line], move || Ok(renameat_with(CWD, &from, CWD, &to, flags)?))
}

/// The file keeps its dentry, and its path is another one from then on.
fn dir_above_open_file(c: &Cell<'_>) -> Step {
    let (from, to) = (c.inside("from"), c.inside("to"));
    std::fs::create_dir_all(from.join("deep"))?;
    let file = open_rw(&c.file("from/deep/f")?)?;
    let lines = vec![
        Expect::new("rename", &["rename"], &to).from(&from).kind("dir"),
        Expect::data(to.join("deep/f"), "write", DATA.len() as u64),
    ];
    step(lines, move || {
        rename(&from, &to)?;
        exactly(rustix::io::write(&file, DATA)?, DATA.len())
    })
}
