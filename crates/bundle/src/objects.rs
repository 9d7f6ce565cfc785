//! Objects of the API in documents: single ones, lists, lists of lists, several documents in one file.
//!
//! Invariant: Secrets are passed over, whatever file they are in; ConfigMaps keep a Corefile and nothing else.

use kedge_diagnosis::{Fact, Item, Place};
use serde::Deserialize;
use serde_json::Value;

/// The objects of a text in JSON or YAML; none where it is neither.
pub(crate) fn read_objects(text: &str, file: &str) -> Vec<Item> {
    let mut objects = Vec::new();
    for document in documents(text) {
        collect(document, kind_of_file(file), &mut objects);
    }
    objects.into_iter().map(|object| item(object, file)).collect()
}

/// Documents that follow each other.
fn documents(text: &str) -> Vec<Value> {
    if text.trim_start().starts_with(['{', '[']) {
        let found: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(text).into_iter().collect();
        if let Ok(found) = found {
            return found;
        }
    }
    serde_yaml::Deserializer::from_str(text)
        .map_while(|document| Value::deserialize(document).ok())
        .filter(|document| document.is_object() || document.is_array())
        .collect()
}

/// What a list holds whose items do not say it, by the file's name: `pods.json`, `events/kube-system.json`.
fn kind_of_file(file: &str) -> Option<&'static str> {
    const KINDS: [(&str, &str); 14] = [
        ("apiservices", "APIService"),
        ("configmaps", "ConfigMap"),
        ("daemonsets", "DaemonSet"),
        ("deployments", "Deployment"),
        ("events", "Event"),
        ("namespaces", "Namespace"),
        ("nodes", "Node"),
        ("pods", "Pod"),
        ("pvcs", "PersistentVolumeClaim"),
        ("pvs", "PersistentVolume"),
        ("replicasets", "ReplicaSet"),
        ("services", "Service"),
        ("statefulsets", "StatefulSet"),
        ("storage-classes", "StorageClass"),
    ];
    let stem = |part: &str| part.split('.').next().unwrap_or_default().to_owned();
    let found = file.rsplit('/').take(2).map(stem).find_map(|part| KINDS.iter().find(|(name, _)| *name == part));
    found.map(|(_, kind)| *kind)
}

fn collect(document: Value, kind: Option<&str>, objects: &mut Vec<Value>) {
    match document {
        Value::Array(items) => items.into_iter().for_each(|item| collect(item, kind, objects)),
        Value::Object(mut fields) => {
            let own = fields.get("kind").and_then(Value::as_str).map(str::to_owned);
            let of_items = own.as_deref().and_then(|own| own.strip_suffix("List"));
            if let Some(Value::Array(items)) = fields.remove("items") {
                let of_items = of_items.filter(|name| !name.is_empty()).or(kind);
                return items.into_iter().for_each(|item| collect(item, of_items, objects));
            }
            let Some(name) = own.as_deref().or(kind) else { return };
            if !fields.get("metadata").is_some_and(Value::is_object) {
                return;
            }
            fields.insert("kind".to_owned(), Value::from(name));
            objects.push(Value::Object(fields));
        }
        _ => {}
    }
}

fn item(mut object: Value, file: &str) -> Item {
    let time = ["/series/lastObservedTime", "/lastTimestamp", "/eventTime", "/metadata/creationTimestamp"]
        .iter()
        .find_map(|path| object.pointer(path)?.as_str()?.parse().ok());
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    Item { time, place: Place::Cluster, origin: file.to_owned(), fact: Fact::Object(object) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str, file: &str) -> Vec<String> {
        let name = |item: &Item| match &item.fact {
            Fact::Object(object) => format!("{} {}", object["kind"], object["metadata"]["name"]).replace('"', ""),
            other => panic!("{other}"),
        };
        read_objects(text, file).iter().map(name).collect()
    }

    #[test]
    fn lists_and_documents_are_taken_apart() {
        let list = "{\"kind\": \"PodList\", \"items\": [{\"metadata\": {\"name\": \"a\"}}]}";
        assert_eq!(kinds(list, "x"), ["Pod a"]);
        assert_eq!(kinds(&format!("{list}\n{list}"), "x"), ["Pod a", "Pod a"]);
        assert_eq!(kinds("[{\"metadata\": {\"name\": \"n\"}}]", "cluster-resources/nodes.json"), ["Node n"]);
        assert_eq!(kinds("{\"items\": [{\"metadata\": {\"name\": \"e\"}}]}", "events/a.json"), ["Event e"]);
        let several = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n---\nkind: List\nitems:\n- kind: Node\n  metadata: {name: b}\n";
        assert_eq!(kinds(several, "x.yaml"), ["Pod a", "Node b"]);
    }

    #[test]
    fn what_is_no_object_gives_none() {
        for text in ["", "{\"a\": 1}", "hello: world", "- a\n- b\n", "{broken"] {
            assert_eq!(kinds(text, "x"), [""; 0], "{text}");
        }
    }
}
