//! System calls that took paths, as changes of watched files: the tracepoint tier's records of names.
//!
//! The kernel side saw the call, not the file; the file is looked at here, after the fact. One that is gone again
//! is reported without its type, number and size.

use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use hotr_common::record::Record;
use rustix::fs::{AtFlags, CWD, Statx, StatxFlags, statx};

use super::roots::Roots;
use crate::event::{Change, FileId, FileType, Layer, Op};
use crate::mounts::join;
use crate::pipeline::callpath::{CallResolver, CallRoot, Resolved, RootRef};
use crate::pipeline::decode;
use crate::pipeline::syscall::{Named, NamedCall};
use crate::source::device;

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
        time: SystemTime,
        now: Instant,
    ) -> Option<(Change, usize)> {
        let resolver = self.resolver(roots);
        let (path, old) = call.resolve(resolver, |slot| roots.root_ref(slot), now);
        if call.op == Op::Rename {
            // Of a directory, perhaps.
            resolver.invalidate();
        }
        let path = self.ours(path);
        let old = old.map(|old| self.ours(old));
        let main = path.as_ref().or(old.as_ref().and_then(Option::as_ref))?;
        let visible = |ours: &Ours| join(&roots.watched[ours.root.root].shown(), &ours.rel);
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
            look(&real, call, &mut change);
        } else if change.detail.iter().any(|word| word == "rmdir") {
            change.file_type = Some(FileType::Dir);
        } else if let Some(file_type) = FileType::from_mode(record.mode) {
            change.file_type = Some(file_type);
            change.id =
                main_device(main, roots).map(|dev| FileId { dev, ino: record.ino, gen_: record.generation });
        }
        Some((change, main.root.root))
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
        writes: u64::from(call.op == Op::Write),
        bytes: record.bytes,
        layer: None,
        actor: None,
        seen_by: Vec::new(),
        missed_by: Vec::new(),
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
        Some(start) => decode::join(&start, b"").join(named.as_path()),
        None => named.as_path().to_path_buf(),
    }
}

/// Adds what the file says of itself now.
fn look(path: &Path, call: &NamedCall<'_>, change: &mut Change) {
    let wanted = StatxFlags::TYPE | StatxFlags::INO | StatxFlags::SIZE | StatxFlags::NLINK;
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let Ok(stat): Result<Statx, _> = statx(CWD, path, flags, wanted) else { return };
    change.file_type = FileType::from_mode(u32::from(stat.stx_mode));
    change.size = (change.file_type == Some(FileType::File)).then_some(stat.stx_size);
    change.id = Some(FileId { dev: device(&stat), ino: stat.stx_ino, gen_: 0 });
    if call.from_descriptor && stat.stx_nlink == 1 {
        change.detail = vec!["tmpfile-link".into()];
    }
}
