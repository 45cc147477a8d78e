//! The list of what is in the program, as CycloneDX 1.5 (cyclonedx.org), which scanners of known faults read.
//!
//! It names what is linked in, where `cargo metadata` would also name what builds and tests it.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{Ingredients, components::Component};

/// The document.
pub(super) fn json(all: &Ingredients) -> Result<Vec<u8>> {
    let mut components: Vec<Value> =
        all.components.iter().filter(|one| one.name != "hotr-user").map(component).collect();
    components.push(json!({
        "type": "library",
        "name": "glibc",
        "version": all.program.glibc,
        "licenses": [{"expression": "LGPL-2.1-or-later"}],
        "description": "linked statically",
    }));
    let [user, kernel] = &all.program.compilers;
    let document = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": all.source.utc,
            "component": {
                "type": "application",
                "bom-ref": "hotr",
                "name": "hotr",
                "version": all.source.version,
                "licenses": [{"expression": "MIT OR Apache-2.0"}],
            },
            "properties": [
                {"name": "hotr:commit", "value": all.source.revision()},
                {"name": "hotr:compiler", "value": user},
                {"name": "hotr:compiler-of-the-kernel-side", "value": kernel},
            ],
        },
        "components": components,
    });
    let mut bytes = serde_json::to_vec_pretty(&document).context("write the list of components")?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn component(one: &Component) -> Value {
    let mut value = json!({"type": "library", "name": one.name, "version": one.version});
    if let Some(hash) = &one.sha256 {
        value["purl"] = json!(format!("pkg:cargo/{}@{}", one.name, one.version));
        value["hashes"] = json!([{"alg": "SHA-256", "content": hash}]);
    }
    if let Some(licence) = &one.licence {
        // Before SPDX's OR, crates wrote a slash.
        value["licenses"] = json!([{"expression": licence.replace('/', " OR ").replace("  ", " ")}]);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_of_others_has_an_address_and_a_hash() {
        let own = Component {
            name: "hotr-common".into(),
            version: "0.1.0".into(),
            licence: Some("MIT/Apache-2.0".into()),
            sha256: None,
            folder: "/".into(),
        };
        let expected = json!({"type": "library", "name": "hotr-common", "version": "0.1.0",
            "licenses": [{"expression": "MIT OR Apache-2.0"}]});
        assert_eq!(component(&own), expected);
        let other = Component { sha256: Some("00ff".into()), name: "aya".into(), licence: None, ..own };
        let expected = json!({"type": "library", "name": "aya", "version": "0.1.0", "purl": "pkg:cargo/aya@0.1.0",
            "hashes": [{"alg": "SHA-256", "content": "00ff"}]});
        assert_eq!(component(&other), expected);
    }
}
