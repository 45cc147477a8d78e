//! The kernels of the matrix: which there are, and a copy of each on this machine.
//!
//! In: a series (`6.12`), or an image and a module folder of the user's. Out: an image and its modules. Debian's kernels
//! are kept by exact version, so the network is needed once.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow, bail};

use super::archive::Archive;
use crate::{
    apt::{self, Offer},
    cmd::say,
    paths,
};

/// A kernel series of the matrix and the Debian suites that have it.
struct Series {
    label: &'static str,
    suites: &'static [&'static str],
}

const SERIES: [Series; 5] = [
    Series { label: "5.10", suites: &["bullseye", "bullseye-security"] },
    Series { label: "6.1", suites: &["bookworm", "bookworm-security"] },
    Series { label: "6.12", suites: &["bookworm", "bookworm-security"] },
    Series { label: "6.18", suites: &["trixie-backports"] },
    Series { label: "7.3", suites: &["trixie-backports"] },
];

/// A kernel that can be booted.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    /// The series, or the release of a kernel of the user's.
    pub(crate) label: String,
    /// The exact version, for humans.
    pub(crate) version: String,
    /// The bootable image.
    pub(crate) image: PathBuf,
    /// The folder that has its modules.
    pub(crate) modules: PathBuf,
}

/// The labels of the matrix, oldest first.
pub(crate) fn labels() -> Vec<String> {
    SERIES.iter().map(|series| series.label.to_owned()).collect()
}

/// A kernel of the user's.
pub(crate) fn given(image: &Path, modules: &Path) -> Result<Kernel> {
    anyhow::ensure!(image.is_file(), "use the kernel image {}: there is no such file", image.display());
    anyhow::ensure!(modules.is_dir(), "use the modules in {}: there is no such folder", modules.display());
    let label = modules.file_name().unwrap_or(image.as_os_str()).to_string_lossy().into_owned();
    Ok(Kernel { version: label.clone(), label, image: image.to_owned(), modules: modules.to_owned() })
}

/// The newest kernel of a series that is at hand; from the archive when there is none or a newer one is wanted.
pub(crate) fn of_series(label: &str, update: bool) -> Result<Kernel> {
    let series = SERIES.iter().find(|series| series.label == label).with_context(|| {
        format!(
            "choose the kernel {label}: known are {}; for another use --image and --modules",
            labels().join(", ")
        )
    })?;
    let cache = paths::cache()?;
    let folder = cache.join("kernels").join(label);
    let cached = newest_cached(&folder, label);
    if !update && let Some(kernel) = cached {
        return Ok(kernel);
    }
    match (fetch(series, &cache, &folder), cached) {
        (Ok(kernel), _) => Ok(kernel),
        (Err(error), Some(kernel)) => {
            say(format!("vm: no newer {label}: {error:#}; using {}", kernel.version));
            Ok(kernel)
        }
        (Err(error), None) => Err(error.context(format!("get the kernel {label}"))),
    }
}

/// The newest version that was unpacked whole.
fn newest_cached(folder: &Path, label: &str) -> Option<Kernel> {
    let mut versions: Vec<String> = fs::read_dir(folder)
        .ok()?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.'))
        .collect();
    versions.sort_by(|left, right| apt::compare_versions(left, right));
    versions.into_iter().rev().find_map(|version| locate(&folder.join(&version), label, &version).ok())
}

fn fetch(series: &Series, cache: &Path, folder: &Path) -> Result<Kernel> {
    let label = series.label;
    let archive = Archive::open(cache, series.suites)?;
    let escaped = label.replace('.', "\\.");
    let offers = archive.offers(&format!("^linux-(image|binary)-{escaped}\\.[0-9].*-cloud-amd64$"))?;
    let newest = choose(&offers)
        .ok_or_else(|| anyhow!("no package of this series in {}", series.suites.join(", ")))?;
    let target = folder.join(&newest.version);
    if let Ok(kernel) = locate(&target, label, &newest.version) {
        return Ok(kernel);
    }
    say(format!("vm: downloading {} {}", newest.package, newest.version));
    // A name with a dot is ignored: an interrupted download does not count as a kernel.
    let unfinished = folder.join(format!(".{}.{}", newest.version, std::process::id()));
    let unpacked = packages(&newest.package)
        .iter()
        .try_for_each(|package| archive.unpack(package, &newest.version, &unfinished))
        .and_then(|()| locate(&unfinished, label, &newest.version).map(|_| ()))
        .and_then(|()| {
            // What is there under the name was found unusable above.
            if target.exists() {
                fs::remove_dir_all(&target).with_context(|| format!("remove {}", target.display()))?;
            }
            fs::rename(&unfinished, &target)
                .with_context(|| format!("put the kernel at {}", target.display()))
        });
    if let Err(error) = unpacked {
        // The first failure is the one to report.
        let _left_over = fs::remove_dir_all(&unfinished);
        return Err(error);
    }
    locate(&target, label, &newest.version)
}

/// The newest offer; of equal versions the package that holds the image itself.
fn choose(offers: &[Offer]) -> Option<&Offer> {
    offers.iter().max_by(|left, right| {
        apt::compare_versions(&left.version, &right.version)
            .then_with(|| is_binary(&left.package).cmp(&is_binary(&right.package)))
    })
}

/// Since 7.x Debian divides a kernel in two packages.
fn is_binary(package: &str) -> bool {
    package.starts_with("linux-binary-")
}

fn packages(chosen: &str) -> Vec<String> {
    let modules = chosen.strip_prefix("linux-binary-").map(|rest| format!("linux-modules-{rest}"));
    std::iter::once(chosen.to_owned()).chain(modules).collect()
}

/// Finds image and modules in an unpacked package: the image lies in `boot/` or with the modules.
fn locate(folder: &Path, label: &str, version: &str) -> Result<Kernel> {
    let modules = ["usr/lib/modules", "lib/modules"]
        .iter()
        .filter_map(|place| fs::read_dir(folder.join(place)).ok())
        .flat_map(|entries| entries.flatten().map(|entry| entry.path()))
        .find(|path| path.join("kernel").is_dir());
    let Some(modules) = modules else { bail!("{} has no modules", folder.display()) };
    let release = modules.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let image = [modules.join("vmlinuz"), folder.join(format!("boot/vmlinuz-{release}"))]
        .into_iter()
        .find(|file| file.is_file())
        .with_context(|| format!("{} has no image", folder.display()))?;
    Ok(Kernel { label: label.to_owned(), version: version.to_owned(), image, modules })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(package: &str, version: &str) -> Offer {
        Offer { package: package.into(), version: version.into() }
    }

    #[test]
    fn the_newest_version_wins_by_number_and_the_image_by_name() {
        let offers = [
            offer("linux-image-5.10.0-9-cloud-amd64", "5.10.70-1"),
            offer("linux-image-5.10.0-46-cloud-amd64", "5.10.262-1"),
            offer("linux-image-5.10.0-30-cloud-amd64", "5.10.218-1"),
        ];
        assert_eq!(choose(&offers).map(|offer| offer.version.as_str()), Some("5.10.262-1"));
        let split = [
            offer("linux-binary-7.3.4-cloud-amd64", "7.3.4-1"),
            offer("linux-image-7.3.4-cloud-amd64", "7.3.4-1"),
        ];
        assert_eq!(
            choose(&split).map(|offer| offer.package.as_str()),
            Some("linux-binary-7.3.4-cloud-amd64")
        );
        assert_eq!(choose(&[]), None);
    }

    #[test]
    fn a_divided_kernel_has_two_packages() {
        assert_eq!(packages("linux-image-6.1.0-1-cloud-amd64"), ["linux-image-6.1.0-1-cloud-amd64"]);
        assert_eq!(packages("linux-binary-7.3.4-x"), ["linux-binary-7.3.4-x", "linux-modules-7.3.4-x"]);
    }
}
