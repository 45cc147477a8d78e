//! Messages for debugging a hook: why a change gave no record, and how a directory was judged.
//!
//! Only in the object built with the feature `log` (`cargo xtask build --log-ebpf`), where aya-log's macros write them to
//! a ring buffer of their own and `hotr trace --log-ebpf` prints them. Without the feature `note!` expands to nothing: not
//! even its arguments are evaluated, and the object has no instruction of it.
//!
//! Words such as `hook=3` and `root=0` are given their names by userspace (`hotr-user/src/kernel/log.rs`).

/// Writes a message of [`messages`], in an object that has them; with `when`, only where that is true.
macro_rules! note {
    (when $condition:expr => $message:ident $(, $value:expr)* $(,)?) => {
        #[cfg(feature = "log")]
        if $condition {
            $crate::messages::note!($message $(, $value)*);
        }
    };
    ($message:ident $(, $value:expr)* $(,)?) => {
        #[cfg(feature = "log")]
        {
            let _ = $crate::messages::$message($($crate::messages::Word::word($value)),*);
        }
    };
}
pub(crate) use note;

/// A value that a message can have.
#[cfg(feature = "log")]
pub trait Word {
    fn word(self) -> u64;
}

#[cfg(feature = "log")]
macro_rules! words {
    ($($from:ty),*) => {$(
        impl Word for $from {
            #[inline(always)]
            fn word(self) -> u64 {
                self as u64
            }
        }
    )*};
}
#[cfg(feature = "log")]
words!(u16, u32, u64, hotr_common::hook::Hook);

/// An inode, by its number.
#[cfg(feature = "log")]
impl Word for *const u8 {
    #[inline(always)]
    fn word(self) -> u64 {
        use crate::kernel::{Mem, Probe};
        if self.is_null() { 0 } else { Probe::u64(self, crate::globals::off!(inode_i_ino)) }
    }
}

/// Declares one global function for each message: the verifier checks it once, not at each place that uses it.
#[cfg(feature = "log")]
macro_rules! messages {
    ($($level:ident $message:ident($($value:ident),*) $symbol:ident $text:literal;)*) => {
        $(
            pub use $symbol as $message;

            #[unsafe(no_mangle)]
            #[inline(never)]
            pub extern "C" fn $symbol($($value: u64),*) -> u64 {
                if !crate::kernel::task::is_own() {
                    aya_log_ebpf::$level!((), target: "hotr-ebpf", $text, $($value),*);
                }
                0
            }
        )*
    };
}

#[cfg(feature = "log")]
messages! {
    // A record is lost.
    warn ring_full(hook, inode) hotr_log_ring_full "hook={}: inode {} lost: the ring buffer is full";
    warn oversize(hook, inode) hotr_log_oversize "hook={}: inode {} lost: its path does not fit into a record";
    warn too_deep(hook, inode) hotr_log_too_deep "hook={}: inode {} lost: more directories above it than are followed";
    warn no_draft(hook, inode) hotr_log_no_draft "hook={}: inode {} lost: every draft for long paths is in use";
    warn unknown_request(hook, opcode) hotr_log_unknown_request "hook={}: request with opcode {} lost: it cannot be told which file it changed";
    warn batch(hook, left) hotr_log_batch "hook={}: {} requests of one io_submit lost: more than hotr reads";
    warn by_id(hook, command) hotr_log_by_id "hook={}: ioctl {} lost: only the filesystem knows the name of its subvolume";
    // A record is made, or a change is left out on purpose.
    debug sent(hook, inode, root) hotr_log_sent "hook={}: inode {} sent, root={}";
    debug sent_call(hook) hotr_log_sent_call "hook={}: a call by path sent";
    debug outside(hook, inode) hotr_log_outside "hook={}: inode {} filtered: no name of it is below a watched root";
    debug nameless(hook, inode) hotr_log_nameless "hook={}: inode {} filtered: it has no name left";
    debug inner(hook, inode) hotr_log_inner "hook={}: inode {} filtered: the inner half of an operation on an overlay";
    debug other_name(inode, root) hotr_log_other_name "inode {}: found by another of its names, root={}";
    debug walked(directory, levels, root) hotr_log_walked "directory {}: not remembered, walked up; levels below its root: {}, root={}";
    // What happens often.
    trace remembered(directory, root) hotr_log_remembered "directory {}: remembered, root={}";
    trace coalesced(hook, inode) hotr_log_coalesced "hook={}: inode {} counted only: a repeat within the window";
}
