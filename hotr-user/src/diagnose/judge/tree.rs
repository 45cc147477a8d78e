//! Directories of a watched tree without a watch.
//!
//! An instance is taken as recursive when it watches a tree of three or more directories, and of the directories in
//! them far more are watched than not. Names that watchers leave out on purpose do not count. How many directories
//! there are, the link count of their parent says on most filesystems. Their names are read only where nobody asks for
//! the events that reading causes: hotr must not be what a watcher receives.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, StatxFlags, openat2, statx};

use super::super::finding::{Finding, Proof, Severity};
use super::super::namespaces::{FileKind, Reachability, Seen};
use super::super::process::{Instance, Kind};
use super::super::view::{View, WatchLocation, bits};
use crate::mounts::Location;
use hotr_events::Cause;

/// Directories that watchers leave out: version control, dependencies, what a build makes.
const LEFT_OUT: [&str; 14] = [
    "node_modules",
    "bower_components",
    "vendor",
    "target",
    "build",
    "dist",
    "out",
    "coverage",
    "tmp",
    "temp",
    "cache",
    "logs",
    "venv",
    "__pycache__",
];

/// Hidden directories that are common; every hidden one is left out where names are read.
const HIDDEN: [&str; 12] = [
    ".git",
    ".hg",
    ".svn",
    ".jj",
    ".idea",
    ".vscode",
    ".cache",
    ".venv",
    ".tox",
    ".next",
    ".terraform",
    ".gradle",
];

/// A directory may be this new without a watch: its watcher is on the way.
const FRESH: Duration = Duration::from_secs(2);

/// Names given as evidence.
const NAMED: usize = 3;

/// Trees of every instance.
pub(super) fn judge(view: &View<'_>, no_room: bool, findings: &mut Vec<Finding>) {
    for instance in view.process.instances.iter().filter(|instance| instance.kind == Kind::Inotify) {
        findings.extend(tree(view, instance, no_room));
    }
}

/// A watched directory of a tree.
struct Node<'v> {
    seat: &'v WatchLocation<'v>,
    at: &'v Location,
    children: u64,
    in_tree: bool,
}

fn tree(view: &View<'_>, instance: &Instance, no_room: bool) -> Option<Finding> {
    let nodes = nodes(view, instance);
    let members: Vec<_> = nodes.iter().filter(|node| node.in_tree).collect();
    let watched: u64 = members.iter().map(|node| node.children).sum();
    if members.len() < 3 {
        return None;
    }
    let mut missing = 0;
    let mut names: Vec<Location> = Vec::new();
    let mut unnamed: Option<&Node<'_>> = None;
    for node in members {
        match without_watch(view, node) {
            Missing::None => {}
            Missing::Count(count) => {
                missing += count;
                unnamed = unnamed.or(Some(node));
            }
            Missing::Names(found) => {
                missing += found.len() as u64;
                names.extend(found);
            }
        }
    }
    if missing == 0 || missing * 2 > watched {
        return None;
    }
    let target = view.target(Some(instance), None);
    let cause = if no_room { Cause::Limit } else { Cause::NeverWatched };
    let mut finding = Finding::new(Severity::AtRisk, cause, Proof::Inferred, target);
    finding.watches = usize::try_from(missing).ok();
    finding = finding.evidence(format!(
        "the instance watches a tree: {watched} of {} directories in it have a watch, {missing} do not",
        watched + missing
    ));
    if let Some(first) = names.first() {
        (finding.path, finding.path_in_target) = view.paths(first);
        let shown: Vec<_> = names
            .iter()
            .take(NAMED)
            .map(|at| view.paths(at).1.unwrap_or_else(|| at.fs_path.clone()))
            .collect();
        let list = shown.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
        finding = finding.evidence(format!("without a watch: {list}"));
    } else if let Some(node) = unnamed {
        (finding.path, finding.path_in_target) = view.paths(node.at);
        finding = finding.evidence(
            "counted by links; the names are not read, because the watch asks for IN_OPEN or IN_ACCESS and would report it",
        );
    }
    let remedy = if no_room {
        "raise fs.inotify.max_user_watches, and restart the program"
    } else {
        "restart the program; it must read a directory again after adding its watch, or mkdir -p outruns it"
    };
    Some(finding.remedy(remedy))
}

fn nodes<'v>(view: &'v View<'v>, instance: &Instance) -> Vec<Node<'v>> {
    let wanted = bits::CONTENT | bits::APPEARED;
    let mut nodes: Vec<Node<'v>> = view
        .seats
        .iter()
        .filter(|seat| seat.instance.fd == instance.fd && seat.place.is_dir() && !seat.place.unlinked)
        .filter(|seat| seat.watch.mask & wanted != 0)
        .filter_map(|seat| {
            Some(Node { seat, at: seat.place.location.as_ref()?, children: 0, in_tree: false })
        })
        .collect();
    let mut index: HashMap<(u32, u32, &Path), usize> = HashMap::with_capacity(nodes.len());
    for (i, node) in nodes.iter().enumerate() {
        index.insert((node.at.dev.major, node.at.dev.minor, &node.at.fs_path), i);
    }
    let parents: Vec<Option<usize>> = nodes
        .iter()
        .map(|node| index.get(&(node.at.dev.major, node.at.dev.minor, node.at.fs_path.parent()?)).copied())
        .collect();
    for (child, parent) in parents.iter().enumerate() {
        if let Some(parent) = *parent {
            nodes[parent].children += 1;
            nodes[parent].in_tree = true;
            nodes[child].in_tree = true;
        }
    }
    nodes
}

enum Missing {
    None,
    Count(u64),
    Names(Vec<Location>),
}

/// The link count of a directory is two and one for each directory in it.
fn counts_directories(fs: &str) -> bool {
    matches!(fs, "ext2" | "ext3" | "ext4" | "xfs" | "tmpfs" | "devtmpfs" | "f2fs")
}

fn without_watch(view: &View<'_>, node: &Node<'_>) -> Missing {
    let place = &node.seat.place;
    let links =
        place.nlink.map(u64::from).filter(|links| counts_directories(node.seat.fs_type()) && *links >= 2);
    let expected = links.map(|links| (links - 2).saturating_sub(node.children));
    if expected == Some(0) {
        return Missing::None;
    }
    let Reachability::Visible(path) = view.namespace.sight(node.at.dev, &node.at.fs_path) else {
        return Missing::None;
    };
    if (view.dir_mask(node.at) | view.parent_mask(node.at)) & bits::LISTING == 0 {
        return match list(view, node, &path) {
            Some(names) if names.is_empty() => Missing::None,
            Some(names) => Missing::Names(names),
            None => Missing::None,
        };
    }
    let below =
        view.namespace.table.mounts().iter().filter(|mount| mount.mount_point.parent() == Some(&path));
    let apart = below.count() as u64 + left_out(view, node, &path);
    let count = expected.unwrap_or(0).saturating_sub(apart);
    if count == 0 || is_fresh(view, &path) { Missing::None } else { Missing::Count(count) }
}

/// The directories without a watch in a directory, by name.
fn list(view: &View<'_>, node: &Node<'_>, path: &Path) -> Option<Vec<Location>> {
    let place = view.namespace.open(path, false).ok()?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOATIME;
    let open = |flags| openat2(&place, ".", flags, Mode::empty(), ResolveFlags::BENEATH);
    let dir = open(flags).or_else(|_| open(flags - OFlags::NOATIME)).ok()?;
    let mut names = Vec::new();
    for entry in Dir::new(dir).ok()?.flatten() {
        let name = entry.file_name().to_bytes();
        if entry.file_type() != FileType::Directory || name.starts_with(b".") || is_left_out(name) {
            continue;
        }
        let name = OsString::from_vec(name.to_vec());
        let at = Location { dev: node.at.dev, fs_path: node.at.fs_path.join(&name) };
        let child = path.join(&name);
        if view.dir_mask(&at) == 0
            && matches!(view.namespace.sight(at.dev, &at.fs_path), Reachability::Visible(_))
            && !is_fresh(view, &child)
        {
            names.push(at);
        }
    }
    Some(names)
}

/// How many directories that watchers leave out are in a directory that is not read: each name is checked.
fn left_out(view: &View<'_>, node: &Node<'_>, path: &Path) -> u64 {
    let Ok(dir) = view.namespace.open(path, false) else { return 0 };
    let there = HIDDEN.iter().chain(&LEFT_OUT).filter(|name| {
        let at = Location { dev: node.at.dev, fs_path: node.at.fs_path.join(name) };
        let is_dir = Seen::name_in(&dir, Path::new(name)).is_ok_and(|seen| seen.kind == FileKind::Dir);
        is_dir && view.dir_mask(&at) == 0
    });
    there.count() as u64
}

fn is_left_out(name: &[u8]) -> bool {
    LEFT_OUT.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes())) || name.ends_with(b"~")
}

/// Whether a directory changed a moment ago.
fn is_fresh(view: &View<'_>, path: &Path) -> bool {
    let Ok(place) = view.namespace.open(path, false) else { return true };
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let Ok(stat) = statx(&place, "", flags, StatxFlags::CTIME) else { return true };
    let since = Duration::new(u64::try_from(stat.stx_ctime.tv_sec).unwrap_or(0), stat.stx_ctime.tv_nsec);
    SystemTime::now().duration_since(UNIX_EPOCH + since).is_ok_and(|age| age < FRESH)
}

#[cfg(test)]
mod tests {
    use super::is_left_out;

    #[test]
    fn names_that_watchers_leave_out() {
        for (name, want) in [("node_modules", true), ("Target", true), ("old~", true), ("src", false)] {
            assert_eq!(is_left_out(name.as_bytes()), want, "{name}");
        }
    }
}
