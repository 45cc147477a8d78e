//! Gives the program its kernel side: the object that `HOTR_EBPF_OBJECT` names, or an empty one.
//!
//! What only debuggers want of it is left out: it is most of the file, and aya would read it at each start. The lines
//! of the source, which the verifier puts in its log, are left out of optimised programs.
//!
//! An object with messages (`cargo xtask build --log-ebpf`) is known by its map for them: `cfg(hotr_log_ebpf)`.
//!
//! `cargo xtask build` sets the variable. Without it (`cargo check`, `cargo clippy`, `cargo test`, an editor) the
//! program compiles with an empty object and `cfg(hotr_without_ebpf)`, and says so when it is run.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use object::build::elf::{Builder, SectionData};

const OBJECT: &str = "HOTR_EBPF_OBJECT";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={OBJECT}");
    println!("cargo::rustc-check-cfg=cfg(hotr_without_ebpf)");
    println!("cargo::rustc-check-cfg=cfg(hotr_log_ebpf)");
    let object = match env::var_os(OBJECT).filter(|value| !value.is_empty()) {
        Some(object) => without_debug_info(&PathBuf::from(object)),
        None => {
            println!("cargo::rustc-cfg=hotr_without_ebpf");
            Vec::new()
        }
    };
    let folder = env::var_os("OUT_DIR").expect("cargo sets OUT_DIR for build scripts");
    let file = Path::new(&folder).join("hotr-ebpf.o");
    if let Err(error) = fs::write(&file, object) {
        panic!("write the object to carry {}: {error}", file.display());
    }
    println!("cargo::rustc-env={OBJECT}={}", file.display());
}

fn without_debug_info(file: &Path) -> Vec<u8> {
    println!("cargo::rerun-if-changed={}", file.display());
    let read = fs::read(file).unwrap_or_else(|error| panic!("read the object {}: {error}", file.display()));
    let with_lines = env::var("PROFILE").is_ok_and(|profile| profile == "debug");
    let shorten = || -> object::build::Result<Vec<u8>> {
        let mut object = Builder::read(&*read)?;
        for section in &mut object.sections {
            // Relocations of `.BTF` are for linkers.
            section.delete = [".debug_", ".rel.debug_", ".rel.BTF"]
                .iter()
                .any(|unwanted| section.name.starts_with(unwanted.as_bytes()));
            if section.name.as_slice() == b".BTF.ext"
                && !with_lines
                && let SectionData::Data(data) = &mut section.data
                && let Some(shortened) = without_lines(data)
            {
                *data = shortened.into();
            }
        }
        object.delete_orphans();
        if !object.sections.iter().any(|section| matches!(section.data, SectionData::SectionString)) {
            // LLVM keeps the names of sections and symbols in one table, the builder in two.
            let names = object.sections.add();
            names.name = ".shstrtab".into();
            names.sh_type = object::elf::SHT_STRTAB;
            names.sh_addralign = 1;
            names.data = SectionData::SectionString;
        }
        if object.symbols.iter().any(|symbol| symbol.name.as_slice() == b"AYA_LOGS") {
            println!("cargo::rustc-cfg=hotr_log_ebpf");
        }
        let mut shortened = Vec::new();
        object.write(&mut shortened)?;
        Ok(shortened)
    };
    shorten().unwrap_or_else(|error| panic!("shorten the object {}: {error}", file.display()))
}

/// `.BTF.ext` up to the lines, when nothing but lines follows what it says of functions.
fn without_lines(data: &[u8]) -> Option<Vec<u8>> {
    // `struct btf_ext_header` (tools/lib/bpf/libbpf_internal.h).
    const HEADER: usize = 4;
    const FUNCTIONS: usize = 8;
    const FUNCTIONS_LEN: usize = 12;
    const LINES: usize = 16;
    const LINES_LEN: usize = 20;
    const RELOCATIONS: usize = 24;
    const RELOCATIONS_LEN: usize = 28;
    let word = |at: usize| Some(u32::from_le_bytes(data.get(at..at + 4)?.try_into().ok()?) as usize);
    let lines = word(FUNCTIONS)? + word(FUNCTIONS_LEN)?;
    if word(HEADER)? <= RELOCATIONS_LEN || word(RELOCATIONS_LEN)? != 0 || word(LINES)? != lines {
        return None;
    }
    let mut shortened = data.get(..word(HEADER)? + lines)?.to_vec();
    shortened[LINES_LEN..LINES_LEN + 4].fill(0);
    shortened.copy_within(LINES..LINES + 4, RELOCATIONS);
    Some(shortened)
}
