//! The hooks, one topic a file. Each has an fexit program, and a kprobe with its kretprobe.

pub mod attr;
#[cfg(feature = "bench")]
pub mod bench;
pub mod content;
pub mod ctime;
pub mod delivery;
pub mod dirty;
pub mod follow;
pub mod mmap;
pub mod names;
pub mod notify;
pub mod register;
pub mod rename;
pub mod rmdir;
pub mod subvolume;
pub mod sys_exit;
pub mod uring;
pub mod uring_names;
pub mod uring_trace;
pub mod usage;

pub use names::Victim;

/// Declares the programs of a hook whose result matters: `fexit`, and `kprobe` + `kretprobe`.
macro_rules! exit_hook {
    ($hook:ident, $subject:ident, $handler:path => $fexit:ident, $kprobe:ident, $kretprobe:ident) => {
        #[aya_ebpf::macros::fexit]
        pub fn $fexit(ctx: aya_ebpf::programs::FExitContext) -> u32 {
            use hotr_common::hook::Hook;
            use $crate::call::{Opened, Subject, from_exit, prejudge};

            // Separate from the first check, so that an unwatched call saves no register and sets up no stack.
            #[inline(never)]
            fn go_on(
                context: *mut ::core::ffi::c_void,
                file: *const u8,
                inode: *const u8,
                superblock: *const u8,
            ) -> u32 {
                let ctx = aya_ebpf::programs::FExitContext::new(context);
                if let Some(known) = prejudge(Subject::$subject, Opened { file, inode, superblock }) {
                    let call = from_exit(&ctx, Hook::$hook, Subject::$subject, known);
                    $handler(::core::marker::PhantomData::<$crate::kernel::Direct>, &call);
                }
                0
            }

            let mut opened = Opened::NONE;
            if Subject::$subject.is_file() {
                let Some(known) = Opened::of(&ctx, Hook::$hook, Subject::$subject) else { return 0 };
                opened = known;
            }
            go_on(aya_ebpf::EbpfContext::as_ptr(&ctx), opened.file, opened.inode, opened.superblock)
        }

        #[aya_ebpf::macros::kprobe]
        pub fn $kprobe(ctx: aya_ebpf::programs::ProbeContext) -> u32 {
            let call = $crate::call::from_probe(&ctx, hotr_common::hook::Hook::$hook);
            $crate::call::keep(&call, $crate::call::Subject::$subject);
            0
        }

        #[aya_ebpf::macros::kretprobe]
        pub fn $kretprobe(ctx: aya_ebpf::programs::RetProbeContext) -> u32 {
            if let Some(call) = $crate::call::take(&ctx, hotr_common::hook::Hook::$hook) {
                $handler(::core::marker::PhantomData::<$crate::kernel::Probe>, &call);
            }
            0
        }
    };
}
pub(crate) use exit_hook;

/// Declares the programs of a hook on a function's entry: `fentry` and `kprobe`.
macro_rules! entry_hook {
    ($hook:ident, $handler:path => $fentry:ident, $kprobe:ident) => {
        #[aya_ebpf::macros::fentry]
        pub fn $fentry(ctx: aya_ebpf::programs::FEntryContext) -> u32 {
            let call = $crate::call::from_entry(&ctx, hotr_common::hook::Hook::$hook);
            $handler(::core::marker::PhantomData::<$crate::kernel::Direct>, &call);
            0
        }

        #[aya_ebpf::macros::kprobe]
        pub fn $kprobe(ctx: aya_ebpf::programs::ProbeContext) -> u32 {
            let call = $crate::call::from_probe(&ctx, hotr_common::hook::Hook::$hook);
            $handler(::core::marker::PhantomData::<$crate::kernel::Probe>, &call);
            0
        }
    };
}
pub(crate) use entry_hook;
