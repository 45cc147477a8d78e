//! The files of hotr on an installed system.
//!
//! In: the program, its texts, and `xtask/packaging/`. Out: one tree of names and contents for each kind of package; they
//! differ only in where a distribution wants its documents and completions.

use anyhow::{Context as _, Result};

use super::{
    Ingredients,
    archive::gzip,
    man,
    tree::{File, Tree, file},
};
use crate::paths;

/// Where the package manager's distribution keeps things.
pub(super) struct Layout {
    /// zsh's completions.
    pub(super) zsh: &'static str,
}

/// A file of `xtask/packaging/`.
pub(super) fn packaging(name: &str) -> Result<Vec<u8>> {
    of_checkout(&format!("xtask/packaging/{name}"))
}

/// A file of the checkout.
pub(super) fn of_checkout(name: &str) -> Result<Vec<u8>> {
    let path = paths::root().join(name);
    std::fs::read(&path).with_context(|| format!("read {}", path.display()))
}

/// What every installed system has: the program, manual pages, completions, units and the user that they run as.
pub(super) fn installed(all: &Ingredients, layout: &Layout) -> Result<Tree> {
    let mut tree = Tree::new();
    tree.insert("usr/bin/hotr".into(), File { mode: 0o755, content: all.program.binary.clone() });
    for (name, page) in man::pages(&all.program.manual)? {
        tree.insert(format!("usr/share/man/man1/{name}.gz"), file(gzip(page.as_bytes())?));
    }
    for (shell, script) in &all.program.completions {
        let name = match *shell {
            "bash" => "usr/share/bash-completion/completions/hotr".to_owned(),
            "zsh" => format!("{}/_hotr", layout.zsh),
            _ => "usr/share/fish/vendor_completions.d/hotr.fish".to_owned(),
        };
        tree.insert(name, file(script.clone()));
    }
    tree.insert(
        "usr/lib/systemd/system/hotr-trace@.service".into(),
        file(packaging("systemd/hotr-trace@.service")?),
    );
    tree.insert("usr/lib/sysusers.d/hotr.conf".into(), file(packaging("systemd/hotr.sysusers")?));
    Ok(tree)
}

/// What is unpacked anywhere, by hand.
pub(super) fn for_archive(all: &Ingredients) -> Result<Tree> {
    let mut tree = Tree::new();
    tree.insert("hotr".into(), File { mode: 0o755, content: all.program.binary.clone() });
    for (name, page) in man::pages(&all.program.manual)? {
        tree.insert(format!("man/{name}"), file(page));
    }
    for (shell, script) in &all.program.completions {
        let name = match *shell {
            "zsh" => "completions/_hotr".to_owned(),
            "fish" => "completions/hotr.fish".to_owned(),
            _ => "completions/hotr.bash".to_owned(),
        };
        tree.insert(name, file(script.clone()));
    }
    for name in ["hotr-trace@.service", "hotr.sysusers"] {
        tree.insert(format!("systemd/{name}"), file(packaging(&format!("systemd/{name}"))?));
    }
    for name in ["CHANGELOG.md", "LICENSE", "LICENSE-APACHE", "LICENSE-MIT"] {
        tree.insert(name.into(), file(of_checkout(name)?));
    }
    tree.insert("THIRD-PARTY".into(), file(all.notices.clone()));
    Ok(tree)
}
