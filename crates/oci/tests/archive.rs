//! The archive as other tools read it: a tar whose blobs are named by their digests.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::Path;

use kedge_oci::{BuildError, ImageBuilder};
use serde_json::Value;

fn builder(source: &Path) -> ImageBuilder {
    ImageBuilder::new("registry.k8s.io/pause:3.10")
        .and_then(|builder| builder.tag("localhost/kedge:v1"))
        .expect("both names are good")
        .file("/usr/local/bin/kedge", source, 0o755)
        .symlink("/pause", "/usr/local/bin/kedge")
        .bytes("/etc/passwd", "root:x:0:0::/:/bin/sh\n", 0o644)
        .dir("/tmp", 0o1777)
        .entrypoint(["/pause"])
        .env("PATH", "/usr/local/bin")
}

/// Entries of a tar by path: mode and contents.
fn entries(bytes: &[u8]) -> BTreeMap<String, (u32, Vec<u8>)> {
    let mut archive = tar::Archive::new(bytes);
    let read = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
        let mut entry = entry.expect("a whole entry");
        let mut contents = Vec::new();
        entry.read_to_end(&mut contents).expect("contents");
        let path = entry.path().expect("path").display().to_string();
        (path, (entry.header().mode().expect("mode"), contents))
    };
    archive.entries().expect("a tar").map(read).collect()
}

fn digest(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn blobs_are_what_their_names_say() {
    let dir = tempfile::tempdir().expect("temp dir");
    let source = dir.path().join("program");
    // Not a multiple of the block size, and larger than any buffer on the way.
    fs::write(&source, vec![7_u8; 600_001]).expect("write");
    let archive = dir.path().join("image.tar");
    let image = builder(&source).write_to(&archive).expect("image");
    let files = entries(&fs::read(&archive).expect("archive"));

    for (path, (_, contents)) in files.iter().filter(|(path, _)| path.starts_with("blobs/")) {
        assert_eq!(*path, format!("blobs/sha256/{}", digest(contents)));
    }
    let index: Value = serde_json::from_slice(&files["index.json"].1).expect("index");
    assert_eq!(index["manifests"][0]["digest"], image.manifest.as_str());
    let docker: Value = serde_json::from_slice(&files["manifest.json"].1).expect("manifest.json");
    assert_eq!(docker[0]["RepoTags"], serde_json::json!(image.names));
    let layer = &files[docker[0]["Layers"][0].as_str().expect("a path")].1;
    let tree = entries(layer);
    assert_eq!(
        tree.iter().map(|(path, (mode, _))| (path.as_str(), *mode)).collect::<Vec<_>>(),
        [
            ("etc/", 0o755),
            ("etc/passwd", 0o644),
            ("pause", 0o777),
            ("tmp/", 0o1777),
            ("usr/", 0o755),
            ("usr/local/", 0o755),
            ("usr/local/bin/", 0o755),
            ("usr/local/bin/kedge", 0o755),
        ]
    );
    assert_eq!(tree["usr/local/bin/kedge"].1.len(), 600_001);
}

#[test]
fn the_same_inputs_give_the_same_bytes() {
    let dir = tempfile::tempdir().expect("temp dir");
    let source = dir.path().join("program");
    let [first, second] = ["a.tar", "b.tar"].map(|name| dir.path().join(name));
    fs::write(&source, "program").expect("write");
    let one = builder(&source).write_to(&first).expect("image");
    let other = builder(&source).label("a", "b").write_to(&second).expect("image");
    assert_ne!(one.manifest, other.manifest);
    assert_eq!(one.layer, other.layer);
    fs::remove_file(&source).expect("remove");
    fs::write(&source, "program").expect("write anew, with other times");
    assert_eq!(builder(&source).write_to(&second).expect("image"), one);
    assert_eq!(fs::read(first).expect("first"), fs::read(second).expect("second"));
}

#[test]
fn a_missing_file_leaves_the_old_archive() {
    let dir = tempfile::tempdir().expect("temp dir");
    let archive = dir.path().join("image.tar");
    fs::write(&archive, "old").expect("write");
    let error = builder(&dir.path().join("missing")).write_to(&archive).expect_err("the file is missing");
    assert!(matches!(&error, BuildError::Input { path, .. } if path.ends_with("missing")), "{error:?}");
    assert_eq!(fs::read(&archive).expect("archive"), b"old");
    assert_eq!(fs::read_dir(dir.path()).expect("dir").count(), 1, "nothing half-written stays");
}

#[test]
fn a_variant_shares_the_files_and_runs_another_program() {
    let dir = tempfile::tempdir().expect("temp dir");
    let source = dir.path().join("program");
    fs::write(&source, "program").expect("write");
    let archive = dir.path().join("image.tar");
    let image = builder(&source).variant("example.org/pause:1", &["/pause"], "65534").expect("a name");
    let written = image.write_to(&archive).expect("image");
    assert_eq!(written.names.last().map(String::as_str), Some("example.org/pause:1"));
    let files = entries(&fs::read(&archive).expect("archive"));
    let docker: Value = serde_json::from_slice(&files["manifest.json"].1).expect("manifest.json");
    assert_eq!(docker[1]["RepoTags"], serde_json::json!(["example.org/pause:1"]));
    assert_eq!(docker[0]["Layers"], docker[1]["Layers"]);
    let config: Value = serde_json::from_slice(&files[docker[1]["Config"].as_str().expect("a path")].1).expect("JSON");
    assert_eq!((&config["config"]["Entrypoint"][0], &config["config"]["User"]), (&"/pause".into(), &"65534".into()));
    let index: Value = serde_json::from_slice(&files["index.json"].1).expect("index");
    let names: Vec<&Value> = index["manifests"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|entry| &entry["annotations"]["io.containerd.image.name"])
        .collect();
    assert_eq!(names, written.names.iter().collect::<Vec<_>>());
}
