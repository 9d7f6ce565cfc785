//! The JSON documents of an image: configuration, manifest, index, and Docker's manifest.json.
//!
//! Pure. The shapes are those of the OCI image specification 1.0 and of `docker save`. Invariant: keys come out sorted,
//! so that the digests are the same every time.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::reference::tag_of;

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";

/// How the image runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct RunConfig {
    pub(crate) architecture: String,
    pub(crate) entrypoint: Vec<String>,
    pub(crate) cmd: Vec<String>,
    pub(crate) env: Vec<String>,
    pub(crate) user: String,
    pub(crate) working_dir: String,
    pub(crate) exposed_ports: Vec<String>,
    pub(crate) labels: BTreeMap<String, String>,
}

/// A blob's digest and size.
#[derive(Clone, Debug)]
pub(crate) struct Blob {
    /// `sha256:` and the hexadecimal digest.
    pub(crate) digest: String,
    pub(crate) size: u64,
}

impl Blob {
    /// Its path in an OCI layout.
    pub(crate) fn path(&self) -> String {
        format!("blobs/{}", self.digest.replace(':', "/"))
    }
}

/// The image configuration; `layer` is uncompressed, so that its digest is its diff id.
pub(crate) fn config(run: &RunConfig, layer: &Blob) -> Vec<u8> {
    let mut process = Map::new();
    let mut put = |key: &str, value: Value, empty: bool| {
        if !empty {
            process.insert(key.to_owned(), value);
        }
    };
    let ports: Map<String, Value> = run.exposed_ports.iter().map(|port| (port.clone(), json!({}))).collect();
    put("Cmd", json!(run.cmd), run.cmd.is_empty());
    put("Entrypoint", json!(run.entrypoint), run.entrypoint.is_empty());
    put("Env", json!(run.env), run.env.is_empty());
    put("ExposedPorts", Value::Object(ports), run.exposed_ports.is_empty());
    put("Labels", json!(run.labels), run.labels.is_empty());
    put("User", json!(run.user), run.user.is_empty());
    put("WorkingDir", json!(run.working_dir), run.working_dir.is_empty());
    bytes(&json!({
        "architecture": run.architecture,
        "config": process,
        "created": "1970-01-01T00:00:00Z",
        "history": [{ "created": "1970-01-01T00:00:00Z", "created_by": "kedge" }],
        "os": "linux",
        "rootfs": { "diff_ids": [layer.digest], "type": "layers" },
    }))
}

/// The manifest: one configuration, one layer.
pub(crate) fn manifest(config: &Blob, layer: &Blob) -> Vec<u8> {
    bytes(&json!({
        "config": descriptor(CONFIG_TYPE, config),
        "layers": [descriptor(LAYER_TYPE, layer)],
        "mediaType": MANIFEST_TYPE,
        "schemaVersion": 2,
    }))
}

/// What the index says of an image: the manifest once per name. containerd reads the full name, other tools the tag.
pub(crate) fn index_entries(manifest: &Blob, names: &[String], architecture: &str) -> Vec<Value> {
    let entry = |name: &String| {
        let mut descriptor = descriptor(MANIFEST_TYPE, manifest);
        descriptor["platform"] = json!({ "architecture": architecture, "os": "linux" });
        descriptor["annotations"] = json!({
            "io.containerd.image.name": name,
            "org.opencontainers.image.ref.name": tag_of(name),
        });
        descriptor
    };
    names.iter().map(entry).collect()
}

/// The index of the layout.
pub(crate) fn index(entries: &[Value]) -> Vec<u8> {
    bytes(&json!({ "manifests": entries, "schemaVersion": 2 }))
}

/// What `docker load` reads of an image.
pub(crate) fn docker_entry(config: &Blob, layer: &Blob, names: &[String]) -> Value {
    json!({ "Config": config.path(), "Layers": [layer.path()], "RepoTags": names })
}

/// The list of those.
pub(crate) fn docker_manifest(entries: &[Value]) -> Vec<u8> {
    bytes(&json!(entries))
}

fn descriptor(media_type: &str, blob: &Blob) -> Value {
    json!({ "digest": blob.digest, "mediaType": media_type, "size": blob.size })
}

fn bytes(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_holds_only_what_was_set() {
        let layer = Blob { digest: "sha256:ab".to_owned(), size: 3 };
        let run = RunConfig {
            architecture: "amd64".to_owned(),
            entrypoint: vec!["/pause".to_owned()],
            ..RunConfig::default()
        };
        assert_eq!(
            String::from_utf8(config(&run, &layer)).expect("JSON is UTF-8"),
            concat!(
                r#"{"architecture":"amd64","config":{"Entrypoint":["/pause"]},"created":"1970-01-01T00:00:00Z","#,
                r#""history":[{"created":"1970-01-01T00:00:00Z","created_by":"kedge"}],"os":"linux","#,
                r#""rootfs":{"diff_ids":["sha256:ab"],"type":"layers"}}"#
            )
        );
    }

    #[test]
    fn every_name_gets_an_entry_in_the_index() {
        let manifest = Blob { digest: "sha256:cd".to_owned(), size: 5 };
        let names = ["a.b/c:v1".to_owned(), "a.b/d:v2".to_owned()];
        let index: Value = serde_json::from_slice(&index(&index_entries(&manifest, &names, "arm64"))).expect("JSON");
        let name = |at: usize| index["manifests"][at]["annotations"]["io.containerd.image.name"].as_str();
        assert_eq!((name(0), name(1), name(2)), (Some("a.b/c:v1"), Some("a.b/d:v2"), None));
        assert_eq!(index["manifests"][1]["annotations"]["org.opencontainers.image.ref.name"], "v2");
    }
}
