//! A container image: the program and its documents in one layer, over nothing.
//!
//! In: the tree of files. Out: a folder in the format of the OCI Image Specification 1.0, which podman, skopeo, buildah and
//! containerd's tools read as it is.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{
    Ingredients,
    archive::{gzip, tar},
    files::of_checkout,
    sums::sha256,
    tree::{File, Tree, file},
};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// The files of the image's folder.
pub(super) fn image(all: &Ingredients) -> Result<Tree> {
    let mut root = Tree::new();
    root.insert("usr/bin/hotr".into(), File { mode: 0o755, content: all.program.binary.clone() });
    for name in ["LICENSE", "LICENSE-APACHE", "LICENSE-MIT"] {
        root.insert(format!("usr/share/doc/hotr/{name}"), file(of_checkout(name)?));
    }
    root.insert("usr/share/doc/hotr/THIRD-PARTY".into(), file(all.notices.clone()));
    let layer = tar(&root, "", all.source.time)?;
    let config = json!({
        "created": all.source.utc,
        "architecture": architecture()?,
        "os": "linux",
        "config": {"Entrypoint": ["/usr/bin/hotr"], "Env": ["PATH=/usr/bin"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
        "history": [{"created": all.source.utc, "created_by": "cargo xtask dist"}],
    });
    let mut tree = Tree::new();
    let layer = blob(&mut tree, LAYER, gzip(&layer)?);
    let config =
        blob(&mut tree, CONFIG, serde_json::to_vec(&config).context("write the image's configuration")?);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config,
        "layers": [layer],
        "annotations": {
            "org.opencontainers.image.title": "hotr",
            "org.opencontainers.image.version": all.source.version,
            "org.opencontainers.image.revision": all.source.revision(),
            "org.opencontainers.image.licenses": "MIT OR Apache-2.0",
        },
    });
    let mut manifest =
        blob(&mut tree, MANIFEST, serde_json::to_vec(&manifest).context("write the image's manifest")?);
    manifest["annotations"] = json!({"org.opencontainers.image.ref.name": all.source.version});
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    tree.insert("index.json".into(), file(serde_json::to_vec(&index).context("write the image's index")?));
    tree.insert("oci-layout".into(), file(r#"{"imageLayoutVersion":"1.0.0"}"#));
    Ok(tree)
}

/// Adds a blob under its hash, and returns what names it.
fn blob(tree: &mut Tree, kind: &str, content: Vec<u8>) -> Value {
    let descriptor = json!({"mediaType": kind, "digest": digest(&content), "size": content.len()});
    tree.insert(format!("blobs/sha256/{}", sha256(&content)), file(content));
    descriptor
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", sha256(bytes))
}

/// As Go calls it.
fn architecture() -> Result<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => {
            anyhow::bail!("package hotr: no container runtime's name for {other} is known; add it to oci.rs")
        }
    }
}
