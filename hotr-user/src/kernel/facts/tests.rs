//! Sample texts of several machines.

use super::*;

fn able() -> Facts {
    Facts { btf: true, caps: Caps(u64::MAX), initial_user_ns: true, ..Facts::default() }
}

#[test]
fn lockdown_is_the_word_in_brackets() {
    for (text, expected) in [
        ("[none] integrity confidentiality\n", Some(Lockdown::None)),
        ("none [integrity] confidentiality\n", Some(Lockdown::Integrity)),
        ("none integrity [confidentiality]\n", Some(Lockdown::Confidentiality)),
        ("none integrity [something]\n", None),
        ("", None),
    ] {
        assert_eq!(Lockdown::parse(text), expected, "{text}");
        if let Some(mode) = expected {
            assert!(text.contains(&format!("[{}]", mode.as_str())));
        }
    }
}

#[test]
fn the_first_thing_missing_is_named() {
    let without = |lacking: &[u32]| Caps(lacking.iter().fold(u64::MAX, |caps, bit| caps & !(1 << bit)));
    let cases = [
        (able(), None),
        (Facts { caps: Caps(1 << Caps::SYS_ADMIN), ..able() }, None),
        (Facts { caps: without(&[Caps::SYS_ADMIN]), ..able() }, None),
        (Facts { lockdown: Some(Lockdown::Integrity), ..able() }, None),
        (Facts { caps: Caps(0), euid: 1000, ..able() }, Some("CAP_BPF and CAP_PERFMON missing")),
        (Facts { caps: Caps(0), euid: 1000, ..able() }, Some("; run hotr as root")),
        (Facts { caps: without(&[Caps::SYS_ADMIN, Caps::PERFMON]), ..able() }, Some("CAP_PERFMON missing")),
        (
            Facts { caps: without(&[Caps::SYS_ADMIN, Caps::BPF]), ..able() },
            Some("; add them to the container"),
        ),
        (Facts { initial_user_ns: false, ..able() }, Some("user namespace")),
        (Facts { without_proc: true, ..Facts::default() }, Some("/proc is not mounted; ")),
        (
            Facts { lockdown: Some(Lockdown::Confidentiality), ..able() },
            Some("lockdown mode confidentiality"),
        ),
        (Facts { btf: false, ..able() }, Some("/sys/kernel/btf/vmlinux")),
    ];
    for (facts, expected) in cases {
        let missing = missing_for_ebpf(&facts);
        match expected {
            None => assert_eq!(missing, None, "{facts:?}"),
            Some(part) => {
                assert!(missing.as_ref().is_some_and(|line| line.contains(part)), "{missing:?}: {part}")
            }
        }
        assert!(missing.is_none_or(|line| line.lines().count() == 1));
    }
}

#[test]
fn files_of_a_machine_become_facts() {
    let root = std::env::temp_dir().join(format!("hotr-facts-{}", std::process::id()));
    let files = [
        (
            "proc/self/status",
            "Name:\tx\nCapInh:\t0\nCapEff:\t000001fffeffffff\nSeccomp:\t2\nSeccomp_filters:\t1\n",
        ),
        ("proc/self/uid_map", "         0          0 4294967295\n"),
        ("proc/self/mountinfo", "1 0 0:7 / /sys/kernel/debug rw - debugfs debugfs rw\n"),
        ("proc/sys/kernel/osrelease", "6.1.0-test\n"),
        ("proc/sys/kernel/unprivileged_bpf_disabled", "2\n"),
        ("proc/sys/kernel/perf_event_paranoid", "-1\n"),
        ("proc/sys/fs/inotify/max_user_watches", "65536\n"),
        ("sys/kernel/security/lockdown", "none [integrity] confidentiality\n"),
        ("sys/kernel/btf/vmlinux", ""),
    ];
    for (path, text) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let facts = Facts::from_texts(&root);
    fs::remove_dir_all(&root).unwrap();
    let expected = Facts {
        release: "6.1.0-test".to_owned(),
        btf: true,
        caps: Caps(0x1ff_feff_ffff),
        initial_user_ns: true,
        seccomp_filter: true,
        lockdown: Some(Lockdown::Integrity),
        tracefs: Some(PathBuf::from("/sys/kernel/debug/tracing")),
        unprivileged_bpf_disabled: Some(2),
        perf_event_paranoid: Some(-1),
        inotify_max_user_watches: Some(65536),
        ..Facts::default()
    };
    assert_eq!(facts, expected);
    assert!(facts.caps.has(Caps::BPF) && !facts.caps.has(Caps::SYS_RESOURCE));
}

#[test]
fn an_unknown_machine_has_nothing() {
    let nothing = Facts { without_proc: true, ..Facts::default() };
    assert_eq!(Facts::from_texts(Path::new("/nonexistent")), nothing);
}

#[test]
fn this_machine_has_a_release() {
    let facts = Facts::gather();
    assert!(!facts.release.is_empty());
    assert_eq!(facts.euid, rustix::process::geteuid().as_raw());
}
