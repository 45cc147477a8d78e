//! Fills [`Offsets`] from BTF: the one list of kernel fields that hotr reads.

use hotr_common::hook::HOOKS;
use hotr_common::offsets::{ABSENT, Arguments, Offsets};

use super::btf::Btf;

/// Structures whose members are needed.
pub(super) const STRUCTURES: &[&str] = &[
    "file",
    "inode",
    "dentry",
    "super_block",
    "mount",
    "task_struct",
    "cred",
    "files_struct",
    "fdtable",
    "fs_struct",
    "iattr",
    "renamedata",
    "kiocb",
    "io_kiocb",
    "io_worker",
    "io_uring_task",
    "io_ring_ctx",
    "io_rsrc_node",
    "io_uring_cqe",
    "vm_fault",
    "vm_area_struct",
    "backing_file",
    "fsnotify_mark",
    "fsnotify_mark_connector",
    "fsnotify_group",
    "fsnotify_event",
    "inotify_inode_mark",
    "inotify_event_info",
    "nsproxy",
    "mnt_namespace",
    "pt_regs",
    "trace_event_raw_sys_exit",
    "trace_event_raw_io_uring_complete",
    "trace_event_raw_io_uring_submit_req",
];

/// A function of the kernel for programs alone, which is there when `current` can be had with its type.
pub(super) const TYPED_TASK: &str = "bpf_get_current_task_btf";
/// The same for the user's registers of a task.
pub(super) const TYPED_REGISTERS: &str = "bpf_task_pt_regs";

/// A field without which no program can work.
#[derive(Debug, thiserror::Error)]
#[error("find {structure}.{member} in the kernel's BTF: not there; please report this kernel")]
pub struct MissingField {
    structure: &'static str,
    member: &'static str,
}

/// `I_DIRTY_PAGES` of kernels where it is a macro: bit 2, and from 6.11 on bit 5. Neither kind of them passes the
/// other's bit to `__mark_inode_dirty`.
const DIRTY_PAGES: u32 = 1 << 2 | 1 << 5;

/// Registers that hold a system call's arguments, and the one with its number.
#[cfg(target_arch = "x86_64")]
const REGISTERS: ([&str; 6], &str) = (["di", "si", "dx", "r10", "r8", "r9"], "orig_ax");

/// Registers that hold the arguments of a call of the 32-bit table.
#[cfg(target_arch = "x86_64")]
const COMPAT_REGISTERS: [&str; 6] = ["bx", "cx", "dx", "si", "di", "bp"];

/// Looks up every field.
///
/// # Errors
/// When a field is missing that every supported kernel has.
pub fn offsets(btf: &Btf) -> Result<Offsets, MissingField> {
    let need = |structure: &'static str, member: &'static str| {
        btf.offset_of(structure, member).ok_or(MissingField { structure, member })
    };
    let optional = |structure: &str, member: &str| btf.offset_of(structure, member).unwrap_or(ABSENT);
    let (mut regs_arg, registers) = ([0; 6], argument_registers());
    for (slot, register) in regs_arg.iter_mut().zip(registers.0) {
        *slot = need("pt_regs", register)?;
    }
    let ([mtime, mtime_nsec], [ctime, ctime_nsec]) = (time(btf, "i_mtime"), time(btf, "i_ctime"));
    let [children, sibling] = children(btf);
    let mut regs_compat = [0; 6];
    for (slot, register) in regs_compat.iter_mut().zip(COMPAT_REGISTERS) {
        *slot = need("pt_regs", register)?;
    }
    Ok(Offsets {
        file_f_inode: need("file", "f_inode")?,
        file_f_mode: need("file", "f_mode")?,
        file_f_flags: need("file", "f_flags")?,
        file_dentry: need("file", "f_path.dentry")?,
        file_mnt: need("file", "f_path.mnt")?,
        file_private_data: need("file", "private_data")?,
        inode_i_sb: need("inode", "i_sb")?,
        inode_i_ino: need("inode", "i_ino")?,
        inode_i_generation: need("inode", "i_generation")?,
        inode_i_mode: need("inode", "i_mode")?,
        inode_i_nlink: need("inode", "i_nlink")?,
        inode_i_size: need("inode", "i_size")?,
        inode_i_dentry: need("inode", "i_dentry")?,
        inode_mtime: mtime,
        inode_mtime_nsec: mtime_nsec,
        inode_ctime: ctime,
        inode_ctime_nsec: ctime_nsec,
        dentry_d_parent: need("dentry", "d_parent")?,
        dentry_d_inode: need("dentry", "d_inode")?,
        dentry_d_name_name: need("dentry", "d_name.name")?,
        dentry_d_name_len: need("dentry", "d_name.len")?,
        dentry_d_name_hash: need("dentry", "d_name.hash")?,
        dentry_d_hash_pprev: need("dentry", "d_hash.pprev")?,
        dentry_d_seq: need("dentry", "d_seq")?,
        dentry_d_alias: need("dentry", "d_u.d_alias").or_else(|_| need("dentry", "d_alias"))?,
        dentry_d_sb: need("dentry", "d_sb")?,
        dentry_neighbours: u32::from(neighbours(btf)),
        dentry_children: children,
        dentry_sibling: sibling,
        super_block_s_dev: need("super_block", "s_dev")?,
        super_block_s_magic: need("super_block", "s_magic")?,
        mount_mnt: need("mount", "mnt")?,
        mount_mnt_id: need("mount", "mnt_id")?,
        mount_mnt_ns: need("mount", "mnt_ns")?,
        task_files: need("task_struct", "files")?,
        task_fs: need("task_struct", "fs")?,
        task_stack: need("task_struct", "stack")?,
        task_flags: need("task_struct", "flags")?,
        task_cred: need("task_struct", "cred")?,
        task_real_cred: need("task_struct", "real_cred")?,
        task_io_worker: optional("task_struct", "worker_private")
            .min(optional("task_struct", "pf_io_worker")),
        io_worker_cur_work: optional("io_worker", "cur_work"),
        task_tgid: need("task_struct", "tgid")?,
        task_pid: need("task_struct", "pid")?,
        task_comm: need("task_struct", "comm")?,
        task_thread_status: optional("task_struct", "thread_info.status"),
        task_nsproxy: need("task_struct", "nsproxy")?,
        nsproxy_mnt_ns: need("nsproxy", "mnt_ns")?,
        mnt_namespace_inum: need("mnt_namespace", "ns.inum")?,
        cred_euid: need("cred", "euid")?,
        files_fdt: need("files_struct", "fdt")?,
        fdtable_fd: need("fdtable", "fd")?,
        fdtable_max_fds: need("fdtable", "max_fds")?,
        fs_pwd_dentry: need("fs_struct", "pwd.dentry")?,
        fs_pwd_mnt: need("fs_struct", "pwd.mnt")?,
        fs_root_dentry: need("fs_struct", "root.dentry")?,
        fs_root_mnt: need("fs_struct", "root.mnt")?,
        iattr_ia_valid: need("iattr", "ia_valid")?,
        renamedata_old_dentry: optional("renamedata", "old_dentry"),
        renamedata_new_dentry: optional("renamedata", "new_dentry"),
        renamedata_flags: optional("renamedata", "flags"),
        kiocb_ki_filp: need("kiocb", "ki_filp")?,
        kiocb_ki_flags: need("kiocb", "ki_flags")?,
        io_kiocb_file: optional("io_kiocb", "file"),
        io_kiocb_opcode: optional("io_kiocb", "opcode"),
        io_kiocb_flags: optional("io_kiocb", "flags"),
        io_kiocb_work: optional("io_kiocb", "work"),
        io_kiocb_creds: optional("io_kiocb", "creds"),
        io_kiocb_ctx: optional("io_kiocb", "ctx"),
        io_ring_ctx_flags: optional("io_ring_ctx", "flags"),
        io_ring_ctx_files: optional("io_ring_ctx", "file_table.files")
            .min(optional("io_ring_ctx", "file_table.data.nodes")),
        io_rsrc_node_file: optional("io_rsrc_node", "file_ptr"),
        io_kiocb_task: optional("io_kiocb", "task"),
        io_kiocb_tctx: optional("io_kiocb", "tctx"),
        io_uring_task_task: optional("io_uring_task", "task"),
        io_uring_cqe_res: optional("io_uring_cqe", "res"),
        vm_fault_vma: need("vm_fault", "vma")?,
        vma_vm_file: need("vm_area_struct", "vm_file")?,
        backing_file_user_dentry: optional("backing_file", "user_path.dentry"),
        inode_i_fsnotify_mask: optional("inode", "i_fsnotify_mask"),
        inode_i_fsnotify_marks: optional("inode", "i_fsnotify_marks"),
        connector_list: optional("fsnotify_mark_connector", "list"),
        mark_group: need("fsnotify_mark", "group")?,
        inotify_mark_wd: optional("inotify_inode_mark", "wd"),
        inotify_event: event(btf),
        group_q_len: optional("fsnotify_group", "q_len"),
        group_max_events: optional("fsnotify_group", "max_events"),
        group_shutdown: optional("fsnotify_group", "shutdown"),
        group_unread: unread(btf),
        regs_sysno: need("pt_regs", registers.1)?,
        dirty_pages: btf.enumerator("I_DIRTY_PAGES").unwrap_or(DIRTY_PAGES),
        has_typed_task: u32::from(btf.function(TYPED_TASK).is_some()),
        has_typed_registers: u32::from(btf.function(TYPED_REGISTERS).is_some()),
        task_min_flt: need("task_struct", "min_flt")?,
        task_maj_flt: need("task_struct", "maj_flt")?,
        task_migration_disabled: optional("task_struct", "migration_disabled"),
        trace_uring_req: optional("trace_event_raw_io_uring_complete", "req"),
        trace_uring_res: optional("trace_event_raw_io_uring_complete", "res"),
        trace_uring_submitted: optional("trace_event_raw_io_uring_submit_req", "req"),
        filename_name: optional("filename", "name"),
        io_open_flags: optional("io_open", "how.flags"),
        io_sync_mode: optional("io_sync", "mode"),
        sysno_ioctl: libc::SYS_ioctl as u32,
        regs_arg,
        regs_compat,
        arguments: [Arguments::NONE; HOOKS],
    })
}

/// Where a group has its first unread event: `list` is the first member of an event, else that is not its address.
fn unread(btf: &Btf) -> u32 {
    let is_first = btf.offset_of("fsnotify_event", "list") == Some(0);
    let next = btf.offset_of("fsnotify_group", "notification_list.next");
    next.filter(|_| is_first).unwrap_or(ABSENT)
}

/// Where what userspace reads of an inotify event begins, if it is in one piece.
fn event(btf: &Btf) -> u32 {
    let at = |path| btf.offset_of("inotify_event_info", path);
    let Some(first) = at("mask") else { return ABSENT };
    let others = ["wd", "sync_cookie", "name_len", "name"];
    let are_next = others.iter().zip(1..).all(|(path, nth)| at(path) == Some(first + 4 * nth));
    if are_next { first } else { ABSENT }
}

/// Whether `d_parent`, `d_name` and `d_inode` follow each other without a gap, so that one read gets all three.
fn neighbours(btf: &Btf) -> bool {
    let at = |member| btf.offset_of("dentry", member);
    let Some(parent) = at("d_parent") else { return false };
    at("d_name.len") == Some(parent + 12)
        && at("d_name.name") == Some(parent + 16)
        && at("d_inode") == Some(parent + 24)
}

/// Seconds and nanoseconds of an inode's time: two members on newer kernels, one before, whose name has changed as well.
fn time(btf: &Btf, name: &str) -> [u32; 2] {
    let pairs = [
        [format!("{name}_sec"), format!("{name}_nsec")],
        [format!("__{name}.tv_sec"), format!("__{name}.tv_nsec")],
        [format!("{name}.tv_sec"), format!("{name}.tv_nsec")],
    ];
    first_pair(btf, "inode", &pairs)
}

/// The list of a directory's dentries, and where a dentry is in it.
fn children(btf: &Btf) -> [u32; 2] {
    first_pair(btf, "dentry", &[["d_children.first", "d_sib.next"], ["d_subdirs.next", "d_child.next"]])
}

/// The first two members that are both there.
fn first_pair(btf: &Btf, structure: &str, pairs: &[[impl AsRef<str>; 2]]) -> [u32; 2] {
    let both = |[one, other]: &[_; 2]| {
        let find = |member: &str| btf.offset_of(structure, member);
        Some([find(AsRef::as_ref(one))?, find(AsRef::as_ref(other))?])
    };
    pairs.iter().find_map(both).unwrap_or([ABSENT; 2])
}

const fn argument_registers() -> ([&'static str; 6], &'static str) {
    REGISTERS
}
