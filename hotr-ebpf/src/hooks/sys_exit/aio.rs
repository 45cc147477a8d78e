//! `io_submit`: the requests the caller handed over. They are reported when they are accepted, which for a
//! buffered write is when it is done; what a direct write made of it comes later and is not seen on this tier.

use super::way::Way;
use super::{Exit, is_watched, user_word};
use crate::change::{self, Target};
use crate::kernel::{Probe, task};
use crate::maps::AIO_NEXT;

/// Requests of one call that are looked at.
const MAX_REQUESTS: u64 = 16;
/// `IOCB_CMD_PWRITE`, `IOCB_CMD_PWRITEV`.
const WRITES: [u16; 2] = [1, 8];

/// Where a `struct iocb` has its opcode (16 bits) with the descriptor (32 bits, at bit 32), and its length.
const OPCODE: u64 = 16;
const LENGTH: u64 = 32;

/// A word of the caller's memory. A function of its own, for the stack of this program is full.
#[inline(never)]
fn word(address: u64) -> u64 {
    user_word(address)
}

/// Reports the next accepted request of the call; whether there may be another one. Called once a program run,
/// for a loop around a whole report is more than a verifier goes through.
#[inline(always)]
pub fn next<W: Way>(exit: &Exit<W>) -> bool {
    let Some(next) = AIO_NEXT.get_ptr_mut(0) else { return false };
    // SAFETY: this CPU's own word; see the module `path`.
    let index = unsafe { *next };
    let count = (exit.ret as u64).min(MAX_REQUESTS);
    if index >= count {
        // SAFETY: as above.
        unsafe { *next = 0 };
        return false;
    }
    // SAFETY: as above.
    unsafe { *next = index + 1 };
    let address = word(exit.argument(exit.rule.aux1).wrapping_add(index * 8));
    let request = word(address.wrapping_add(OPCODE));
    let opcode = request as u16;
    if opcode == WRITES[0] || opcode == WRITES[1] {
        let file = task::current_file((request >> 32) as u32);
        if is_watched(file) {
            // Of a vector only the number of its parts is told.
            let bytes = if opcode == WRITES[0] { word(address.wrapping_add(LENGTH)) } else { 0 };
            change::file::<Probe>(&exit.call(), &Target::file::<Probe>(file), exit.sysno, bytes, 0);
        }
    }
    true
}
