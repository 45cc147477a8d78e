//! An exam for the printers' tests, and how it looks.

use std::path::PathBuf;

use crate::doctor::cover::{Cover, Gap};
use crate::doctor::filesystem::LayerDir;
use crate::doctor::inotify::{Inotify, User};
use crate::doctor::kernel::{Capability, Kernel};
use crate::doctor::{Check, Examination, Mark, PlanRow};
use hotr_events::Cause;

pub(super) fn exam() -> Examination {
    let row = |hook: &str, tier, attached_to: &str, why: &str, optional| PlanRow {
        hook: hook.to_owned(),
        tier,
        attached_to: attached_to.to_owned(),
        why: why.to_owned(),
        optional,
    };
    let path = |path: &str, fs: &str| Cover {
        path: PathBuf::from(path),
        fs: fs.to_owned(),
        mount_point: PathBuf::from("/"),
        layers: Vec::new(),
        directories: None,
        by: vec!["ebpf", "inotify"],
        gaps: Vec::new(),
        next: None,
    };
    Examination {
        kernel: Kernel {
            release: "6.12.0".to_owned(),
            btf_bytes: Some(4096),
            lockdown: Err("not readable: securityfs is not mounted".to_owned()),
            unprivileged_bpf_disabled: Some(2),
        },
        capabilities: vec![Capability {
            name: "CAP_BPF",
            effective: false,
            check: Check::new("CAP_BPF", Mark::Bad, "missing").next("run as root"),
        }],
        plan: Ok(vec![
            row("write", Some("fentry"), "vfs_write", "the best tier", false),
            row("rename", Some("kprobe"), "vfs_rename", "fentry: EPERM", false),
            row("mmap", None, "", "EPERM", false),
            row("delivery", None, "", "EPERM", true),
        ]),
        inotify: Inotify {
            max_user_watches: Some(1000),
            max_user_instances: Some(128),
            max_queued_events: Some(16384),
            users: vec![User { pid: 7, comm: "udevd\n".to_owned(), uid: 0, instances: 1, watches: 12 }],
            used_by_me: 12,
            unreadable: 3,
        },
        paths: vec![
            path("/srv", "ext4"),
            Cover {
                layers: vec![LayerDir { layer: "upper", path: PathBuf::from("/up"), reachable: false }],
                directories: Some(501),
                gaps: vec![Gap { cause: Cause::LayerBypass, why: "upper layer".to_owned() }],
                next: Some("go there".to_owned()),
                ..path("/o\n", "overlay")
            },
            Cover {
                by: Vec::new(),
                gaps: vec![Gap { cause: Cause::PseudoFs, why: "proc".to_owned() }],
                next: Some("read it".to_owned()),
                ..path("/proc", "proc")
            },
        ],
    }
}

pub(super) const PAGE: &str = "\
Kernel
  ✓ release                    6.12.0
  ✓ btf                        /sys/kernel/btf/vmlinux, 4 KiB
  ! lockdown                   not readable: securityfs is not mounted
  ✓ unprivileged_bpf_disabled  2: disabled, an administrator may enable it

Capabilities of this process
  ✗ CAP_BPF  missing
             → run as root

Attach plan
  ✓ write     fentry      vfs_write   the best tier
  ✓ rename    kprobe      vfs_rename  fentry: EPERM
  ✗ mmap      none                    EPERM
  ! delivery  none                    the same

inotify
  ✓ max_user_watches    1000; in use by this user: 12; hotr takes at most 500
  ✓ max_user_instances  128
  ✓ max_queued_events   16384
  ! users  3 processes of other users could not be looked at
           → run as root to see all inotify users
         PID  NAME                 UID  INSTANCES    WATCHES
           7  udevd\\n                0          1         12

Paths
  ✓ /srv  ext4 mounted at /; fully covered by ebpf and inotify
  ✗ /o\\n  overlay mounted at /; covered in part by ebpf and inotify
    upper /up (not reachable)
    layer-bypass: upper layer
    → go there
  ✗ /proc  proc mounted at /; cannot be covered
    pseudo-fs: proc
    → read it
";

pub(super) const LINES: &str = concat!(
    r#"{"type":"doctor","section":"kernel","release":"6.12.0","btf":true,"btf_bytes":4096,"#,
    r#""lockdown_why":"not readable: securityfs is not mounted","unprivileged_bpf_disabled":2}"#,
    "\n",
    r#"{"type":"doctor","section":"capability","name":"CAP_BPF","effective":false,"mark":"bad","#,
    r#""why":"missing","next":"run as root"}"#,
    "\n",
    r#"{"type":"doctor","section":"hook","hook":"write","tier":"fentry","attached_to":"vfs_write","#,
    r#""optional":false,"why":"the best tier"}"#,
    "\n",
    r#"{"type":"doctor","section":"hook","hook":"rename","tier":"kprobe","attached_to":"vfs_rename","#,
    r#""optional":false,"why":"fentry: EPERM"}"#,
    "\n",
    r#"{"type":"doctor","section":"hook","hook":"mmap","optional":false,"why":"EPERM"}"#,
    "\n",
    r#"{"type":"doctor","section":"hook","hook":"delivery","optional":true,"why":"EPERM"}"#,
    "\n",
    r#"{"type":"doctor","section":"inotify","max_user_watches":1000,"max_user_instances":128,"#,
    r#""max_queued_events":16384,"used_by_me":12,"budget":500,"unreadable_processes":3}"#,
    "\n",
    r#"{"type":"doctor","section":"inotify-user","pid":7,"comm":"udevd\n","uid":0,"instances":1,"watches":12}"#,
    "\n",
    r#"{"type":"doctor","section":"path","path":"/srv","fs":"ext4","mount_point":"/","layers":[],"#,
    r#""covered":true,"by":["ebpf","inotify"],"gaps":[]}"#,
    "\n",
    r#"{"type":"doctor","section":"path","path":"/o\n","fs":"overlay","mount_point":"/","#,
    r#""layers":[{"layer":"upper","path":"/up","reachable":false}],"directories":501,"covered":false,"#,
    r#""by":["ebpf","inotify"],"gaps":[{"cause":"layer-bypass","why":"upper layer"}],"next":"go there"}"#,
    "\n",
    r#"{"type":"doctor","section":"path","path":"/proc","fs":"proc","mount_point":"/","layers":[],"#,
    r#""covered":false,"by":[],"gaps":[{"cause":"pseudo-fs","why":"proc"}],"next":"read it"}"#,
    "\n",
);
