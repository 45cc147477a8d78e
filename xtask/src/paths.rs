//! Where things lie: the repository, what is built in it, and what outlives `cargo clean`.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};

/// The repository's root.
pub(crate) fn root() -> &'static Path {
    // xtask is always run from the checkout that it was built in.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask/ lies in the repository")
}

/// Cargo's target folder of the workspace.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// The crate of the kernel side.
pub(crate) fn ebpf_crate() -> PathBuf {
    root().join("hotr-ebpf")
}

/// The folder of downloaded kernels: `$HOTR_CACHE`, else the user's cache folder.
pub(crate) fn cache() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("HOTR_CACHE") {
        return Ok(std::path::absolute(PathBuf::from(dir))?);
    }
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|dir| dir.is_absolute())
        .or_else(|| std::env::home_dir().map(|home| home.join(".cache")))
        .ok_or_else(|| {
            anyhow!(
                "find the cache folder: neither HOTR_CACHE, XDG_CACHE_HOME nor HOME is set; set HOTR_CACHE"
            )
        })?;
    Ok(base.join("hotr"))
}
