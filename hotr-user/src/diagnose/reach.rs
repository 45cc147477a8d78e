//! Who watches a path, and what of it they would receive.
//!
//! In: a path and the views of processes. Out: an [`Answer`] for each instance that has to do with the path: would a
//! write, a replacement, a creation of it be reported, and if not, why not.

use std::path::{Path, PathBuf};

use super::fdinfo::Wide;
use super::finding::{Finding, Severity, Target};
use super::hints;
use super::namespaces::{FileKind, Namespace, Seen};
use super::process::{Instance, Kind};
use super::select::Error;
use super::view::{View, WatchLocation, bits, parent};
use crate::mounts::Location;
use hotr_events::Cause;

/// Whether a change is reported.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reception {
    /// Each time.
    Yes,
    /// Once, and not again; and why.
    Once(Cause, String),
    /// Not at all, and why.
    No(Cause, String),
}

impl Reception {
    /// The word of the output contract.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::Once(..) => "once",
            Self::No(..) => "no",
        }
    }

    /// The cause and a sentence, when the answer is not a plain yes.
    #[must_use]
    pub fn why(&self) -> Option<(Cause, &str)> {
        match self {
            Self::Yes => None,
            Self::Once(cause, why) | Self::No(cause, why) => Some((*cause, why)),
        }
    }
}

/// What an instance would receive of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answer {
    /// Whose instance.
    pub target: Target,
    /// The path, absolute, as it was named.
    pub path: PathBuf,
    /// Its inode number, when it exists.
    pub path_ino: Option<u64>,
    /// What the instance watches of it: `file`, `directory`, `mount`, `filesystem`, `above`, `former-file`, `nothing`.
    pub by: Vec<&'static str>,
    /// All that it asks for there.
    pub mask: u32,
    /// The file is written in place.
    pub write: Reception,
    /// Another file is renamed over it.
    pub replace: Reception,
    /// It is created.
    pub create: Reception,
}

/// A path that was asked about.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    pub(super) named: PathBuf,
    /// What it leads to, when it exists.
    pub(super) file: Option<(Seen, Location)>,
    /// The directory that holds its name.
    dir: (Seen, Location),
}

impl Subject {
    /// Looks at a path in the first of these namespaces where it exists, or else where its directory does.
    pub(super) fn find(path: &Path, spaces: &[&Namespace]) -> Result<Self, Error> {
        let refuse =
            |cause: &str, next| Err(Error::Path { path: path.to_owned(), cause: cause.to_owned(), next });
        let Ok(named) = std::path::absolute(path) else {
            return refuse("the current directory no longer exists", "name an absolute path");
        };
        let look = |space: &&Namespace| {
            let file = hints::resolve(space, &named);
            let dir = named.parent().and_then(|parent| hints::resolve(space, parent));
            // The root directory is in itself.
            let dir = dir.or_else(|| file.clone())?;
            (dir.0.kind == FileKind::Dir).then_some((file, dir))
        };
        let mut all: Vec<_> = spaces.iter().filter_map(look).collect();
        all.sort_by_key(|(file, _)| file.is_none());
        let found = all.into_iter().next();
        match found {
            Some((file, dir)) => Ok(Self { named, file, dir }),
            None => refuse(
                "its directory does not exist, or may not be searched",
                "name a path in a directory that exists",
            ),
        }
    }

    /// The directory in which writes to the file are reported.
    fn write_dir(&self) -> Location {
        self.file.as_ref().and_then(|(_, real)| parent(real)).unwrap_or_else(|| self.dir.1.clone())
    }
}

impl Subject {
    /// Whether a finding of a process has to do with this path.
    pub(super) fn concerns(&self, view: &View<'_>, finding: &Finding) -> bool {
        let same = |path: &Option<PathBuf>| path.as_ref().is_some_and(|path| *path == self.named);
        if same(&finding.path) || same(&finding.path_in_target) {
            return true;
        }
        let ino = self.file.as_ref().map(|(seen, _)| seen.ino);
        if ino.is_some() && finding.severity == Severity::Deaf && finding.path_ino == ino {
            return true;
        }
        view.process.instances.iter().filter(|instance| finding.target.fd == Some(instance.fd)).any(
            |instance| {
                let relation = Relation::of(view, instance, self);
                let wds: Vec<i32> = relation.seats().map(|seat| seat.watch.wd).collect();
                match finding.target.wd {
                    Some(wd) => wds.contains(&wd),
                    // About the whole instance: its queue, its reader.
                    None => finding.watches.is_none() && relation.is_related(),
                }
            },
        )
    }
}

/// Of a path that does not exist: who watches the directory where it would be created.
pub(super) fn absence(answers: &[Answer]) -> String {
    let watch = answers.iter().filter(|answer| answer.by.contains(&"directory"));
    let mut who: Vec<String> = watch
        .filter_map(|answer| {
            Some(format!("{}[{}]", String::from_utf8_lossy(&answer.target.comm), answer.target.pid?))
        })
        .collect();
    who.dedup();
    match who.as_slice() {
        [] => "does not exist, and no process watches its directory".to_owned(),
        [one] => format!("does not exist; {one} watches its directory"),
        more => format!("does not exist; {} watch its directory", more.join(", ")),
    }
}

/// How the seats of an instance relate to a subject.
struct Relation<'v> {
    file: Vec<&'v WatchLocation<'v>>,
    write_dir: Vec<&'v WatchLocation<'v>>,
    name_dir: Vec<&'v WatchLocation<'v>>,
    former: Vec<&'v WatchLocation<'v>>,
    above: Option<&'v WatchLocation<'v>>,
    /// Marks of fanotify on the mount or the filesystem.
    wide: u32,
    wide_by: Vec<&'static str>,
}

impl<'v> Relation<'v> {
    fn of(view: &'v View<'_>, instance: &'v Instance, subject: &Subject) -> Self {
        let seats = || view.seats.iter().filter(|seat| seat.instance.fd == instance.fd);
        let at = |location: &Location, ino: Option<u64>| -> Vec<&'v WatchLocation<'v>> {
            let same = |seat: &&WatchLocation<'_>| match &seat.place.location {
                Some(place) => place == location && !seat.place.unlinked,
                None => seat.watch.dev == location.dev && ino == Some(seat.watch.ino),
            };
            let inode =
                |seat: &&WatchLocation<'_>| seat.watch.dev == location.dev && ino == Some(seat.watch.ino);
            seats().filter(|seat| same(seat) || inode(seat)).collect()
        };
        let file = subject.file.as_ref().map(|(seen, real)| at(real, Some(seen.ino))).unwrap_or_default();
        let name = Location {
            dev: subject.dir.1.dev,
            fs_path: subject
                .named
                .file_name()
                .map_or_else(|| subject.dir.1.fs_path.clone(), |name| subject.dir.1.fs_path.join(name)),
        };
        let former =
            seats().filter(|seat| seat.place.unlinked && seat.place.location.as_ref() == Some(&name));
        let above = seats()
            .filter(|seat| seat.place.is_dir() && !seat.place.unlinked)
            .filter_map(|seat| Some((seat, seat.place.location.as_ref()?)))
            .filter(|(_, at)| {
                *at != &subject.dir.1 && subject.dir.1.is_within(at) && at.fs_path != Path::new("/")
            })
            .max_by_key(|(_, at)| at.fs_path.as_os_str().len())
            .map(|(seat, _)| seat);
        let (mut wide, mut wide_by) = (0, Vec::new());
        let mount = subject.file.as_ref().map_or(subject.dir.0.mount, |(seen, _)| seen.mount);
        for mark in &instance.marks.wide {
            let by = match mark.on {
                Wide::Mount(id) if id == mount => "mount",
                Wide::Filesystem(dev) if dev == name.dev => "filesystem",
                _ => continue,
            };
            wide |= (mark.mask & 0xffff_ffff) as u32;
            wide_by.push(by);
        }
        Self {
            file,
            write_dir: at(&subject.write_dir(), None),
            name_dir: at(&subject.dir.1, Some(subject.dir.0.ino)),
            former: former.collect(),
            above,
            wide,
            wide_by,
        }
    }

    fn by(&self) -> Vec<&'static str> {
        let mut by = Vec::new();
        for (word, is_so) in [
            ("file", !self.file.is_empty()),
            ("directory", !self.write_dir.is_empty() || !self.name_dir.is_empty()),
            ("former-file", !self.former.is_empty()),
        ] {
            by.extend(is_so.then_some(word));
        }
        by.extend(&self.wide_by);
        if by.is_empty() {
            by.push(if self.above.is_some() { "above" } else { "nothing" });
        }
        by
    }

    /// All but the one above.
    fn seats(&self) -> impl Iterator<Item = &&'v WatchLocation<'v>> {
        self.file.iter().chain(&self.write_dir).chain(&self.name_dir).chain(&self.former)
    }

    fn is_related(&self) -> bool {
        self.by() != ["nothing"]
    }
}

/// What the instances of a process would receive. Those that have nothing to do with the path are left out, unless the
/// user named this process or one of its findings concerns this path.
pub(super) fn answers(view: &View<'_>, subject: &Subject, chosen: bool, about: &[&Finding]) -> Vec<Answer> {
    let instances = view.process.instances.iter();
    instances
        .filter_map(|instance| {
            let relation = Relation::of(view, instance, subject);
            let lost = about.iter().find(|finding| {
                finding.severity == Severity::Deaf
                    && finding.path.is_some()
                    && finding.target.fd == Some(instance.fd)
            });
            let lost = lost.filter(|_| relation.seats().next().is_none());
            let mut answer = (chosen || lost.is_some() || relation.is_related())
                .then(|| answer(view, instance, subject, &relation))?;
            if let Some(lost) = lost {
                let no = Reception::No(lost.cause, lost.cause.sentence().to_owned());
                (answer.write, answer.replace, answer.create) = (no.clone(), no.clone(), no);
            }
            Some(answer)
        })
        .collect()
}

fn answer(view: &View<'_>, instance: &Instance, subject: &Subject, relation: &Relation<'_>) -> Answer {
    let union = |seats: &[&WatchLocation<'_>]| seats.iter().fold(0, |mask, seat| mask | seat.watch.mask);
    let in_dir =
        |seats: &[&WatchLocation<'_>]| seats.iter().fold(0, |mask, seat| mask | seat.receives_in_dir());
    let (file, write_dir, name_dir) =
        (union(&relation.file), in_dir(&relation.write_dir), in_dir(&relation.name_dir));
    let mask = relation.seats().fold(relation.wide, |mask, seat| mask | seat.watch.mask);
    let once = |yes: Reception| {
        if mask & bits::ONESHOT != 0 && instance.kind == Kind::Inotify {
            Reception::Once(Cause::MarkGone, "IN_ONESHOT: the watch ends with its first event".to_owned())
        } else {
            yes
        }
    };
    let absent = |what: &str| no(view, relation, subject, what);
    let write = if (file | write_dir | relation.wide) & bits::CONTENT != 0 {
        once(Reception::Yes)
    } else {
        absent("IN_MODIFY or IN_CLOSE_WRITE")
    };
    let replace = if (name_dir | relation.wide) & bits::MOVED_TO != 0 {
        once(Reception::Yes)
    } else if instance.kind == Kind::Inotify && !relation.file.is_empty() {
        let told = if file & (bits::DELETE_SELF | bits::MOVE_SELF | bits::ATTRIB) != 0 {
            "it receives the removal of the old file, and nothing about the new one"
        } else {
            "it receives IN_IGNORED once the old file no longer exists, and nothing about the new one"
        };
        Reception::Once(Cause::ReplacedFile, told.to_owned())
    } else {
        absent("IN_MOVED_TO")
    };
    let create = if (name_dir | relation.wide) & bits::CREATE != 0 {
        once(Reception::Yes)
    } else if relation.name_dir.is_empty() && !relation.file.is_empty() {
        Reception::No(Cause::NeverWatched, "it watches the file, not the directory".to_owned())
    } else {
        absent("IN_CREATE")
    };
    Answer {
        target: view.target(Some(instance), None),
        path: subject.named.clone(),
        path_ino: subject.file.as_ref().map(|(seen, _)| seen.ino),
        by: relation.by(),
        mask,
        write,
        replace,
        create,
    }
}

fn no(view: &View<'_>, relation: &Relation<'_>, subject: &Subject, what: &str) -> Reception {
    if let Some(former) = relation.former.first() {
        let ino = former.watch.ino;
        return Reception::No(
            Cause::ReplacedFile,
            format!("it watches inode {ino}, which had this name before"),
        );
    }
    if relation.by().iter().any(|by| matches!(*by, "file" | "directory" | "mount" | "filesystem")) {
        let what = if relation.wide_by.is_empty() { what.to_owned() } else { what.replace("IN_", "FAN_") };
        return Reception::No(Cause::MaskMismatch, format!("the mask has no {what}"));
    }
    let Some(above) = relation.above else {
        return Reception::No(
            Cause::NeverWatched,
            "it watches neither the file nor its directory".to_owned(),
        );
    };
    let seen = above.place.location.as_ref().and_then(|at| view.paths(at).1);
    let seen = seen.map(|path| path.display().to_string()).unwrap_or_default();
    let dir = subject.named.parent().unwrap_or(&subject.named).display();
    Reception::No(Cause::NeverWatched, format!("it watches {seen}, and not the directory {dir}"))
}
