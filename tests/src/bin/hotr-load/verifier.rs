//! How much work the kernel's verifier has with each program: requested at the load itself.
//!
//! In: a command that loads programs. Out: `verifier/LABEL/PROGRAM`, the instructions that were processed. Kernels
//! before 5.16 report this only in the verifier's log, which is not kept for a program that loads. So the command is
//! traced (ptrace(2)), and each `bpf(BPF_PROG_LOAD)` without a log gets one: level `BPF_LOG_STATS`, into the free part
//! of the thread's stack. The programs are those that a user of the command gets, on every kernel.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io,
    mem::offset_of,
    os::unix::{fs::FileExt as _, process::CommandExt as _},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use aya_obj::generated::{bpf_attr, bpf_cmd};
use clap::Args;

use crate::figures::Figures;

/// What to trace.
#[derive(Args)]
pub(crate) struct VerifierArgs {
    /// Names the figures
    #[arg(long)]
    label: String,
    /// The command
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

const BPF_PROG_LOAD: u64 = bpf_cmd::BPF_PROG_LOAD as u64;
/// Log level: the totals and nothing else.
const STATS: u32 = 4;
/// Offsets in `union bpf_attr` of a program load (include/uapi/linux/bpf.h).
const LOG_LEVEL: u64 = offset_of!(bpf_attr, __bindgen_anon_3.log_level) as u64;
const NAME: u64 = offset_of!(bpf_attr, __bindgen_anon_3.prog_name) as u64;
/// Some kernels note each call of a global function, whatever the level.
const LOG_SIZE: u32 = 64 * 1024;
/// Below the stack pointer, beyond what a signal handler could use meanwhile.
const BELOW: u64 = 128 * 1024;

/// A load that was given a log.
struct Pending {
    attributes: u64,
    log: u64,
    name: String,
    /// log_level, log_size and log_buf as the command had them.
    before: [u8; 16],
}

struct Tracer {
    pid: libc::pid_t,
    memory: File,
    pending: HashMap<libc::pid_t, Pending>,
    processed: BTreeMap<String, u64>,
}

/// Entry point of the benchmark.
pub(crate) fn run(args: &VerifierArgs, out: &mut Figures) -> Result<()> {
    let mut command = Command::new(&args.command[0]);
    command.args(&args.command[1..]).stdin(Stdio::null()).stdout(Stdio::null());
    // SAFETY: ptrace is a plain system call, safe between fork and exec.
    unsafe {
        command.pre_exec(|| request(libc::PTRACE_TRACEME, 0, 0, 0));
    }
    let child = command.spawn().with_context(|| format!("start {}", args.command[0]))?;
    let pid = libc::pid_t::try_from(child.id()).context("a process has an id")?;
    let memory = File::options()
        .read(true)
        .write(true)
        .open(format!("/proc/{pid}/mem"))
        .context("open the memory of the command")?;
    let mut tracer = Tracer { pid, memory, pending: HashMap::new(), processed: BTreeMap::new() };
    let status = tracer.run()?;
    ensure!(
        libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0,
        "{}: it ended with status {status:#x}",
        args.command.join(" ")
    );
    ensure!(!tracer.processed.is_empty(), "{}: it loaded no program", args.command.join(" "));
    for (name, count) in &tracer.processed {
        out.count(format!("verifier/{}/{name}", args.label), *count)?;
    }
    Ok(())
}

impl Tracer {
    /// Follows the command to its end; its wait status.
    fn run(&mut self) -> Result<libc::c_int> {
        // The first stop is that of exec.
        wait(self.pid)?;
        let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL | libc::PTRACE_O_TRACECLONE;
        request(libc::PTRACE_SETOPTIONS, self.pid, 0, options.cast_unsigned().into())
            .context("trace the command")?;
        request(libc::PTRACE_SYSCALL, self.pid, 0, 0).context("trace the command")?;
        loop {
            let (thread, status) = wait(-1)?;
            if !libc::WIFSTOPPED(status) {
                if thread == self.pid {
                    return Ok(status);
                }
                continue;
            }
            let signal = match libc::WSTOPSIG(status) {
                stop if stop == libc::SIGTRAP | 0x80 => {
                    self.system_call(thread)?;
                    0
                }
                // A new thread's first stop, and the event of its birth.
                libc::SIGSTOP | libc::SIGTRAP => 0,
                signal => signal,
            };
            request(libc::PTRACE_SYSCALL, thread, 0, signal.cast_unsigned().into())
                .context("trace the command")?;
        }
    }

    fn system_call(&mut self, thread: libc::pid_t) -> Result<()> {
        let call = info(thread)?;
        match call.op {
            libc::PTRACE_SYSCALL_INFO_ENTRY => {
                // SAFETY: `op` says which member of the union is there.
                let entry = unsafe { call.u.entry };
                let wanted = u64::try_from(libc::SYS_bpf).context("a system call has a number")?;
                if entry.nr == wanted && entry.args[0] == BPF_PROG_LOAD {
                    self.give_log(thread, entry.args[1], call.stack_pointer)?;
                }
            }
            libc::PTRACE_SYSCALL_INFO_EXIT => {
                if let Some(pending) = self.pending.remove(&thread) {
                    // SAFETY: as above.
                    let failed = unsafe { call.u.exit.is_error } != 0;
                    self.take_log(pending, failed)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn give_log(&mut self, thread: libc::pid_t, attributes: u64, stack: u64) -> Result<()> {
        let mut before = [0; 16];
        self.memory.read_exact_at(&mut before, attributes + LOG_LEVEL).context("read a program load")?;
        if before[..4] != [0; 4] {
            // The command wants a log of its own: it loads again what was refused.
            return Ok(());
        }
        let mut name = [0; 16];
        self.memory.read_exact_at(&mut name, attributes + NAME).context("read a program's name")?;
        let name = String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned();
        let log = (stack - BELOW) & !7;
        let mut with = [0; 16];
        with[..4].copy_from_slice(&STATS.to_ne_bytes());
        with[4..8].copy_from_slice(&LOG_SIZE.to_ne_bytes());
        with[8..].copy_from_slice(&log.to_ne_bytes());
        self.memory.write_all_at(&with, attributes + LOG_LEVEL).context("change a program load")?;
        self.pending.insert(thread, Pending { attributes, log, name, before });
        Ok(())
    }

    fn take_log(&mut self, pending: Pending, failed: bool) -> Result<()> {
        self.memory
            .write_all_at(&pending.before, pending.attributes + LOG_LEVEL)
            .context("change a program load back")?;
        // aya loads programs of its own to learn what the kernel can do; only hotr's count.
        if failed || pending.name.is_empty() || pending.name.starts_with("aya_") {
            return Ok(());
        }
        let mut log = vec![0; LOG_SIZE as usize];
        self.memory.read_exact_at(&mut log, pending.log).context("read the verifier's log")?;
        let processed = processed(&String::from_utf8_lossy(&log))
            .with_context(|| format!("find the totals in the verifier's log of {}", pending.name))?;
        let most = self.processed.entry(pending.name).or_default();
        *most = processed.max(*most);
        Ok(())
    }
}

/// The number in `processed 60 insns (limit 1000000) …`.
fn processed(log: &str) -> Option<u64> {
    log.split_once("processed ")?.1.split_once(" insns")?.0.parse().ok()
}

fn wait(pid: libc::pid_t) -> Result<(libc::pid_t, libc::c_int)> {
    let mut status = 0;
    // SAFETY: the pointer is to a local that outlives the call.
    let thread = unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) };
    if thread < 0 {
        return Err(io::Error::last_os_error()).context("wait for the command");
    }
    Ok((thread, status))
}

fn info(thread: libc::pid_t) -> Result<libc::ptrace_syscall_info> {
    // SAFETY: the structure is made of integers, for which zero is a value.
    let mut info: libc::ptrace_syscall_info = unsafe { std::mem::zeroed() };
    let size = size_of_val(&info) as u64;
    request(libc::PTRACE_GET_SYSCALL_INFO, thread, size, (&raw mut info) as u64)
        .context("read a system call of the command")?;
    Ok(info)
}

/// ptrace(2); `data` may be the address of something that the request fills, which the caller keeps alive.
fn request(request: libc::c_uint, thread: libc::pid_t, address: u64, data: u64) -> io::Result<()> {
    // SAFETY: the requests used here read or write this process at most at `data`, which is a number or points to a
    // value of the right size.
    if unsafe { libc::ptrace(request, thread, address, data) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_read_from_the_log() {
        let log = "verification time 90 usec\nstack depth 0\nprocessed 8715 insns (limit 1000000) max_states_per_insn 1\n\0\0";
        assert_eq!(processed(log), Some(8715));
        assert_eq!(processed("\0\0"), None);
    }
}
