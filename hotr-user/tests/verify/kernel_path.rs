//! `kernel_path`: steps that the kernel made, and none that it did not.

use serde_json::Value;

use super::run::{in_user_namespace, root, verify, whole};

fn path(line: &Value) -> Vec<String> {
    let steps = line["kernel_path"].as_array().unwrap_or_else(|| panic!("{line}"));
    steps.iter().map(|step| step.as_str().unwrap().to_owned()).collect()
}

fn has(path: &[String], start: &str, part: &str) -> bool {
    path.iter().any(|step| step.starts_with(start) && step.contains(part))
}

#[test]
fn it_has_the_change_and_the_marks_that_decided() {
    if !root() {
        return;
    }
    let line = whole().of("overlay-upper-write");
    if line["channels"]["ebpf"]["state"] != "listening" {
        eprintln!("not run: eBPF is off here, or hotr was built without its object");
        return;
    }
    let overlay = path(&line);
    assert!(has(&overlay, "before: ", "(merged): "), "{overlay:?}");
    assert!(!has(&overlay, "before: ", "(merged): no mark"), "{overlay:?}");
    assert!(has(&overlay, "", ", upper/f): write"), "{overlay:?}");
    for name in ["(upper/f)", "(upper)"] {
        assert!(has(&overlay, "after: ", &format!("{name}: no marks, i_fsnotify_mask 0")), "{overlay:?}");
    }
    let masks = whole().of("overlay-mask");
    let facts = &masks["facts"];
    assert_eq!((&facts["masks_by_ebpf"], &facts["mask_of_upper_inode"]), (&1.into(), &0.into()), "{masks}");
    // IN_MODIFY.
    assert_eq!(facts["mask_of_overlay_inode"].as_u64().unwrap() & 2, 2, "{masks}");
}

#[test]
fn without_the_operation_it_has_no_change() {
    if !root() {
        return;
    }
    let said = verify(&["--json", "--omit-operation", "overlay-upper-write", "splice"]);
    for experiment in ["overlay-upper-write", "splice"] {
        let steps = path(&said.of(experiment));
        assert!(!has(&steps, "", "write"), "{steps:?}");
        assert!(!has(&steps, "", "MODIFY"), "{steps:?}");
    }
    assert!(has(&path(&whole().of("splice")), "", "MODIFY"), "{}", whole().of("splice"));
}

#[test]
fn without_ebpf_it_has_what_fdinfo_shows() {
    let Some(said) = in_user_namespace(&["mask-mismatch"]) else { return };
    let line = said.of("mask-mismatch");
    let steps = path(&line);
    // IN_CLOSE_WRITE is 0x8, and was all that the watch asked for.
    assert!(has(&steps, "before: ", "(f): a mark of this instance, mask 0x8 (fdinfo)"), "{steps:?}");
    assert!(steps.contains(&"read from the inotify instance: nothing".to_owned()), "{steps:?}");
    assert_eq!(steps.len(), 2, "{steps:?}");
}
