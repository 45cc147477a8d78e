//! Stores through a shared mapping: no system call, and no notification.

use std::rc::Rc;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::{BLOCK, Cell, OpError, Operation, Prepared, all_fs, step};
use crate::expect::Expect;

pub(super) const OPS: &[Operation] = &[
    all_fs("mmap-first", |c| {
        let (map, expect) = map(c)?;
        step(vec![expect], move || {
            map.store(b'1');
            Ok(())
        })
    }),
    all_fs("mmap-later", |c| {
        let (map, expect) = map(c)?;
        let first = Rc::clone(&map);
        Ok(Prepared {
            before: Some(Box::new(move || {
                first.store(b'1');
                Ok(())
            })),
            act: Box::new(move || {
                map.store(b'2');
                Ok(())
            }),
            expect: vec![expect],
        })
    }),
];

/// One shared page of a file.
struct Mapping(*mut u8);

impl Mapping {
    fn store(&self, byte: u8) {
        // SAFETY: the page is mapped for reading and writing until drop, and nobody else refers to it.
        unsafe { self.0.write_volatile(byte) };
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the address and length are those of the mapping made in `map`, unmapped only here. A failure leaves a
        // page mapped until the program ends, and nothing to do about it.
        let _ = unsafe { munmap(self.0.cast(), BLOCK as usize) };
    }
}

fn map(c: &Cell<'_>) -> Result<(Rc<Mapping>, Expect), OpError> {
    let (path, file) = c.open("f")?;
    // SAFETY: a new mapping at an address that the kernel chooses; the file keeps its size while it exists.
    let address = unsafe {
        mmap(
            std::ptr::null_mut(),
            BLOCK as usize,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::SHARED,
            &file,
            0,
        )
    }?;
    Ok((Rc::new(Mapping(address.cast())), Expect::new("write", &["mmap"], path).unheard("mmap")))
}
