//! Writes through the kernel's older asynchronous interface (`io_submit`), which never notifies.

use super::{Aligned, BLOCK, Cell, DATA, Operation, Step, aligned_block, all_fs, open_direct, step};
use crate::aio::Context;
use crate::expect::Expect;

/// Requests of one call.
const BATCH: u32 = 200;

pub(super) const OPS: &[Operation] =
    &[all_fs("aio-write", buffered), all_fs("aio-direct", direct), all_fs("aio-batch", batch)];

fn buffered(c: &Cell<'_>) -> Step {
    let (path, file) = c.open("f")?;
    let context = Context::new(1)?;
    let line = Expect::data(path, "aio", DATA.len() as u64).unheard("aio");
    step(vec![line], move || Ok(context.write_all(&[(&file, DATA)])?))
}

fn direct(c: &Cell<'_>) -> Step {
    let path = c.file("f")?;
    let file = open_direct(&path)?;
    let block: Box<Aligned> = aligned_block();
    let context = Context::new(1)?;
    let line = Expect::data(path, "aio", BLOCK).unheard("aio");
    step(vec![line], move || Ok(context.write_all(&[(&file, &block.0)])?))
}

/// Each request of a call counts, however many there are.
fn batch(c: &Cell<'_>) -> Step {
    let (path, file) = c.open("f")?;
    let context = Context::new(BATCH)?;
    let bytes = DATA.len() as u64 * u64::from(BATCH);
    let line = Expect::data(path, "aio", bytes).unheard("aio");
    let line = Expect { writes: Some(BATCH.into()), repeated: true, ..line };
    step(vec![line], move || Ok(context.write_all(&vec![(&file, DATA); BATCH as usize])?))
}
