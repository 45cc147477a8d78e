//! Kernels that refuse: no type information, no programs (lockdown), programs that the verifier does not like. The
//! kernel at hand refuses nothing of this, so a mount and a system call filter of the child's own replace it.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::place::Scratch;
use super::run::{Run, command, ebpf};

const BPF_PROG_LOAD: u32 = 5;

/// A kernel as the child meets it.
#[derive(Clone, Copy)]
enum Kernel {
    /// `/sys/kernel/btf` is empty.
    WithoutTypes,
    /// Loading a program ends with this error.
    Refusing(i32),
}

impl Kernel {
    /// What hotr says of it.
    fn words(self) -> &'static str {
        match self {
            Self::WithoutTypes => "/sys/kernel/btf/vmlinux",
            Self::Refusing(libc::EPERM) => "Operation not permitted",
            Self::Refusing(_) => "Permission denied",
        }
    }

    fn on(self, mut command: Command) -> Command {
        let prepare = move || match self {
            Self::WithoutTypes => hide_types(),
            Self::Refusing(error) => refuse(BPF_PROG_LOAD, error),
        };
        // SAFETY: between fork and exec it makes system calls only: it neither allocates nor takes a lock.
        unsafe { command.pre_exec(prepare) };
        command
    }
}

fn hide_types() -> io::Result<()> {
    // SAFETY: the child has one thread, and no descriptor is shared by it.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS)? };
    mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    Ok(mount(c"hotr-fault", c"/sys/kernel/btf", c"tmpfs", MountFlags::empty(), c"size=4k")?)
}

/// Installs a filter under which this command of `bpf` fails.
fn refuse(bpf_command: u32, error: i32) -> io::Result<()> {
    const NUMBER: u32 = 0;
    const FIRST_ARGUMENT: u32 = 16;
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let unless = |k: u32, skip: u8| libc::sock_filter {
        code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
        jt: 0,
        jf: skip,
        k,
    };
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let answer = libc::BPF_RET | libc::BPF_K;
    let mut filter = [
        statement(load, NUMBER),
        unless(libc::SYS_bpf as u32, 3),
        statement(load, FIRST_ARGUMENT),
        unless(bpf_command, 1),
        statement(answer, libc::SECCOMP_RET_ERRNO | error.cast_unsigned()),
        statement(answer, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the filter lives until the call has copied it.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
    };
    if done { Ok(()) } else { Err(io::Error::last_os_error()) }
}

const KERNELS: [Kernel; 3] =
    [Kernel::WithoutTypes, Kernel::Refusing(libc::EPERM), Kernel::Refusing(libc::EACCES)];

#[test]
fn a_kernel_that_refuses_leaves_inotify_and_says_why() {
    if !ebpf() {
        return;
    }
    for kernel in KERNELS {
        let scratch = Scratch::new("refused");
        let mut run = Run::spawn(kernel.on(command(&[], &scratch.0)));
        let channels = run.ready()["channels"].clone();
        assert_eq!(channels["ebpf"]["state"], "off", "{channels}");
        let why = channels["ebpf"]["why"].as_str().unwrap();
        assert!(why.contains(kernel.words()) && why.lines().count() == 1, "{why}");
        assert_eq!(channels["inotify"]["state"], "active", "{channels}");
        fs::write(scratch.0.join("f"), "x").unwrap();
        run.change("create", &scratch.0.join("f"));
        run.end();
    }
}

#[test]
fn a_kernel_that_refuses_is_one_line_and_status_1_where_ebpf_is_demanded() {
    if !ebpf() {
        return;
    }
    for kernel in KERNELS {
        let (status, said) = demanded(kernel, &Scratch::new("demanded").0);
        assert_eq!(status, Some(1), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.starts_with("hotr: ") && said.contains(kernel.words()), "{said}");
    }
}

fn demanded(kernel: Kernel, dir: &Path) -> (Option<i32>, String) {
    let mut command = kernel.on(command(&["--channels", "ebpf"], dir));
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}
