//! fallocate in all its modes.

use rustix::fs::FallocateFlags as Mode;

use super::{BLOCK, Cell, Operation, SIZE, Step, all_fs, step};
use crate::expect::Expect;

pub(super) const OPS: &[Operation] = &[
    all_fs("fallocate", |c| fallocate(c, Mode::empty(), SIZE as u64, BLOCK)),
    all_fs("fallocate-keep-size", |c| fallocate(c, Mode::KEEP_SIZE, SIZE as u64, BLOCK)),
    all_fs("fallocate-punch-hole", |c| fallocate(c, Mode::PUNCH_HOLE | Mode::KEEP_SIZE, BLOCK, BLOCK)),
    all_fs("fallocate-zero-range", |c| fallocate(c, Mode::ZERO_RANGE, BLOCK, BLOCK)),
    all_fs("fallocate-collapse-range", |c| fallocate(c, Mode::COLLAPSE_RANGE, BLOCK, BLOCK)),
    all_fs("fallocate-insert-range", |c| fallocate(c, Mode::INSERT_RANGE, BLOCK, BLOCK)),
    all_fs("fallocate-unshare", |c| fallocate(c, Mode::UNSHARE_RANGE, 0, BLOCK)),
];

fn fallocate(c: &Cell<'_>, mode: Mode, offset: u64, length: u64) -> Step {
    let (path, file) = c.open("f")?;
    step(vec![Expect::new("write", &["fallocate"], path)], move || {
        Ok(rustix::fs::fallocate(&file, mode, offset, length)?)
    })
}
