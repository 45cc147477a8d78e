//! What was reported and not checked yet: the next batch.
//!
//! In: changes that matter, one by one. Out: a [`Pending`], which goes to the thread that reads files (`content`), and
//! comes back when it must wait.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::time::Instant;

use super::affected_names::Names;
use super::touched::Touched;
use hotr_events::{Actor, Change, Channel, FileType, Op};

/// Names of a batch that are left out and asked whether they are further hard links.
const LEFT_OUT: usize = 256;

/// Names that are one batch at most, although the changes go on or were made at once: a storm must not take memory without
/// end.
pub(super) const MOST_IN_BATCH: usize = if cfg!(test) { 64 } else { 32_768 };

/// Renamed directories of a batch that are remembered: each new file is looked for under its former paths.
const MOVES: usize = 256;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) touched: BTreeMap<PathBuf, Touched>,
    /// Directories that appeared, disappeared or got another name.
    pub(super) dirs: Vec<PathBuf>,
    /// Names that may have been such a directory, or may be one.
    pub(super) perhaps: Vec<PathBuf>,
    /// Former and new path of directories that got another name, in order.
    pub(super) moves: Vec<(PathBuf, PathBuf)>,
    /// Named paths that lead elsewhere now.
    pub(super) relinked: Vec<PathBuf>,
    /// Something on the way that a link leads may have changed.
    pub(super) behind: bool,
    /// Who reported that.
    pub(super) behind_by: Vec<Channel>,
    /// Names that appeared and are left out; they may be further hard links of wanted files.
    pub(super) left_out: Vec<PathBuf>,
    /// Links that appeared.
    pub(super) links: Vec<PathBuf>,
    /// The last actor: most batches have one.
    pub(super) actor: Option<Arc<Actor>>,
    /// Names after which there is room to be made again.
    pub(super) room: usize,
    /// When the first of it was reported.
    pub(super) first: Option<Instant>,
}

impl Pending {
    /// A change of a name that is left out. Whether it may be a further hard link of a wanted file.
    pub(super) fn leave_out(&mut self, path: &Path, change: &Change) -> bool {
        let is_file = change.file_type == Some(FileType::File) || Names::of(change).exchanged;
        let is_name = matches!(change.op, Op::Create | Op::Rename) && is_file;
        let is_asked = is_name && self.left_out.len() < LEFT_OUT;
        if is_asked {
            self.left_out.push(path.to_owned());
        }
        is_asked
    }

    /// What is behind links may have changed.
    pub(super) fn touch_behind(&mut self, is_so: bool, seen_by: &[Channel]) {
        if is_so {
            self.behind = true;
            let new = seen_by.iter().filter(|channel| !self.behind_by.contains(channel));
            self.behind_by = self.behind_by.iter().chain(new).copied().collect();
        }
    }

    /// A file that something else than the session reported.
    pub(super) fn touch_by(&mut self, path: PathBuf, channel: Channel) {
        self.touched.entry(path).or_default().seen_by.extend([channel].into_iter());
    }

    /// A change of a path: its own (`is_new_name`), or the one that a renamed file had before. `old`: the name before of
    /// what has this one now.
    pub(super) fn touch(
        &mut self,
        path: &PathBuf,
        change: &Change,
        old: Option<&PathBuf>,
        is_new_name: bool,
    ) {
        let is_new = !self.touched.contains_key(path);
        let touched = self.touched.entry(path.clone()).or_default();
        touched.born |= is_new && is_new_name && change.op == Op::Create;
        if !matches!(change.op, Op::Write | Op::Attrib) {
            // What is written later has the same name before.
            touched.set_old(old.map(PathBuf::as_path));
            touched.is_dir = change.file_type == Some(FileType::Dir);
        }
        touched.seen_by.extend(change.seen_by.iter().copied());
        // Mode, owner and times are not what is confirmed.
        if let Some(actor) = change.actor.as_ref().filter(|_| change.op != Op::Attrib) {
            let last = self.actor.take().filter(|last| **last == *actor);
            let actor = last.unwrap_or_else(|| Arc::new(actor.clone()));
            touched.made_by(&actor);
            self.actor = Some(actor);
        }
    }

    /// Whether there is anything to look at.
    pub(super) fn has_any(&self) -> bool {
        let lists = [&self.dirs, &self.perhaps, &self.relinked, &self.left_out, &self.links];
        self.behind || !self.touched.is_empty() || lists.iter().any(|list| !list.is_empty())
    }

    /// Keeps only these paths.
    pub(super) fn retain(&mut self, is_kept: impl Fn(&Path) -> bool) {
        self.touched.retain(|path, _| is_kept(path));
        for list in
            [&mut self.dirs, &mut self.perhaps, &mut self.relinked, &mut self.left_out, &mut self.links]
        {
            list.retain(|path| is_kept(path));
        }
    }

    /// A directory got another name.
    pub(super) fn moved(&mut self, old: &Path, new: &Path) {
        if self.moves.len() < MOVES {
            self.moves.push((old.to_owned(), new.to_owned()));
        }
    }

    /// The path that a file had before it, or a directory above it, was renamed.
    pub(super) fn former(&self, path: &Path) -> Option<PathBuf> {
        if let Some(old) = self.touched.get(path).and_then(Touched::old) {
            return Some(old.to_owned());
        }
        let mut former = None;
        for (old, new) in self.moves.iter().rev() {
            let now = former.as_deref().unwrap_or(path);
            if let Ok(rest) = now.strip_prefix(new) {
                former = Some(crate::mounts::join(old, rest));
            }
        }
        former
    }

    /// Forgets the names below directories that are read in any case, where there are so many that a storm is faster than they
    /// are looked at. Who reported them, and who made them, is forgotten with them. Directories are read recursively; one of
    /// these `roots` in such a directory may be in a part that is not.
    pub(super) fn make_room(&mut self, roots: &[PathBuf]) {
        if self.touched.len() < self.room.max(MOST_IN_BATCH * 2) {
            return;
        }
        let dirs: HashSet<&Path> = self.dirs.iter().map(PathBuf::as_path).collect();
        let is_root = |path: &Path| roots.iter().any(|root| root == path);
        let is_read = |path: &Path| {
            let mut above = path.ancestors().skip(1);
            let is_end = |dir: &&Path| dirs.contains(dir) || is_root(dir);
            !is_root(path) && above.find(is_end).is_some_and(|dir| dirs.contains(dir))
        };
        // Of a rename the former name is found nowhere else.
        self.touched.retain(|path, touched| touched.old().is_some() || !is_read(path));
        // Where that was of no use, it is not tried again soon.
        self.room = self.touched.len() * 2;
    }

    /// How many names of it are looked at together. What a link that leads elsewhere brought is reported by the link, and so
    /// in one batch with it.
    pub(super) fn most_together(&self) -> usize {
        if self.relinked.is_empty() { MOST_IN_BATCH } else { usize::MAX }
    }

    /// Takes out what is more than so many names, and directories that were not read yet.
    pub(super) fn split_off(&mut self, most: usize) -> Option<Self> {
        let after = self.touched.keys().nth(most).cloned();
        let touched = after.map(|after| self.touched.split_off(&after)).unwrap_or_default();
        let dirs = std::mem::take(&mut self.dirs);
        if touched.is_empty() && dirs.is_empty() {
            return None;
        }
        let moves = self.moves[self.moves.len().saturating_sub(MOVES)..].to_vec();
        let (behind, behind_by, first) = (self.behind, self.behind_by.clone(), self.first);
        Some(Self { touched, dirs, moves, behind, behind_by, first, ..Self::default() })
    }

    /// Takes back what was taken out.
    pub(super) fn join(&mut self, rest: Option<Self>) {
        let Some(rest) = rest else { return };
        self.touched.extend(rest.touched);
        self.dirs.extend(rest.dirs);
    }

    /// Puts what was reported earlier before what came since.
    pub(super) fn put_before(&mut self, earlier: Self) {
        for (path, before) in earlier.touched {
            self.touched.entry(path).or_default().put_before(before);
        }
        self.dirs.extend(earlier.dirs);
        self.perhaps.extend(earlier.perhaps);
        self.moves.splice(..0, earlier.moves);
        self.relinked.extend(earlier.relinked);
        self.touch_behind(earlier.behind, &earlier.behind_by);
        self.left_out.extend(earlier.left_out);
        self.links.extend(earlier.links);
        self.first = [earlier.first, self.first].into_iter().flatten().min();
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::source::difference::{Difference, Kind};

    fn change(op: Op, path: &str, old: Option<&str>, file_type: FileType) -> Change {
        let kind = match (op, old) {
            (Op::Rename, Some(old)) => Kind::Renamed { old: old.into() },
            (Op::Create, _) => Kind::Created,
            (Op::Remove, _) => Kind::Removed,
            _ => Kind::Content,
        };
        let file_type = Some(file_type);
        let path = path.into();
        let difference = Difference { kind, path, dev: 1, ino: 1, gen_: 0, file_type, size: 0, ctime_ns: 0 };
        difference.into_change(Channel::Ebpf, SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn a_file_is_renamed_whatever_happens_to_it_next() {
        let mut pending = Pending::default();
        let new = PathBuf::from("/g");
        let old = PathBuf::from("/f");
        pending.touch(&new, &change(Op::Rename, "/g", Some("/f"), FileType::File), Some(&old), true);
        pending.touch(&new, &change(Op::Write, "/g", None, FileType::File), None, true);
        assert_eq!(pending.former(&new), Some("/f".into()));
        // Another file has the name.
        pending.touch(&new, &change(Op::Create, "/g", None, FileType::File), None, true);
        assert_eq!(pending.former(&new), None);
    }

    #[test]
    fn files_are_renamed_with_the_directories_above_them() {
        let mut pending = Pending::default();
        pending.moved("/one".as_ref(), "/two".as_ref());
        pending.moved("/two/a".as_ref(), "/two/b".as_ref());
        assert_eq!(pending.former("/two/b/f".as_ref()), Some("/one/a/f".into()));
        assert_eq!(pending.former("/two/f".as_ref()), Some("/one/f".into()));
        assert_eq!(pending.former("/three/f".as_ref()), None);
    }

    #[test]
    fn names_below_new_directories_make_room_in_a_storm() {
        let mut pending = Pending::default();
        let most = MOST_IN_BATCH * 2;
        pending.dirs.extend([PathBuf::from("/r/new"), PathBuf::from("/r/a/b")]);
        let mut kept = Vec::new();
        for at in 0..most / 4 {
            let [new, deep, other] =
                ["/r/new", "/r/a/b/c", "/r/a"].map(|dir| PathBuf::from(format!("{dir}/{at}")));
            for path in [new, deep, other.clone()] {
                pending.touch_by(path, Channel::Ebpf);
            }
            kept.push(other);
        }
        let roots = ["/r", "/r/new/inner", "/r/new/file"].map(PathBuf::from);
        pending.make_room(&roots);
        assert_eq!(pending.touched.len(), most / 4 * 3, "there is room enough");
        let (name, old) = (PathBuf::from("/r/new/name"), PathBuf::from("/r/old"));
        pending.touch(
            &name,
            &change(Op::Rename, "/r/new/name", Some("/r/old"), FileType::File),
            Some(&old),
            true,
        );
        kept.push(name);
        for at in 0..most / 4 {
            pending.touch_by(PathBuf::from(format!("/r/new/more-{at}")), Channel::Ebpf);
        }
        for named in ["/r/new/inner/f", "/r/new/file"].map(PathBuf::from) {
            pending.touch_by(named.clone(), Channel::Ebpf);
            kept.push(named);
        }
        pending.make_room(&roots);
        kept.sort_unstable();
        assert_eq!(pending.touched.into_keys().collect::<Vec<_>>(), kept);
    }

    #[test]
    fn what_comes_back_is_the_begin_of_the_next_batch() {
        let (a, b, c) = (PathBuf::from("/a"), PathBuf::from("/b"), PathBuf::from("/c"));
        let begin = Instant::now();
        let touched = |born, seen_by: &[Channel]| {
            let mut touched = Touched::default();
            touched.born = born;
            touched.seen_by.extend(seen_by.iter().copied());
            touched
        };
        let earlier = Pending {
            touched: [
                (a.clone(), touched(true, &[Channel::Ebpf])),
                (b.clone(), touched(false, &[Channel::Ebpf])),
            ]
            .into(),
            dirs: vec![c.clone()],
            first: Some(begin),
            ..Pending::default()
        };
        let mut pending = Pending {
            touched: [
                (b.clone(), touched(true, &[Channel::Inotify, Channel::Ebpf])),
                (c.clone(), touched(true, &[Channel::Inotify])),
            ]
            .into(),
            first: Some(begin + Duration::from_secs(1)),
            ..Pending::default()
        };
        pending.put_before(earlier);
        let expected = BTreeMap::from([
            (a, touched(true, &[Channel::Ebpf])),
            // It was there before it was removed and made again.
            (b, touched(false, &[Channel::Inotify, Channel::Ebpf])),
            (c.clone(), touched(true, &[Channel::Inotify])),
        ]);
        assert_eq!(pending.touched, expected);
        assert_eq!((pending.dirs, pending.first), (vec![c], Some(begin)));
    }
}
