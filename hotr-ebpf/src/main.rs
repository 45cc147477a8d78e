//! hotr's kernel programs: one topic a file under `hooks/`, each with the variants of its tiers.
//!
//! In: the kernel's own calls. Out: records of `hotr_common::record` in the ring buffer `RECORDS`.
//! Only `kernel/` reads kernel fields.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod call;
mod change;
mod children;
mod counters;
mod emit;
mod event;
mod filter;
mod globals;
mod hooks;
mod kernel;
mod messages;
mod path;
mod path_draft;
mod records;
mod storm;
mod try_lock;

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
