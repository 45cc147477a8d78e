//! How a command receives the list of changes: JSON Lines on stdin, variables as watchexec sets them, or a file.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::Identity;
use crate::pipeline::confirm::{Confirmed, Kind};
use hotr_events::json;

/// The variable that names the file of [`Emit::File`].
pub const FILE_VARIABLE: &str = "HOTR_CHANGES_FILE";
/// Linux takes at most 128 KiB for one string of the environment (`MAX_ARG_STRLEN`).
const LONGEST: usize = 120 * 1024;

/// How a command receives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Emit {
    /// `WATCHEXEC_*_PATH` variables.
    Env,
    /// One JSON object a line on its stdin.
    Stdin,
    /// The same in a file, which `HOTR_CHANGES_FILE` names.
    File,
    /// Not at all.
    None,
}

/// What was made for one run of a command; the file is removed with it.
#[derive(Debug, Default)]
pub struct Emitted {
    /// Variables.
    pub env: Vec<(OsString, OsString)>,
    /// For its stdin.
    pub stdin: Option<Vec<u8>>,
    file: Option<PathBuf>,
}

impl Drop for Emitted {
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            let _ = std::fs::remove_file(file);
        }
    }
}

/// Makes it, for a command that runs as somebody.
///
/// # Errors
/// The file cannot be written.
pub fn emit(how: Emit, changes: &[Confirmed], identity: Option<&Identity>) -> io::Result<Emitted> {
    let mut emitted = Emitted::default();
    match how {
        Emit::None => {}
        Emit::Env => emitted.env = variables(changes),
        Emit::Stdin => emitted.stdin = Some(lines(changes)),
        Emit::File => {
            let template = std::env::temp_dir().join("hotr-changes");
            let (mut file, path) = private_file(&template)?;
            emitted.env.push((FILE_VARIABLE.into(), path.clone().into()));
            emitted.file = Some(path);
            if let Some(identity) = identity {
                std::os::unix::fs::fchown(&file, identity.uid, Some(identity.gid))?;
            }
            file.write_all(&lines(changes))?;
        }
    }
    Ok(emitted)
}

/// A new file that only this user can read, of a name that did not exist.
fn private_file(prefix: &Path) -> io::Result<(std::fs::File, PathBuf)> {
    use std::os::unix::fs::OpenOptionsExt;
    for number in 0..u32::MAX {
        let mut name = prefix.as_os_str().to_owned();
        name.push(format!("-{}-{number}", std::process::id()));
        let path = PathBuf::from(name);
        match std::fs::File::options().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => return Ok((file, path)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// JSON Lines, one a change.
#[must_use]
pub fn lines(changes: &[Confirmed]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for change in changes {
        // Only a map without string keys cannot be JSON.
        let _ = json::append(&mut bytes, &change.change);
        bytes.push(b'\n');
    }
    bytes
}

/// Paths by what happened to them, relative to the directory they have in common, joined by colons. A list that is
/// too long for a variable ends at the last path that fits.
fn variables(changes: &[Confirmed]) -> Vec<(OsString, OsString)> {
    let Some(common) = common(changes) else { return Vec::new() };
    let mut env = vec![(OsString::from("WATCHEXEC_COMMON_PATH"), common.as_os_str().to_owned())];
    for (name, kinds) in [
        ("WATCHEXEC_CREATED_PATH", &[Kind::Created][..]),
        ("WATCHEXEC_REMOVED_PATH", &[Kind::Removed]),
        ("WATCHEXEC_RENAMED_PATH", &[Kind::Renamed]),
        ("WATCHEXEC_WRITTEN_PATH", &[Kind::Written, Kind::Link]),
    ] {
        let mut value = Vec::new();
        for change in changes.iter().filter(|change| kinds.contains(&change.kind)) {
            let path = change.path.strip_prefix(&common).unwrap_or(&change.path).as_os_str();
            if value.len() + path.len() >= LONGEST {
                break;
            }
            if !value.is_empty() {
                value.push(b':');
            }
            value.extend_from_slice(OsStr::as_bytes(path));
        }
        if !value.is_empty() {
            env.push((name.into(), OsString::from_vec(value)));
        }
    }
    env
}

/// The longest directory that holds all changed paths.
fn common(changes: &[Confirmed]) -> Option<PathBuf> {
    let mut paths = changes.iter().map(|change| change.path.parent().unwrap_or(&change.path));
    let mut common = paths.next()?.to_owned();
    for path in paths {
        while !path.starts_with(&common) && common.pop() {}
    }
    Some(common)
}
