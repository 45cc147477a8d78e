//! Changes as the user's own lines: a template with names in braces.
//!
//! In: [`Report`]s. Out: one line for each change; what is lost, and channels that fail, are said on stderr. What is not known of a
//! change is empty.

use std::io::{self, Write};

use hotr_events::{Actor, Change, Origin, Report, ReportSink};

use super::human::HumanPrinter;
use super::{Buffered, stdout};
use crate::text::{push_rfc3339, push_u64, push_visible};

/// What can be said of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Time,
    Kind,
    Detail,
    Path,
    OldPath,
    Type,
    Inode,
    Size,
    Writes,
    Bytes,
    Layer,
    Pid,
    Tid,
    Uid,
    Comm,
    Exe,
    Cgroup,
    User,
    LoginUid,
    LoginUser,
    ParentPid,
    ParentComm,
    Container,
    Unit,
    SeenBy,
    MissedBy,
    Cause,
}

/// Every name; [`Field::Kind`] has two.
const FIELDS: [(&str, Field); 28] = [
    ("time", Field::Time),
    ("kind", Field::Kind),
    ("op", Field::Kind),
    ("detail", Field::Detail),
    ("path", Field::Path),
    ("old_path", Field::OldPath),
    ("type", Field::Type),
    ("ino", Field::Inode),
    ("size", Field::Size),
    ("writes", Field::Writes),
    ("bytes", Field::Bytes),
    ("layer", Field::Layer),
    ("pid", Field::Pid),
    ("tid", Field::Tid),
    ("uid", Field::Uid),
    ("comm", Field::Comm),
    ("exe", Field::Exe),
    ("cgroup", Field::Cgroup),
    ("user", Field::User),
    ("login_uid", Field::LoginUid),
    ("login_user", Field::LoginUser),
    ("ppid", Field::ParentPid),
    ("parent", Field::ParentComm),
    ("container", Field::Container),
    ("unit", Field::Unit),
    ("seen_by", Field::SeenBy),
    ("missed_by", Field::MissedBy),
    ("cause", Field::Cause),
];

/// What a line is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Vec<u8>),
    Field(Field),
}

/// Why a template cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// No field has this name.
    #[error("{{{0}}} is not known")]
    Unknown(String),
    /// A brace has no other half.
    #[error("a brace is not closed, or not opened; write {{{{ or }}}} for the brace itself")]
    Brace,
    /// A backslash is followed by something that it does not stand for.
    #[error("\\{0} is not known; write \\t, \\n or \\\\")]
    Escape(char),
}

/// A template that makes sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

impl Template {
    /// Reads one: `{name}` is a field; `{{`, `}}`, `\t`, `\n` and `\\` stand for a character; the rest for itself.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut plain = Vec::new();
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            match c {
                '\\' => match rest.next() {
                    Some('t') => plain.push(b'\t'),
                    Some('n') => plain.push(b'\n'),
                    Some('\\') | None => plain.push(b'\\'),
                    Some(other) => return Err(TemplateError::Escape(other)),
                },
                '{' | '}' if rest.as_str().starts_with(c) => {
                    rest.next();
                    plain.push(c as u8);
                }
                '{' => {
                    let (name, after) = rest.as_str().split_once('}').ok_or(TemplateError::Brace)?;
                    let known = FIELDS.iter().find(|(known, _)| *known == name);
                    let (_, field) = known.ok_or_else(|| TemplateError::Unknown(name.to_owned()))?;
                    parts.push(Part::Text(std::mem::take(&mut plain)));
                    parts.push(Part::Field(*field));
                    rest = after.chars();
                }
                '}' => return Err(TemplateError::Brace),
                c => plain.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        parts.push(Part::Text(plain));
        parts.retain(|part| *part != Part::Text(Vec::new()));
        Ok(Self(parts))
    }

    /// The names of all fields.
    pub fn names() -> impl Iterator<Item = &'static str> {
        FIELDS.iter().map(|(name, _)| *name)
    }

    /// Whether a line says where a writer belongs.
    #[must_use]
    pub fn has_origin(&self) -> bool {
        use Field::{Container, LoginUid, LoginUser, ParentComm, ParentPid, Unit, User};
        let of_origin = [Container, LoginUid, LoginUser, ParentComm, ParentPid, Unit, User];
        self.0.iter().any(|part| matches!(part, Part::Field(field) if of_origin.contains(field)))
    }

    /// Appends the line of a change, without its end.
    fn append(&self, buf: &mut Vec<u8>, change: &Change, is_visible: bool) {
        for part in &self.0 {
            match part {
                Part::Text(text) => buf.extend_from_slice(text),
                Part::Field(field) if is_visible => {
                    let mut value = Vec::new();
                    push_field(&mut value, *field, change);
                    push_visible(buf, &value);
                }
                Part::Field(field) => push_field(buf, *field, change),
            }
        }
    }
}

fn push_field(buf: &mut Vec<u8>, field: Field, change: &Change) {
    let actor = change.actor.as_ref();
    let origin = actor.and_then(|actor| actor.origin.as_deref());
    let mut number = |number: Option<u64>| number.iter().for_each(|number| push_u64(buf, *number));
    match field {
        Field::Inode => number(change.id.map(|id| id.ino)),
        Field::Size => number(change.size),
        Field::Writes => number(Some(change.written.writes).filter(|writes| *writes > 0)),
        Field::Bytes => number((change.written.writes > 0).then_some(change.written.bytes)),
        Field::Pid => number(actor.map(|actor| actor.pid.into())),
        Field::Tid => number(actor.map(|actor| actor.tid.into())),
        Field::Uid => number(actor.map(|actor| actor.uid.into())),
        Field::LoginUid => number(origin.and_then(|origin| origin.login_uid).map(u64::from)),
        Field::ParentPid => number(parent(origin).map(|parent| parent.pid.into())),
        Field::Time => push_rfc3339(buf, change.time),
        Field::Detail => push_list(buf, change.detail.iter().map(AsRef::as_ref)),
        Field::SeenBy => push_list(buf, change.seen_by.iter().map(|channel| channel.as_str())),
        Field::MissedBy => push_list(buf, change.missed_by.iter().map(|missed| missed.channel.as_str())),
        Field::Cause => push_list(buf, change.missed_by.iter().map(|missed| missed.cause.as_str())),
        _ => buf.extend_from_slice(bytes_of(field, change, actor, origin).unwrap_or_default()),
    }
}

/// The fields that are names.
fn bytes_of<'a>(
    field: Field,
    change: &'a Change,
    actor: Option<&'a Actor>,
    origin: Option<&'a Origin>,
) -> Option<&'a [u8]> {
    let text = match field {
        Field::Path => return Some(change.path.as_os_str().as_encoded_bytes()),
        Field::OldPath => return Some(change.old_path.as_ref()?.as_os_str().as_encoded_bytes()),
        Field::Comm => return Some(&actor?.comm),
        Field::Exe => return Some(actor?.exe.as_ref()?.as_os_str().as_encoded_bytes()),
        Field::ParentComm => return Some(&parent(origin)?.comm),
        Field::Kind => change.op.as_str(),
        Field::Type => change.file_type?.as_str(),
        Field::Layer => change.layer?.as_str(),
        Field::Cgroup => actor?.cgroup.as_deref()?,
        Field::User => origin?.user.as_deref()?,
        Field::LoginUser => origin?.login_user.as_deref()?,
        Field::Container => origin?.container.as_deref()?,
        Field::Unit => origin?.unit.as_deref()?,
        _ => return None,
    };
    Some(text.as_bytes())
}

fn parent(origin: Option<&Origin>) -> Option<&hotr_events::Parent> {
    origin?.parent.as_ref()
}

fn push_list<'a>(buf: &mut Vec<u8>, words: impl Iterator<Item = &'a str>) {
    for (i, word) in words.enumerate() {
        buf.extend_from_slice(if i == 0 { b"" } else { b"," });
        buf.extend_from_slice(word.as_bytes());
    }
}

/// Prints lines of a template.
pub struct TemplatePrinter<W: Write> {
    out: Buffered<W>,
    template: Template,
    /// The lines are for a terminal, which no name may command.
    is_visible: bool,
}

impl<W: Write> TemplatePrinter<W> {
    /// Prints to `out`; what could command a terminal is escaped where that is one.
    pub fn new(out: W, template: Template, is_terminal: bool) -> Self {
        Self { out: Buffered::new(out), template, is_visible: is_terminal }
    }
}

impl<W: Write> ReportSink for TemplatePrinter<W> {
    fn print(&mut self, report: &Report) -> io::Result<()> {
        match report {
            Report::Change(change) => {
                self.template.append(&mut self.out.bytes, change, self.is_visible);
                self.out.bytes.push(b'\n');
                self.out.line_done()
            }
            Report::Loss { .. } | Report::Channel { .. } => {
                let mut line = HumanPrinter::for_file(b"hotr: ".to_vec(), false);
                line.print(report)?;
                line.flush()?;
                stdout::say_bytes(&line.into_inner());
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::samples;

    fn line(template: &str, change: &Change, is_terminal: bool) -> String {
        let mut printer = TemplatePrinter::new(Vec::new(), Template::parse(template).unwrap(), is_terminal);
        printer.print(&Report::Change(Box::new(change.clone()))).unwrap();
        printer.flush().unwrap();
        String::from_utf8(printer.out.out).unwrap()
    }

    #[test]
    fn every_field_is_what_the_change_says() {
        let change = Change { actor: Some(samples::known_actor()), ..samples::full_change() };
        let container = "0123456789abcdef".repeat(4);
        for (name, want) in [
            ("time", "2026-01-02T03:04:05.123456789Z"),
            ("kind", "rename"),
            ("op", "rename"),
            ("detail", "rename,whiteout"),
            ("path", "/srv/a"),
            ("old_path", "/srv/b"),
            ("type", "file"),
            ("ino", "12"),
            ("size", "5"),
            ("writes", "3"),
            ("bytes", "4096"),
            ("layer", "upper"),
            ("pid", "10"),
            ("tid", "11"),
            ("uid", "0"),
            ("comm", "vim"),
            ("exe", "/usr/bin/vim"),
            ("cgroup", "/user.slice"),
            ("user", "root"),
            ("login_uid", "1000"),
            ("login_user", "deploy"),
            ("ppid", "7"),
            ("parent", "sudo"),
            ("container", &container),
            ("unit", "session-3.scope"),
            ("seen_by", "ebpf"),
            ("missed_by", "inotify"),
            ("cause", "layer-bypass"),
        ] {
            assert!(Template::names().any(|known| known == name));
            assert_eq!(line(&format!("<{{{name}}}>"), &change, true), format!("<{want}>\n"));
            let nothing = line(&format!("<{{{name}}}>"), &samples::bare_change("/srv/a"), false);
            assert!(["time", "kind", "op", "path"].contains(&name) || nothing == "<>\n", "{name}: {nothing}");
        }
        assert_eq!(Template::names().count(), 28);
    }

    #[test]
    fn only_a_terminal_needs_escapes() {
        let change = samples::bare_change("/a\x1b[2J\n");
        let template = "\\t{{{path}}}\\\\";
        assert_eq!(line(template, &change, true), "\t{/a\\x1b[2J\\n}\\\n");
        assert_eq!(line(template, &change, false), "\t{/a\x1b[2J\n}\\\n");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (text, want) in [
            ("{pth}", TemplateError::Unknown("pth".to_owned())),
            ("{}", TemplateError::Unknown(String::new())),
            ("{path", TemplateError::Brace),
            ("path}", TemplateError::Brace),
            ("{path}}", TemplateError::Brace),
            ("\\x", TemplateError::Escape('x')),
        ] {
            assert_eq!(Template::parse(text), Err(want), "{text}");
        }
        assert!(Template::parse("{user}").unwrap().has_origin());
        assert!(!Template::parse("{uid} user").unwrap().has_origin());
    }
}
