//! A hooked call with its result, whichever tier it came from.
//!
//! fexit programs have arguments and result together; a kretprobe has the result only, so its kprobe keeps the
//! arguments until then.

use aya_ebpf::macros::map;
use aya_ebpf::maps::HashMap;
use core::ptr;

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::programs::{FEntryContext, FExitContext, ProbeContext, RetProbeContext};
use hotr_common::hook::Hook;
pub use hotr_common::tier::{FENTRY, KPROBE, PERF_TRACEPOINT, TRACEPOINT};

use crate::counters::{Count, count};
use crate::filter::{self, Directory, DirectoryPosition};
use crate::globals::{live, off};
use crate::kernel::{Direct, Mem, Probe, number, task};

/// kprobe tier: arguments kept from a function's entry to its return, by (thread id << 32 | hook); the third word is
/// [`layer_credentials`].
#[map(name = "CALLS")]
pub static CALLS: HashMap<u64, [u64; 3]> = HashMap::with_max_entries(4096, 0);

/// A call, complete.
pub struct Call {
    pub hook: Hook,
    pub tier: u16,
    /// See [`hotr_common::offsets::Arguments`].
    pub subject: *const u8,
    pub second: Second,
    /// Return value; a pointer when the function returns one.
    pub ret: *const u8,
    /// What [`prejudge`] found out.
    pub known: Known,
}

/// The second argument of interest, which most handlers have no use for.
#[derive(Clone, Copy)]
pub enum Second {
    /// In the arguments of this program.
    In(*const u8),
    Is(*const u8),
}

impl Call {
    /// See [`hotr_common::offsets::Arguments`].
    #[inline(always)]
    pub fn second(&self) -> *const u8 {
        match self.second {
            Second::In(context) => word(context, off!(arguments[self.hook as usize].second)),
            Second::Is(value) => value,
        }
    }

    /// Whether nobody will take what is remembered at this entry: see [`take`].
    #[inline(always)]
    pub fn has_no_end(&self) -> bool {
        self.tier == KPROBE && is_within(key(self.hook))
    }

    /// The result as a number: negative errors, also of functions that return a pointer.
    #[inline(always)]
    pub fn result(&self) -> i64 {
        self.ret as i64
    }

    /// The result of a function returning `int`, whose upper half is not defined.
    #[inline(always)]
    pub fn status(&self) -> i32 {
        self.ret as i64 as i32
    }

    /// Whether an `int` function returned 0, or one that returns a pointer no error.
    #[inline(always)]
    pub fn succeeded(&self) -> bool {
        // As a number: the compiler would else shift a pointer for the other branch's sake, which the verifier
        // refuses.
        let ret = number(self.ret);
        if off!(arguments[self.hook as usize].ret_pointer) != 0 {
            !is_error(ret as *const u8)
        } else {
            ret as i64 as i32 == 0
        }
    }
}

/// Whether a returned pointer is an error number (`IS_ERR`).
#[inline(always)]
pub fn is_error(pointer: *const u8) -> bool {
    pointer as u64 > -4096i64 as u64
}

/// Loads one of the context's words. Plain Rust loads at a variable index would be merged by the compiler into
/// one load at a computed address, which the verifier refuses for a context.
macro_rules! context_word {
    ($context:expr, $offset:literal) => {{
        let word: u64;
        // SAFETY: a load from the program's own context at an offset the verifier checks.
        unsafe {
            core::arch::asm!(
                concat!("{0} = *(u64 *)({1} + ", $offset, ")"),
                out(reg) word,
                in(reg) $context,
                options(nostack, readonly),
            );
        }
        word as *const u8
    }};
}

/// Word `index` of a fentry or fexit context. The index comes from the frozen offsets: the verifier follows one
/// branch only.
#[inline(always)]
fn word(context: *const u8, index: u8) -> *const u8 {
    match index {
        0 => context_word!(context, 0),
        1 => context_word!(context, 8),
        2 => context_word!(context, 16),
        3 => context_word!(context, 24),
        4 => context_word!(context, 32),
        5 => context_word!(context, 40),
        6 => context_word!(context, 48),
        _ => ptr::null(),
    }
}

/// A file that a hook's function was called with, as far as the first check went.
#[derive(Clone, Copy)]
pub struct Opened {
    pub file: *const u8,
    pub inode: *const u8,
    pub superblock: *const u8,
}

impl Opened {
    /// Of hooks whose subject is no file.
    pub const NONE: Self = Self { file: ptr::null(), inode: ptr::null(), superblock: ptr::null() };

    /// The first question to an fexit program: is the file on a filesystem that may be watched? On most calls the answer
    /// is no, and nothing else should have been read by then.
    #[inline(always)]
    pub fn of(context: &FExitContext, hook: Hook, subject: Subject) -> Option<Self> {
        let file = subject_of(context, hook, subject);
        let inode = Direct::ptr(file, off!(file_f_inode));
        let superblock = Direct::ptr(inode, off!(inode_i_sb));
        filter::may_be_watched(superblock).then_some(Self { file, inode, superblock })
    }
}

/// The second question: `None` when the file is outside the watched trees, and so is every other name it may have.
///
/// Most calls on a watched filesystem are for such files, and end here.
#[inline(always)]
pub fn prejudge(subject: Subject, opened: Opened) -> Option<Known> {
    if !subject.is_file() {
        return Some(Known::NOTHING);
    }
    let dentry = Direct::ptr(opened.file, off!(file_dentry));
    let parent = Direct::ptr(dentry, off!(dentry_d_parent));
    let inode = Direct::ptr(parent, off!(dentry_d_inode));
    let file = Some((opened.inode, dentry));
    let Some(directory) = Directory::of::<Direct>(inode, opened.superblock).first_thought() else {
        return Some(Known { file, directory: DirectoryPosition::UNKNOWN });
    };
    if directory.is_outside()
        && Direct::u64(dentry, off!(dentry_d_hash_pprev)) != 0
        && Direct::u32(opened.inode, off!(inode_i_nlink)) < 2
    {
        count(Count::Outside);
        return None;
    }
    Some(Known { file, directory })
}

/// What is known of a call's subject when its handler begins.
#[derive(Clone, Copy)]
pub struct Known {
    /// Inode and dentry, of a subject that is a `struct file`.
    pub file: Option<(*const u8, *const u8)>,
    /// Where its directory is, if that is known; its filesystem is a watched one then.
    pub directory: DirectoryPosition,
}

impl Known {
    pub const NOTHING: Self = Self { file: None, directory: DirectoryPosition::UNKNOWN };
}

/// The word of the context with the subject, which every hook has.
#[inline(always)]
fn subject_of(context: &FExitContext, hook: Hook, subject: Subject) -> *const u8 {
    let context = context.as_ptr() as *const u8;
    if subject == Subject::FirstFile {
        return context_word!(context, 0);
    }
    word(context, off!(arguments[hook as usize].subject))
}

/// A call seen by an fexit program; `known` is [`prejudge`]'s answer.
#[inline(always)]
pub fn from_exit(context: &FExitContext, hook: Hook, subject: Subject, known: Known) -> Call {
    let subject = subject_of(context, hook, subject);
    let context = context.as_ptr() as *const u8;
    Call {
        hook,
        tier: FENTRY,
        subject,
        second: Second::In(context),
        ret: word(context, off!(arguments[hook as usize].ret)),
        known,
    }
}

/// A call seen by an fentry program: no result yet.
#[inline(always)]
pub fn from_entry(context: &FEntryContext, hook: Hook) -> Call {
    let context = context.as_ptr() as *const u8;
    Call {
        hook,
        tier: FENTRY,
        subject: word(context, off!(arguments[hook as usize].subject)),
        second: Second::In(context),
        ret: ptr::null(),
        known: Known::NOTHING,
    }
}

/// Argument `index` of a probed function, from the registers of the calling convention.
#[inline(always)]
fn argument(context: &ProbeContext, index: u8) -> *const u8 {
    let registers = context.as_ptr() as *const u8;
    // Offsets in x86's `struct pt_regs`, which is the context itself.
    match index {
        0 => context_word!(registers, 112),
        1 => context_word!(registers, 104),
        2 => context_word!(registers, 96),
        3 => context_word!(registers, 88),
        4 => context_word!(registers, 72),
        5 => context_word!(registers, 64),
        _ => ptr::null(),
    }
}

/// A call seen by a kprobe: no result yet.
#[inline(always)]
pub fn from_probe(context: &ProbeContext, hook: Hook) -> Call {
    Call {
        hook,
        tier: KPROBE,
        subject: argument(context, off!(arguments[hook as usize].subject)),
        second: Second::Is(argument(context, off!(arguments[hook as usize].second))),
        ret: ptr::null(),
        known: Known::NOTHING,
    }
}

/// What a hook's subject is, to reject early on entry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// A `struct file`.
    File,
    /// A `struct file` that is the first argument, or the loader does not take the function: its place need not be
    /// looked up. For what a machine does most.
    FirstFile,
    /// A `struct dentry`.
    Dentry,
    /// Something else: not rejected early.
    Other,
}

impl Subject {
    /// Whether it is a `struct file`.
    #[inline(always)]
    pub const fn is_file(self) -> bool {
        matches!(self, Self::File | Self::FirstFile)
    }
}

#[inline(always)]
fn key(hook: Hook) -> u64 {
    // The low half of the pair is the thread.
    (bpf_get_current_pid_tgid() << 32) | hook as u64
}

/// Credentials that distinguish a call from calls of the same function within it, while layers are watched: overlayfs
/// calls it for its layer with the credentials of the one who mounted it. 0 while none is watched. That they are
/// not the task's own says nothing: a core dump and a request of io_uring may be made with others as well.
#[inline(always)]
pub fn layer_credentials() -> u64 {
    if live!(layers) == 0 { 0 } else { task::credentials() }
}

/// Whether a call is within one of this key that was kept: it is an overlay's operation on its own layer, and must not take
/// the place of the call that matters. One that is made with the task's own credentials never is, so that an entry whose end
/// was not seen does not stay.
#[inline(always)]
fn is_within(key: u64) -> bool {
    if live!(layers) == 0 || !task::acts_for_another() {
        return false;
    }
    // SAFETY: the entry is this thread's own.
    unsafe { CALLS.get(&key) }.is_some_and(|call| call[2] != 0 && call[2] != task::credentials())
}

/// Keeps a call's arguments for [`take`].
#[inline(always)]
pub fn keep(call: &Call, subject: Subject) {
    let superblock = match subject {
        Subject::File | Subject::FirstFile => {
            Probe::ptr(Probe::ptr(call.subject, off!(file_f_inode)), off!(inode_i_sb))
        }
        Subject::Dentry => Probe::ptr(call.subject, off!(dentry_d_sb)),
        Subject::Other => ptr::null(),
    };
    if subject != Subject::Other && !filter::is_watched(superblock) {
        return;
    }
    let key = key(call.hook);
    if is_within(key) || call.hook == Hook::IterWrite && filter::is_opened_by_overlay(call.subject) {
        return;
    }
    // A full map loses the change; it holds more calls than there are CPUs, by far.
    let _ = CALLS.insert(&key, &[call.subject as u64, call.second() as u64, layer_credentials()], 0);
}

/// The call a kretprobe belongs to.
#[inline(always)]
pub fn take(context: &RetProbeContext, hook: Hook) -> Option<Call> {
    let key = key(hook);
    // SAFETY: the entry is this thread's own.
    let [subject, second, credentials] = *unsafe { CALLS.get(&key) }?;
    // The end of a call within it.
    if credentials != 0 && credentials != task::credentials() {
        return None;
    }
    let _ = CALLS.remove(&key);
    let ret: u64 = context.ret();
    Some(Call {
        hook,
        tier: KPROBE,
        subject: subject as *const u8,
        second: Second::Is(second as *const u8),
        ret: ret as *const u8,
        known: Known::NOTHING,
    })
}
