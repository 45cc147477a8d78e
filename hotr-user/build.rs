//! Gives the program its kernel side: the object that `HOTR_EBPF_OBJECT` names, or an empty one.
//!
//! `cargo xtask build` sets the variable. Without it (`cargo check`, `cargo clippy`, `cargo test`, an editor) the
//! program compiles with an empty object and `cfg(hotr_without_ebpf)`, and says so when it is run.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

const OBJECT: &str = "HOTR_EBPF_OBJECT";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={OBJECT}");
    println!("cargo::rustc-check-cfg=cfg(hotr_without_ebpf)");
    let object = match env::var_os(OBJECT).filter(|value| !value.is_empty()) {
        Some(object) => PathBuf::from(object),
        None => {
            println!("cargo::rustc-cfg=hotr_without_ebpf");
            empty_object()
        }
    };
    println!("cargo::rerun-if-changed={}", object.display());
    println!("cargo::rustc-env={OBJECT}={}", object.display());
}

fn empty_object() -> PathBuf {
    let folder = env::var_os("OUT_DIR").expect("cargo sets OUT_DIR for build scripts");
    let file = Path::new(&folder).join("empty.o");
    if let Err(error) = fs::write(&file, []) {
        panic!("write the empty object {}: {error}", file.display());
    }
    file
}
