//! Objects of the API in documents: single ones, lists, lists of lists, several documents in one file.
//!
//! Items of a list are taken one by one and reduced at once. Invariant: a list costs the memory of its text and of what is
//! kept of it; Secrets are passed over, whatever file they are in, and of ConfigMaps a Corefile is kept and nothing else.

use kedge_diagnosis::{Fact, Item, Place};
use serde_json::{Map, Value};

use crate::documents::{Keeper, read_json, read_yaml};
use crate::reduce::Reducer;

/// A text that begins like JSON and is none is tried as YAML up to here.
const SMALL: usize = 1 << 20;

/// The objects of a text in JSON or YAML, as far as they are worth keeping; nothing where it has none.
pub(crate) fn read_objects(text: &str, file: &str, reducer: &mut Reducer) -> Option<Vec<Item>> {
    let mut kept = Kept { items: Vec::new(), has_objects: false, file, reducer };
    let kind = kind_of_file(file);
    let is_json = text.trim_start().starts_with(['{', '[']);
    let found = is_json && read_json(text, kind, &mut kept);
    if !found && (!is_json || text.len() < SMALL) && text.contains("metadata") {
        read_yaml(text, kind, &mut kept);
    }
    kept.has_objects.then_some(kept.items)
}

/// What is kept of the objects of a file.
struct Kept<'a> {
    items: Vec<Item>,
    has_objects: bool,
    file: &'a str,
    reducer: &'a mut Reducer,
}

impl Keeper for Kept<'_> {
    fn is_glancing(&self) -> bool {
        self.reducer.is_full()
    }

    fn pass(&mut self, kind: Option<&str>, text: &str) -> bool {
        let is_passed = self.reducer.pass(kind, text);
        self.has_objects |= is_passed;
        is_passed
    }

    fn keep(&mut self, kind: &str, mut fields: Map<String, Value>) {
        self.has_objects = true;
        if kind != "Secret" {
            without_secrets(kind, &mut fields);
            let object = self.reducer.reduce(kind, Value::Object(fields));
            self.items.extend(object.map(|object| item(object, self.file)));
        }
    }
}

fn without_secrets(kind: &str, fields: &mut Map<String, Value>) {
    if kind == "ConfigMap" {
        fields.remove("binaryData");
        if let Some(data) = fields.get_mut("data").and_then(Value::as_object_mut) {
            data.retain(|name, _| name == "Corefile");
        }
    }
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

fn item(object: Value, file: &str) -> Item {
    let time = ["/series/lastObservedTime", "/lastTimestamp", "/eventTime", "/metadata/creationTimestamp"]
        .iter()
        .find_map(|path| object.pointer(path)?.as_str()?.parse().ok());
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
        read_objects(text, file, &mut Reducer::unordered()).unwrap_or_default().iter().map(name).collect()
    }

    #[test]
    fn lists_and_documents_are_taken_apart() {
        let list = "{\"kind\": \"PodList\", \"items\": [{\"metadata\": {\"name\": \"a\"}}]}";
        assert_eq!(kinds(list, "x"), ["Pod a"]);
        assert_eq!(kinds(&format!("{list}\n{list}"), "x"), ["Pod a", "Pod a"]);
        assert_eq!(kinds("[{\"metadata\": {\"name\": \"n\"}}]", "cluster-resources/nodes.json"), ["Node n"]);
        assert_eq!(kinds("{\"items\": [{\"metadata\": {\"name\": \"e\"}}]}", "events/a.json"), ["Event e"]);
        // What says its kind after its items, and one that ends too early.
        assert_eq!(kinds("{\"items\": [{\"metadata\": {\"name\": \"a\"}}], \"kind\": \"PodList\"}", "x"), ["Pod a"]);
        let cut = "{\"kind\": \"PodList\", \"items\": [{\"metadata\": {\"name\": \"a\"}}, {\"metadata\": {";
        assert_eq!(kinds(cut, "x"), ["Pod a"]);
        let several = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n---\nkind: List\nitems:\n- kind: Node\n  metadata: {name: b}\n";
        assert_eq!(kinds(several, "x.yaml"), ["Pod a", "Node b"]);
    }

    #[test]
    fn what_is_no_object_gives_none() {
        for text in ["", "{\"a\": 1}", "hello: world", "metadata: none", "- a\n- b\n", "{broken"] {
            assert_eq!(kinds(text, "x"), [""; 0], "{text}");
        }
    }

    #[test]
    fn lists_in_blocks_are_taken_apart() {
        let list = "apiVersion: v1\nitems:\n- metadata:\n    name: a\n  spec:\n    text: |\n      - no item\n\n      items:\n\
            - metadata:\n    name: b\nkind: PodList\nmetadata:\n  resourceVersion: \"1\"\n";
        assert_eq!(kinds(list, "x.yaml"), ["Pod a", "Pod b"]);
        assert_eq!(kinds(&format!("---\n{list}---\n{list}"), "x.yaml").len(), 4);
        let further_in =
            "apiVersion: v1\nkind: PodList\nitems:\n  - metadata:\n      name: a\n  - metadata: {name: b}\n";
        assert_eq!(kinds(further_in, "x.yaml"), ["Pod a", "Pod b"]);
        // One item that cannot be read does not hide the others.
        assert_eq!(kinds(&list.replace("name: a", "name: ["), "x.yaml"), ["Pod b"]);
    }

    #[test]
    fn of_many_pods_a_look_at_the_text_is_enough() {
        let pod = |name: &str, phase: &str| {
            format!(r#"{{"kind": "Pod", "metadata": {{"name": "{name}"}}, "status": {{"phase": "{phase}"}}}}"#)
        };
        let (well, ill) = (pod("well", "Succeeded"), pod("ill", "Pending"));
        let node = r#"{"kind": "Node", "metadata": {"name": "one"}}"#;
        for text in [
            format!(r#"{{"kind": "List", "items": [{well}, {ill}, {node}, {{"metadata": {{"name": "nothing"}}}}]}}"#),
            format!("[{well}, {ill}, {{\"items\": [{node}]}}]"),
            format!("[{well}, {ill}, {node}, {{"),
        ] {
            let mut reducer = Reducer::full();
            let items = read_objects(&text, "x", &mut reducer).expect("there are some");
            assert_eq!(items.iter().map(|item| item.fact.to_string()).collect::<Vec<_>>(), ["Pod ill", "Node one"]);
            assert_eq!(reducer.well().map(|well| well.names).collect::<Vec<_>>(), [["well"]], "{text}");
        }
        assert_eq!(read_objects(&well, "x", &mut Reducer::full()).map(|items| items.len()), Some(0));
    }

    #[test]
    fn secrets_and_settings_are_not_kept() {
        let text = "kind: List\nitems:\n- kind: Secret\n  metadata: {name: s}\n- kind: ConfigMap\n  metadata: {name: m}\n  \
            data: {Corefile: x, password: hunter2}\n";
        let items = read_objects(text, "x.yaml", &mut Reducer::unordered()).expect("there are some");
        let [Item { fact: Fact::Object(map), .. }] = &items[..] else { panic!("{items:?}") };
        assert_eq!(map["data"], serde_json::json!({"Corefile": "x"}));
    }
}
