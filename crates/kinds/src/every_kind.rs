//! What holds for every built-in kind, checked for each of them.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{Kind, WriteContext, builtins};

const CONTEXT: WriteContext<'static> = WriteContext { now: Timestamp::UNIX_EPOCH, uid: "u-1" };

/// An object with nothing in it but what a client must send.
fn bare(kind: &Kind) -> Value {
    let mut metadata = json!({"name": "a"});
    if kind.namespaced {
        metadata["namespace"] = json!("default");
    }
    json!({"apiVersion": kind.api_version(), "kind": kind.kind, "metadata": metadata})
}

#[test]
fn rows_have_a_cell_for_each_column() {
    for kind in builtins() {
        let row = kind.row(&bare(kind), Timestamp::UNIX_EPOCH);
        assert_eq!(row.len(), kind.columns().len(), "{kind:?}");
        let named = kind.columns().iter().filter(|column| column.format == "name" && column.name == "Name").count();
        assert_eq!(named, 1, "{kind:?} has one column with the name");
    }
}

#[test]
fn defaults_are_filled_in_once() {
    for kind in builtins() {
        let mut once = bare(kind);
        kind.default(&mut once);
        let mut twice = once.clone();
        kind.default(&mut twice);
        assert_eq!(once, twice, "{kind:?}");
    }
}

#[test]
fn what_was_prepared_passes_the_checks_of_metadata() {
    for kind in builtins() {
        let mut object = bare(kind);
        object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        object["status"] = json!({"mine": true});
        kind.default(&mut object);
        kind.prepare_create(&mut object, &CONTEXT);
        assert_eq!(object["metadata"]["uid"], "u-1", "{kind:?}");
        assert_eq!(object["metadata"]["creationTimestamp"], "1970-01-01T00:00:00Z", "{kind:?}");
        assert_eq!(object["metadata"].get("deletionTimestamp"), None, "{kind:?}");
        let generation = object["metadata"].get("generation").and_then(Value::as_i64);
        assert!(!kind.strategy.has_generation() || generation == Some(1), "{kind:?}");
        let kept = object["status"].get("mine").is_some();
        assert_eq!(kept, !kind.has_status() || kind.strategy.keeps_status_on_create(), "{kind:?}");
        let errors = kind.validate_create(&object);
        let named_after_itself = ["APIService", "CustomResourceDefinition", "IPAddress"].contains(&&*kind.kind);
        let about_metadata = errors.iter().any(|error| error.field().starts_with("metadata"));
        assert_eq!(about_metadata, named_after_itself, "{kind:?}: {errors:?}");
    }
}

#[test]
fn an_update_that_changes_nothing_passes_the_checks_of_metadata() {
    for kind in builtins() {
        let mut old = bare(kind);
        kind.default(&mut old);
        kind.prepare_create(&mut old, &CONTEXT);
        for subresource in ["", "status"] {
            let mut new = old.clone();
            kind.prepare_update(&mut new, &old, subresource);
            assert_eq!(new["metadata"]["generation"], old["metadata"]["generation"], "{kind:?} {subresource}");
            let errors = kind.validate_update(&new, &old, subresource);
            let named_after_itself = ["APIService", "CustomResourceDefinition", "IPAddress"].contains(&&*kind.kind);
            let about_metadata = errors.iter().any(|error| error.field().starts_with("metadata"));
            assert!(!about_metadata || named_after_itself, "{kind:?} {subresource}: {errors:?}");
            let immutable = errors.iter().filter(|error| error.to_string().ends_with("field is immutable"));
            assert_eq!(immutable.count(), 0, "{kind:?} {subresource}");
        }
    }
}

#[test]
fn stored_objects_come_back_in_every_version() {
    for kind in builtins().iter().filter(|kind| kind.served_by_default) {
        let mut object = bare(kind);
        kind.default(&mut object);
        let original = object.clone();
        kind.to_storage(&mut object);
        assert_eq!(object["apiVersion"], *kind.storage_api_version, "{kind:?}");
        kind.from_storage(&mut object);
        assert_eq!(object["apiVersion"], original["apiVersion"], "{kind:?}");
        assert_eq!(object["metadata"]["name"], original["metadata"]["name"], "{kind:?}");
    }
}

#[test]
fn names_and_namespaces_are_always_selectable() {
    for kind in builtins() {
        let object = bare(kind);
        assert_eq!(kind.field(&object, "metadata.name").as_deref(), Ok("a"), "{kind:?}");
        let supported = kind.strategy.fields().iter().all(|field| kind.check_field(field).is_ok());
        assert!(supported, "{kind:?}");
        let refused = kind.field(&object, "spec.no.such").unwrap_err().to_string();
        assert!(refused.contains("spec.no.such"), "{kind:?}: {refused}");
        for field in kind.strategy.fields() {
            assert!(kind.field(&object, field).is_ok(), "{kind:?} {field}");
        }
    }
}

#[test]
fn bad_metadata_is_refused_with_upstreams_texts() {
    let kind = crate::builtin("", "v1", "ConfigMap").unwrap();
    let check = |metadata: Value, expected: &[&str]| {
        let errors = kind.validate_create(&json!({"metadata": metadata}));
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), expected.len(), "{texts:?}");
        for (text, expected) in texts.iter().zip(expected) {
            assert!(text.starts_with(expected), "{texts:?}");
        }
    };
    check(json!({"name": "a", "namespace": "b"}), &[]);
    check(
        json!({}),
        &["metadata.name: Required value: name or generateName is required", "metadata.namespace: Required value"],
    );
    check(
        json!({"name": "A_b", "namespace": "b"}),
        &["metadata.name: Invalid value: \"A_b\": a lowercase RFC 1123 subdomain must consist of"],
    );
    check(json!({"name": "a", "generateName": "web-", "namespace": "b"}), &[]);
    check(
        json!({"name": "a", "namespace": "b", "labels": {"a b": "c", "d": "-"}}),
        &[
            "metadata.labels: Invalid value: \"a b\": name part must consist of",
            "metadata.labels: Invalid value: \"-\": a valid label must be an empty string or consist of",
        ],
    );
    check(
        json!({"name": "a", "namespace": "b", "annotations": {"k": "v".repeat(256 * 1024)}}),
        &["metadata.annotations: Too long: may not be more than 262144 bytes"],
    );
    check(
        json!({"name": "a", "namespace": "b", "finalizers": ["", "a/b"]}),
        &[
            "metadata.finalizers: Invalid value: \"\": name part must be non-empty",
            "metadata.finalizers: Invalid value",
        ],
    );
    let owner = |name: &str| json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": "u", "controller": true});
    check(
        json!({"name": "a", "namespace": "b", "ownerReferences": [owner("x"), owner("y"), {"apiVersion": "v1"}]}),
        &[
            "metadata.ownerReferences[2].kind: Required value: must not be empty",
            "metadata.ownerReferences[2].name: Required value: must not be empty",
            "metadata.ownerReferences[2].uid: Required value: must not be empty",
            "metadata.ownerReferences: Invalid value: [",
        ],
    );
    let node = crate::builtin("", "v1", "Node").unwrap();
    let errors = node.validate_create(&json!({"metadata": {"name": "n", "namespace": "b"}}));
    assert_eq!(errors[0].to_string(), "metadata.namespace: Forbidden: not allowed on this type");
}

#[test]
fn finalizers_are_not_added_to_what_is_being_deleted() {
    let kind = crate::builtin("", "v1", "ConfigMap").unwrap();
    let old = json!({"metadata": {"name": "a", "namespace": "b", "deletionTimestamp": "2026-01-01T00:00:00Z",
        "finalizers": ["a.io/x"]}});
    let mut new = old.clone();
    new["metadata"]["finalizers"] = json!(["a.io/x", "a.io/y"]);
    new["metadata"]["uid"] = json!("other");
    let errors = kind.validate_update(&new, &old, "");
    assert_eq!(
        errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new \
             finalizers []string{\"a.io/y\"}",
            "metadata.uid: Invalid value: \"other\": field is immutable",
        ]
    );
}

#[test]
fn unsupported_fields_are_refused_in_upstreams_words() {
    for (group, kind, expected) in [
        ("", "Pod", "field label not supported: x"),
        ("", "ConfigMap", "\"x\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""),
        ("batch", "Job", "field label \"x\" not supported for Job"),
    ] {
        let kind = crate::builtin(group, "v1", kind).unwrap();
        assert_eq!(kind.check_field("x").unwrap_err().to_string(), expected);
    }
}
