//! Changes that come in by another way than the traced path: bind mounts, other mounts, names outside the
//! tree, and the layers of an overlay.

use std::fs::OpenOptions;
use std::os::fd::AsRawFd;
use std::path::Path;

use io_uring::{opcode, types};

use super::uring::{submit, with_personality};
use super::uring_names::{HERE, name, with_personality_done};
use super::{
    BLOCK, Cell, DATA, OpError, Operation, Step, all_fs, done, exactly, make_file, open_rw, overlay, step,
};
use crate::expect::Expect;

const BYPASS: &str = "layer-bypass";

pub(super) const OPS: &[Operation] = &[
    all_fs("bind-write", |c| write_by(c, c.place.bind(), "bind")),
    all_fs("bind-create", |c| create_by(c, c.place.bind(), "bind")),
    all_fs("mount-write", |c| write_by(c, c.place.other_mount(), other_mount_word(c))),
    all_fs("mount-create", |c| create_by(c, c.place.other_mount(), other_mount_word(c))),
    all_fs("hardlink-outside-write", |c| {
        let (path, alias) = (c.inside("name"), c.outside("alias"));
        rustix::fs::link(make_file(path.clone())?, &alias)?;
        let file = open_rw(&alias)?;
        let line = Expect::data(path, "write", DATA.len() as u64).unheard("hardlink-alias");
        step(vec![line], move || exactly(rustix::io::write(&file, DATA)?, DATA.len()))
    }),
    overlay("upper-write", &[], |c| {
        let path = c.file("f")?;
        let file = open_rw(&c.by(upper(c)?, "f"))?;
        let line = Expect::data(path, "write", DATA.len() as u64).layer("upper").unheard(BYPASS);
        step(vec![line], move || exactly(rustix::io::write(&file, DATA)?, DATA.len()))
    }),
    overlay("upper-uring-personality", &[], |c| {
        let path = c.file("f")?;
        let file = open_rw(&c.by(upper(c)?, "f"))?;
        let line = Expect::new("write", &["fallocate"], path).by_worker().layer("upper").unheard(BYPASS);
        step(vec![line], move || {
            let (ring, personality) = with_personality()?;
            let entry = opcode::Fallocate::new(types::Fd(file.as_raw_fd()), 9 * BLOCK).build();
            submit(ring, entry.personality(personality), 0)
        })
    }),
    overlay("upper-uring-personality-mkdir", &[], |c| {
        let path = c.by(upper(c)?, "d");
        let line = Expect::new("create", &["mkdir"], c.inside("d")).kind("dir").by_worker();
        step(vec![line.layer("upper").unheard(BYPASS)], move || {
            let name = name(&path)?;
            with_personality_done(opcode::MkDirAt::new(HERE, name.as_ptr()).mode(0o755).build())
        })
    }),
    overlay("upper-uring-personality-rename", &[], |c| {
        c.file("from")?;
        let (from, to) = (c.by(upper(c)?, "from"), c.by(upper(c)?, "to"));
        let line = Expect::new("rename", &["rename"], c.inside("to")).from(c.inside("from")).by_worker();
        step(vec![line.layer("upper").unheard(BYPASS)], move || {
            let (from, to) = (name(&from)?, name(&to)?);
            with_personality_done(opcode::RenameAt::new(HERE, from.as_ptr(), HERE, to.as_ptr()).build())
        })
    }),
    overlay("upper-uring-personality-unlink", &[], |c| {
        let line = Expect::new("remove", &["unlink"], c.file("f")?).by_worker();
        let path = c.by(upper(c)?, "f");
        step(vec![line.layer("upper").unheard(BYPASS)], move || {
            let name = name(&path)?;
            with_personality_done(opcode::UnlinkAt::new(HERE, name.as_ptr()).build())
        })
    }),
    overlay("upper-create", &[], |c| {
        let path = c.by(upper(c)?, "new");
        let line = Expect::new("create", &["open"], c.inside("new")).layer("upper").unheard(BYPASS);
        step(vec![line], move || done(OpenOptions::new().write(true).create_new(true).open(&path)))
    }),
    overlay("lower-write", &["f"], |c| {
        let path = c.inside("f");
        // The merged name is known to the kernel, as it is when a service has the file loaded.
        std::fs::symlink_metadata(&path)?;
        let file = open_rw(&c.by(lower(c)?, "f"))?;
        let line = Expect::data(path, "write", DATA.len() as u64).layer("lower").unheard(BYPASS);
        step(vec![line], move || exactly(rustix::io::write(&file, DATA)?, DATA.len()))
    }),
    overlay("copy-up-write", &["f"], |c| {
        let path = c.inside("f");
        step(vec![Expect::data(&path, "write", DATA.len() as u64)], move || {
            exactly(rustix::io::write(&open_rw(&path)?, DATA)?, DATA.len())
        })
    }),
    overlay("copy-up-only", &["f"], |c| {
        let path = c.inside("f");
        step(vec![], move || done(open_rw(&path)))
    }),
    overlay("copy-up-chmod", &["f"], |c| {
        let path = c.inside("f");
        step(vec![Expect::new("attrib", &["chmod"], &path)], move || {
            Ok(rustix::fs::chmod(&path, rustix::fs::Mode::RUSR)?)
        })
    }),
    overlay("copy-up-truncate", &["f"], |c| {
        let path = c.inside("f");
        step(vec![Expect::new("write", &["o_trunc"], &path)], move || {
            done(OpenOptions::new().write(true).truncate(true).open(&path))
        })
    }),
    overlay("lower-unlink", &["f"], |c| {
        let path = c.inside("f");
        step(vec![Expect::new("remove", &["unlink"], &path)], move || Ok(rustix::fs::unlink(&path)?))
    }),
    overlay("lower-rename", &["f"], |c| {
        let (from, to) = (c.inside("f"), c.inside("to"));
        step(vec![Expect::new("rename", &["rename"], &to).from(&from)], move || {
            Ok(rustix::fs::rename(&from, &to)?)
        })
    }),
    overlay("lower-mkdir", &["f"], |c| {
        let path = c.inside("d");
        step(vec![Expect::new("create", &["mkdir"], &path).kind("dir")], move || {
            Ok(rustix::fs::mkdir(&path, rustix::fs::Mode::RWXU)?)
        })
    }),
];

fn upper<'a>(c: &'a Cell<'_>) -> Result<&'a Path, OpError> {
    c.place.upper().ok_or_else(|| OpError::other("this is no overlay"))
}

fn lower<'a>(c: &'a Cell<'_>) -> Result<&'a Path, OpError> {
    c.place.lower().ok_or_else(|| OpError::other("this is no overlay"))
}

fn write_by(c: &Cell<'_>, traced: &Path, layer: &str) -> Step {
    let path = c.file("f")?;
    let file = open_rw(&c.by(traced, "f"))?;
    let line = Expect::data(path, "write", DATA.len() as u64).layer(layer);
    step(vec![line], move || exactly(rustix::io::write(&file, DATA)?, DATA.len()))
}

fn create_by(c: &Cell<'_>, traced: &Path, layer: &str) -> Step {
    let path = c.by(traced, "new");
    let line = Expect::new("create", &["open"], c.inside("new")).layer(layer);
    step(vec![line], move || done(OpenOptions::new().write(true).create_new(true).open(&path)))
}

/// What another mount of the whole filesystem is called: of some filesystems there can be no second mount but by
/// binding.
fn other_mount_word(c: &Cell) -> &'static str {
    let bind_only = c.place.fs() == "tmpfs" || c.place.fs().starts_with("ovl");
    if bind_only { "bind" } else { "mount" }
}
