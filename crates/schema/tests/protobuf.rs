//! Real protobuf bodies against the same objects in JSON.
//!
//! `kubectl_bodies` holds what kubectl 1.32 sends, beside what it prints with `--dry-run=client -o json`. Upstream's own
//! samples of every kind are not part of the repository: `KEDGE_API_TESTDATA` names a folder with `*.pb` and `*.json`, such
//! as `testdata/HEAD` of k8s.io/api. Where it is absent, that comparison is skipped and says so.

// Tests: a body that is not as expected fails the test, and what is skipped must be seen.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fs;
use std::path::{Path, PathBuf};

use k8s_pb::api::apps::v1 as apps;
use k8s_pb::api::authentication::v1 as authentication;
use k8s_pb::api::batch::v1 as batch;
use k8s_pb::api::core::v1 as core;
use k8s_pb::api::networking::v1 as networking;
use k8s_pb::api::policy::v1 as policy;
use k8s_pb::api::rbac::v1 as rbac;
use k8s_pb::api::scheduling::v1 as scheduling;
use k8s_pb::apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions;
use k8s_pb::apimachinery::pkg::runtime::Unknown;
use kedge_schema::{BodyFormat, FieldValidation, Schema, Type};
use prost::Message;
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

/// Reads a message with code generated from upstream's definitions and writes it again. What that code does not know at the
/// number where it stands is lost.
fn through_generated_code(kind: &str, raw: &[u8]) -> Vec<u8> {
    fn again<M: Message + Default>(raw: &[u8]) -> Vec<u8> {
        M::decode(raw).unwrap().encode_to_vec()
    }
    match kind {
        "ClusterRole" => again::<rbac::ClusterRole>(raw),
        "ConfigMap" => again::<core::ConfigMap>(raw),
        "CronJob" => again::<batch::CronJob>(raw),
        "CustomResourceDefinition" => again::<apiextensions::CustomResourceDefinition>(raw),
        "Deployment" => again::<apps::Deployment>(raw),
        "Ingress" => again::<networking::Ingress>(raw),
        "Job" => again::<batch::Job>(raw),
        "Namespace" => again::<core::Namespace>(raw),
        "Pod" => again::<core::Pod>(raw),
        "PodDisruptionBudget" => again::<policy::PodDisruptionBudget>(raw),
        "PodList" => again::<core::PodList>(raw),
        "PriorityClass" => again::<scheduling::PriorityClass>(raw),
        "ResourceQuota" => again::<core::ResourceQuota>(raw),
        "Role" => again::<rbac::Role>(raw),
        "RoleBinding" => again::<rbac::RoleBinding>(raw),
        "Secret" => again::<core::Secret>(raw),
        "Service" => again::<core::Service>(raw),
        "ServiceAccount" => again::<core::ServiceAccount>(raw),
        "TokenRequest" => again::<authentication::TokenRequest>(raw),
        other => panic!("{other} is not in the table"),
    }
}

/// What Kedge writes is what generated code reads, number by number.
fn check_generated(name: &str, value: &Value) {
    let encoded = kedge_schema::encode_protobuf(value).unwrap();
    let mut envelope = Unknown::decode(encoded.strip_prefix(b"k8s\0").unwrap()).unwrap();
    let meta = envelope.type_meta.clone().unwrap();
    assert_eq!(
        (meta.api_version(), meta.kind()),
        (value["apiVersion"].as_str().unwrap(), value["kind"].as_str().unwrap())
    );
    envelope.raw = Some(through_generated_code(meta.kind(), envelope.raw()));
    let body = [b"k8s\0".as_slice(), &envelope.encode_to_vec()].concat();
    let ty = type_of(&body, BodyFormat::Protobuf).unwrap();
    assert_eq!(&decode(&body, BodyFormat::Protobuf, ty), value, "{name}");
}

#[test]
fn generated_code_reads_what_is_written() {
    for path in files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kubectl_bodies"), "json") {
        let json = fs::read(&path).unwrap();
        let ty = type_of(&json, BodyFormat::Json).unwrap();
        check_generated(&path.display().to_string(), &decode(&json, BodyFormat::Json, ty));
    }
    let documents: Vec<Value> = serde_json::from_str(include_str!("protobuf_samples.json")).unwrap();
    for document in documents {
        check_generated(&document["kind"].to_string(), &document);
    }
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
