//! Objects that change, come and go while a pod uses them, and objects that never change.

use std::time::Duration;

use kedge_e2e::{Node, eventually};
use serde_json::{Value, json};

use super::{apply_pod, names, run, waiting};

/// As long as the kubelet may take to see a change of an object, and some more.
pub(super) const LIVE: Duration = Duration::from_secs(120);

/// Kind, name in a volume, and the key of the object's name: plain and projected.
const KINDS: [(&str, &str, &str); 2] = [("ConfigMap", "configMap", "name"), ("Secret", "secret", "secretName")];
const FORMS: [&str; 4] = ["configMap", "secret", "projected-configMap", "projected-secret"];

fn object(kind: &str, name: &str, data: &Value) -> Value {
    let field = if kind == "Secret" { "stringData" } else { "data" };
    json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, field: data})
}

fn create(node: &Node, name: &str) {
    for (kind, ..) in KINDS {
        node.kubectl.apply(&object(kind, name, &json!({"data-1": "value-1"})).to_string());
    }
}

/// For each kind, plain and projected: a volume of an object that will be deleted, changed, and made.
pub(super) fn start(node: &Node) {
    for name in ["delete", "update"] {
        create(node, name);
    }
    let mut volumes = Vec::new();
    for object in ["delete", "update", "create"] {
        for (_, kind, key) in KINDS {
            let plain = json!({kind: {key: object, "optional": true}});
            let projected = json!({"projected": {"sources": [{kind: {"name": object, "optional": true}}]}});
            for (prefix, mut volume) in [("", plain), ("projected-", projected)] {
                volume["name"] = json!(format!("{prefix}{kind}-{object}").to_lowercase());
                volumes.push(volume);
            }
        }
    }
    let container = waiting("c", None, &names(&volumes));
    apply_pod(node, "optional", json!({}), vec![container], volumes);
}

/// What is in the volumes of an object, a line for each form.
fn seen(node: &Node, object: &str) -> String {
    let paths: Vec<String> = FORMS.iter().map(|form| format!("/v/{form}-{object}").to_lowercase()).collect();
    let script = format!("for d in {}; do echo $(ls $d) $(cat $d/* 2>/dev/null); done", paths.join(" "));
    run(node, "optional", "c", &script)
}

fn in_all(line: &str) -> String {
    format!("{line}\n").repeat(FORMS.len())
}

/// Deletes an object, changes one, and makes one.
pub(super) fn change(node: &Node) {
    node.ready("optional");
    assert_eq!(seen(node, "delete"), in_all("data-1 value-1"));
    assert_eq!(seen(node, "update"), in_all("data-1 value-1"));
    assert_eq!(seen(node, "create"), in_all(""));
    for (kind, ..) in KINDS {
        node.kubectl.run(&["delete", kind, "delete"]);
        let change = match kind {
            "Secret" => json!({"stringData": {"data-3": "value-3"}, "data": {"data-1": null}}),
            _ => json!({"data": {"data-1": null, "data-3": "value-3"}}),
        };
        node.kubectl.run(&["patch", kind, "update", "--type=merge", "-p", &change.to_string()]);
    }
    create(node, "create");
}

/// The volumes show it.
pub(super) fn check(node: &Node) {
    for (object, line) in [("delete", ""), ("update", "data-3 value-3"), ("create", "data-1 value-1")] {
        eventually(&format!("the volumes of {object}"), LIVE, || match seen(node, object) {
            shown if shown == in_all(line) => Ok(()),
            shown => Err(shown),
        });
    }
}

/// An object that says so is never changed and never says otherwise; its labels may change, and it may go.
pub(super) fn immutable_objects_never_change(node: &Node) {
    for (kind, ..) in KINDS {
        node.kubectl.apply(&object(kind, "immutable", &json!({"data-1": "value-1"})).to_string());
        let field = if kind == "Secret" { "stringData" } else { "data" };
        let patch = |patch: Value| {
            node.kubectl.try_run(&["patch", kind, "immutable", "--type=merge", "-p", &patch.to_string()])
        };
        let taken = |change: Value| {
            let answer = patch(change);
            assert!(answer.ok, "{kind}: {}", answer.all());
        };
        let refused = |change: Value| {
            let answer = patch(change);
            let text = "field is immutable when `immutable` is set";
            assert!(!answer.ok && answer.stderr.contains(text), "{kind}: {}", answer.all());
        };
        taken(json!({field: {"data-4": "value-4"}}));
        taken(json!({"immutable": true}));
        refused(json!({field: {"data-5": "value-5"}}));
        refused(json!({"immutable": false}));
        refused(json!({"immutable": null}));
        taken(json!({"metadata": {"labels": {"label1": "value1"}}}));
        node.kubectl.run(&["delete", kind, "immutable"]);
    }
}
