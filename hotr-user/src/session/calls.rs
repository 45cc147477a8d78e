//! System calls that took paths, as changes of watched files: the tracepoint tier's records of names.
//!
//! The kernel side saw the call, not the file; the file is read here, after the fact. One that no longer exists is
//! reported without its type, number and size.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use hotr_common::record::Record;
use rustix::fs::{AtFlags, CWD, Statx, StatxFlags, statx};

use super::roots::Roots;
use crate::mounts::join;
use crate::pipeline::callpath::{CallResolver, CallRoot, Resolved, RootRef};
use crate::pipeline::syscall::{Named, NamedCall, Opened};
use crate::source::Clock;
use crate::source::device;
use hotr_events::{Change, Detail, FileId, FileType, Layer, Op, Written};

/// Resolves calls for the roots as they are.
#[derive(Default)]
pub(super) struct Calls {
    /// Made at the first call, for [`Roots::plans`] plans ago.
    resolver: Option<(CallResolver, u64)>,
    /// Calls whose path could not be found out.
    pub(super) unresolved: u64,
}

/// A watched file that a call named.
struct Ours {
    root: RootRef,
    /// Relative to the watched root.
    rel: PathBuf,
    layer: Option<Layer>,
}

impl Calls {
    /// The change a call made, and the index of the watched root; `None` when nothing watched was meant.
    pub(super) fn change(
        &mut self,
        call: &NamedCall<'_>,
        record: &Record,
        roots: &Roots,
        clock: &Clock,
        now: Instant,
    ) -> Option<(Change, usize)> {
        let time = clock.real(record.time);
        let resolver = self.resolver(roots);
        let (path, old) = call.resolve(resolver, |slot| roots.root_ref(slot), now);
        if call.op == Op::Rename {
            // Of a directory, perhaps.
            resolver.invalidate();
        }
        let path = self.ours(path);
        let old = old.map(|old| self.ours(old));
        if call.op == Op::Rename
            && changed_nothing(call, path.as_ref(), old.as_ref().and_then(Option::as_ref), roots, time)
        {
            return None;
        }
        let main = path.as_ref().or(old.as_ref().and_then(Option::as_ref))?;
        let visible = |ours: &Ours| join(&roots.bases[ours.root.root].shown, &ours.rel);
        let new_path = path.as_ref().map_or_else(|| outside(&call.path, roots), visible);
        let mut change = bare(record, call, time, new_path);
        change.layer = main.layer;
        if let (Some(old), Some(named)) = (&old, &call.old_path) {
            change.old_path = Some(old.as_ref().map_or_else(|| outside(named, roots), visible));
            if path.is_none() {
                change.detail.push("moved-out".into());
            } else if old.is_none() {
                change.detail.push("moved-in".into());
            }
        }
        if call.op != Op::Remove {
            let real = path.as_ref().map_or_else(|| change.path.clone(), |ours| on_disk(ours, roots));
            if let Some(opened) = call.opened
                && !self.has_opened(&real, &opened, clock, &mut change)
            {
                return None;
            }
            look(&real, call, &mut change);
            change.file_type = change.file_type.or_else(|| made_type(&change.detail));
            // Only the content of a regular file is cut by an open.
            if change.op == Op::Write && change.file_type.is_some_and(|it| it != FileType::File) {
                return None;
            }
        } else if change.detail.iter().any(|word| word == "rmdir" || word == "subvolume") {
            change.file_type = Some(FileType::Dir);
        } else if let Some(file_type) = FileType::from_mode(record.mode) {
            change.file_type = Some(file_type);
            change.id =
                main_device(main, roots).map(|dev| FileId { dev, ino: record.ino, gen_: record.generation });
        }
        Some((change, main.root.root))
    }

    /// Whether an open made the file, or cut one that was there; by the time of the file's birth. Where the filesystem has no
    /// such time, the call counts as one that could not be found out.
    fn has_opened(&mut self, path: &Path, opened: &Opened, clock: &Clock, change: &mut Change) -> bool {
        let flags = AtFlags::NO_AUTOMOUNT;
        // A file that no longer exists was there, and that is all that can be known.
        let Ok(stat) = statx(CWD, path, flags, StatxFlags::BTIME | StatxFlags::TYPE) else { return true };
        if stat.stx_mask & StatxFlags::BTIME.bits() == 0 {
            self.unresolved += 1;
            return false;
        }
        let born = Duration::new(u64::try_from(stat.stx_btime.tv_sec).unwrap_or(0), stat.stx_btime.tv_nsec);
        if SystemTime::UNIX_EPOCH + born + TICK >= clock.real(opened.since) {
            return true;
        }
        change.op = Op::Write;
        change.written.writes = 1;
        change.detail = vec!["o_trunc".into()];
        opened.cuts
    }

    /// See [`CallResolver::take_moved`].
    pub(super) fn take_moved(&mut self) -> bool {
        self.resolver.as_mut().is_some_and(|(resolver, _)| resolver.take_moved())
    }

    fn resolver(&mut self, roots: &Roots) -> &mut CallResolver {
        let plans = roots.plans();
        if self.resolver.as_ref().is_none_or(|(_, made)| *made != plans) {
            self.resolver = None;
        }
        let (resolver, _) = self
            .resolver
            .get_or_insert_with(|| (CallResolver::new(roots.call_roots(), roots.table.clone()), plans));
        resolver
    }

    fn ours(&mut self, resolved: Resolved) -> Option<Ours> {
        match resolved {
            Resolved::Ours { root, rel, layer } => Some(Ours { root, rel, layer }),
            Resolved::NotOurs => None,
            Resolved::Unknown(_) => {
                self.unresolved += 1;
                None
            }
        }
    }
}

/// A file's times are as coarse as the slowest timer (100 Hz).
const TICK: Duration = Duration::from_millis(10);

/// Whether a rename was one that succeeds and does nothing: of a name to itself, or to another name of the same file. Of the
/// latter both names are still there afterwards. A file that was changed since the call may have got its second name since.
fn changed_nothing(
    call: &NamedCall<'_>,
    new: Option<&Ours>,
    old: Option<&Ours>,
    roots: &Roots,
    time: SystemTime,
) -> bool {
    if let (Some(new), Some(old)) = (new, old)
        && (new.root, &new.rel) == (old.root, &old.rel)
    {
        return true;
    }
    let Some(old_name) = &call.old_path else { return false };
    let file = |ours: Option<&Ours>, named| {
        let path = ours.map_or_else(|| outside(named, roots), |ours| on_disk(ours, roots));
        let wanted = StatxFlags::INO | StatxFlags::NLINK | StatxFlags::CTIME;
        let stat = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, wanted).ok()?;
        let changed =
            Duration::new(u64::try_from(stat.stx_ctime.tv_sec).unwrap_or(0), stat.stx_ctime.tv_nsec);
        let is_as_it_was = SystemTime::UNIX_EPOCH + changed <= time;
        (is_as_it_was && stat.stx_nlink > 1).then(|| (device(&stat), stat.stx_ino))
    };
    file(new, &call.path).is_some_and(|found| file(old, old_name) == Some(found))
}

/// What the call says, without the file.
fn bare(record: &Record, call: &NamedCall<'_>, time: SystemTime, path: PathBuf) -> Change {
    Change {
        time,
        op: call.op,
        detail: call.detail.clone(),
        path,
        old_path: None,
        file_type: None,
        id: None,
        size: None,
        written: Written { writes: u64::from(call.op == Op::Write), bytes: record.bytes },
        layer: None,
        actor: None,
        seen_by: Vec::new(),
        missed_by: Vec::new(),
        watcher: None,
    }
}

/// Device of the filesystem that a file of a watched tree is on.
fn main_device(ours: &Ours, roots: &Roots) -> Option<u64> {
    let root = roots.call_roots().get(ours.root.root)?;
    let dir = ours.root.alias.and_then(|index| root.aliases.get(index)).map_or(&root.dir, |alias| &alias.dir);
    statx(CWD, dir, AtFlags::empty(), StatxFlags::INO).ok().map(|stat| device(&stat))
}

/// Where the file is in our namespace: in a layer it is another one than the path reported for it.
fn on_disk(ours: &Ours, roots: &Roots) -> PathBuf {
    let root: &CallRoot = &roots.call_roots()[ours.root.root];
    let Some(alias) = ours.root.alias.and_then(|index| root.aliases.get(index)) else {
        return join(&root.dir, &ours.rel);
    };
    join(&alias.dir, ours.rel.strip_prefix(&alias.prefix).unwrap_or(Path::new("")))
}

/// A path outside the watched trees, as we see it or else as the caller wrote it.
fn outside(named: &Named<'_>, roots: &Roots) -> PathBuf {
    let start =
        named.outside().and_then(|(mount_id, fs_path)| roots.table.by_id(mount_id)?.visible_path(fs_path));
    match start {
        // An absolute path starts from the caller's root directory, and a joined one would start from ours.
        Some(start) => start.join(named.as_path().strip_prefix("/").unwrap_or(named.as_path())),
        None => named.as_path().to_path_buf(),
    }
}

/// Adds what the file says of itself now.
fn look(path: &Path, call: &NamedCall<'_>, change: &mut Change) {
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let Ok(stat): Result<Statx, _> = statx(CWD, path, flags, wanted) else { return };
    let file_type = FileType::from_mode(u32::from(stat.stx_mode));
    if is_another(&stat, file_type, change) {
        return;
    }
    change.file_type = file_type;
    change.size = (change.file_type == Some(FileType::File)).then_some(stat.stx_size);
    change.id = Some(FileId { dev: device(&stat), ino: stat.stx_ino, gen_: 0 });
    if call.from_descriptor && stat.stx_nlink == 1 {
        change.detail = vec!["tmpfile-link".into()];
    }
}

/// Whether what the name leads to now cannot be what the call was about: it was born later, or is of another type than
/// the call made.
fn is_another(stat: &Statx, file_type: Option<FileType>, change: &Change) -> bool {
    let born = Duration::new(u64::try_from(stat.stx_btime.tv_sec).unwrap_or(0), stat.stx_btime.tv_nsec);
    let is_younger =
        stat.stx_mask & StatxFlags::BTIME.bits() != 0 && SystemTime::UNIX_EPOCH + born > change.time;
    let made = if change.op == Op::Create { made_type(&change.detail) } else { None };
    let is_no_dir = change.detail.iter().any(|word| word == "link" || word == "mknod");
    is_younger
        || made.is_some_and(|made| file_type != Some(made))
        || is_no_dir && file_type == Some(FileType::Dir)
}

/// The type of what a call makes, where that does not depend on its arguments.
fn made_type(detail: &[Detail]) -> Option<FileType> {
    detail.iter().find_map(|word| match &**word {
        "open" | "tmpfile-link" => Some(FileType::File),
        "mkdir" | "subvolume" | "snapshot" => Some(FileType::Dir),
        "symlink" => Some(FileType::Symlink),
        _ => None,
    })
}
