//! `cargo xtask dist`: the packages of hotr, from one commit.
//!
//! In: the checkout. Out: `target/dist/`, with a Debian package, an RPM, an archive, a container image, the list of what is
//! linked into the program, and the hashes of them all. Nothing of the machine or the moment gets in: who builds the same
//! commit with the same compilers gets the same bytes.

mod archive;
mod compare;
mod components;
mod deb;
mod files;
mod kernel_side;
mod man;
mod notices;
mod oci;
mod program;
mod rpm;
mod sbom;
mod source;
mod sums;
mod tree;
pub(crate) mod trial;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, Result};
use clap::Args;

use crate::{cmd::say, paths, setup};
use components::Component;
use program::Program;
use source::Source;
use tree::Tree;

/// What to build, and what to do with it.
#[derive(Args)]
pub(crate) struct DistArgs {
    /// Also when files differ from the commit; the packages then say so
    #[arg(long)]
    allow_dirty: bool,
    /// Build a second time, from a clone in another folder, and compare every byte
    #[arg(long, conflicts_with = "allow_dirty")]
    check: bool,
    /// Install, run and remove what was built: in a fresh Debian, by rpm, in a container, under systemd. Needs root
    #[arg(long)]
    test: bool,
    /// Who is responsible for the packages [default: the author of the commit]
    #[arg(long, value_name = "NAME <MAIL>", value_parser = maintainer)]
    maintainer: Option<String>,
}

/// All that goes into packages.
struct Ingredients {
    source: Source,
    program: Program,
    components: Vec<Component>,
    maintainer: String,
    /// The licences of others, as text.
    notices: Vec<u8>,
}

/// Entry point of the command.
pub(crate) fn run(args: &DistArgs) -> Result<()> {
    let start = Instant::now();
    let source = Source::of_checkout()?;
    source.must_be_clean(args.allow_dirty)?;
    let folder = build(source, args.maintainer.clone())?;
    say(format!("dist: built in {} s", start.elapsed().as_secs()));
    if args.check {
        compare::with_clone(&folder, args.maintainer.as_deref())?;
    }
    if args.test {
        trial::run(&folder)?;
    }
    println!("{}", folder.display());
    Ok(())
}

/// Builds everything into an empty `target/dist`, and returns that folder.
fn build(source: Source, maintainer: Option<String>) -> Result<PathBuf> {
    let rust = setup::build()?;
    let program = program::build(&rust, &source)?;
    let components = components::linked()?;
    let notices = notices::text(&components)?;
    let maintainer = maintainer.unwrap_or_else(|| source.author.clone());
    let all = Ingredients { source, program, components, maintainer, notices };
    let folder = paths::target().join("dist");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("empty {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    put(&folder, &deb::name(&all), &deb::package(&all)?)?;
    put(&folder, &rpm::name(&all), &rpm::package(&all)?)?;
    let stem = format!("hotr-{}-{}-linux", all.source.version, std::env::consts::ARCH);
    let tree = files::for_archive(&all)?;
    let tar = archive::tar(&tree, &format!("{stem}/"), all.source.time)?;
    put(&folder, &format!("{stem}.tar.gz"), &archive::gzip(&tar)?)?;
    put(&folder, &format!("{stem}.cdx.json"), &sbom::json(&all)?)?;
    let image: Tree = oci::image(&all)?;
    for (name, file) in &image {
        put(&folder, &format!("{stem}.oci/{name}"), &file.content)?;
    }
    put(&folder, "SHA256SUMS", &sums::of(&folder)?)?;
    Ok(folder)
}

fn put(folder: &Path, name: &str, content: &[u8]) -> Result<()> {
    let file = folder.join(name);
    let within = file.parent().unwrap_or(folder);
    fs::create_dir_all(within).with_context(|| format!("create {}", within.display()))?;
    fs::write(&file, content).with_context(|| format!("write {}", file.display()))
}

/// Both packages have it in this form.
fn maintainer(text: &str) -> Result<String, String> {
    let is_mail = |rest: &str| rest.strip_suffix('>').is_some_and(|mail| mail.contains('@'));
    match text.split_once(" <") {
        Some((name, rest)) if !name.trim().is_empty() && is_mail(rest) && !text.contains('\n') => {
            Ok(text.to_owned())
        }
        _ => Err("name who is responsible as 'NAME <MAIL>'".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_maintainer_is_a_name_and_a_mail_address() {
        assert_eq!(maintainer("A B <a@b.c>"), Ok("A B <a@b.c>".to_owned()));
        for bad in ["", "A B", "<a@b.c>", " <a@b.c>", "A <b>", "A <a@b", "A\nB <a@b.c>"] {
            assert!(maintainer(bad).is_err(), "{bad:?}");
        }
    }
}
