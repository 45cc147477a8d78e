//! Tables of machines and paths.

use super::*;

fn place(fs: &str) -> PathFilesystem {
    PathFilesystem {
        fs: fs.to_owned(),
        mount_point: PathBuf::from("/"),
        layers: Vec::new(),
        below: Vec::new(),
    }
}

fn overlay(reachable: bool) -> PathFilesystem {
    let layer = LayerDir { layer: "upper", path: PathBuf::from("/up"), reachable };
    PathFilesystem { layers: vec![layer], ..place("overlay") }
}

fn row(hook: &str, tier: Option<&'static str>, optional: bool) -> PlanRow {
    PlanRow { hook: hook.to_owned(), tier, attached_to: String::new(), why: "EPERM".to_owned(), optional }
}

#[test]
fn the_plan_says_what_ebpf_can_see() {
    let full = row("write", Some("fentry"), false);
    for (plan, want) in [
        (Ok(vec![full.clone(), row("rename", Some("kprobe"), false)]), Ebpf::Full),
        (Ok(vec![full.clone(), row("delivery", None, true)]), Ebpf::Full),
        (Ok(vec![full.clone(), row("rename", Some("tracepoint"), false)]), Ebpf::Tracepoints),
        (Ok(vec![full, row("rename", None, false)]), Ebpf::Partial(vec!["rename".to_owned()])),
        (Ok(vec![row("write", None, false)]), Ebpf::Off("EPERM".to_owned())),
        (Ok(Vec::new()), Ebpf::Off("the plan has no hooks".to_owned())),
        (Err("no BTF".to_owned()), Ebpf::Off("no BTF".to_owned())),
    ] {
        assert_eq!(Ebpf::from_plan(&plan), want);
    }
}

#[test]
fn each_path_is_covered_or_its_gaps_are_named() {
    let off = Ebpf::Off("no BTF".to_owned());
    let partial = Ebpf::Partial(vec!["rename".to_owned()]);
    let below = PathFilesystem { below: vec![(PathBuf::from("/n"), "nfs4".to_owned())], ..place("ext4") };
    let proc_below =
        PathFilesystem { below: vec![(PathBuf::from("/proc"), "proc".to_owned())], ..place("ext4") };
    for (place, ebpf, directories, by, gaps) in [
        (place("ext4"), &Ebpf::Full, None, "ebpf inotify", ""),
        (place("ext4"), &Ebpf::Tracepoints, None, "ebpf inotify", "tracepoint-tier"),
        (place("tmpfs"), &Ebpf::Full, None, "ebpf inotify", ""),
        (place("ext4"), &partial, Some(1), "ebpf inotify", "hook-missing"),
        (place("ext4"), &off, Some(50), "inotify", "mmap aio"),
        (place("ext4"), &off, Some(51), "inotify", "mmap aio limit"),
        (place("proc"), &Ebpf::Full, None, "", "pseudo-fs"),
        (place("cgroup2"), &off, Some(1), "", "pseudo-fs"),
        (place("nfs4"), &Ebpf::Full, None, "ebpf inotify", "remote"),
        (place("fuse.sshfs"), &Ebpf::Full, None, "ebpf inotify", "remote"),
        (place("9p"), &Ebpf::Full, None, "ebpf inotify", "remote"),
        (place("virtiofs"), &Ebpf::Full, None, "ebpf inotify", "remote"),
        (below, &Ebpf::Full, None, "ebpf inotify", "remote"),
        (proc_below, &Ebpf::Full, None, "ebpf inotify", ""),
        (overlay(true), &Ebpf::Full, None, "ebpf inotify", ""),
        (overlay(false), &Ebpf::Full, None, "ebpf inotify", "layer-bypass"),
        (overlay(true), &off, Some(1), "inotify", "mmap aio layer-bypass"),
    ] {
        let cover = judge(Path::new("/p"), &place, ebpf, directories, 50);
        let causes: Vec<_> = cover.gaps.iter().map(|gap| gap.cause.as_str()).collect();
        assert_eq!(
            (cover.by.join(" ").as_str(), causes.join(" ").as_str()),
            (by, gaps),
            "{place:?} {ebpf:?}"
        );
        assert_eq!(cover.is_full(), gaps.is_empty());
        assert_eq!(cover.next.is_none(), gaps.is_empty(), "every gap has a next step: {cover:?}");
    }
}

#[test]
fn a_layer_named_by_a_relative_path_has_its_own_next_step() {
    for (path, next) in [
        ("/up", "run hotr in the mount namespace in which the overlay was mounted"),
        ("up", "mount the overlay with absolute paths of its layers"),
    ] {
        let layer = LayerDir { layer: "upper", path: PathBuf::from(path), reachable: false };
        let place = PathFilesystem { layers: vec![layer], ..place("overlay") };
        assert_eq!(judge(Path::new("/p"), &place, &Ebpf::Full, None, 0).next.as_deref(), Some(next));
    }
}
