//! Objects as bodies hold them: JSON, YAML, protobuf.

use kedge_schema::{BodyFormat, FieldValidation, Schema};
use serde_json::json;

use super::{outcome, size};

const KINDS: [(&str, &str, &str); 6] = [
    ("", "v1", "Pod"),
    ("apps", "v1", "Deployment"),
    ("", "v1", "ConfigMap"),
    ("apiextensions.k8s.io", "v1", "CustomResourceDefinition"),
    ("", "v1", "Status"),
    ("meta.k8s.io", "v1", "DeleteOptions"),
];

/// The types that inputs are read as.
pub(super) fn schemas() -> impl Iterator<Item = Schema<'static>> {
    KINDS.iter().filter_map(|(group, version, kind)| kedge_schema::type_by_gvk(group, version, kind)).map(Schema::of)
}

pub(super) fn json(input: &[u8]) -> u64 {
    let _ = kedge_schema::peek_type_meta(input, BodyFormat::Json);
    let mut sum = 0;
    for schema in schemas() {
        for mode in [FieldValidation::Strict, FieldValidation::Warn] {
            match kedge_schema::decode_object(input, BodyFormat::Json, schema, mode) {
                Ok(decoded) => {
                    let again = decoded.value.to_string();
                    let twice = kedge_schema::decode_object(again.as_bytes(), BodyFormat::Json, schema, mode);
                    assert_eq!(twice.expect("what was read can be read again").value, decoded.value);
                    let _ = kedge_schema::encode_protobuf(&decoded.value);
                    sum ^= outcome(size(again.len()), &decoded.warnings.join(","));
                }
                Err(error) => sum = sum.rotate_left(1) ^ outcome(1, &error.to_string()),
            }
        }
    }
    sum
}

pub(super) fn yaml(input: &[u8]) -> u64 {
    let _ = kedge_schema::peek_type_meta(input, BodyFormat::Yaml);
    match kedge_schema::decode_untyped(input, BodyFormat::Yaml) {
        Ok(decoded) => {
            let length = decoded.value.to_string().len();
            assert!(length <= input.len().max(64) * 4096, "{length} bytes out of {}", input.len());
            outcome(size(length), &decoded.duplicates.join(","))
        }
        Err(error) => outcome(100, &error.to_string()),
    }
}

pub(super) fn protobuf(input: &[u8]) -> u64 {
    let _ = kedge_schema::peek_type_meta(input, BodyFormat::Protobuf);
    let mut sum = 0;
    for schema in schemas() {
        match kedge_schema::decode_protobuf(input, schema) {
            Ok(decoded) => {
                let _ = kedge_schema::encode_protobuf(&decoded.value);
                sum ^= size(decoded.value.to_string().len());
            }
            Err(error) => sum = sum.rotate_left(1) ^ outcome(1, &error.to_string()),
        }
    }
    sum
}

/// Objects in protobuf.
pub(super) fn messages() -> Vec<Vec<u8>> {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": {"k": "v"},
        "creationTimestamp": "2026-01-02T03:04:05Z", "managedFields": [{"manager": "m", "operation": "Apply",
            "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {}}}]},
        "spec": {"containers": [{"name": "a", "image": "b", "resources": {"limits": {"cpu": "1"}},
            "ports": [{"containerPort": 80}], "livenessProbe": {"httpGet": {"port": "http"}}}]}});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"},
        "spec": {"replicas": 2, "strategy": {"rollingUpdate": {"maxSurge": "25%"}}, "template": {"spec": pod["spec"]}}});
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"},
        "binaryData": {"b": "AAEC"}});
    [pod, deployment, map].iter().filter_map(|object| kedge_schema::encode_protobuf(object).ok()).collect()
}
