//! Debian's archive, for suites that this machine does not use: through apt, with a configuration of our own.
//!
//! In: the machine's package sources (for the mirror's address) and a suite list. Out: exact package versions, and
//! their files. The machine's own package lists and settings are neither used nor changed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    apt::{self, Offer},
    cmd::{self, say},
};

/// Signatures are checked with it when it is there.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Where packages come from.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mirror {
    /// The address of the plain suites.
    main: String,
    /// The address of the `-security` suites.
    security: String,
}

/// One entry of the machine's package sources.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    address: String,
    suites: Vec<String>,
}

/// Some suites of the archive, reached by a private apt configuration.
pub(crate) struct Archive {
    folder: PathBuf,
    /// Why a list could not be read again. Another suite, or a list read before, may still have what is wanted.
    trouble: Option<String>,
}

impl Archive {
    /// Reads the package lists of `suites` into a folder below `cache`.
    pub(crate) fn open(cache: &Path, suites: &[&str]) -> Result<Self> {
        if !apt::available() {
            bail!(
                "reach Debian's archive: no apt here; give a kernel of your own with --image and --modules"
            );
        }
        let mirror = mirror()?;
        let mut archive = Self { trouble: None, folder: cache.join("apt").join(suites.join("+")) };
        for folder in ["lists/partial", "cache/archives/partial"] {
            let folder = archive.folder.join(folder);
            fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        }
        let list = archive.folder.join("sources.list");
        fs::write(&list, source_list(&mirror, suites, Path::new(KEYRING).is_file()))
            .with_context(|| format!("write {}", list.display()))?;
        if !Path::new(KEYRING).is_file() {
            say(format!(
                "vm: {KEYRING} is not there: packages are taken without a check of their signatures"
            ));
        }
        let mut update = archive.apt("apt-get", &["-q", "update"]);
        update.args(["-o", "APT::Update::Error-Mode=any"]);
        archive.trouble =
            cmd::capture(&mut update, "read the package lists").err().map(|error| format!("{error:#}"));
        Ok(archive)
    }

    /// The packages whose name matches the regular expression `pattern`, with the version of each.
    pub(crate) fn offers(&self, pattern: &str) -> Result<Vec<Offer>> {
        let found = cmd::capture(
            &mut self.apt("apt-cache", &["search", "--names-only", pattern]),
            "search for kernels",
        )?;
        let found = String::from_utf8_lossy(&found).into_owned();
        let names: Vec<&str> =
            found.lines().filter_map(|line| line.split(" - ").next()).map(str::trim).collect();
        if names.is_empty() {
            return self.trouble.as_ref().map_or(Ok(Vec::new()), |trouble| bail!("{trouble}"));
        }
        let shown = cmd::capture(self.apt("apt-cache", &["show"]).args(&names), "read package versions")?;
        Ok(apt::parse_show(&String::from_utf8_lossy(&shown)))
    }

    /// Downloads one exact version of one package and unpacks it into `folder`.
    pub(crate) fn unpack(&self, package: &str, version: &str, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        let mut download = self.apt("apt-get", &["-q", "download", &format!("{package}={version}")]);
        cmd::must_quietly(download.current_dir(folder), "download a kernel")?;
        let file = fs::read_dir(folder)
            .with_context(|| format!("read {}", folder.display()))?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .with_context(|| {
                format!("download {package}: apt-get left no package in {}", folder.display())
            })?;
        cmd::must_quietly(Command::new("dpkg").arg("-x").arg(&file).arg(folder), "unpack a kernel")?;
        fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))
    }

    fn apt(&self, program: &str, arguments: &[&str]) -> Command {
        let at = |name: &str| self.folder.join(name).display().to_string();
        let mut command = Command::new(program);
        command.args(arguments);
        for option in [
            format!("Dir::State::Lists={}", at("lists")),
            format!("Dir::Cache={}", at("cache")),
            format!("Dir::Etc::SourceList={}", at("sources.list")),
            "Dir::Etc::SourceParts=/dev/null".into(),
            "Dir::Etc::Preferences=/dev/null".into(),
            "Dir::Etc::PreferencesParts=/dev/null".into(),
            "Acquire::Languages=none".into(),
            "Acquire::Retries=2".into(),
            "Acquire::http::Timeout=30".into(),
            // An old suite's index is signed once and expires, although nothing in it changes any more.
            "Acquire::Check-Valid-Until=false".into(),
            // apt's own user cannot enter a cache in somebody's home.
            "APT::Sandbox::User=root".into(),
        ] {
            command.args(["-o", &option]);
        }
        command.env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive");
        command
    }
}

fn source_list(mirror: &Mirror, suites: &[&str], signed: bool) -> String {
    let option = if signed { format!("signed-by={KEYRING}") } else { "trusted=yes".to_owned() };
    suites
        .iter()
        .map(|suite| {
            let address = if suite.ends_with("-security") { &mirror.security } else { &mirror.main };
            format!("deb [{option}] {address} {suite} main\n")
        })
        .collect()
}

/// The mirror that this machine uses, or `$HOTR_DEBIAN_MIRROR`.
fn mirror() -> Result<Mirror> {
    if let Ok(main) = std::env::var("HOTR_DEBIAN_MIRROR") {
        return Ok(Mirror { security: format!("{}-security", main.trim_end_matches('/')), main });
    }
    let os = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let codename =
        os.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).unwrap_or("").trim_matches('"');
    choose(&sources(Path::new("/etc/apt"))?, codename).with_context(|| {
        format!(
            "find Debian's mirror: no package source here has the suite {codename:?}; set HOTR_DEBIAN_MIRROR"
        )
    })
}

fn choose(sources: &[Source], codename: &str) -> Option<Mirror> {
    let with = |suite: &str| sources.iter().find(|source| source.suites.iter().any(|known| known == suite));
    let main = with(codename)?.address.trim_end_matches('/').to_owned();
    let security = with(&format!("{codename}-security"))
        .map_or_else(|| format!("{main}-security"), |source| source.address.trim_end_matches('/').to_owned());
    Some(Mirror { main, security })
}

/// The entries of `sources.list` and `sources.list.d`, in both of apt's formats.
fn sources(etc: &Path) -> Result<Vec<Source>> {
    let mut files = vec![etc.join("sources.list")];
    if let Ok(entries) = fs::read_dir(etc.join("sources.list.d")) {
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    files.sort();
    let mut found = Vec::new();
    for file in files.iter().filter(|file| file.is_file()) {
        let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => found.extend(parse_lines(&text)),
            Some("sources") => found.extend(parse_stanzas(&text)),
            _ => {}
        }
    }
    Ok(found)
}

/// `deb [option=…] ADDRESS SUITE COMPONENT…`
fn parse_lines(text: &str) -> Vec<Source> {
    text.lines()
        .filter_map(|line| {
            let rest = line.trim().strip_prefix("deb ")?.trim_start();
            let rest = if rest.starts_with('[') { rest.split_once(']')?.1 } else { rest };
            let mut words = rest.split_whitespace();
            Some(Source { address: words.next()?.to_owned(), suites: vec![words.next()?.to_owned()] })
        })
        .collect()
}

/// Stanzas with `Types:`, `URIs:` and `Suites:` (deb822).
fn parse_stanzas(text: &str) -> Vec<Source> {
    let text: String =
        text.lines().filter(|line| !line.starts_with('#')).flat_map(|line| [line, "\n"]).collect();
    text.split("\n\n")
        .filter_map(|stanza| {
            let words = |name: &str| -> Option<Vec<String>> {
                let value = stanza.lines().find_map(|line| line.strip_prefix(name))?;
                Some(value.split_whitespace().map(str::to_owned).collect())
            };
            let disabled = words("Enabled:").is_some_and(|value| value == ["no"]);
            let binary = words("Types:")?.iter().any(|kind| kind == "deb");
            let address = words("URIs:")?.into_iter().next()?;
            (binary && !disabled).then_some(Source { address, suites: words("Suites:")? })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(address: &str, suites: &[&str]) -> Source {
        Source { address: address.into(), suites: suites.iter().map(|suite| (*suite).to_owned()).collect() }
    }

    #[test]
    fn both_source_formats_are_read() {
        let lines = "# deb http://old x main\ndeb [arch=amd64 signed-by=/k] http://m/debian bookworm main\ndeb-src http://m s main\n";
        assert_eq!(parse_lines(lines), [source("http://m/debian", &["bookworm"])]);
        let stanzas = "Types: deb\n# a remark\nURIs: http://m/debian\nSuites: bookworm bookworm-updates\n\n\
                       Types: deb-src\nURIs: http://s\nSuites: a\n\nTypes: deb\nEnabled: no\nURIs: http://n\nSuites: b\n";
        assert_eq!(parse_stanzas(stanzas), [source("http://m/debian", &["bookworm", "bookworm-updates"])]);
    }

    #[test]
    fn the_mirror_is_the_one_of_this_release() {
        let other = source("http://other", &["stable"]);
        let main = source("http://m/debian/", &["bookworm", "bookworm-updates"]);
        let security = source("http://s/debian-security", &["bookworm-security"]);
        let all = [other.clone(), main.clone(), security];
        let both = Mirror { main: "http://m/debian".into(), security: "http://s/debian-security".into() };
        assert_eq!(choose(&all, "bookworm"), Some(both));
        let derived = Mirror { main: "http://m/debian".into(), security: "http://m/debian-security".into() };
        assert_eq!(choose(&[main], "bookworm"), Some(derived));
        assert_eq!(choose(&[other], "bookworm"), None);
    }

    #[test]
    fn security_suites_have_their_own_address() {
        let mirror = Mirror { main: "http://m".into(), security: "http://s".into() };
        assert_eq!(
            source_list(&mirror, &["bullseye", "bullseye-security"], false),
            "deb [trusted=yes] http://m bullseye main\ndeb [trusted=yes] http://s bullseye-security main\n"
        );
    }
}
