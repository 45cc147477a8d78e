//! What names in the tree lead to by symbolic links, when that is not watched by a name of its own.
//!
//! In: the links of the tree. Out: changes of what is behind them, and which places the feed has to listen to
//! ([`LinkPoints`]). A reload depends on the files whose content changes. A wanted name may be a link to a name that is left
//! out (`app.yaml` → `..data/app.yaml`), or to a place outside the tree; a link to a directory makes many such names.
//! All of them are resolved again when a link, directory or file on the way of one of them has changed, and their
//! content is compared.

pub(super) mod outside;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::FileType;
use rustix::io::Errno;

use super::filter::PathFilter;
use crate::beneath::{Dir, End, NamedPath};
use crate::pipeline::confirm::{ConfirmOptions, Confirmed, Evidence, Kind, State, writers};
use hotr_events::Channel;

/// Names behind links that are compared, and links that are followed; both are kept in memory with their content's state.
const MOST: usize = 4096;
/// Links to directories, one behind the other, that are followed.
const DEPTH: u32 = 8;

/// What the feed has to listen to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LinkPoints {
    /// Links, directories and files on the way, as the user watches them if they are in the tree.
    pub(super) points: HashSet<PathBuf>,
    /// Directories outside the tree that hold some of them.
    pub(super) outside: BTreeSet<PathBuf>,
    /// Directories behind a link: each name in them counts.
    pub(super) followed: HashSet<PathBuf>,
    /// Wanted files in the tree that have further hard links, with their inodes.
    pub(super) hard: BTreeMap<PathBuf, u64>,
}

/// A name that leads somewhere by links.
#[derive(Clone, Debug)]
struct Name {
    /// What it leads to; the file need not exist.
    real: PathBuf,
    /// The links on the way, as the user watches them if they are in the tree.
    way: Vec<PathBuf>,
    /// None: it may have changed since all changes are told.
    state: Option<State>,
    /// Changes of the file are told by its own name.
    is_told: bool,
}

/// What a look found, to be kept by [`LinkTargets::take`].
#[derive(Debug, Default)]
pub(super) struct Found {
    names: BTreeMap<PathBuf, Name>,
    ways: LinkPoints,
    /// Links in the tree to what is in the tree as well, and that.
    inside: Vec<(PathBuf, PathBuf)>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct LinkTargets {
    links: BTreeSet<PathBuf>,
    hard: BTreeMap<PathBuf, u64>,
    names: BTreeMap<PathBuf, Name>,
    ways: LinkPoints,
    /// Names of which a change was told: they are no files to put back.
    told: HashSet<PathBuf>,
    said: HashSet<PathBuf>,
    news: Vec<String>,
    is_over: bool,
}

/// What a look needs.
pub(super) struct Look<'a> {
    pub(super) roots: &'a [PathBuf],
    pub(super) filter: &'a mut PathFilter,
    pub(super) options: ConfirmOptions,
    pub(super) stop: &'a AtomicBool,
}

impl Found {
    /// Whether a path is behind a link.
    pub(super) fn has(&self, path: &Path) -> bool {
        self.names.get(path).is_some_and(|name| name.state.is_some())
    }

    /// The path in the tree that a path behind a link in it leads to.
    pub(super) fn inside(&self, path: &Path) -> Option<PathBuf> {
        self.inside.iter().find_map(|(link, told)| Some(told.join(path.strip_prefix(link).ok()?)))
    }
}

impl LinkTargets {
    /// Forgets all: the trees are other ones.
    pub(super) fn clear(&mut self) {
        *self = Self { said: std::mem::take(&mut self.said), ..Self::default() };
    }

    /// A link in the tree, by which wanted files may be reached.
    pub(super) fn add_link(&mut self, path: PathBuf) {
        if self.links.len() < MOST {
            self.links.insert(path);
        } else {
            self.overflow();
        }
    }

    /// Takes note of a wanted file that has more than one hard link, or no longer has.
    pub(super) fn note_hard(&mut self, path: &Path, state: &State) {
        let Some(ino) = state.shared_ino() else {
            self.hard.remove(path);
            return;
        };
        if self.hard.len() < MOST || self.hard.contains_key(path) {
            self.hard.insert(path.to_owned(), ino);
        } else if self.said.insert(PathBuf::new()) {
            self.news.push(format!(
                "more than {MOST} files have further hard links: only audits may find writes through names outside \
                 the tree"
            ));
        }
    }

    fn overflow(&mut self) {
        if !std::mem::replace(&mut self.is_over, true) {
            self.news.push(format!(
                "more than {MOST} names lead elsewhere through symbolic links: the others are not followed; name the \
                 directories behind them to watch those too"
            ));
        }
    }

    /// Whether a change of this path is of what is behind a link.
    pub(super) fn has(&self, path: &Path) -> bool {
        self.told.contains(path)
    }

    /// Takes over what was known of a file whose path is behind a link now.
    pub(super) fn adopt(&mut self, path: &Path, state: State) {
        let name = Name { real: path.to_owned(), way: Vec::new(), state: Some(state), is_told: false };
        self.names.entry(path.to_owned()).or_insert(name);
    }

    /// Gives away what is known of a name that is not behind a link any more.
    pub(super) fn give(&mut self, path: &Path) -> Option<State> {
        self.told.remove(path);
        self.names.remove(path)?.state
    }

    /// Sentences to be said.
    pub(super) fn take_news(&mut self) -> Vec<String> {
        std::mem::take(&mut self.news)
    }

    /// What the feed has to listen to, if that is other than before.
    pub(super) fn new_ways(&mut self, mut ways: LinkPoints) -> Option<LinkPoints> {
        ways.hard.clone_from(&self.hard);
        (ways != self.ways).then(|| {
            self.ways = ways;
            self.ways.clone()
        })
    }

    /// The hard links are other ones.
    pub(super) fn new_hard(&mut self) -> Option<LinkPoints> {
        self.new_ways(self.ways.clone())
    }

    /// Follows all links.
    pub(super) fn look(&mut self, look: &mut Look<'_>) -> Found {
        let mut found = Found::default();
        let reals: Vec<_> =
            look.roots.iter().map(|root| (root.clone(), NamedPath::follow(root).real())).collect();
        for link in self.links.clone() {
            let Some((root, Some(real))) = reals.iter().find(|(root, _)| link.starts_with(root)) else {
                continue;
            };
            let Ok(relative) = link.strip_prefix(root) else { continue };
            let at = real.join(relative);
            if !at.is_symlink() {
                self.links.remove(&link);
                continue;
            }
            let place = LinkPoint { name: link, at, depth: 0, above: Vec::new() };
            self.follow(place, look, &reals, &mut found);
            if look.stop.load(Ordering::Relaxed) {
                break;
            }
        }
        found
    }

    /// The states that a look found are those before the first change; since `since_ns` all changes are told.
    pub(super) fn learn(&mut self, found: Found, since_ns: i64) -> LinkPoints {
        self.names = found.names;
        let is_old = |path: &PathBuf| changed_ns(path).is_none_or(|changed| changed < since_ns);
        for name in self.names.values_mut() {
            if !name.way.iter().all(is_old) || !name.is_told && !is_old(&name.real) {
                name.state = None;
            }
        }
        self.ways = LinkPoints { hard: self.hard.clone(), ..found.ways };
        self.ways.clone()
    }

    /// As [`Self::learn`], of a path that was added: what was known before stays what later looks are compared with.
    pub(super) fn learn_more(&mut self, found: Found, since_ns: i64) -> LinkPoints {
        let known = std::mem::take(&mut self.names);
        let ways = self.learn(found, since_ns);
        self.names.extend(known);
        ways
    }

    /// Forgets what is not below these paths any more.
    pub(super) fn retain(&mut self, is_kept: impl Fn(&Path) -> bool) {
        self.links.retain(|path| is_kept(path));
        self.hard.retain(|path, _| is_kept(path));
        self.names.retain(|path, _| is_kept(path));
        self.told.retain(|path| is_kept(path));
    }

    /// A file that has another content now and is open for writing, or was changed while it was read.
    pub(super) fn unfinished(&self, found: &Found) -> Option<PathBuf> {
        found.names.iter().find_map(|(path, now)| {
            let state = now.state.as_ref()?;
            let is_new = self.names.get(path).is_none_or(|before| before.state != now.state);
            let is_open = is_new && (state.is_torn() || is_being_written(&now.real));
            is_open.then(|| path.clone())
        })
    }

    /// Keeps what a look found. Returns what that changed, but for what the paths of this batch say already.
    pub(super) fn take(
        &mut self,
        found: Found,
        batch: &HashSet<PathBuf>,
        seen_by: &[Channel],
    ) -> (Vec<Confirmed>, Option<LinkPoints>) {
        let confirmed = |path: &Path, kind, by, state: State| {
            Confirmed::new(kind, path.to_owned(), by, seen_by.to_vec(), state)
        };
        let before = std::mem::replace(&mut self.names, found.names);
        let is_said = |name: &Name, path: &Path| {
            batch.contains(path)
                || batch.contains(&name.real)
                || name.way.iter().any(|link| batch.contains(link))
        };
        let mut changes = Vec::new();
        for (path, now) in &self.names {
            let Some(state) = &now.state else { continue };
            let verdict = match before.get(path) {
                None if !state.is_file_or_link() => None,
                None => Some((Kind::Created, Evidence::Name)),
                Some(Name { state: None, .. }) => Some((Kind::Written, Evidence::Unknown)),
                Some(Name { state: Some(old), real, .. }) => {
                    old.differs(state).filter(|_| !(now.is_told && *real == now.real))
                }
            };
            let is_said = is_said(now, path) || before.get(path).is_some_and(|old| is_said(old, path));
            if let Some((kind, by)) = verdict.filter(|_| !is_said) {
                changes.push(confirmed(path, kind, by, state.clone()));
            }
        }
        for (path, old) in &before {
            let was_file = old.state.as_ref().is_none_or(State::is_file_or_link);
            if !self.names.contains_key(path) && was_file && !is_said(old, path) {
                changes.push(confirmed(path, Kind::Removed, Evidence::Name, State::Absent));
            }
        }
        // Of two names of one file, the one by way of the other is enough.
        let way_of = |path: &PathBuf| self.names.get(path).map(|name| (&name.real, &name.way));
        let is_longer = |(real, way): (&PathBuf, &Vec<PathBuf>), other: &Confirmed| {
            way_of(&other.path).is_some_and(|(real_of_other, longer)| {
                real == real_of_other
                    && longer.len() > way.len()
                    && way.iter().all(|link| longer.contains(link))
            })
        };
        let is_needless = |change: &Confirmed| {
            way_of(&change.path).is_some_and(|way| changes.iter().any(|other| is_longer(way, other)))
        };
        let needless: HashSet<PathBuf> =
            changes.iter().filter(|change| is_needless(change)).map(|change| change.path.clone()).collect();
        changes.retain(|change| !needless.contains(&change.path));
        if self.told.len() > MOST {
            self.told.clear();
        }
        self.told.extend(changes.iter().map(|change| change.path.clone()));
        (changes, self.new_ways(found.ways))
    }

    fn follow(&mut self, place: LinkPoint, look: &mut Look<'_>, reals: &[Root], found: &mut Found) {
        let in_tree = |path: &Path| -> Option<PathBuf> {
            reals.iter().find_map(|(root, real)| {
                let relative = path.strip_prefix(real.as_ref()?).ok()?;
                Some(if relative.as_os_str().is_empty() { root.clone() } else { root.join(relative) })
            })
        };
        let route = NamedPath::follow(&place.at);
        let links: Vec<PathBuf> = route.links.iter().map(|link| link.at.path()).collect();
        let way: Vec<PathBuf> =
            links.iter().map(|link| in_tree(link).unwrap_or_else(|| link.clone())).collect();
        let told = in_tree(&route.path);
        let is_dir = matches!(route.end, End::Directory(..));
        let is_told = told.as_ref().is_some_and(|told| look.filter.wants(told, is_dir));
        if is_told && look.filter.wants(&place.name, false) {
            // The link is a wanted name, and so is what it leads to.
            found.inside.extend(told.map(|told| (place.name, told)));
            return;
        }
        let mut listen = |path: &Path| {
            found.ways.points.insert(path.to_owned());
            let told = in_tree(path);
            found.ways.points.extend(told.iter().flat_map(|told| told.ancestors()).map(Path::to_owned));
            // What is left out is not heard by the session either.
            let is_heard =
                told.is_some_and(|told| told.parent().is_none_or(|dir| look.filter.wants(dir, true)));
            if !is_heard {
                found.ways.outside.extend(path.parent().map(Path::to_owned));
            }
        };
        links.iter().for_each(|link| listen(link));
        listen(&route.path);
        if let Some(uid) = route.stranger() {
            if self.said.insert(place.name.clone()) {
                let link = place.name.display();
                self.news.push(format!(
                    "{link} is a symbolic link of user {uid} to a target of somebody else: not followed; name its \
                     target to watch it"
                ));
            }
            return;
        }
        match route.end {
            End::Directory(..) => {
                let wants = look.filter.wants(&place.name, true);
                let is_loop = place.at.starts_with(&route.path) || place.above.contains(&route.path);
                if wants && !is_loop && place.depth < DEPTH {
                    if !is_told {
                        found.ways.outside.insert(route.path.clone());
                    }
                    found.ways.followed.extend([Some(route.path.clone()), told].into_iter().flatten());
                    let above = [place.above.as_slice(), std::slice::from_ref(&route.path)].concat();
                    let dir = LinkPoint { name: place.name, at: route.path, depth: place.depth + 1, above };
                    self.list(&dir, &way, look, reals, found);
                }
            }
            End::Other(..) => {}
            End::File(..) | End::Missing(_) => {
                if look.filter.wants(&place.name, false) {
                    self.name(place.name, route.path, way, is_told, look, found);
                }
            }
        }
    }

    /// The names below a directory that a link leads to.
    fn list(
        &mut self,
        dir: &LinkPoint,
        way: &[PathBuf],
        look: &mut Look<'_>,
        reals: &[Root],
        found: &mut Found,
    ) {
        let held = Dir::search_real(&dir.at).map_err(std::io::Error::from);
        let Ok(entries) = held.and_then(|held| held.dir(Path::new(""))?.names()) else { return };
        for (entry, kind) in entries.flatten() {
            let (name, at) = (dir.name.join(&entry), dir.at.join(&entry));
            if found.names.len() >= MOST || look.stop.load(Ordering::Relaxed) {
                return self.overflow();
            }
            let is_wanted = look.filter.wants(&name, kind == FileType::Directory);
            let place = LinkPoint { name, at, depth: dir.depth, above: dir.above.clone() };
            if kind == FileType::Symlink {
                self.follow(place, look, reals, found);
            } else if is_wanted && kind == FileType::Directory {
                found.ways.outside.insert(place.at.clone());
                found.ways.followed.insert(place.at.clone());
                self.list(&place, way, look, reals, found);
            } else if is_wanted && kind == FileType::RegularFile {
                let told = reals
                    .iter()
                    .find_map(|(root, real)| Some(root.join(place.at.strip_prefix(real.as_ref()?).ok()?)));
                let is_told = told.is_some_and(|told| look.filter.wants(&told, false));
                self.name(place.name, place.at, way.to_vec(), is_told, look, found);
            }
        }
    }

    fn name(
        &mut self,
        name: PathBuf,
        real: PathBuf,
        way: Vec<PathBuf>,
        is_told: bool,
        look: &Look<'_>,
        found: &mut Found,
    ) {
        if found.names.len() >= MOST {
            return self.overflow();
        }
        let before = self.names.get(&name).and_then(|name| name.state.as_ref());
        let state = match state(&real, before, look) {
            // Compared with what was known last, once it can be looked at.
            State::Unknown(_) => before.cloned(),
            state => Some(state),
        };
        found.names.insert(name, Name { real, way, state, is_told });
    }
}

/// A named root, and where it is.
type Root = (PathBuf, Option<PathBuf>);

/// A link, or a directory behind one.
struct LinkPoint {
    /// As a name below the tree.
    name: PathBuf,
    /// Where that is, but for the last component.
    at: PathBuf,
    depth: u32,
    /// Directories behind the links that led here.
    above: Vec<PathBuf>,
}

/// Change time of a name itself.
fn changed_ns(path: &Path) -> Option<i64> {
    let stat = path.symlink_metadata().ok()?;
    Some(stat.ctime().saturating_mul(1_000_000_000).saturating_add(stat.ctime_nsec()))
}

/// The held directory of a path that has no links, and the name in it: who owns a directory above cannot lead elsewhere.
fn held(real: &Path) -> Result<(Dir, &OsStr), Errno> {
    let (Some(dir), Some(name)) = (real.parent(), real.file_name()) else { return Err(Errno::NOENT) };
    Ok((Dir::search_real(dir)?, name))
}

fn is_being_written(real: &Path) -> bool {
    held(real).is_ok_and(|(dir, name)| writers::is_being_written(&dir, name))
}

/// The state of a path that has no links.
fn state(real: &Path, before: Option<&State>, look: &Look<'_>) -> State {
    match held(real) {
        Ok((dir, name)) => State::look_in(dir.as_fd(), name, before, look.options, look.stop),
        Err(error) => State::without(error),
    }
}
