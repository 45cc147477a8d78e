//! The exam for humans: sections, a mark for each finding, and a next step where something is wrong.

use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::doctor::cover::Cover;
use crate::doctor::inotify::User;
use crate::doctor::{Check, Examination, Mark, PlanRow};
use crate::kernel::load::is_built;
use crate::output::human::style::columns;
use crate::text::push_visible;

/// Prints everything found.
///
/// # Errors
/// Any error of `out`.
pub fn print(exam: &Examination, color: bool, out: &mut dyn Write) -> io::Result<()> {
    let mut page = Page { text: Vec::new(), color };
    page.section("Kernel");
    page.checks(&exam.kernel.checks());
    page.section("Capabilities of this process");
    page.checks(&exam.capabilities.iter().map(|capability| capability.check.clone()).collect::<Vec<_>>());
    page.section("Attach plan");
    match &exam.plan {
        Ok(rows) => page.plan(rows),
        Err(why) => page.checks(&[Check::new("eBPF", Mark::Bad, why.as_str()).next(match is_built() {
            Ok(()) => "see the kernel and the capabilities above, or use --channels inotify",
            Err(_) => "use --channels inotify with this one",
        })]),
    }
    page.section("inotify");
    page.checks(&exam.inotify.checks());
    page.checks(exam.inotify.gap().as_slice());
    page.users(&exam.inotify.users);
    if !exam.paths.is_empty() {
        page.section("Paths");
    }
    for cover in &exam.paths {
        page.path(cover);
    }
    out.write_all(&page.text)?;
    out.flush()
}

struct Page {
    text: Vec<u8>,
    color: bool,
}

impl Page {
    fn section(&mut self, title: &str) {
        if !self.text.is_empty() {
            self.text.push(b'\n');
        }
        self.painted("1", title);
        self.text.push(b'\n');
    }

    fn painted(&mut self, code: &str, text: &str) {
        let text = if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() };
        self.text.extend_from_slice(text.as_bytes());
    }

    fn mark(&mut self, mark: Mark) {
        let code = match mark {
            Mark::Good => "32",
            Mark::Note => "33",
            Mark::Bad => "31",
        };
        self.text.extend_from_slice(b"  ");
        self.painted(code, mark.sign());
        self.text.push(b' ');
    }

    fn line(&mut self, text: &str) {
        push_visible(&mut self.text, text.as_bytes());
        self.text.push(b'\n');
    }

    fn next_step(&mut self, indent: usize, next: Option<&str>) {
        if let Some(next) = next {
            self.line(&format!("{:indent$}→ {next}", ""));
        }
    }

    fn checks(&mut self, checks: &[Check]) {
        let width = widest(checks.iter().map(|check| check.name.as_str()));
        for check in checks {
            self.mark(check.mark);
            self.line(&format!("{:width$}  {}", check.name, check.value));
            self.next_step(width + 6, check.next.as_deref());
        }
    }

    fn plan(&mut self, rows: &[PlanRow]) {
        let hook = widest(rows.iter().map(|row| row.hook.as_str()));
        let to = widest(rows.iter().map(|row| row.attached_to.as_str()));
        let mut last = "";
        for row in rows {
            // A kernel that refuses a tier gives every hook the same long answer.
            let why = if row.why == last && !last.is_empty() { "the same" } else { &row.why };
            last = &row.why;
            self.mark(match row.tier {
                Some(_) => Mark::Good,
                None if row.optional => Mark::Note,
                None => Mark::Bad,
            });
            let tier = row.tier.unwrap_or("none");
            let line = format!("{:hook$}  {tier:10}  {:to$}  {}", row.hook, row.attached_to, why);
            self.line(line.trim_end());
        }
    }

    fn users(&mut self, users: &[User]) {
        if users.is_empty() {
            return;
        }
        self.line(&format!(
            "    {:>8}  {:15}  {:>7}  {:>9}  {:>9}",
            "PID", "NAME", "UID", "INSTANCES", "WATCHES"
        ));
        for user in users {
            let User { pid, comm, uid, instances, watches } = user;
            // Escaped before it is padded: the two sides of the column stay apart whatever the name is.
            let mut name = Vec::new();
            push_visible(&mut name, comm.as_bytes());
            let name = String::from_utf8_lossy(&name);
            let space = " ".repeat(15_usize.saturating_sub(columns(name.as_bytes())));
            let row = format!("    {pid:>8}  {name}{space}  {uid:>7}  {instances:>9}  {watches:>9}\n");
            self.text.extend_from_slice(row.as_bytes());
        }
    }

    fn path(&mut self, cover: &Cover) {
        self.mark(if cover.is_full() { Mark::Good } else { Mark::Bad });
        self.name(&cover.path);
        self.text.extend_from_slice(format!("  {} mounted at ", cover.fs).as_bytes());
        self.name(&cover.mount_point);
        let verdict = match (cover.is_full(), cover.by.as_slice()) {
            (true, by) => format!("; fully covered by {}", by.join(" and ")),
            (false, []) => "; cannot be covered".to_owned(),
            (false, by) => format!("; covered in part by {}", by.join(" and ")),
        };
        self.line(&verdict);
        for layer in &cover.layers {
            let state = if layer.reachable { "" } else { " (not reachable)" };
            self.text.extend_from_slice(format!("    {:5} ", layer.layer).as_bytes());
            self.name(&layer.path);
            self.line(state);
        }
        for gap in &cover.gaps {
            self.line(&format!("    {}: {}", gap.cause, gap.why));
        }
        self.next_step(4, cover.next.as_deref());
    }

    fn name(&mut self, path: &Path) {
        push_visible(&mut self.text, path.as_os_str().as_bytes());
    }
}

fn widest<'a>(texts: impl Iterator<Item = &'a str>) -> usize {
    texts.map(|text| columns(text.as_bytes())).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn the_page_is_aligned_and_every_bad_mark_has_its_next_step() {
        let mut out = Vec::new();
        print(&samples::exam(), false, &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), samples::PAGE);
    }

    #[test]
    fn colour_is_only_on_titles_and_marks() {
        let mut out = Vec::new();
        print(&samples::exam(), true, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("\x1b[1mKernel\x1b[0m\n  \x1b[32m✓\x1b[0m release"), "{text}");
        let mut bare = text;
        for code in ["0", "1", "31", "32", "33"] {
            bare = bare.replace(&format!("\x1b[{code}m"), "");
        }
        assert_eq!(bare, samples::PAGE);
    }
}
