//! Chromium without a window.

use std::path::Path;
use std::process::{Command, Stdio};

/// Opens a page with a profile of its own in the directory `profile`, and returns what Chromium prints.
pub(crate) fn chromium(profile: &Path, words: &[&str], page: &Path) -> String {
    let mut command = Command::new("chromium");
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]);
    command.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
    command.arg("--hide-scrollbars").arg(format!("--user-data-dir={}", profile.display()));
    command.args(words).arg(format!("file://{}", page.display()));
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("chromium: {error} (cargo xtask setup --tests)"));
    assert!(output.status.success(), "{command:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Width and height of a PNG.
pub(crate) fn size(png: &[u8]) -> (u32, u32) {
    let number = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().unwrap());
    (number(16), number(20))
}
