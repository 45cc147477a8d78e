//! The units under a real systemd: the fresh system is booted in namespaces of its own, without a virtual machine.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};

use super::running::{Running, until};
use crate::cmd::{self, say};

const UNIT: &str = "hotr-trace@srv-app.service";
/// CAP_DAC_READ_SEARCH (2), CAP_PERFMON (38) and CAP_BPF (39), as `/proc/PID/status` shows them.
const CAPABILITIES: &str = "000000c000000004";

/// What `systemd-analyze` says of the unit.
pub(super) fn analyzed(root: &Path) -> Result<()> {
    let verify = ["systemd-analyze", "verify", "--man=no", UNIT];
    let output = super::debian::within(root, &verify).output().context("start systemd-analyze")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success() && said.trim().is_empty(),
        "systemd-analyze verify: {}: {said}",
        output.status
    );
    let security = ["systemd-analyze", "security", "--offline=true", "--no-pager", UNIT];
    let said = cmd::capture(&mut super::debian::within(root, &security), "systemd-analyze security")?;
    let said = String::from_utf8_lossy(&said).into_owned();
    let level = said
        .lines()
        .find_map(|line| line.split_once("exposure level for "))
        .context("systemd-analyze security: no level")?;
    say(format!("dist: test: exposure level of {}", level.1));
    Ok(())
}

/// Boots the system and uses the unit: it traces as its own user with three capabilities, ends well, and is stopped when the
/// package is removed.
pub(super) fn booted(root: &Path) -> Result<()> {
    fs::create_dir_all(root.join("srv/app")).context("make a folder")?;
    let mut boot = Command::new("unshare");
    boot.args([
        "--pid",
        "--fork",
        "--kill-child",
        "--mount",
        "--uts",
        "--ipc",
        "--cgroup",
        "--mount-proc=/proc",
    ]);
    boot.arg(format!("--root={}", root.display())).args(["/lib/systemd/systemd", "--unit=multi-user.target"]);
    boot.env_clear().env("container", "hotr-test").env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    let system = Running::start(&mut boot, "boot the fresh system")?;
    let children = format!("/proc/{0}/task/{0}/children", system.pid());
    let init = until("start systemd", || {
        let pid = fs::read_to_string(&children).ok()?.trim().to_owned();
        (!pid.is_empty()).then_some(pid)
    })?;
    let inside = |words: &[&str]| {
        let mut command = Command::new("nsenter");
        command.args([
            "--target", &init, "--mount", "--pid", "--uts", "--ipc", "--cgroup", "--root", "--wdns=/", "--",
        ]);
        command.args(words).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C.UTF-8");
        command
    };
    let answer = |words: &[&str]| -> Result<String> {
        Ok(String::from_utf8_lossy(&cmd::capture(&mut inside(words), "use the booted system")?)
            .trim()
            .to_owned())
    };
    until("boot the fresh system", || {
        let output = inside(&["systemctl", "is-system-running"]).output().ok()?;
        ["running", "degraded"].contains(&String::from_utf8_lossy(&output.stdout).trim()).then_some(())
    })?;
    answer(&["systemctl", "start", UNIT])?;
    let journal = ["journalctl", "--follow", "--lines=all", "--output=cat", "--unit", UNIT];
    let mut journal = Running::start(&mut inside(&journal), "follow the journal")?;
    journal.report("ready", &["\"ebpf\":{\"state\":\"active\""])?;
    fs::write(root.join("srv/app/app.conf"), "a = 1\n").context("write in the booted system")?;
    journal.report("change", &["\"path\":\"/srv/app/app.conf\"", "\"ebpf\""])?;
    let pid = answer(&["systemctl", "show", "--property=MainPID", "--value", UNIT])?;
    let status = answer(&["cat", &format!("/proc/{pid}/status")])?;
    let value = |key: &str| {
        status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default().trim().to_owned()
    };
    ensure!(value("CapEff:") == CAPABILITIES, "the unit has the capabilities {}", value("CapEff:"));
    let uid = answer(&["id", "-u", "hotr"])?;
    ensure!(
        uid != "0" && value("Uid:").starts_with(&format!("{uid}\t")),
        "the unit runs as {}",
        value("Uid:")
    );
    answer(&["systemctl", "stop", UNIT])?;
    journal.report("summary", &[])?;
    let result = answer(&["systemctl", "show", "--property=Result,ExecMainStatus", UNIT])?;
    ensure!(
        result.contains("Result=success") && result.contains("ExecMainStatus=0"),
        "the unit ended with {result}"
    );
    answer(&["systemctl", "enable", "--now", UNIT])?;
    journal.report("ready", &[])?;
    answer(&["dpkg", "--purge", "hotr"])?;
    journal.report("summary", &[])?;
    let active = inside(&["systemctl", "is-active", UNIT]).output().context("ask systemd")?;
    ensure!(!active.status.success(), "the unit still runs after its package was removed");
    let wants = root.join("etc/systemd/system/multi-user.target.wants").join(UNIT);
    ensure!(wants.symlink_metadata().is_err(), "the unit is still enabled after its package was removed");
    Ok(())
}
