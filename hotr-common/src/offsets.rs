//! Where the running kernel keeps its fields: filled from BTF, frozen before the programs are verified.

use crate::hook::HOOKS;

/// A field this kernel does not have.
pub const ABSENT: u32 = u32::MAX;
/// An argument this kernel's prototype does not have.
pub const NO_ARG: u8 = u8::MAX;

/// Byte offsets of structure members.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
#[expect(missing_docs, reason = "each field is named as its kernel structure and member")]
pub struct Offsets {
    pub file_f_inode: u32,
    pub file_f_mode: u32,
    pub file_f_flags: u32,
    pub file_dentry: u32,
    pub file_mnt: u32,
    pub file_private_data: u32,
    pub inode_i_sb: u32,
    pub inode_i_ino: u32,
    pub inode_i_generation: u32,
    pub inode_i_mode: u32,
    pub inode_i_nlink: u32,
    pub inode_i_size: u32,
    pub inode_i_dentry: u32,
    pub inode_i_fsnotify_mask: u32,
    pub inode_i_fsnotify_marks: u32,
    pub connector_list: u32,
    pub inode_mtime: u32,
    pub inode_mtime_nsec: u32,
    pub inode_ctime: u32,
    pub inode_ctime_nsec: u32,
    pub dentry_d_parent: u32,
    pub dentry_d_inode: u32,
    pub dentry_d_name_name: u32,
    pub dentry_d_name_len: u32,
    pub dentry_d_name_hash: u32,
    pub dentry_d_hash_pprev: u32,
    pub dentry_d_seq: u32,
    pub dentry_d_alias: u32,
    pub dentry_d_sb: u32,
    pub dentry_neighbours: u32,
    pub dentry_children: u32,
    pub dentry_sibling: u32,
    pub super_block_s_dev: u32,
    pub super_block_s_magic: u32,
    pub mount_mnt: u32,
    pub mount_mnt_id: u32,
    pub mount_mnt_ns: u32,
    pub task_files: u32,
    pub task_fs: u32,
    pub task_stack: u32,
    pub task_flags: u32,
    pub task_cred: u32,
    pub task_real_cred: u32,
    /// `worker_private` of an io_uring worker; up to 5.17 `pf_io_worker`.
    pub task_io_worker: u32,
    pub io_worker_cur_work: u32,
    pub task_tgid: u32,
    pub task_pid: u32,
    pub task_comm: u32,
    pub task_thread_status: u32,
    pub task_nsproxy: u32,
    pub nsproxy_mnt_ns: u32,
    pub mnt_namespace_inum: u32,
    pub cred_euid: u32,
    pub files_fdt: u32,
    pub fdtable_fd: u32,
    pub fdtable_max_fds: u32,
    pub fs_pwd_dentry: u32,
    pub fs_pwd_mnt: u32,
    pub fs_root_dentry: u32,
    pub fs_root_mnt: u32,
    pub iattr_ia_valid: u32,
    pub renamedata_old_dentry: u32,
    pub renamedata_new_dentry: u32,
    pub renamedata_flags: u32,
    pub kiocb_ki_filp: u32,
    pub kiocb_ki_flags: u32,
    pub io_kiocb_file: u32,
    pub io_kiocb_opcode: u32,
    pub io_kiocb_flags: u32,
    pub io_kiocb_work: u32,
    pub io_kiocb_creds: u32,
    pub io_kiocb_ctx: u32,
    pub io_ring_ctx_flags: u32,
    pub io_ring_ctx_files: u32,
    pub io_rsrc_node_file: u32,
    pub io_kiocb_task: u32,
    pub io_kiocb_tctx: u32,
    pub io_uring_task_task: u32,
    pub io_uring_cqe_res: u32,
    pub vm_fault_vma: u32,
    pub vma_vm_file: u32,
    pub backing_file_user_dentry: u32,
    pub mark_group: u32,
    pub inotify_mark_wd: u32,
    /// `mask`, `wd`, `sync_cookie`, `name_len` and `name` of an event, in this order and without a gap; else absent.
    pub inotify_event: u32,
    pub group_q_len: u32,
    pub group_max_events: u32,
    pub group_shutdown: u32,
    /// The `next` of a group's list of unread events, which is the event itself; else absent.
    pub group_unread: u32,
    pub regs_sysno: u32,
    pub dirty_pages: u32,
    pub has_typed_task: u32,
    pub has_typed_registers: u32,
    pub task_min_flt: u32,
    pub task_maj_flt: u32,
    pub task_migration_disabled: u32,
    pub trace_uring_req: u32,
    pub trace_uring_res: u32,
    pub trace_uring_submitted: u32,
    pub filename_name: u32,
    pub io_open_flags: u32,
    pub io_sync_mode: u32,
    pub sysno_ioctl: u32,
    pub regs_arg: [u32; 6],
    pub regs_compat: [u32; 6],
    pub arguments: [Arguments; HOOKS],
}

/// [`Arguments::ret_pointer`] of the io_uring tracepoint when its result is in the completion entry.
pub const RESULT_IN_CQE: u8 = 1;

/// Which argument of a hooked function is which; `NO_ARG` when it has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Arguments {
    /// The file, dentry or other object the change is about.
    pub subject: u8,
    /// The second object (attributes, result, rename source).
    pub second: u8,
    /// The return value, for exit programs.
    pub ret: u8,
    /// 1 when the function returns a pointer or an error pointer.
    pub ret_pointer: u8,
}

impl Arguments {
    /// Nothing is known.
    pub const NONE: Self = Self { subject: NO_ARG, second: NO_ARG, ret: NO_ARG, ret_pointer: 0 };
}

const _: () = assert!(size_of::<Offsets>() == 4 * (103 + 12) + 4 * HOOKS);
