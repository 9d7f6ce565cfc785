//! Real protobuf bodies against the same objects in JSON.
//!
//! `kubectl_bodies` holds what kubectl 1.32 sends, beside what it prints with `--dry-run=client -o json`. Upstream's own
//! samples of every kind are not part of the repository: `KEDGE_API_TESTDATA` names a folder with `*.pb` and `*.json`, such
//! as `testdata/HEAD` of k8s.io/api. Where it is absent, that comparison is skipped and says so.

// Tests: a body that is not as expected fails the test, and what is skipped must be seen.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fs;
use std::path::{Path, PathBuf};

use kedge_schema::{BodyFormat, FieldValidation, Schema, Type};
use serde_json::Value;

/// Files with this ending, sorted.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|found| found == ending));
    paths.sort();
    paths
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn type_of(body: &[u8], format: BodyFormat) -> Option<&'static Type> {
    let meta = kedge_schema::peek_type_meta(body, format).unwrap();
    let (group, version) = meta.api_version.split_once('/').unwrap_or(("", &meta.api_version));
    kedge_schema::type_by_gvk(group, version, &meta.kind)
}

fn decode(body: &[u8], format: BodyFormat, ty: &'static Type) -> Value {
    kedge_schema::decode_object(body, format, Schema::of(ty), FieldValidation::Strict).unwrap().value
}

/// Both forms say the same, and the object comes back from its own encoding.
fn check(name: &str, body: &[u8], json: &[u8]) -> bool {
    let Some(ty) = type_of(body, BodyFormat::Protobuf) else { return false };
    let value = decode(body, BodyFormat::Protobuf, ty);
    assert_eq!(value, decode(json, BodyFormat::Json, ty), "{name}");
    let encoded = kedge_schema::encode_protobuf(&value).unwrap();
    assert_eq!(decode(&encoded, BodyFormat::Protobuf, ty), value, "{name} after encoding");
    true
}

#[test]
fn bodies_of_kubectl_are_the_objects_that_it_prints() {
    let bodies = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kubectl_bodies"), "hex");
    assert_eq!(bodies.len(), 16);
    for path in bodies {
        let body = bytes_of(&fs::read_to_string(&path).unwrap());
        let json = fs::read(path.with_extension("json")).unwrap();
        assert!(check(&path.display().to_string(), &body, &json), "{}: unknown kind", path.display());
    }
}

#[test]
fn upstreams_samples_are_the_same_in_both_forms() {
    let Some(folder) = std::env::var_os("KEDGE_API_TESTDATA").map(PathBuf::from) else {
        println!("skipped: KEDGE_API_TESTDATA names no folder with upstream's samples");
        return;
    };
    let checked = files(&folder, "pb").into_iter().filter(|path| {
        let json = fs::read(path.with_extension("json")).unwrap();
        check(&path.display().to_string(), &fs::read(path).unwrap(), &json)
    });
    assert_ne!(checked.count(), 0);
}
