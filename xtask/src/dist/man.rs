//! Manual pages for every command, from the one page that `hotr man` prints.
//!
//! In: that page, where each command is a section `HOTR NAME`. Out: `hotr.1` as it is, and `hotr-NAME.1` for each command: its
//! part of the page with the sections that a page has, and the sections that hold for all.

use anyhow::{Context as _, Result, ensure};

/// What the titles of the commands' sections begin with.
const COMMAND: &str = "HOTR ";

/// A section: its title and the lines below.
type Section<'a> = (&'a str, Vec<&'a str>);

/// Names of files and their contents.
pub(super) fn pages(manual: &str) -> Result<Vec<(String, String)>> {
    let (head, sections) = split(manual, ".SH ");
    let (title, preamble) = head.split_first().context("read the manual: it is empty")?;
    let (_, version) =
        title.split_once(" 1 ").with_context(|| format!("read the manual: its title is {title}"))?;
    let first = sections.iter().position(|(title, _)| title.starts_with(COMMAND));
    let last = sections.iter().rposition(|(title, _)| title.starts_with(COMMAND));
    let (first, last) = first.zip(last).context("read the manual: it has no commands")?;
    let mut pages = vec![("hotr.1".to_owned(), manual.to_owned())];
    for (title, lines) in &sections[first..=last] {
        let name = title
            .strip_prefix(COMMAND)
            .with_context(|| format!("read the manual: {title} is among the commands"))?;
        let name = format!("hotr-{}", name.to_lowercase());
        let mut page = vec![format!(".TH {name} 1 {version}")];
        page.extend(preamble.iter().map(|&line| line.to_owned()));
        page.extend(command(&name, lines)?);
        for (title, lines) in &sections[last + 1..] {
            put(&mut page, title, lines);
        }
        page.push(".SH SEE ALSO\n\\fBhotr\\fR(1)\n".to_owned());
        pages.push((format!("{name}.1"), page.join("\n")));
    }
    Ok(pages)
}

/// The sections of one command, in the order of manual pages: name, synopsis, description, the rest.
fn command(name: &str, lines: &[&str]) -> Result<Vec<String>> {
    let text = lines.join("\n");
    let (description, mut parts) = split(&text, ".SS ");
    let what = description.first().with_context(|| format!("read the manual: {name} has no description"))?;
    let synopsis = parts.iter().position(|(title, _)| *title == "SYNOPSIS");
    let synopsis =
        parts.remove(synopsis.with_context(|| format!("read the manual: {name} has no synopsis"))?);
    ensure!(!parts.is_empty(), "read the manual: {name} has no options");
    let mut page = Vec::new();
    put(&mut page, "NAME", &[&format!("{} \\- {what}", name.replace('-', "\\-"))]);
    put(&mut page, synopsis.0, &synopsis.1);
    put(&mut page, "DESCRIPTION", &description);
    for (title, lines) in parts {
        put(&mut page, title, &lines);
    }
    Ok(page)
}

fn put(page: &mut Vec<String>, title: &str, lines: &[&str]) {
    page.push(format!(".SH {title}"));
    page.extend(lines.iter().map(|&line| line.to_owned()));
}

/// The lines before the first title, and the sections.
fn split<'a>(text: &'a str, mark: &str) -> (Vec<&'a str>, Vec<Section<'a>>) {
    let mut head = Vec::new();
    let mut sections: Vec<Section<'a>> = Vec::new();
    for line in text.lines() {
        match (line.strip_prefix(mark), sections.last_mut()) {
            (Some(title), _) => sections.push((title, Vec::new())),
            (None, Some((_, lines))) => lines.push(line),
            (None, None) => head.push(line),
        }
    }
    (head, sections)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANUAL: &str = r#".TH hotr 1  "hotr 0.1.0" 
.ie x
.SH NAME
hotr \- all
.SH HOTR TRACE
Print it
.SS SYNOPSIS
\fBhotr trace\fR
.SS OPTIONS
.TP
a
.SS EXAMPLES
.nf
b
.fi
.SH HOTR MAN
The page
.SS SYNOPSIS
\fBhotr man\fR
.SS OPTIONS
c
.SH EXIT STATUS
0
"#;

    #[test]
    fn a_command_gets_a_page_with_what_holds_for_all() {
        let pages = pages(MANUAL).unwrap();
        let names: Vec<_> = pages.iter().map(|page| page.0.as_str()).collect();
        assert_eq!(names, ["hotr.1", "hotr-trace.1", "hotr-man.1"]);
        assert_eq!(pages[0].1, MANUAL);
        let expected = r#".TH hotr-trace 1  "hotr 0.1.0" 
.ie x
.SH NAME
hotr\-trace \- Print it
.SH SYNOPSIS
\fBhotr trace\fR
.SH DESCRIPTION
Print it
.SH OPTIONS
.TP
a
.SH EXAMPLES
.nf
b
.fi
.SH EXIT STATUS
0
.SH SEE ALSO
\fBhotr\fR(1)
"#;
        assert_eq!(pages[1].1, expected);
        assert!(super::pages("").is_err() && super::pages(".TH hotr 1 x\n.SH NAME\n").is_err());
    }
}
