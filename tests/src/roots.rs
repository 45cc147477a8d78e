//! Roots that are renamed, removed, replaced, exchanged and unmounted under a running trace: in each tier somebody else
//! tells of it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::Value;

use crate::group::{Group, Report, Setting};
use crate::session::Session;

/// The cases.
pub const GROUP: Group = Group { place: "roots", names: || names().collect(), make };

/// A root that comes and goes while another program writes: hotr takes roots up without keeping the kernel from running
/// its programs for the writer.
const BESIDE_WRITES: &str = "root-beside-writes";
/// How often it comes and goes.
const ROUNDS: usize = 20;

fn names() -> impl Iterator<Item = &'static str> {
    CASES.iter().map(|case| case.name).chain([BESIDE_WRITES])
}

/// A case's root, what happens to it, and the reason of the line that tells.
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
        after: |root| Some(aside(root)),
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
    Case {
        name: "root-unmounted",
        act: |root| Ok(unmount(root, UnmountFlags::empty())?),
        reason: "unmounted",
        after: |_| None,
    },
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
        None => beside_writes(roots, tier),
    };
    report.cases(names().map(|name| (name, name)), started, case, |roots| end(roots, tier));
}

fn start(setting: &Setting<'_>) -> Result<Roots> {
    let dir = std::env::temp_dir().join(format!("hotr-roots-{}", setting.tier));
    // The first is where the barriers are made.
    let roots: Vec<PathBuf> = ["barriers"].into_iter().chain(names()).map(|name| dir.join(name)).collect();
    for root in &roots {
        fs::create_dir_all(root).with_context(|| format!("make {}", root.display()))?;
    }
    mount("hotr", dir.join("root-unmounted"), "tmpfs", MountFlags::empty(), None).context("mount a tmpfs")?;
    let paths: Vec<&Path> = roots.iter().map(PathBuf::as_path).collect();
    let (session, _) = Session::start(setting.hotr, "ebpf", setting.tier, &paths, setting.deadlines, false)?;
    Ok(Roots { session, dir, made: 0 })
}

fn end(mut roots: Roots, tier: &str) -> Result<()> {
    let end = roots.session.finish()?;
    // fentry programs may be preempted; that the kernel then skipped one is told, and no defect. Others may not.
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
        let outcome = (0..ROUNDS).try_for_each(|_| {
            let is_told = |line: &&Value| is_of(line, "root-deleted", &root);
            let told = |session: &Session| session.others.iter().filter(is_told).count();
            let before = told(&roots.session);
            roots.made += 1;
            fs::remove_dir_all(&root)?;
            roots.session.read_until(|session| told(session) > before)?;
            traced_again(&mut roots.session, &root, &root, false)
        });
        is_over.store(true, Ordering::Relaxed);
        let written = writer.join().expect("the writer has not panicked");
        outcome.and(written.context("write beside it"))
    })
}

/// Whether a line tells this of a root.
fn is_of(line: &Value, reason: &str, root: &Path) -> bool {
    let path = line["path"].as_str().map(Path::new);
    line["type"] == "loss" && line["reason"] == reason && path == Some(root)
}

/// Does it, and waits for the line; afterwards the directory is traced on, or its path again.
fn told(session: &mut Session, case: &Case, root: &Path) -> Result<()> {
    (case.act)(root).with_context(|| format!("{} of {}", case.name, root.display()))?;
    let tells = |line: &Value| is_of(line, case.reason, root);
    session.read_until(|session| session.others.iter().any(tells))?;
    let after = (case.after)(root);
    traced_again(session, root, after.as_deref().unwrap_or(root), after.is_some())
}

/// Waits until what is made in `dir` is told below `root`. A path is taken up again in its own time; a directory that was
/// traced all along is heard at once.
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
