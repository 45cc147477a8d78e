//! Roots that are renamed, removed, replaced, exchanged and unmounted under a running trace: each tier reports it
//! through something else.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};
use serde_json::Value;

use crate::group::{Group, Report, Setting};
use crate::observed::Observed;
use crate::session::Session;

/// The cases.
pub const GROUP: Group = Group { place: "roots", names: || names().collect(), make };

/// A root that comes and goes while another program writes: hotr takes roots up without keeping the kernel from running
/// its programs for the writer.
const BESIDE_WRITES: &str = "root-beside-writes";
/// How often it comes and goes.
const ROUNDS: usize = 20;

/// A file that is mounted by itself, and loses the name it was mounted from.
const FILE_MOUNTED: &str = "root-file-mounted";
/// A directory in a root is renamed, with what is mounted in it.
const MOUNT_CARRIED: &str = "root-mount-carried";
/// Renames beside writes, and how much later each is made after the line of the one before.
const HASTE: u32 = 60;
const HASTE_STEP: Duration = Duration::from_micros(20);
/// How long hotr may keep a mount busy.
const BUSY_AT_MOST: Duration = Duration::from_secs(10);

fn names() -> impl Iterator<Item = &'static str> {
    CASES.iter().map(|case| case.name).chain([BESIDE_WRITES, FILE_MOUNTED, MOUNT_CARRIED])
}

/// A path in the directory that is mounted from, which is not watched.
fn outside(dir: &Path, name: &str) -> PathBuf {
    dir.join("outside").join(name)
}

/// The path of a root: the file is in a directory of its own.
fn root_of(dir: &Path, name: &str) -> PathBuf {
    if name == FILE_MOUNTED { dir.join("files").join(name) } else { dir.join(name) }
}

/// A case's root, what happens to it, and the reason of the line that reports it.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    act: fn(&Path) -> io::Result<()>,
    reason: &'static str,
    /// Where the traced directory is afterwards; nothing when it is gone.
    after: fn(&Path) -> Option<PathBuf>,
}

const CASES: [Case; 5] = [
    Case {
        name: "root-renamed",
        act: |root| fs::rename(root, aside(root)),
        reason: "root-moved",
        after: |root| Some(aside(root)),
    },
    Case {
        name: "root-exchanged",
        act: |root| {
            fs::create_dir(aside(root))?;
            Ok(renameat_with(CWD, root, CWD, aside(root), RenameFlags::EXCHANGE)?)
        },
        reason: "root-moved",
        // The path leads to another directory: that is traced.
        after: |_| None,
    },
    Case { name: "root-removed", act: |root| fs::remove_dir(root), reason: "root-deleted", after: |_| None },
    Case {
        name: "root-replaced",
        act: |root| {
            fs::create_dir(aside(root))?;
            fs::rename(aside(root), root)
        },
        reason: "root-deleted",
        after: |_| None,
    },
    Case { name: "root-unmounted", act: unmounted, reason: "unmounted", after: |_| None },
];

fn aside(root: &Path) -> PathBuf {
    root.with_extension("aside")
}

/// A trace of the roots of all cases.
struct Roots {
    session: Session,
    dir: PathBuf,
    made: usize,
}

fn make(report: &mut Report<'_>) {
    let tier = report.setting.tier;
    let started = start(&report.setting);
    let case = |roots: &mut Roots, name: &'static str| match CASES.iter().find(|case| case.name == name) {
        Some(case) => {
            roots.made += 1;
            told(&mut roots.session, case, &roots.dir.join(name))
        }
        None if name == BESIDE_WRITES => beside_writes(roots, tier),
        None if name == FILE_MOUNTED => file_mounted(roots),
        None => mount_carried(roots, tier),
    };
    report.cases(names().map(|name| (name, name)), started, case, |roots| end(roots, tier));
}

fn start(setting: &Setting<'_>) -> Result<Roots> {
    let dir = std::env::temp_dir().join(format!("hotr-roots-{}", setting.tier));
    // The first is where the barriers are made.
    let roots: Vec<PathBuf> =
        ["barriers"].into_iter().chain(names()).map(|name| root_of(&dir, name)).collect();
    let (carried, mounted) = (dir.join(MOUNT_CARRIED).join("a/m"), root_of(&dir, FILE_MOUNTED));
    let places = roots.iter().filter(|root| **root != mounted);
    for place in places.chain([&dir.join("files"), &outside(&dir, "d"), &carried]) {
        fs::create_dir_all(place).with_context(|| format!("make {}", place.display()))?;
    }
    for file in [&mounted, &outside(&dir, "src"), &outside(&dir, "d/f")] {
        fs::write(file, "").with_context(|| format!("make {}", file.display()))?;
    }
    mount_bind(outside(&dir, "src"), &mounted).context("mount a file")?;
    mount_bind(outside(&dir, "d"), &carried).context("mount a directory")?;
    mount("hotr", dir.join("root-unmounted"), "tmpfs", MountFlags::empty(), None).context("mount a tmpfs")?;
    let paths: Vec<&Path> = roots.iter().map(PathBuf::as_path).collect();
    let (session, _) = Session::start(setting.hotr, "ebpf", setting.tier, &paths, setting.deadlines, false)?;
    Ok(Roots { session, dir, made: 0 })
}

fn end(mut roots: Roots, tier: &str) -> Result<()> {
    let end = roots.session.finish()?;
    // fentry programs may be preempted; a report that the kernel then skipped one is no defect. Others may not.
    let may_be = |line: &Value| tier == "fentry" && line["reason"] == "program-skipped";
    let is_of_root = |line: &&Value| line["type"] == "loss" && !may_be(line);
    let losses: Vec<_> = roots.session.others.iter().filter(is_of_root).collect();
    ensure!(end.status.success(), "{}; messages: {}", end.status, roots.session.messages());
    ensure!(losses.len() == roots.made, "one line for each root, not {losses:?}");
    Ok(())
}

fn beside_writes(roots: &mut Roots, tier: &str) -> Result<()> {
    // A writer that is preempted in an fentry program has the kernel skip it for others: not for hotr's sake.
    let writes = tier != "fentry";
    let (root, busy) = (roots.dir.join(BESIDE_WRITES), roots.dir.join("barriers/busy"));
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            while writes && !is_over.load(Ordering::Relaxed) {
                fs::write(&busy, "x")?;
            }
            io::Result::Ok(())
        });
        let outcome = (0..ROUNDS).try_for_each(|round| {
            let is_told = |line: &&Value| is_of(line, "root-deleted", &root);
            let told = |session: &Session| session.others.iter().filter(is_told).count();
            let before = told(&roots.session);
            roots.made += 1;
            fs::remove_dir_all(&root)?;
            let outcome = roots.session.read_until(|session| told(session) > before);
            outcome.with_context(|| {
                let of_it = roots.session.seen.iter().filter(|change| change.path.starts_with(&root));
                let last: Vec<_> = of_it.map(|change| (&change.op, &change.path, &change.seen_by)).collect();
                let from = last.len().saturating_sub(8);
                format!("wait for removal {round} to be reported; the last changes: {:?}", &last[from..])
            })?;
            traced_again(&mut roots.session, &root, &root, false)
        });
        is_over.store(true, Ordering::Relaxed);
        let written = writer.join().expect("the writer has not panicked");
        outcome.and(written.context("write beside it"))
    })
}

/// Each way in which a file loses its name, or its name changes. What is written to it is reported by where it is mounted, and
/// nothing else.
fn file_mounted(roots: &mut Roots) -> Result<()> {
    let (root, source) = (root_of(&roots.dir, FILE_MOUNTED), outside(&roots.dir, "src"));
    let new = |name| -> io::Result<PathBuf> {
        let new = outside(&roots.dir, name);
        fs::write(&new, "new")?;
        Ok(new)
    };
    let (aside, exchanged) = (outside(&roots.dir, "aside"), outside(&roots.dir, "exchanged"));
    let leaves: [&dyn Fn() -> io::Result<()>; 4] = [
        &|| fs::rename(&source, &aside),
        &|| Ok(renameat_with(CWD, &new("exchanged")?, CWD, &aside, RenameFlags::EXCHANGE)?),
        &|| fs::rename(new("new")?, &exchanged),
        &|| fs::rename(new("new")?, &source),
    ];
    let mut file = fs::OpenOptions::new().append(true).open(&root)?;
    let session = &mut roots.session;
    let before = session.seen.len();
    let mut expected = 0;
    let of_it = |change: &&Observed| change.path == root || change.old_path.as_ref() == Some(&root);
    for leave in leaves {
        leave()?;
        file.write_all(b"x")?;
        expected += 1;
        let writes = |session: &Session| -> u64 {
            session.seen[before..].iter().filter(of_it).filter_map(|change| change.writes).sum()
        };
        session.read_until(|session| writes(session) >= expected)?;
        ensure!(writes(session) == expected, "{expected} writes, not {}", writes(session));
    }
    let wrong = session.seen[before..].iter().filter(of_it).find(|change| change.op != "write");
    ensure!(wrong.is_none(), "it was only written to: {wrong:?}");
    drop(file);
    unmounted(&root)?;
    session.read_until(|session| session.others.iter().any(|line| is_of(line, "unmounted", &root)))?;
    roots.made += 1;
    Ok(())
}

/// Files of the mount are reported by the new name at once.
fn mount_carried(roots: &mut Roots, tier: &str) -> Result<()> {
    let root = roots.dir.join(MOUNT_CARRIED);
    let mut file = fs::OpenOptions::new().append(true).open(outside(&roots.dir, "d/f"))?;
    let mut at = "a";
    for to in ["b", "c", "d"] {
        fs::rename(root.join(at), root.join(to))?;
        file.write_all(b"x")?;
        let path = root.join(to).join("m/f");
        let outcome =
            roots.session.read_until(|session| session.seen.iter().any(|change| change.path == path));
        outcome.with_context(|| format!("wait for a write to {}", path.display()))?;
        at = to;
    }
    let old = roots
        .session
        .seen
        .iter()
        .find(|change| change.op == "write" && change.path.starts_with(root.join("a")));
    ensure!(old.is_none(), "by a name that had gone: {old:?}");
    at = carried_beside_writes(&mut roots.session, &root, at, &mut file, tier)?;
    drop(file);
    unmounted(&root.join(at).join("m"))?;
    let path = root.join(at).join("m");
    roots.session.read_until(|session| session.others.iter().any(|line| is_of(line, "unmounted", &path)))?;
    roots.made += 1;
    Ok(())
}

/// hotr takes up one place while the next rename is made, and no write may fall between. Returns the last name.
fn carried_beside_writes(
    session: &mut Session,
    root: &Path,
    mut at: &'static str,
    file: &mut fs::File,
    tier: &str,
) -> Result<&'static str> {
    let before = session.seen.len();
    let is_over = AtomicBool::new(false);
    // A writer that is preempted in an fentry program has the kernel skip it for others: not for hotr's sake.
    let is_alone = tier == "fentry";
    let made = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut made = 0;
            while made == 0 || !is_alone && !is_over.load(Ordering::Relaxed) {
                file.write_all(b"x")?;
                made += 1;
            }
            io::Result::Ok(made)
        });
        let outcome = (0..HASTE).try_for_each(|round| {
            let to = if at == "d" { "e" } else { "d" };
            // Each time a little later in what hotr does after a line.
            let reported = Instant::now();
            while reported.elapsed() < HASTE_STEP * round {
                std::hint::spin_loop();
            }
            let seen = session.seen.len();
            fs::rename(root.join(at), root.join(to))?;
            at = to;
            let to = root.join(to);
            let is_it = |change: &Observed| change.op == "rename" && change.path == to;
            session.read_until(|session| session.seen[seen..].iter().any(is_it))
        });
        is_over.store(true, Ordering::Relaxed);
        let made: u64 =
            writer.join().expect("the writer has not panicked").context("write beside renames")?;
        outcome.map(|()| made)
    })?;
    let written = |session: &Session| -> u64 {
        let of_it = session.seen[before..].iter().filter(|change| change.path.starts_with(root));
        of_it.filter_map(|change| change.writes).sum()
    };
    let outcome = session.read_until(|session| written(session) >= made);
    outcome.with_context(|| format!("{} of {made} writes beside renames were reported", written(session)))?;
    ensure!(written(session) == made, "{made} writes beside renames, not {}", written(session));
    Ok(at)
}

/// Unmounts it. After a root was replaced hotr looks at all files, and whoever reads a mount keeps it busy meanwhile.
fn unmounted(root: &Path) -> io::Result<()> {
    let begun = Instant::now();
    loop {
        match unmount(root, UnmountFlags::empty()) {
            Err(Errno::BUSY) if begun.elapsed() < BUSY_AT_MOST => std::thread::yield_now(),
            ended => return Ok(ended?),
        }
    }
}

/// Whether a line reports this of a root.
fn is_of(line: &Value, reason: &str, root: &Path) -> bool {
    let path = line["path"].as_str().map(Path::new);
    line["type"] == "loss" && line["reason"] == reason && path == Some(root)
}

/// Does it, and waits for the line; afterwards the directory is traced on, or its path again.
fn told(session: &mut Session, case: &Case, root: &Path) -> Result<()> {
    // The inode of a directory that somebody works in goes when he leaves.
    let held = (case.reason == "root-deleted").then(|| fs::File::open(root)).transpose()?;
    (case.act)(root).with_context(|| format!("{} of {}", case.name, root.display()))?;
    let tells = |line: &Value| is_of(line, case.reason, root);
    let outcome = session.read_until(|session| session.others.iter().any(tells));
    outcome.with_context(|| {
        format!("{} of {}; other lines: {:?}", case.reason, root.display(), session.others)
    })?;
    drop(held);
    let after = (case.after)(root);
    traced_again(session, root, after.as_deref().unwrap_or(root), after.is_some())
}

/// Waits until what is made in `dir` is reported below `root`. A path is traced again after some time; a directory that
/// was traced all along is reported at once.
fn traced_again(session: &mut Session, root: &Path, dir: &Path, at_once: bool) -> Result<()> {
    fs::create_dir_all(dir)?;
    let before = session.seen.len();
    let mut number = 0;
    loop {
        let name = format!("file{number}");
        fs::write(dir.join(&name), "x")?;
        session.barrier()?;
        let wanted = root.join(&name);
        if session.seen[before..].iter().any(|change| change.op == "create" && change.path == wanted) {
            return Ok(());
        }
        ensure!(!at_once, "the directory that was at {} is traced no more", root.display());
        ensure!(number < BARRIERS, "{} was not traced again", root.display());
        number += 1;
    }
}

/// Barriers until a path is traced again.
const BARRIERS: u32 = 1000;
