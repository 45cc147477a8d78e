//! `--report`: the pages, and the one for a browser in a real browser.

use std::fs;
use std::path::{Path, PathBuf};

use super::chromium::{chromium, size};
use super::run::{Scratch, root, verify};

const NAMES: [&str; 3] = ["overlay-upper-write", "queue-overflow", "rename-exchange"];

/// A report of some experiments. Its directory is one that the laboratory hides.
fn report(scratch: &Scratch, name: &str) -> PathBuf {
    let file = scratch.path().join(name);
    let words: Vec<&str> = ["--report", file.to_str().unwrap()].into_iter().chain(NAMES).collect();
    let said = verify(&words);
    assert_eq!((said.status, said.stderr.as_str()), (Some(0), ""), "{}", said.stdout);
    file
}

#[test]
fn the_page_has_the_matrix_the_evidence_and_no_script() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("page");
    let page = report(&scratch, "r.html");
    let document = chromium(&scratch.path().join("dom"), &["--dump-dom"], &page);
    assert!(document.contains("<title>hotr verify</title>"), "{document}");
    assert!(!document.contains("<script") && !document.contains("<img"), "{document}");
    let count = |what: &str| document.matches(what).count();
    assert_eq!((count("<article class=\"card\""), count("<details>")), (3, 3), "{document}");
    assert_eq!((count("data-count=\"confirmed\"><b>3<"), count("<svg")), (1, 1), "{document}");
    for cell in [
        "data-is=\"inotify\" class=\"bad\">missed<",
        "data-is=\"inotify\" class=\"warn\">partly ",
        "data-is=\"inotify\" class=\"good\">received 4<",
        "href=\"#overlay-upper-write\"",
        "id=\"overlay-upper-write\"",
        "(merged): ",
    ] {
        assert!(document.contains(cell), "{cell}: {document}");
    }
    drawn(&scratch, &page);
}

/// It is drawn in every medium, and no wider than a phone.
fn drawn(scratch: &Scratch, page: &Path) {
    let window = (1000, 1400);
    let size_of = format!("--window-size={},{}", window.0, window.1);
    let mut pictures = Vec::new();
    for (name, more) in [("light", None), ("dark", Some("--blink-settings=preferredColorScheme=0"))] {
        let png = scratch.path().join(format!("{name}.png"));
        let shot = format!("--screenshot={}", png.display());
        let words: Vec<&str> = [Some(shot.as_str()), Some(&size_of), more].into_iter().flatten().collect();
        chromium(&scratch.path().join(name), &words, page);
        let png = fs::read(&png).unwrap();
        assert_eq!(size(&png), window, "{name}");
        // An empty page of that size has a few kilobytes.
        assert!(png.len() > 40_000, "{name}: {} bytes", png.len());
        pictures.push(png);
    }
    assert!(pictures[0] != pictures[1], "dark is as light");
    // Chromium's own windows are 500 wide at least.
    let frame = scratch.path().join("frame.html");
    let script = "<iframe id=f src=r.html style='width:390px;height:900px'></iframe>\
                  <script>onload=()=>document.title='width '+f.contentDocument.documentElement.scrollWidth</script>";
    fs::write(&frame, script).unwrap();
    let document =
        chromium(&scratch.path().join("phone"), &["--allow-file-access-from-files", "--dump-dom"], &frame);
    assert!(document.contains("<title>width 390</title>"), "{document}");
    let pdf = scratch.path().join("r.pdf");
    let print = format!("--print-to-pdf={}", pdf.display());
    chromium(&scratch.path().join("print"), &["--no-pdf-header-footer", &print], page);
    assert!(fs::read(&pdf).unwrap().starts_with(b"%PDF"));
}

#[test]
fn markdown_takes_the_place_of_an_older_report() {
    if !root() {
        return;
    }
    let scratch = Scratch::new("markdown");
    fs::write(scratch.path().join("r.md"), "older").unwrap();
    let text = fs::read_to_string(report(&scratch, "r.md")).unwrap();
    assert!(text.starts_with("# Claims about inotify, on Linux "), "{text}");
    assert_eq!(text.matches("<details>").count(), 3, "{text}");
    assert!(text.contains("\n| `overlay-upper-write` | confirmed | tmpfs, overlay | missed | "), "{text}");
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1, "nothing else is left there");
}

#[test]
fn a_file_that_is_no_report() {
    for (file, status, wanted) in [
        ("/tmp/r.txt", 2, "a report ends with .md or .html"),
        ("/tmp/r", 2, "a report ends with .md or .html"),
        ("/nonexistent/r.md", 1, "name a file in a directory that exists"),
        ("/dev/null/r.md", 1, "name a file in a directory that exists"),
    ] {
        if status == 1 && !root() {
            return;
        }
        let said = verify(&["--report", file, "splice"]);
        assert_eq!((said.status, said.stdout.as_str()), (Some(status), ""), "{}", said.stderr);
        assert!(said.stderr.lines().count() == 1 && said.stderr.contains(wanted), "{}", said.stderr);
    }
}
