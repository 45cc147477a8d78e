//! The page of a run in a real browser: what is in its document, and that it is drawn in every size and medium.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::chromium::{self as browser, size};
use super::replay::RUN;
use super::run::{HOTR, Scratch};

fn chromium(scratch: &Scratch, name: &str, words: &[&str], page: &Path) -> String {
    browser::chromium(&scratch.dir(name), words, page)
}

fn page(scratch: &Scratch, recording: &Path) -> PathBuf {
    let page = scratch.0.join("page.html");
    let words = [Path::new("diagnose"), "--replay".as_ref(), recording, "--report".as_ref(), &page];
    let output = Command::new(HOTR).args(words).stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    page
}

#[test]
fn the_document_has_the_chain_of_each_change_and_runs_no_script() {
    let scratch = Scratch::new("browser");
    // A name that would run, were it not escaped.
    let hostile = "/<script>document.title='run'</script><img src=x onerror=document.title='run'>";
    let recording = scratch.0.join("run.jsonl");
    let text = fs::read_to_string(RUN).unwrap().replace("/etc/app/app.conf", hostile);
    fs::write(&recording, text).unwrap();
    let document = chromium(&scratch, "profile", &["--dump-dom"], &page(&scratch, &recording));
    assert!(document.contains("<title>hotr diagnose</title>"), "{document}");
    assert!(!document.contains("<script") && !document.contains("<img"), "{document}");
    assert!(document.contains("&lt;script&gt;document.title"), "{document}");
    // Three changes, each with a chain of five steps: one came to its end, two to nobody.
    let count = |what: &str| document.matches(what).count();
    assert_eq!(count("<article class=\"card\" id=\"change-"), 3, "{document}");
    assert_eq!(count("<circle class=\"dot"), 15);
    assert_eq!(count("aria-label=\"reached: opened\""), 1);
    assert_eq!(count("aria-label=\"reached: changed\""), 2);
    for step in ["changed", "notified", "queued", "read", "opened"] {
        assert_eq!(count(&format!(">{step}</text>")), 3, "{step}");
    }
    for part in ["id=\"causes\"", "id=\"waits\"", "id=\"machine\"", ">6.12.117", ">fentry<", ">8192<"] {
        assert!(document.contains(part), "{part}: {document}");
    }
    assert!(document.contains("watch the directory, for IN_MOVED_TO"), "{document}");
}

#[test]
fn it_is_drawn_in_each_size_and_medium() {
    let scratch = Scratch::new("browser-sizes");
    let page = page(&scratch, Path::new(RUN));
    let mut drawn = Vec::new();
    for (name, window, more) in [
        ("phone", (500, 1600), None),
        ("desktop", (1280, 1600), None),
        ("dark", (1280, 1600), Some("--blink-settings=preferredColorScheme=0")),
    ] {
        let png = scratch.0.join(format!("{name}.png"));
        let (shot, size_of) =
            (format!("--screenshot={}", png.display()), format!("--window-size={},{}", window.0, window.1));
        let words: Vec<&str> = [Some(shot.as_str()), Some(&size_of), more].into_iter().flatten().collect();
        chromium(&scratch, name, &words, &page);
        let png = fs::read(&png).unwrap();
        assert_eq!(size(&png), window, "{name}");
        // An empty page of that size has a few kilobytes.
        assert!(png.len() > 40_000, "{name}: {} bytes", png.len());
        drawn.push(png);
    }
    assert!(drawn[1] != drawn[2], "dark is as light");
    let pdf = scratch.0.join("page.pdf");
    chromium(
        &scratch,
        "print",
        &["--no-pdf-header-footer", &format!("--print-to-pdf={}", pdf.display())],
        &page,
    );
    let pdf = fs::read(&pdf).unwrap();
    assert!(pdf.starts_with(b"%PDF") && pdf.len() > 20_000, "{} bytes", pdf.len());
}
