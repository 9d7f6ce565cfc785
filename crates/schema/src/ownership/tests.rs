//! Cases of ownership: what plain writes record, and what applies change, refuse and remove.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::facts::type_by_gvk;
use crate::schema::Schema;

const NOW: &str = "2026-01-02T03:04:05Z";

fn schema_of(api_version: &str, kind: &str) -> Schema<'static> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    Schema::of(type_by_gvk(group, version, kind).unwrap())
}

fn writer<'a>(manager: &'a str, object: &'a Value) -> Writer<'a> {
    let text = |key: &str| object[key].as_str().unwrap();
    Writer { manager, api_version: text("apiVersion"), kind: text("kind"), subresource: "", time: NOW }
}

fn write(live: Option<&Value>, object: Value, manager: &str) -> Value {
    let mut new = object.clone();
    let writer = writer(manager, &object);
    update_managed_fields(live, &mut new, schema_of(writer.api_version, writer.kind), &writer, &[&["status"]]);
    new
}

fn apply_as(live: Option<&Value>, patch: Value, manager: &str, force: bool) -> Result<Value, String> {
    let writer = writer(manager, &patch);
    let schema = schema_of(writer.api_version, writer.kind);
    let applied = apply(live, patch.clone(), schema, &writer, force, &[&["status"]]);
    applied.map(|applied| applied.object).map_err(|error| error.to_string())
}

/// `manager operation fields` of each entry.
fn owners(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    entries
        .iter()
        .map(|entry| format!("{} {} {}", text(entry, "manager"), text(entry, "operation"), entry["fieldsV1"]))
        .collect()
}

fn content(object: &Value) -> Value {
    let mut object = object.clone();
    object["metadata"].as_object_mut().unwrap().remove("managedFields");
    object
}

fn config_map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "b"}, "data": data})
}

fn deployment(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec})
}

#[test]
fn a_create_owns_every_field_it_sets() {
    let created = write(None, config_map(json!({"k": "v"})), "test");
    assert_eq!(
        created["metadata"]["managedFields"],
        json!([{"apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {".": {}, "f:k": {}}},
            "manager": "test", "operation": "Update", "time": NOW}])
    );
    let spec = json!({"replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80, "protocol": "TCP"}], "resources": {}}]}},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}});
    let mut object = deployment(spec);
    object["status"] = json!({"replicas": 3});
    object["metadata"]["finalizers"] = json!(["example.com/x"]);
    let created = write(None, object, "kubectl-create");
    assert_eq!(
        created["metadata"]["managedFields"][0]["fieldsV1"],
        json!({"f:metadata": {"f:finalizers": {".": {}, "v:\"example.com/x\"": {}}}, "f:spec": {
            "f:replicas": {}, "f:selector": {},
            "f:strategy": {"f:rollingUpdate": {".": {}, "f:maxSurge": {}}, "f:type": {}},
            "f:template": {"f:metadata": {"f:labels": {".": {}, "f:app": {}}}, "f:spec": {"f:containers": {
                "k:{\"name\":\"c\"}": {".": {}, "f:image": {}, "f:name": {}, "f:resources": {},
                    "f:ports": {".": {}, "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}, "f:protocol": {}}}}}}}}})
    );
}

#[test]
fn an_update_takes_what_it_changes() {
    let created = write(None, config_map(json!({"a": "1", "b": "1"})), "one");
    let mut changed = created.clone();
    changed["data"] = json!({"a": "2", "c": "1"});
    let updated = write(Some(&created), changed, "two");
    assert_eq!(owners(&updated), [r#"one Update {"f:data":{}}"#, r#"two Update {"f:data":{"f:a":{},"f:c":{}}}"#]);
    let mut again = updated.clone();
    again["data"]["c"] = json!("2");
    let again = write(Some(&updated), again, "two");
    assert_eq!(owners(&again), owners(&updated));
    let mut without = config_map(json!({"a": "2", "c": "3"}));
    without["metadata"]["labels"] = json!({});
    let sent_without = write(Some(&updated), without, "one");
    assert_eq!(
        owners(&sent_without),
        [
            r#"one Update {"f:data":{".":{},"f:c":{}},"f:metadata":{"f:labels":{}}}"#,
            r#"two Update {"f:data":{"f:a":{}}}"#
        ]
    );
}

#[test]
fn an_update_without_a_difference_keeps_the_entries_and_their_times() {
    let mut live = write(None, config_map(json!({"a": "1"})), "one");
    live["metadata"]["managedFields"][0]["time"] = json!("2020-01-01T00:00:00Z");
    let mut same = live.clone();
    same["metadata"].as_object_mut().unwrap().remove("managedFields");
    let updated = write(Some(&live), same, "two");
    assert_eq!(updated, live);
}

#[test]
fn managed_fields_can_be_reset_and_stay_away() {
    let live = write(None, config_map(json!({"a": "1"})), "one");
    for reset in [json!([]), json!([{}])] {
        let mut new = live.clone();
        new["metadata"]["managedFields"] = reset;
        new["data"]["a"] = json!("2");
        let updated = write(Some(&live), new.clone(), "two");
        assert_eq!(updated["metadata"].get("managedFields"), None);
        new["data"]["a"] = json!("3");
        let later = write(Some(&updated), content(&new), "two");
        assert_eq!(later["metadata"].get("managedFields"), None);
    }
}

#[test]
fn subresources_have_entries_of_their_own() {
    let live = write(None, deployment(json!({"replicas": 1})), "one");
    let mut new = live.clone();
    new["status"] = json!({"replicas": 1, "conditions": [{"type": "Available", "status": "True"}]});
    new["spec"]["replicas"] = json!(7);
    new["metadata"]["managedFields"] = json!([]);
    let writer = Writer { subresource: "status", ..writer("kubelet", &live) };
    update_managed_fields(Some(&live), &mut new, schema_of("apps/v1", "Deployment"), &writer, &[&["spec"]]);
    assert_eq!(
        owners(&new),
        [
            r#"kubelet Update {"f:status":{"f:conditions":{".":{},"k:{\"type\":\"Available\"}":{".":{},"f:status":{},"f:type":{}}},"f:replicas":{}}}"#,
            r#"one Update {"f:spec":{"f:replicas":{}}}"#
        ]
    );
    assert_eq!(new["metadata"]["managedFields"][0]["subresource"], "status");
}

#[test]
fn the_oldest_updaters_become_ancient() {
    let mut live = write(None, config_map(json!({"k0": "0"})), "m0");
    for number in 1..12 {
        let mut new = live.clone();
        new["data"][format!("k{number}")] = json!("v");
        live = write(Some(&live), new, &format!("m{number:02}"));
    }
    let owners = owners(&live);
    assert_eq!(owners.len(), 10);
    assert_eq!(owners[0], r#"ancient-changes Update {"f:data":{".":{},"f:k0":{},"f:k1":{},"f:k2":{}}}"#);
}

#[test]
fn an_apply_creates_changes_and_removes() {
    let first = apply_as(None, config_map(json!({"a": "1", "b": "1"})), "one", false).unwrap();
    assert_eq!(owners(&first), [r#"one Apply {"f:data":{"f:a":{},"f:b":{}}}"#]);
    let second = apply_as(Some(&first), config_map(json!({"a": "2"})), "one", false).unwrap();
    assert_eq!(content(&second), config_map(json!({"a": "2"})));
    assert_eq!(owners(&second), [r#"one Apply {"f:data":{"f:a":{}}}"#]);
    let mut nothing = config_map(json!({}));
    nothing.as_object_mut().unwrap().remove("data");
    let third = apply_as(Some(&second), nothing.clone(), "one", false).unwrap();
    assert_eq!(content(&third), nothing);
    assert_eq!(owners(&third), Vec::<String>::new());
}

#[test]
fn an_apply_without_a_difference_changes_nothing() {
    let mut first = apply_as(None, config_map(json!({"a": "1"})), "one", false).unwrap();
    first["metadata"]["managedFields"][0]["time"] = json!("2020-01-01T00:00:00Z");
    let patch = config_map(json!({"a": "1"}));
    let writer = writer("one", &patch);
    let again = apply(Some(&first), patch.clone(), schema_of("v1", "ConfigMap"), &writer, false, &[]).unwrap();
    assert_eq!(again, Applied { object: first, changed: false });
}

#[test]
fn conflicts_name_the_owner_and_the_field() {
    let live = write(None, deployment(json!({"replicas": 1, "paused": true})), "kubectl-scale");
    let error = apply_as(Some(&live), deployment(json!({"replicas": 2})), "one", false).unwrap_err();
    assert_eq!(error, "Apply failed with 1 conflict: conflict with \"kubectl-scale\" using apps/v1: .spec.replicas");
    let applied = apply_as(None, deployment(json!({"replicas": 1, "paused": true})), "two", false).unwrap();
    let patch = deployment(json!({"replicas": 2, "paused": false}));
    let error = apply_as(Some(&applied), patch.clone(), "one", false).unwrap_err();
    assert_eq!(error, "Apply failed with 2 conflicts: conflicts with \"two\":\n- .spec.paused\n- .spec.replicas");
    let schema = schema_of("apps/v1", "Deployment");
    let status =
        apply(Some(&applied), patch.clone(), schema, &writer("one", &patch), false, &[]).unwrap_err().into_status();
    assert_eq!((status.code, status.reason), (409, kedge_meta::StatusReason::Conflict));
    let causes = status.details.unwrap().causes;
    let cause = (causes[1].reason.as_str(), causes[1].message.as_str(), causes[1].field.as_str());
    assert_eq!(cause, ("FieldManagerConflict", "conflict with \"two\"", ".spec.replicas"));
}

#[test]
fn force_takes_fields_and_sharing_keeps_them() {
    let one = apply_as(None, deployment(json!({"replicas": 1, "paused": true})), "one", false).unwrap();
    let two = apply_as(Some(&one), deployment(json!({"replicas": 2})), "two", true).unwrap();
    assert_eq!(owners(&two), [r#"one Apply {"f:spec":{"f:paused":{}}}"#, r#"two Apply {"f:spec":{"f:replicas":{}}}"#]);
    let shared = apply_as(Some(&two), deployment(json!({"replicas": 2, "paused": true})), "three", false).unwrap();
    // "one" gives up paused, but "three" owns it too.
    let given_up = apply_as(Some(&shared), deployment(json!({})), "one", false).unwrap();
    assert_eq!(content(&given_up), deployment(json!({"replicas": 2, "paused": true})));
    // Nobody else owns it any more: now it goes.
    let gone = apply_as(Some(&given_up), deployment(json!({"replicas": 2})), "three", false).unwrap();
    assert_eq!(content(&gone), deployment(json!({"replicas": 2})));
}

#[test]
fn fields_of_untracked_objects_belong_to_before_first_apply() {
    let live = deployment(json!({"replicas": 1}));
    let error = apply_as(Some(&live), deployment(json!({"replicas": 2})), "one", false).unwrap_err();
    assert_eq!(
        error,
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using apps/v1: .spec.replicas"
    );
    let applied = apply_as(Some(&live), deployment(json!({"paused": true})), "one", false).unwrap();
    assert_eq!(
        owners(&applied),
        [r#"one Apply {"f:spec":{"f:paused":{}}}"#, r#"before-first-apply Update {"f:spec":{"f:replicas":{}}}"#]
    );
}

#[test]
fn list_items_are_owned_by_their_keys() {
    let service = |ports: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"ports": ports}});
    let first = apply_as(None, service(json!([{"port": 80}, {"port": 53, "protocol": "UDP"}])), "one", false).unwrap();
    assert_eq!(
        owners(&first),
        [
            r#"one Apply {"f:spec":{"f:ports":{"k:{\"port\":53,\"protocol\":\"UDP\"}":{".":{},"f:port":{},"f:protocol":{}},"k:{\"port\":80,\"protocol\":\"TCP\"}":{".":{},"f:port":{}}}}}"#
        ]
    );
    let second = apply_as(Some(&first), service(json!([{"port": 53, "protocol": "TCP"}])), "two", false).unwrap();
    let third = apply_as(Some(&second), service(json!([{"port": 80, "name": "web"}])), "one", false).unwrap();
    assert_eq!(content(&third), service(json!([{"port": 80, "name": "web"}, {"port": 53, "protocol": "TCP"}])));
}

#[test]
fn order_follows_the_applied_list() {
    let containers = |names: &[&str]| {
        let items: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": items}})
    };
    let check = |live: &[&str], applied: &[&str], expected: &[&str]| {
        let live = containers(live);
        let merged = super::merge::merge(&live, &containers(applied), schema_of("v1", "Pod"));
        assert_eq!(merged, containers(expected));
    };
    check(&["a", "b", "c"], &["a", "b", "c"], &["a", "b", "c"]);
    check(&["a", "b", "c"], &["b"], &["a", "b", "c"]);
    check(&["a", "b", "c"], &["c", "a"], &["b", "c", "a"]);
    check(&["a", "b"], &["x"], &["a", "b", "x"]);
    check(&["a", "b"], &["x", "a"], &["x", "a", "b"]);
    check(&[], &["b", "a"], &["b", "a"]);
    check(&["a", "a"], &["a"], &["a"]);
}

#[test]
fn kubectl_takes_over_what_it_applied_from_the_client() {
    let annotated = |replicas: i64, last: Value| {
        let mut object = deployment(json!({"replicas": replicas}));
        object["metadata"]["annotations"] =
            json!({"kubectl.kubernetes.io/last-applied-configuration": last.to_string()});
        object
    };
    let live = write(None, annotated(1, deployment(json!({"replicas": 1}))), "kubectl-client-side-apply");
    let wanted = deployment(json!({"replicas": 2}));
    let applied = apply_as(Some(&live), wanted.clone(), "kubectl", false).unwrap();
    assert_eq!(applied["spec"]["replicas"], 2);
    let last = applied.pointer("/metadata/annotations/kubectl.kubernetes.io~1last-applied-configuration").unwrap();
    assert_eq!(last.as_str().unwrap(), format!("{wanted}\n"));
    assert!(apply_as(Some(&live), wanted.clone(), "other", false).is_err());
    // Somebody changed the field after the client-side apply: that is a conflict.
    let changed = write(None, annotated(5, deployment(json!({"replicas": 1}))), "kubectl-client-side-apply");
    assert!(apply_as(Some(&changed), wanted, "kubectl", false).is_err());
}

#[test]
fn configurations_that_do_not_fit_are_refused() {
    let check = |patch: Value, code: u16, expected: &str| {
        let writer = Writer { manager: "m", api_version: "apps/v1", kind: "Deployment", subresource: "", time: NOW };
        let error = apply(None, patch, schema_of("apps/v1", "Deployment"), &writer, false, &[]).unwrap_err();
        assert_eq!(error.to_string(), expected);
        assert_eq!(error.into_status().code, code);
    };
    check(json!({"apiVersion": "apps/v1", "kind": "ReplicaSet"}), 400, "invalid object type: apps/v1, Kind=ReplicaSet");
    let mut managed = deployment(json!({}));
    managed["metadata"]["managedFields"] = json!([]);
    check(managed, 400, "metadata.managedFields must be nil");
    let prefix = "failed to create typed patch object (/web; apps/v1, Kind=Deployment): ";
    let check_spec = |spec: Value, expected: &str| check(deployment(spec), 500, &format!("{prefix}{expected}"));
    check_spec(json!({"foo": 1}), ".spec.foo: field not declared in schema");
    check_spec(json!({"replicas": "a"}), ".spec.replicas: expected numeric (int or float), got string");
    check_spec(json!({"paused": "a"}), ".spec.paused: expected boolean, got &{a}");
    check_spec(json!({"template": 1}), ".spec.template: expected map, got &{1}");
    let pod = |spec: Value| json!({"template": {"spec": spec}});
    check_spec(pod(json!({"containers": 1})), ".spec.template.spec.containers: expected list, got &{1}");
    check_spec(
        pod(json!({"containers": [{"name": "a"}, {"name": "a"}]})),
        ".spec.template.spec.containers: duplicate entries for key [name=\"a\"]",
    );
    check_spec(
        pod(json!({"containers": [{"name": "a", "image": 1}]})),
        ".spec.template.spec.containers[name=\"a\"].image: expected string, got &value.valueUnstructured{Value:1}",
    );
    check_spec(
        pod(json!({"volumes": [{"emptyDir": 1}], "containers": [null]})),
        "errors:\n  .spec.template.spec.containers: element 0: associative list with keys may not have a null element\n  \
         .spec.template.spec.volumes[name=\"\"].emptyDir: expected map, got &{1}",
    );
}

#[test]
fn objects_without_a_schema_are_owned_by_entry() {
    let object =
        json!({"apiVersion": "x/v1", "kind": "Y", "metadata": {"name": "a"}, "spec": {"m": {"a": 1}, "l": [1]}});
    let mut new = object.clone();
    update_managed_fields(None, &mut new, Schema::untyped(), &writer("one", &object), &[]);
    assert_eq!(owners(&new), [r#"one Update {"f:spec":{".":{},"f:l":{},"f:m":{".":{},"f:a":{}}}}"#]);
}

/// Every path that somebody owns, once for each owner.
fn owned_paths(object: &Value) -> Vec<String> {
    let mut paths = Vec::new();
    for entry in object["metadata"]["managedFields"].as_array().into_iter().flatten() {
        FieldSet::decode(&entry["fieldsV1"]).unwrap().for_each_path(&mut |path| paths.push(path.to_owned()));
    }
    paths.sort();
    paths
}

fn any_data() -> impl Strategy<Value = BTreeMap<String, String>> {
    prop::collection::btree_map("[a-e]", "[x-z]", 1..5)
}

proptest! {
    #[test]
    fn plain_writes_own_each_field_once(writes in prop::collection::vec((any_data(), "[m-p]"), 1..6)) {
        let mut live: Option<Value> = None;
        for (data, manager) in writes {
            let mut new = config_map(json!(data));
            if let Some(live) = &live {
                new["metadata"] = live["metadata"].clone();
            }
            let written = write(live.as_ref(), new, &manager);
            let mut expected: Vec<String> = data.keys().map(|key| format!(".data.{key}")).collect();
            expected.push(".data".to_owned());
            expected.sort();
            prop_assert_eq!(owned_paths(&written), expected);
            live = Some(written);
        }
    }

    #[test]
    fn a_forced_apply_wins_and_settles(first in any_data(), second in any_data(), third in any_data()) {
        let one = apply_as(None, config_map(json!(first)), "one", true).unwrap();
        let two = apply_as(Some(&one), config_map(json!(second)), "two", true).unwrap();
        let patch = config_map(json!(third));
        let three = apply_as(Some(&two), patch.clone(), "one", true).unwrap();
        // What "one" applies now, and what "two" applied and nobody took since.
        let mut expected = second;
        expected.extend(third);
        prop_assert_eq!(&three["data"], &json!(expected));
        prop_assert_eq!(apply_as(Some(&three), patch, "one", false).unwrap(), three);
    }
}
