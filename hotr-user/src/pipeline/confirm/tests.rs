//! States before and after, without a kernel channel.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use super::*;

struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("hotr-confirm-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn knowing(path: &Path, options: ConfirmOptions) -> Confirmer {
    let mut confirmer = Confirmer::new(options);
    confirmer.learn(path, State::of(path, None, options));
    confirmer
}

#[test]
fn only_other_content_is_a_change() {
    for hash in [HashKind::Sha256, HashKind::Blake3] {
        let place = Place::new("content");
        let file = place.0.join("f");
        fs::write(&file, "one").unwrap();
        let mut confirmer = knowing(&file, ConfirmOptions { hash, ..ConfirmOptions::default() });
        fs::File::options()
            .write(true)
            .open(&file)
            .unwrap()
            .set_modified(std::time::SystemTime::now())
            .unwrap();
        assert_eq!(confirmer.confirm(&file, false, &[]), None, "a touch");
        fs::write(&file, "one").unwrap();
        assert_eq!(confirmer.confirm(&file, false, &[]), None, "the same bytes");
        fs::remove_file(&file).unwrap();
        fs::write(&file, "one").unwrap();
        assert_eq!(confirmer.confirm(&file, false, &[]), None, "removed and made again");
        fs::write(&file, "two").unwrap();
        let change = confirmer.confirm(&file, false, &[]).unwrap();
        assert_eq!(
            (change.kind, change.by),
            (Kind::Written, Evidence::Digest),
            "as long, within the same tick"
        );
        assert_eq!(confirmer.confirm(&file, false, &[]), None, "confirmed once");
    }
}

#[test]
fn names_that_appear_and_go() {
    let place = Place::new("names");
    let file = place.0.join("f");
    let mut confirmer = Confirmer::new(ConfirmOptions::default());
    confirmer.baseline_complete();
    assert_eq!(confirmer.confirm(&file, false, &[]), None);
    fs::write(&file, "").unwrap();
    assert_eq!(confirmer.confirm(&file, false, &[]).unwrap().kind, Kind::Created);
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert_eq!(
        confirmer.confirm(&file, false, &[]).unwrap().kind,
        Kind::Removed,
        "a directory took its name"
    );
    fs::remove_dir(&file).unwrap();
    fs::write(&file, "").unwrap();
    assert_eq!(confirmer.confirm(&file, false, &[]).unwrap().kind, Kind::Created);
    fs::remove_file(&file).unwrap();
    symlink("a", &file).unwrap();
    assert_eq!(confirmer.confirm(&file, false, &[]).unwrap().by, Evidence::Name);
    fs::remove_file(&file).unwrap();
    symlink("b", &file).unwrap();
    assert_eq!(confirmer.confirm(&file, false, &[]).unwrap().kind, Kind::Link);
}

#[test]
fn a_terabyte_is_not_read() {
    let place = Place::new("sparse");
    let path = place.0.join("f");
    let file = fs::File::create(&path).unwrap();
    file.set_len(1 << 40).unwrap();
    let mut confirmer = knowing(&path, ConfirmOptions::default());
    assert_eq!(confirmer.confirm(&path, false, &[]), None);
    file.set_len((1 << 40) + 1).unwrap();
    assert_eq!(confirmer.confirm(&path, false, &[]).unwrap().by, Evidence::SizeAndTime);
}

#[test]
fn what_was_forgotten_counts_as_changed() {
    let place = Place::new("bound");
    let options = ConfirmOptions { entries: NonZeroUsize::MIN, ..ConfirmOptions::default() };
    let mut confirmer = Confirmer::new(options);
    confirmer.baseline_complete();
    for name in ["a", "b"] {
        fs::write(place.0.join(name), "x").unwrap();
        assert!(confirmer.confirm(&place.0.join(name), false, &[]).is_some());
    }
    assert_eq!(confirmer.len(), 1);
    assert_eq!(confirmer.confirm(&place.0.join("a"), false, &[]).unwrap().by, Evidence::Unknown);
}

#[test]
fn a_writer_is_noticed() {
    let place = Place::new("writer");
    let path = place.0.join("f");
    let file = fs::File::create(&path).unwrap();
    assert!(writers::is_being_written(&path));
    drop(file);
    assert!(!writers::is_being_written(&path));
}
