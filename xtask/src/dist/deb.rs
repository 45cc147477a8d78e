//! The Debian package (deb(5)): no dependency, because the program has its libraries inside.
//!
//! In: the tree of files and `xtask/packaging/debian/`. Out: the package's bytes.

use anyhow::{Context as _, Result, bail};
use data_encoding::HEXLOWER;
use md5::{Digest as _, Md5};

use super::{
    Ingredients,
    archive::{gzip, tar},
    files::{self, Layout, of_checkout, packaging},
    tree::{File, Tree, file, folders},
};

/// Counts the packages of one version.
const REVISION: &str = "1";

/// What the package is, in one line and in a paragraph. Debian wants no article and no full stop in the line.
pub(super) const SUMMARY: &str = "kernel-level tracer of file changes";
const DESCRIPTION: [&str; 5] = [
    "hotr reports every change below a directory as the kernel makes it: what",
    "changed, how, and which process did it. It also watches the directory with",
    "inotify, and reports for each change whether inotify received it and, if not,",
    "why. It finds watches of other programs that miss changes, and restarts,",
    "signals or reloads a service when its files really change.",
];

/// The package's file name.
pub(super) fn name(all: &Ingredients) -> String {
    format!("hotr_{}-{REVISION}_{}.deb", all.source.version, architecture().unwrap_or("unknown"))
}

/// The package.
pub(super) fn package(all: &Ingredients) -> Result<Vec<u8>> {
    let tree = data(all)?;
    let time = all.source.time;
    let control = gzip(&tar(&control(all, &tree)?, "./", time)?)?;
    let data = gzip(&tar(&tree, "./", time)?)?;
    let mut builder = ar::Builder::new(Vec::new());
    for (name, content) in
        [("debian-binary", &b"2.0\n"[..]), ("control.tar.gz", &control), ("data.tar.gz", &data)]
    {
        let size = u64::try_from(content.len()).context("build the Debian package")?;
        let mut header = ar::Header::new(name.as_bytes().to_vec(), size);
        header.set_mtime(time);
        header.set_mode(0o100_644);
        builder.append(&header, content).context("build the Debian package")?;
    }
    builder.into_inner().context("build the Debian package")
}

/// The files that are installed.
fn data(all: &Ingredients) -> Result<Tree> {
    let mut tree = files::installed(all, &Layout { zsh: "usr/share/zsh/vendor-completions" })?;
    let documents = [
        ("copyright", packaging("debian/copyright")?),
        ("changelog.gz", gzip(&of_checkout("CHANGELOG.md")?)?),
        ("changelog.Debian.gz", gzip(changelog(all).as_bytes())?),
        ("THIRD-PARTY.gz", gzip(&all.notices)?),
    ];
    for (name, content) in documents {
        tree.insert(format!("usr/share/doc/hotr/{name}"), file(content));
    }
    tree.insert("usr/share/lintian/overrides/hotr".into(), file(packaging("debian/lintian-overrides")?));
    Ok(tree)
}

/// What dpkg reads before it unpacks.
fn control(all: &Ingredients, data: &Tree) -> Result<Tree> {
    // dpkg counts files in whole KiB, and one for each folder (deb-substvars(5)).
    let files: usize = data.values().map(|file| file.content.len().div_ceil(1024)).sum();
    let size = files + folders(data).len();
    let fields = format!(
        "Package: hotr\nVersion: {}-{REVISION}\nArchitecture: {}\nMaintainer: {}\nInstalled-Size: {size}\n\
         Section: admin\nPriority: optional\nDescription: {SUMMARY}\n{}",
        all.source.version,
        architecture()?,
        all.maintainer,
        DESCRIPTION.map(|line| format!(" {line}\n")).concat(),
    );
    let sums: String = data
        .iter()
        .map(|(name, file)| format!("{}  {name}\n", HEXLOWER.encode(&Md5::digest(&file.content))))
        .collect();
    let mut tree = Tree::from([("control".to_owned(), file(fields)), ("md5sums".to_owned(), file(sums))]);
    for script in ["postinst", "prerm", "postrm"] {
        let content = packaging(&format!("debian/{script}"))?;
        tree.insert(script.to_owned(), File { mode: 0o755, content });
    }
    Ok(tree)
}

/// The package's own history: each is made of one commit, and what that brings is in the changelog of hotr.
fn changelog(all: &Ingredients) -> String {
    format!(
        "hotr ({}-{REVISION}) unstable; urgency=medium\n\n  * Package of commit {};\n    what is new is in changelog.gz.\n\n -- {}  {}\n",
        all.source.version,
        all.source.revision(),
        all.maintainer,
        all.source.mail_date
    )
}

/// As Debian calls it.
fn architecture() -> Result<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => bail!("package hotr: Debian's name for {other} is not known; add it to deb.rs"),
    }
}
