//! `io_submit`: the requests the caller passed. They are reported when they are accepted, which for a buffered write is
//! when it is done; what a direct write made of it comes later and is not seen on this tier.

use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use core::ptr::null;

use hotr_common::hook::Hook;

use super::way::Way;
use super::{Exit, is_watched, user_word};
use crate::call::{Call, Known, Second};
use crate::change::{self, Target};
use crate::counters::{Count, count_many};
use crate::kernel::{Probe, task};
use crate::messages::note;

/// The `io_submit` that is being reported.
#[map(name = "AIO_BATCH")]
pub static AIO_BATCH: PerCpuArray<Batch> = PerCpuArray::with_max_entries(1, 0);

/// Requests that one run of the program looks at. The kernel lets a program be followed by some 30 more
/// (include/linux/bpf.h, `MAX_TAIL_CALL_CNT`).
const PIECE: u64 = 128;
/// `IOCB_CMD_PWRITE`, `IOCB_CMD_PWRITEV`.
const WRITES: [u16; 2] = [1, 8];

/// Where a `struct iocb` has its opcode (16 bits) with the descriptor (32 bits, at bit 32), and its length.
const OPCODE: u64 = 16;
const LENGTH: u64 = 32;

/// A call that is being reported: kept in a map, because the stack is full. This CPU's own; see the module `path`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Batch {
    /// Requests that earlier programs have read.
    done: u64,
    /// The number of the system call, and in the low 16 bits the tier.
    call: u64,
    /// Not 0: one of the requests was a write on a watched filesystem.
    concerns: u64,
}

/// Reports the next accepted requests of the call; whether there are more.
#[inline(always)]
pub fn next<W: Way>(exit: &Exit<W>) -> bool {
    let Some(batch) = AIO_BATCH.get_ptr_mut(0) else { return false };
    // SAFETY: see [`Batch`].
    let before = unsafe {
        (*batch).call = u64::from(exit.sysno) << 16 | u64::from(W::TIER);
        (*batch).done
    };
    let left = (exit.ret as u64).saturating_sub(before);
    let requests = exit.argument(exit.rule.aux1).wrapping_add(before * 8);
    let mut done = 0;
    // Few values, and no branch but the end: the verifier goes through it for every request.
    while done < PIECE && done < left {
        hotr_submitted(requests.wrapping_add(done * 8));
        done += 1;
    }
    let Some(batch) = AIO_BATCH.get_ptr_mut(0) else { return false };
    // SAFETY: as above.
    unsafe { (*batch).done += done };
    if done < left {
        return true;
    }
    clear(batch);
    false
}

/// The program cannot be run again. When one of the requests was on a watched filesystem, those that were not read may
/// be as well, and are lost.
#[inline(always)]
pub fn give_up<W: Way>(way: W) {
    let Some(batch) = AIO_BATCH.get_ptr_mut(0) else { return };
    // SAFETY: as above.
    let (done, concerns) = unsafe { ((*batch).done, (*batch).concerns) };
    if concerns != 0 {
        let left = (way.ret() as u64).saturating_sub(done);
        note!(batch, Hook::SysExit, left);
        count_many(Count::Seen, left);
        count_many(Count::Oversize, left);
    }
    clear(batch);
}

#[inline(always)]
fn clear(batch: *mut Batch) {
    // SAFETY: as above.
    unsafe {
        (*batch).done = 0;
        (*batch).concerns = 0;
    }
}

/// A word of the caller's memory. A function of its own, because the stack is full.
#[inline(never)]
fn word(address: u64) -> u64 {
    user_word(address)
}

/// Reports a request of the running task, whose address is at this one, if it is a write to a watched file. A global
/// function, with numbers only: the verifier looks at it once, not once a request.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn hotr_submitted(slot: u64) -> u64 {
    let address = word(slot);
    let request = word(address.wrapping_add(OPCODE));
    let opcode = request as u16;
    if opcode != WRITES[0] && opcode != WRITES[1] {
        return 0;
    }
    // For a vector only the number of its parts is known.
    let bytes = if opcode == WRITES[0] { word(address.wrapping_add(LENGTH)) } else { 0 };
    let file = task::current_file((request >> 32) as u32);
    if !is_watched(file) {
        return 0;
    }
    let Some(batch) = AIO_BATCH.get_ptr_mut(0) else { return 0 };
    // SAFETY: see [`Batch`].
    let call = unsafe {
        (*batch).concerns = 1;
        (*batch).call
    };
    let exit = Call {
        hook: Hook::SysExit,
        tier: call as u16,
        subject: null(),
        second: Second::Is(null()),
        known: Known::NOTHING,
        ret: null(),
    };
    change::file::<Probe>(&exit, &Target::file::<Probe>(file), (call >> 16) as u32, bytes, 0);
    0
}
