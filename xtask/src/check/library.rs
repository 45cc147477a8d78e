//! The library part of hotr-user by itself: it builds without the feature `cli`, and needs nothing of the command line.

use anyhow::{Result, ensure};

use crate::{cmd, paths};

/// Crates that are for the command line and the laboratory only.
const OF_COMMAND: [&str; 6] =
    ["clap", "clap_complete", "clap_mangen", "indicatif", "io-uring", "shell-words"];

/// The check.
pub(super) fn stands_alone() -> Result<()> {
    let mut tree = cmd::cargo();
    tree.args(["tree", "--package", "hotr-user", "--no-default-features", "--edges", "normal,build"]);
    tree.args(["--prefix", "none", "--format", "{p}"]).current_dir(paths::root());
    let output = tree.output()?;
    ensure!(output.status.success(), "list its crates: {}", String::from_utf8_lossy(&output.stderr).trim());
    let found = of_command(&String::from_utf8_lossy(&output.stdout));
    ensure!(
        found.is_empty(),
        "the library needs {}: make it optional in hotr-user/Cargo.toml, as a part of the feature cli or verify",
        found.join(", ")
    );
    let mut check = cmd::cargo();
    check.args(["check", "--package", "hotr-user", "--lib", "--no-default-features", "--quiet"]);
    cmd::must(check.current_dir(paths::root()), "check the library without its feature cli")
}

/// Those of [`OF_COMMAND`] in a list of crates, one a line: name, then version.
fn of_command(list: &str) -> Vec<&'static str> {
    let is_listed = |name: &str| list.lines().any(|line| line.split(' ').next() == Some(name));
    OF_COMMAND.into_iter().filter(|name| is_listed(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_is_found_by_its_whole_name() {
        assert_eq!(of_command("hotr-user v0.1.0 (/x)\nclap v4.5.1\nclap_lex v1.0.0"), ["clap"]);
        assert!(of_command("hotr-user v0.1.0\nindicatif-like v1.0.0").is_empty());
    }
}
