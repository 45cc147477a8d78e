//! The image, run by a container runtime: one that takes a bundle, so that every hash of the image is checked on the way.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{super::sums::sha256, running::Running};
use crate::cmd;

/// What hotr needs; the runtime gives it nothing else.
const CAPABILITIES: [&str; 3] = ["CAP_BPF", "CAP_PERFMON", "CAP_DAC_READ_SEARCH"];

/// Runs `hotr --version` and a trace of `watched`.
pub(super) fn run(image: &Path, work: &Path, watched: &Path, version: &str) -> Result<()> {
    // The runtime refuses a machine that has both kinds of cgroups; it sees the newer one, and uses none.
    let cgroups = ["-t", "cgroup2", "cgroup2", "/sys/fs/cgroup"];
    cmd::must_quietly(Command::new("mount").args(cgroups), "mount cgroups for the runtime")?;
    let ran = run_bundle(image, work, watched, version);
    cmd::must_quietly(Command::new("umount").arg("/sys/fs/cgroup"), "unmount the runtime's cgroups").and(ran)
}

fn run_bundle(image: &Path, work: &Path, watched: &Path, version: &str) -> Result<()> {
    let bundle = work.join("bundle");
    let image_config = unpack(image, &bundle.join("rootfs"))?;
    let entrypoint = image_config["config"]["Entrypoint"].clone();
    let with = |arguments: &[&str]| {
        let mut words = entrypoint.as_array().cloned().unwrap_or_default();
        words.extend(arguments.iter().map(|&word| json!(word)));
        words
    };
    let crun = |name: &str| {
        let mut command = Command::new("crun");
        command.arg("--root").arg(work.join("crun")).args(["--cgroup-manager=disabled", "run", "--bundle"]);
        command.arg(&bundle).arg(name);
        command
    };
    configure(&bundle, &image_config, &with(&["--version"]), watched)?;
    let said = cmd::capture(&mut crun("hotr-version"), "run the image")?;
    ensure!(
        said == format!("hotr {version}\n").as_bytes(),
        "the image says {}",
        String::from_utf8_lossy(&said)
    );
    configure(&bundle, &image_config, &with(&["trace", "--json", "--once", "/watched"]), watched)?;
    let mut trace = Running::start(&mut crun("hotr-trace"), "trace in a container")?;
    trace.report("ready", &["\"ebpf\":{\"state\":\"active\""])?;
    fs::write(watched.join("a"), "1").context("write below the traced folder")?;
    trace.report("change", &["\"path\":\"/watched/a\"", "\"ebpf\""])?;
    trace.report("summary", &[]).map(|_| ())
}

/// Unpacks the only layer, and returns the image's configuration. Names of blobs are their hashes.
fn unpack(image: &Path, root: &Path) -> Result<Value> {
    let read = |name: &str| fs::read(image.join(name)).with_context(|| format!("read {name} of the image"));
    let blob = |descriptor: &Value| -> Result<Vec<u8>> {
        let digest = descriptor["digest"].as_str().context("read the image: no digest")?;
        let hash = digest.strip_prefix("sha256:").context("read the image: not SHA-256")?;
        let content = read(&format!("blobs/sha256/{hash}"))?;
        ensure!(sha256(&content) == hash, "read the image: {digest} has another content");
        ensure!(descriptor["size"] == content.len(), "read the image: {digest} has another size");
        Ok(content)
    };
    let index: Value = serde_json::from_slice(&read("index.json")?).context("read the image's index")?;
    let manifest: Value =
        serde_json::from_slice(&blob(&index["manifests"][0])?).context("read the manifest")?;
    let config: Value =
        serde_json::from_slice(&blob(&manifest["config"])?).context("read the configuration")?;
    let mut layer = Vec::new();
    let packed = blob(&manifest["layers"][0])?;
    std::io::copy(&mut flate2::read::GzDecoder::new(&*packed), &mut layer).context("unpack the layer")?;
    ensure!(
        config["rootfs"]["diff_ids"] == json!([format!("sha256:{}", sha256(&layer))]),
        "the layer is another"
    );
    tar::Archive::new(&*layer).unpack(root).context("unpack the layer")?;
    Ok(config)
}

/// The runtime's own example of a configuration, with our program, its capabilities and the folder to watch.
fn configure(bundle: &Path, image: &Value, words: &[Value], watched: &Path) -> Result<()> {
    let file = bundle.join("config.json");
    if file.exists() {
        fs::remove_file(&file).context("remove the old configuration")?;
    }
    cmd::must_quietly(
        Command::new("crun").arg("spec").current_dir(bundle),
        "make a configuration of a container",
    )?;
    let mut config: Value = serde_json::from_slice(&fs::read(&file).context("read the configuration")?)
        .context("read the configuration")?;
    config["process"]["args"] = json!(words);
    config["process"]["env"] = image["config"]["Env"].clone();
    config["process"]["terminal"] = json!(false);
    for set in ["bounding", "effective", "permitted"] {
        config["process"]["capabilities"][set] = json!(CAPABILITIES);
    }
    let namespaces =
        config["linux"]["namespaces"].as_array_mut().context("read the configuration: no namespaces")?;
    // Processes are seen with the numbers that the kernel programs give them, and cgroups by their whole names.
    namespaces.retain(|namespace| namespace["type"] != "pid" && namespace["type"] != "cgroup");
    let mounts = config["mounts"].as_array_mut().context("read the configuration: no mounts")?;
    mounts.retain(|mount| mount["type"] != "cgroup");
    mounts.push(
        json!({"destination": "/watched", "source": watched, "type": "bind", "options": ["rbind", "ro"]}),
    );
    fs::write(&file, serde_json::to_vec(&config).context("write the configuration")?)
        .context("write the configuration")
}
