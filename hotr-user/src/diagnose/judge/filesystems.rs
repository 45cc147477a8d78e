//! Filesystems where inotify does not see every change: overlays, remote ones, views of kernel state.
//!
//! One finding per instance and filesystem.

use std::collections::BTreeMap;

use super::super::finding::{Finding, Proof, Severity};
use super::super::process::Instance;
use super::super::view::{View, WatchLocation};
use crate::doctor::cover::is_remote;
use crate::mounts::{DevId, LayerKind, Location, Mount, overlay_layers};
use hotr_events::Cause;

/// Every such filesystem.
pub(super) fn judge(view: &View<'_>, findings: &mut Vec<Finding>) {
    let layers = layers(view);
    for instance in &view.process.instances {
        let mut by_dev: BTreeMap<DevId, Vec<&WatchLocation<'_>>> = BTreeMap::new();
        for seat in view.of(instance.fd) {
            by_dev.entry(seat.watch.dev).or_default().push(seat);
        }
        for (dev, seats) in by_dev {
            findings.extend(of_filesystem(view, instance, dev, &seats));
            findings.extend(of_layer(view, &layers, &seats));
        }
    }
}

/// Values change here without a write. Of cgroups, devpts and similar filesystems the kernel does report what matters.
fn is_silent(fs: &str) -> bool {
    [
        "proc",
        "sysfs",
        "debugfs",
        "tracefs",
        "securityfs",
        "bpf",
        "configfs",
        "selinuxfs",
        "smackfs",
        "efivarfs",
    ]
    .contains(&fs)
}

fn of_filesystem(
    view: &View<'_>,
    instance: &Instance,
    dev: DevId,
    seats: &[&WatchLocation<'_>],
) -> Option<Finding> {
    let first = seats.iter().find(|seat| seat.place.location.is_some()).or_else(|| seats.first())?;
    let fs = first.fs_type();
    let mount = || {
        let tables = [&view.namespace.table, &view.ours.table];
        tables.into_iter().find_map(|table| table.other_mounts_of(dev).next())
    };
    let at = mount().map(|mount| format!(" at {}", mount.mount_point.display())).unwrap_or_default();
    let new = |severity, cause| {
        let mut finding = view.about(first, severity, cause, Proof::Proved);
        if seats.len() > 1 {
            finding.watches = Some(seats.len());
            finding.target = view.target(Some(instance), None);
        }
        finding
    };
    if is_remote(fs) {
        let finding = new(Severity::AtRisk, Cause::Remote);
        return Some(
            finding
                .evidence(format!(
                    "{fs}{at}: changes made by its server or by other machines are not reported"
                ))
                .remedy("watch where the files are stored, or poll"),
        );
    }
    if is_silent(fs) {
        let finding = new(Severity::AtRisk, Cause::PseudoFs);
        return Some(
            finding
                .evidence(format!("{fs}{at} shows kernel state: most values change without a notification"))
                .remedy("read the values periodically"),
        );
    }
    let mount = mount().filter(|mount| mount.is_overlay())?;
    let mut finding = new(Severity::Note, Cause::LayerBypass)
        .evidence(format!("overlay{at}: changes made directly in a layer are not reported"));
    for layer in overlay_layers(mount) {
        let kind = match layer.kind {
            LayerKind::Upper => "upper",
            LayerKind::Lower => "lower",
            LayerKind::Data => "data",
            LayerKind::Work => continue,
        };
        finding = finding.evidence(format!("{kind} {}", layer.dir.display()));
    }
    Some(finding.remedy("change files through the overlay, or watch its layers too"))
}

/// A directory that is a layer of an overlay.
struct Layer {
    kind: LayerKind,
    at: Location,
    merged: String,
}

/// The layers of all overlays that hotr and the target can see.
fn layers(view: &View<'_>) -> Vec<Layer> {
    let mut found = Vec::new();
    let of = |mount: &Mount, found: &mut Vec<Layer>| {
        for layer in overlay_layers(mount) {
            let wanted = matches!(layer.kind, LayerKind::Upper | LayerKind::Lower) && layer.dir.is_absolute();
            let Some(at) = view.ours.table.locate(&layer.dir).filter(|_| wanted) else { continue };
            let merged = mount.mount_point.display().to_string();
            found.push(Layer { kind: layer.kind, at, merged });
        }
    };
    view.ours.table.mounts().iter().for_each(|mount| of(mount, &mut found));
    found
}

fn of_layer(view: &View<'_>, layers: &[Layer], seats: &[&WatchLocation<'_>]) -> Option<Finding> {
    if layers.is_empty() {
        return None;
    }
    let inside = |seat: &WatchLocation<'_>| {
        let location = seat.place.location.as_ref()?;
        layers.iter().find(|layer| location.is_within(&layer.at))
    };
    let (first, layer) = seats.iter().find_map(|seat| Some((*seat, inside(seat)?)))?;
    let count = seats.iter().filter(|seat| inside(seat).is_some()).count();
    let mut finding = view.about(first, Severity::Note, Cause::LayerBypass, Proof::Proved);
    if count > 1 {
        finding.watches = Some(count);
        finding.target.wd = None;
    }
    let (kind, what) = match layer.kind {
        LayerKind::Upper => ("upper", "older kernels do not report writes made through it here"),
        _ => ("lower", "what is written through it goes to the upper layer and is not reported here"),
    };
    Some(
        finding
            .evidence(format!("a {kind} layer of the overlay at {}: {what}", layer.merged))
            .remedy("watch the overlay's own directory as well"),
    )
}
