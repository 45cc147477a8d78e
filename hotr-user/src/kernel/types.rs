//! What hotr keeps of the kernel's type information: all it asks for later, and the ids that aya needs.
//!
//! The kernel's types take 5 MB, and aya's copy of them eight times that. Both would be most of hotr's memory, and of the
//! time until `ready`. So they are read once, by [`super::btf`], and given back before the programs are loaded; aya is
//! given a stand-in, in which only the functions and tracepoints that hotr attaches to have a name.

use std::collections::HashMap;
use std::sync::OnceLock;

use aya::{Btf as AyaBtf, BtfError as AyaBtfError, EbpfLoader, Endianness};
use hotr_common::hook::Hook;
use hotr_common::offsets::Offsets;
use hotr_common::rules::Rule;

use super::btf::{Btf, Prototype, Wanted};
use super::error::LoadError;
use super::offsets::offsets;
use super::perf;
use super::uring;

/// Functions or tracepoints of the kernel, with their ids.
type Ids = HashMap<&'static str, (u32, Prototype)>;

/// The running kernel's types, as far as hotr needs them.
pub struct KernelTypes {
    /// Where the fields are that the programs read; the positions of arguments are not filled in.
    pub offsets: Offsets,
    /// See [`perf::knows_exit`].
    pub knows_exit: bool,
    /// See [`uring::rules`].
    pub uring: Vec<(u32, &'static [Hook], Rule)>,
    functions: Ids,
    tracepoints: Ids,
    /// No program asks aya for a function.
    hooks_none: bool,
    aya: OnceLock<AyaBtf>,
}

impl KernelTypes {
    /// Reads those that are `wanted`, see [`super::wanted`].
    ///
    /// # Errors
    /// When the kernel offers none, they are malformed, or a field is missing that every supported kernel has.
    pub fn read(wanted: &Wanted) -> Result<Self, LoadError> {
        let btf = Btf::from_kernel(wanted)?;
        let offsets = offsets(&btf)?;
        let found = |name: &&'static str| Some((*name, btf.function(name)?));
        let functions: Ids = wanted.functions.iter().filter_map(found).collect();
        let found = |name: &&'static str| Some((*name, btf.tracepoint(name)?));
        let tracepoints: Ids = wanted.tracepoints.iter().filter_map(found).collect();
        let knows_exit = perf::knows_exit(&btf);
        let uring = uring::rules(&btf);
        drop(btf);
        Ok(Self {
            offsets,
            knows_exit,
            uring,
            functions,
            tracepoints,
            hooks_none: false,
            aya: OnceLock::new(),
        })
    }

    /// From now on no fentry program is loaded. Functions have the largest ids; aya's stand-in is a fraction without.
    pub fn hook_no_functions(&mut self) {
        self.hooks_none = true;
    }

    /// A function's prototype; `None` when the kernel has no such function, or none that can be hooked.
    #[must_use]
    pub fn function(&self, name: &str) -> Option<&Prototype> {
        self.functions.get(name).map(|(_, prototype)| prototype)
    }

    /// A function's id; `None` as above.
    #[must_use]
    pub fn function_id(&self, name: &str) -> Option<u32> {
        self.functions.get(name).map(|(id, _)| *id)
    }

    /// Arguments of a tracepoint; `None` when the kernel has none of this name.
    #[must_use]
    pub fn tracepoint(&self, name: &str) -> Option<&Prototype> {
        self.tracepoints.get(name).map(|(_, prototype)| prototype)
    }

    /// What aya's programs look their function or tracepoint up in. Made when it is first used, which takes as long as
    /// the object does to be loaded. Where it could not be made, aya finds nothing, and says so of each program.
    #[must_use]
    pub fn for_aya(&self) -> &AyaBtf {
        let none = Ids::new();
        let functions = if self.hooks_none { &none } else { &self.functions };
        self.aya.get_or_init(|| stand_in(functions, &self.tracepoints).unwrap_or_default())
    }
}

const HEADER: usize = 24;
/// Size of a type without members, and the kinds that are written.
const TYPE: usize = 12;
const FORWARD: u32 = 7 << 24;
const TYPEDEF: u32 = 8 << 24;
const FUNC: u32 = 12 << 24;

/// Type information with as many types as the kernel's: aya finds an id by counting. Types without a name (forward
/// declarations, the shortest there are) take the place of those that are not used.
fn stand_in(functions: &Ids, tracepoints: &Ids) -> Result<AyaBtf, AyaBtfError> {
    let functions = functions.iter().map(|(name, (id, _))| (*id, FUNC, (*name).to_owned()));
    let tracepoints = tracepoints.iter().map(|(name, (id, _))| (*id, TYPEDEF, format!("btf_trace_{name}")));
    let named: Vec<(u32, u32, String)> = functions.chain(tracepoints).collect();
    let count = named.iter().map(|(id, ..)| *id as usize).max().unwrap_or(0);
    let mut types = type_entry(0, FORWARD).repeat(count);
    let mut names = vec![0];
    for (id, kind, name) in named {
        // Id 0 is `void`, and is not written.
        let at = TYPE * (id as usize - 1);
        types[at..at + TYPE].copy_from_slice(&type_entry(names.len() as u32, kind));
        names.extend(name.into_bytes());
        names.push(0);
    }
    let (type_len, name_len) = (types.len() as u32, names.len() as u32);
    let header = [MAGIC_AND_VERSION, HEADER as u32, 0, type_len, type_len, name_len];
    let mut bytes = header.map(u32::to_ne_bytes).concat();
    bytes.reserve_exact(types.len() + names.len());
    bytes.extend(types);
    bytes.extend(names);
    AyaBtf::parse(&bytes, Endianness::default())
}

const MAGIC_AND_VERSION: u32 = 0x0001_eb9f;

/// A type without members: where its name is, and its kind.
fn type_entry(name: u32, kind: u32) -> [u8; TYPE] {
    let mut entry = [0; TYPE];
    entry[..4].copy_from_slice(&name.to_ne_bytes());
    entry[4..8].copy_from_slice(&kind.to_ne_bytes());
    entry
}

/// A loader that has not read the kernel's types. `EbpfLoader::new` reads them all, to no use here; so it is called by a
/// thread that the kernel lets open no file. Where that cannot be had, all that is lost is time and memory.
pub(super) fn loader() -> EbpfLoader<'static> {
    let make = || {
        no_more_files();
        EbpfLoader::new()
    };
    let made = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, make).ok()?;
        thread.join().ok()
    });
    let mut loader = made.unwrap_or_default();
    loader.btf(None);
    loader
}

/// Makes each later `open` of this thread fail, for good: a seccomp filter that knows nothing else.
fn no_more_files() {
    const fn op(code: u32, jump: u8, k: u32) -> libc::sock_filter {
        libc::sock_filter { code: code as u16, jt: jump, jf: 0, k }
    }
    let refuse = libc::SECCOMP_RET_ERRNO | libc::ENOENT as u32;
    let mut filter = [
        // The number of the system call.
        op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 2, libc::SYS_openat as u32),
        op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, libc::SYS_open as u32),
        op(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
        op(libc::BPF_RET | libc::BPF_K, 0, refuse),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // A filter needs no privileges then. It is of this thread alone, as is the filter.
    if rustix::thread::set_no_new_privs(true).is_ok() {
        // SAFETY: the program lives until the call returns, and is as long as it says.
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    }
}

#[cfg(test)]
mod tests {
    use aya_obj::btf::BtfKind;

    use super::*;

    #[test]
    fn aya_finds_the_ids_of_the_kernel() {
        let prototype = Prototype { parameters: Vec::new(), returns_pointer: false, returns_nothing: true };
        let functions =
            Ids::from([("vfs_write", (70_000, prototype.clone())), ("vfs_link", (3, prototype.clone()))]);
        let tracepoints = Ids::from([("sys_exit", (1, prototype))]);
        let aya = stand_in(&functions, &tracepoints).expect("it is well formed");
        let id = |name, kind| aya.id_by_type_name_kind(name, kind).ok();
        assert_eq!(id("vfs_write", BtfKind::Func), Some(70_000));
        assert_eq!(id("vfs_link", BtfKind::Func), Some(3));
        assert_eq!(id("btf_trace_sys_exit", BtfKind::Typedef), Some(1));
        assert_eq!(id("vfs_read", BtfKind::Func), None);
    }

    #[test]
    fn the_loader_has_not_read_the_kernels_types() {
        let loader = format!("{:?}", EbpfLoader::new());
        assert!(!std::path::Path::new("/sys/kernel/btf/vmlinux").exists() || !loader.contains("btf: None"));
        let made = std::thread::spawn(|| {
            no_more_files();
            format!("{:?}", EbpfLoader::new())
        });
        assert!(made.join().expect("it does not panic").contains("btf: None"));
        // And only that thread may open no file.
        assert!(std::fs::File::open("/proc/self/status").is_ok());
    }
}
