//! The package for Fedora, RHEL, openSUSE and others that use RPM.
//!
//! Units and the users that they run as are put in force by file triggers of systemd's own package.

use ::rpm::{BuildConfig, CompressionType, FileOptions, PackageBuilder};
use anyhow::{Context as _, Result};

use super::{
    Ingredients, deb,
    files::{self, Layout, of_checkout, packaging},
    tree::file,
};

/// Counts the packages of one version.
const RELEASE: &str = "1";
const DOCUMENTS: &str = "usr/share/doc/hotr";
const LICENCES: &str = "usr/share/licenses/hotr";

const DESCRIPTION: &str = "\
hotr reports every change below a directory as the kernel makes it: what changed, how, and which process did it. It also \
watches the directory with inotify, and reports for each change whether inotify received it and, if not, why.";

/// The package's file name.
pub(super) fn name(all: &Ingredients) -> String {
    format!("hotr-{}-{RELEASE}.{}.rpm", all.source.version, std::env::consts::ARCH)
}

/// The package.
pub(super) fn package(all: &Ingredients) -> Result<Vec<u8>> {
    let what = "build the RPM";
    let mut tree = files::installed(all, &Layout { zsh: "usr/share/zsh/site-functions" })?;
    tree.insert(format!("{DOCUMENTS}/CHANGELOG.md"), file(of_checkout("CHANGELOG.md")?));
    for name in ["LICENSE", "LICENSE-APACHE", "LICENSE-MIT"] {
        tree.insert(format!("{LICENCES}/{name}"), file(of_checkout(name)?));
    }
    tree.insert(format!("{LICENCES}/THIRD-PARTY"), file(all.notices.clone()));
    let time = u32::try_from(all.source.time).context("build the RPM: the commit's time is out of range")?;
    let config = BuildConfig::v4().compression(CompressionType::Gzip).source_date(time);
    let licence = "MIT OR Apache-2.0";
    let mut builder =
        PackageBuilder::new("hotr", &all.source.version, licence, std::env::consts::ARCH, deb::SUMMARY);
    builder.using_config(config).release(RELEASE).description(DESCRIPTION).packager(all.maintainer.clone());
    builder.pre_uninstall_script(String::from_utf8(packaging("rpm/preun")?).context(what)?);
    for name in [DOCUMENTS, LICENCES] {
        builder.with_dir_entry(FileOptions::dir(format!("/{name}")).permissions(0o755)).context(what)?;
    }
    for (name, content) in &tree {
        let mut options = FileOptions::new(format!("/{name}"));
        options = options.permissions(u16::try_from(content.mode).context(what)?);
        if name.starts_with(LICENCES) {
            options = options.license();
        } else if name.starts_with(DOCUMENTS) || name.starts_with("usr/share/man/") {
            options = options.doc();
        }
        builder
            .with_file_contents(content.content.clone(), options)
            .with_context(|| format!("{what}: {name}"))?;
    }
    let mut bytes = Vec::new();
    builder.build().context(what)?.write(&mut bytes).context(what)?;
    Ok(bytes)
}
