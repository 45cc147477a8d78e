//! A diagnosis for humans: answers about paths, findings with the worst first, then a table of the watchers.

use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::diagnose::finding::{Finding, Proof, Severity, Target};
use crate::diagnose::process::Kind;
use crate::diagnose::reach::{Answer, Reception};
use crate::diagnose::{Diagnosis, Watcher};
use crate::output::human::style::{Paint, bytes_text, columns};
use crate::text::push_visible;
use hotr_events::mask::watch_names;

/// Where the text of a finding begins.
const INDENT: &str = "         ";

/// Prints everything found.
///
/// # Errors
/// Any error of `out`.
pub fn print(diagnosis: &Diagnosis, color: bool, out: &mut dyn Write) -> io::Result<()> {
    let mut page = Page { text: Vec::new(), color };
    for (path, answers) in &diagnosis.answers {
        let absent = diagnosis.absent.iter().find(|(other, _)| other == path);
        page.path_answers(path, answers, absent.map(|(_, sentence)| sentence.as_str()));
    }
    for finding in &diagnosis.findings {
        page.finding(finding);
    }
    if diagnosis.answers.is_empty() {
        page.watchers(&diagnosis.watchers);
    }
    page.summary(diagnosis);
    out.write_all(&page.text)?;
    out.flush()
}

/// Appends one finding.
pub(super) fn one(finding: &Finding, color: bool, text: &mut Vec<u8>) {
    let mut page = Page { text: std::mem::take(text), color };
    page.finding(finding);
    *text = page.text;
}

/// Appends a sentence behind a mark, in lines that a terminal of usual width takes.
pub(super) fn line(text: &mut Vec<u8>, sentence: &str) {
    let mut page = Page { text: std::mem::take(text), color: false };
    page.line(sentence);
    *text = page.text;
}

struct Page {
    text: Vec<u8>,
    color: bool,
}

const fn paint(severity: Severity) -> Paint {
    match severity {
        Severity::Deaf | Severity::Lost => Paint::Red,
        Severity::AtRisk => Paint::Yellow,
        Severity::Note => Paint::Dim,
    }
}

impl Page {
    fn plain(&mut self, text: &str) {
        self.text.extend_from_slice(text.as_bytes());
    }

    /// Text that may have a name of somebody in it.
    fn visible(&mut self, text: &[u8]) {
        push_visible(&mut self.text, text);
    }

    fn painted(&mut self, paint: Paint, text: &str) {
        paint.push(&mut self.text, self.color, text.as_bytes());
    }

    fn path(&mut self, path: &Path) {
        let color = self.color;
        Paint::Bold.wrap(&mut self.text, color, |buf| push_visible(buf, path.as_os_str().as_bytes()));
    }

    fn target(&mut self, target: &Target) {
        let Some(pid) = target.pid else {
            self.plain(&target.uid.map(|uid| format!("user {uid}")).unwrap_or_default());
            return;
        };
        self.visible(&target.comm);
        self.plain(&format!("[{pid}]"));
        if let Some(fd) = target.fd {
            let kind = target.mechanism.map_or("inotify", Kind::as_str);
            self.plain(&format!(" {kind} fd {fd}"));
        }
        if let Some(wd) = target.wd {
            self.plain(&format!(" wd {wd}"));
        }
        if let Some(id) = &target.container {
            self.plain(&format!(" in container {}", id.get(..12).unwrap_or(id)));
        }
    }

    fn finding(&mut self, finding: &Finding) {
        self.painted(paint(finding.severity), &format!("{:7}", finding.severity.as_str()));
        self.plain("  ");
        self.target(&finding.target);
        if let Some(path) = finding.path_in_target.as_ref().or(finding.path.as_ref()) {
            self.plain("  ");
            self.path(path);
        }
        if let Some(more) = finding.watches.filter(|count| *count > 1 && finding.path.is_some()) {
            self.plain(&format!(" and {} more", more - 1));
        }
        self.plain("\n");
        let how = match finding.proof {
            Proof::Proved => "proved",
            Proof::Inferred => "inferred",
        };
        self.plain(INDENT);
        self.painted(Paint::Bold, finding.cause.as_str());
        // Of a risk, the sentence is not true yet.
        match finding.severity {
            Severity::Deaf | Severity::Lost => {
                self.plain(&format!(" ({how}): {}\n", finding.cause.sentence()))
            }
            Severity::AtRisk | Severity::Note => self.plain(&format!(" ({how})\n")),
        }
        for evidence in &finding.evidence {
            self.line(&format!("· {evidence}"));
        }
        if let (Some(here), Some(there)) = (&finding.path, &finding.path_in_target)
            && here != there
        {
            self.plain(INDENT);
            self.plain("· on the host: ");
            self.path(here);
            self.plain("\n");
        }
        if let Some(mask) = finding.mask {
            let names = watch_names(mask, finding.target.mechanism == Some(Kind::Fanotify));
            self.line(&format!("· the watch asks for {}", short(&names.join(" "))));
        }
        self.line(&format!("→ {}", finding.remedy));
        self.plain("\n");
    }

    /// A sentence behind a mark, in lines that a terminal of usual width takes.
    fn line(&mut self, text: &str) {
        const WIDTH: usize = 100;
        let mut column = 0;
        for (i, word) in text.split(' ').enumerate() {
            let width = columns(word.as_bytes());
            if i == 0 {
                self.plain(INDENT);
            } else if column + 1 + width > WIDTH {
                self.plain("\n");
                self.plain(INDENT);
                self.plain("  ");
                column = 2;
            } else {
                self.plain(" ");
                column += 1;
            }
            self.visible(word.as_bytes());
            column += width;
        }
        self.plain("\n");
    }

    fn path_answers(&mut self, path: &Path, answers: &[Answer], absent: Option<&str>) {
        self.path(path);
        if let Some(sentence) = absent {
            self.plain("  ");
            self.visible(sentence.as_bytes());
            self.plain(if answers.is_empty() { "\n\n" } else { "" });
        }
        if let Some(ino) = answers.first().and_then(|answer| answer.path_ino) {
            self.plain(&format!("  inode {ino}"));
        }
        if answers.is_empty() {
            if absent.is_some() {
                return;
            }
            self.plain("\n  no process watches it or its directory\n\n");
            return;
        }
        self.plain("\n");
        for answer in answers {
            self.plain("  ");
            self.target(&answer.target);
            self.plain(&format!("  watches {}\n", words(&answer.by)));
            for (what, reception) in
                [("write", &answer.write), ("replace", &answer.replace), ("create", &answer.create)]
            {
                self.reception(what, reception);
            }
        }
        self.plain("\n");
    }

    fn reception(&mut self, what: &str, reception: &Reception) {
        self.plain(&format!("    {what:8} "));
        let paint = match reception {
            Reception::Yes => Paint::Green,
            Reception::Once(..) => Paint::Yellow,
            Reception::No(..) => Paint::Red,
        };
        match reception.why() {
            Some((cause, why)) => {
                self.painted(paint, &format!("{:4}", reception.as_str()));
                self.plain(&format!("  {}: ", cause.as_str()));
                self.visible(why.as_bytes());
            }
            None => self.painted(paint, reception.as_str()),
        }
        self.plain("\n");
    }

    fn watchers(&mut self, watchers: &[Watcher]) {
        if watchers.is_empty() {
            return;
        }
        self.painted(Paint::Bold, "Watchers");
        self.plain(&format!(
            "\n  {:>7}  {:15}  {:>6}  {:>9}  {:>7}  {:>9}  {}\n",
            "PID", "NAME", "UID", "INSTANCES", "WATCHES", "UNREAD", "WORST"
        ));
        for watcher in watchers {
            let mut name = Vec::new();
            push_visible(&mut name, &watcher.comm);
            let name = String::from_utf8_lossy(&name).into_owned();
            let watches: u64 = watcher.instances.iter().map(|instance| instance.watches).sum();
            let known: Option<Vec<u64>> = watcher.instances.iter().map(|instance| instance.unread).collect();
            let unread = known.map(|bytes| bytes_text(bytes.iter().sum())).unwrap_or_default();
            let (pid, uid, count) = (watcher.pid, watcher.uid, watcher.instances.len());
            self.plain(&format!("  {pid:>7}  {name:15}  {uid:>6}  {count:>9}  {watches:>7}  {unread:>9}  "));
            match watcher.worst {
                Some(worst) => self.painted(paint(worst), worst.as_str()),
                None if watcher.instances.is_empty() => self.plain("watches nothing"),
                None => self.plain("-"),
            }
            self.plain("\n");
        }
        self.plain("\n");
    }

    fn summary(&mut self, diagnosis: &Diagnosis) {
        let instances = || diagnosis.watchers.iter().flat_map(|watcher| &watcher.instances);
        let watches: u64 = instances().map(|instance| instance.watches).sum();
        let mut parts = vec![
            counted(diagnosis.watchers.len() as u64, "process", "processes"),
            counted(instances().count() as u64, "instance", "instances"),
            counted(watches, "watch", "watches"),
        ];
        for (severity, one) in
            [(Severity::Deaf, "deaf"), (Severity::Lost, "with lost events"), (Severity::AtRisk, "at risk")]
        {
            match diagnosis.count(severity) {
                0 => {}
                count => parts.push(format!("{count} {one}")),
            }
        }
        match diagnosis.count(Severity::Note) as u64 {
            0 => {}
            notes => parts.push(counted(notes, "note", "notes")),
        }
        if diagnosis.findings.is_empty() {
            parts.push("nothing found".to_owned());
        }
        self.plain(&format!("{}\n", parts.join(" · ")));
        if diagnosis.unreadable > 0 {
            let processes = counted(diagnosis.unreadable, "process", "processes");
            self.plain(&format!(
                "{processes} of other users could not be looked at; run as root to see all\n"
            ));
        }
        if diagnosis.without_path > 0 {
            let watches = counted(diagnosis.without_path, "watch has", "watches have");
            self.plain(&format!(
                "{watches} no path that could be found; findings that need one leave them out\n"
            ));
        }
    }
}

pub(super) fn counted(count: u64, one: &str, more: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { more })
}

/// What an instance watches of a path.
fn words(by: &[&str]) -> String {
    let word = |by: &&str| match *by {
        "file" => "the file",
        "directory" => "its directory",
        "former-file" => "the former file",
        "mount" => "its mount",
        "filesystem" => "its filesystem",
        "above" => "a directory above",
        _ => "nothing of it",
    };
    by.iter().map(word).collect::<Vec<_>>().join(" and ")
}

/// All events have twelve names.
fn short(names: &str) -> String {
    const ALL: &str = "IN_ACCESS IN_MODIFY IN_ATTRIB IN_CLOSE_WRITE IN_CLOSE_NOWRITE IN_OPEN IN_MOVED_FROM IN_MOVED_TO \
                       IN_CREATE IN_DELETE IN_DELETE_SELF IN_MOVE_SELF";
    names.replace(ALL, "IN_ALL_EVENTS")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::diagnose::samples;

    #[test]
    fn the_page_is_aligned_and_names_are_escaped() {
        let mut out = Vec::new();
        print(&samples::diagnosis(), false, &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), samples::PAGE);
    }

    #[test]
    fn long_sentences_go_on_behind_their_mark() {
        let mut page = Page { text: Vec::new(), color: false };
        page.line(&format!("· {} end", "word ".repeat(20).trim_end()));
        let text = String::from_utf8(page.text).unwrap();
        let want = format!("{INDENT}· {}\n{INDENT}  word end\n", "word ".repeat(19).trim_end());
        assert_eq!(text, want);
    }

    #[test]
    fn colour_changes_no_text() {
        let mut out = Vec::new();
        print(&samples::diagnosis(), true, &mut out).unwrap();
        let mut text = String::from_utf8(out).unwrap();
        assert!(text.contains("\x1b[31mdeaf   \x1b[0m"), "{text}");
        for code in ["0", "1", "2", "31", "32", "33"] {
            text = text.replace(&format!("\x1b[{code}m"), "");
        }
        assert_eq!(text, samples::PAGE);
    }
}
