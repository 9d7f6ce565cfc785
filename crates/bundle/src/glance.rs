//! A first look at a pod: the few fields that tell whether anything is the matter with it, without a tree of values. Pure.
//!
//! Not what rules read: a pod that is not well is read in full, and so is one whose fields have other types than the API's.
//! Invariant: a text and the tree of values that it stands for look the same.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

/// A pod as it looks at first.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Glance<'a> {
    /// Absent in most items of lists.
    #[serde(borrow, default)]
    pub(crate) kind: Text<'a>,
    #[serde(borrow)]
    metadata: Fields<Metadata<'a>>,
    #[serde(borrow, default)]
    spec: Option<Fields<Spec<'a>>>,
    #[serde(borrow, default)]
    status: Option<Fields<Status<'a>>>,
    /// Of a list, which is no pod.
    items: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    #[serde(borrow, default)]
    namespace: Text<'a>,
    #[serde(borrow, default)]
    name: Text<'a>,
    deletion_timestamp: Option<IgnoredAny>,
    annotations: Option<Fields<Annotations>>,
    #[serde(borrow, default)]
    labels: Option<Fields<Labels<'a>>>,
}

#[derive(Deserialize)]
struct Annotations {
    #[serde(rename = "kubernetes.io/config.mirror")]
    mirror: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Labels<'a> {
    #[serde(rename = "k8s-app", borrow, default)]
    app: Text<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec<'a> {
    #[serde(borrow, default)]
    node_name: Text<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status<'a> {
    #[serde(borrow, default)]
    phase: Text<'a>,
    #[serde(borrow, default)]
    conditions: Option<Vec<Fields<Condition<'a>>>>,
    init_container_statuses: Option<Vec<Fields<Container>>>,
    container_statuses: Option<Vec<Fields<Container>>>,
}

#[derive(Deserialize)]
struct Condition<'a> {
    #[serde(rename = "type", borrow, default)]
    name: Text<'a>,
    #[serde(borrow, default)]
    status: Text<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    restart_count: Option<u64>,
}

impl Glance<'_> {
    pub(crate) fn namespace(&self) -> &str {
        self.metadata.0.namespace.as_str()
    }

    pub(crate) fn name(&self) -> &str {
        self.metadata.0.name.as_str()
    }

    pub(crate) fn node(&self) -> &str {
        self.spec.as_ref().map_or("", |spec| spec.0.node_name.as_str())
    }

    /// Whether its files on the machine made it, and not the API.
    pub(crate) fn is_static(&self) -> bool {
        self.metadata.0.annotations.as_ref().is_some_and(|annotations| annotations.0.mirror.is_some())
    }

    /// Whether it answers for names.
    pub(crate) fn is_dns(&self) -> bool {
        self.metadata.0.labels.as_ref().is_some_and(|labels| labels.0.app.as_str() == "kube-dns")
    }

    /// Whether nothing at all is the matter with it.
    pub(crate) fn is_well(&self) -> bool {
        let Some(Fields(status)) = &self.status else { return false };
        let is_done = match status.phase.as_str() {
            "Succeeded" => true,
            "Running" => status.is_ready(),
            _ => false,
        };
        let mut containers =
            [&status.init_container_statuses, &status.container_statuses].into_iter().flatten().flatten();
        is_done
            && self.items.is_none()
            && self.metadata.0.deletion_timestamp.is_none()
            && containers.all(|container| container.0.restart_count == Some(0))
    }
}

impl Status<'_> {
    fn is_ready(&self) -> bool {
        let is_ready =
            |condition: &Condition<'_>| condition.name.as_str() == "Ready" && condition.status.as_str() == "True";
        self.conditions.iter().flatten().any(|condition| is_ready(&condition.0))
    }
}

/// A text, or nothing.
#[derive(Default, Deserialize)]
#[serde(transparent)]
pub(crate) struct Text<'a>(#[serde(borrow)] Option<Plain<'a>>);

/// A text as it stands; a copy only where it was written with escapes.
#[derive(Deserialize)]
struct Plain<'a>(#[serde(borrow)] Cow<'a, str>);

impl Text<'_> {
    pub(crate) fn get(&self) -> Option<&str> {
        self.0.as_ref().map(|text| &*text.0)
    }

    fn as_str(&self) -> &str {
        self.get().unwrap_or_default()
    }
}

/// Fields by their names: a list in their place, which serde takes for a structure as well, is refused.
struct Fields<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Fields<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Named(PhantomData))
    }
}

struct Named<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Named<T> {
    type Value = Fields<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("fields with their names")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Fields)
    }
}

#[cfg(test)]
mod tests {
    use crate::reduce::Reducer;
    use proptest::prelude::*;
    use proptest::sample::select;
    use serde_json::{Value, json};

    /// Whether a pod is well, as a tree of values says it.
    fn is_well(pod: &Value) -> bool {
        let (metadata, status) = (&pod["metadata"], &pod["status"]);
        let all = |field: &str| status[field].as_array().cloned().unwrap_or_default();
        let is_ready = || all("conditions").iter().any(|one| one["type"] == "Ready" && one["status"] == "True");
        let mut containers = all("initContainerStatuses").into_iter().chain(all("containerStatuses"));
        metadata["deletionTimestamp"].is_null()
            && (status["phase"] == "Succeeded" || (status["phase"] == "Running" && is_ready()))
            && containers.all(|container| container["restartCount"] == 0)
    }

    /// Whether rules look at it all the same; `cordoned` takes no new pods.
    fn is_looked_at(pod: &Value) -> bool {
        pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_string()
            || pod["metadata"]["labels"]["k8s-app"] == "kube-dns"
            || pod["spec"]["nodeName"] == "cordoned"
    }

    /// Where a pod may be odd, and what may stand there: what is usual, and what the API never sends.
    fn oddities() -> Vec<(&'static str, Value)> {
        let ready =
            |status: &str| json!([{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": status}]);
        let counts =
            |count: Value| json!([{"name": "a", "restartCount": 0, "state": {}}, {"name": "b", "restartCount": count}]);
        vec![
            ("/metadata/name", json!("a \"quoted\" n\u{e4}me\n")),
            ("/metadata/namespace", Value::Null),
            ("/metadata/deletionTimestamp", json!("2026-01-01T00:00:00Z")),
            ("/metadata/deletionTimestamp", Value::Null),
            ("/metadata/annotations", json!({"kubernetes.io/config.mirror": "0c1f", "other": "x"})),
            ("/metadata/annotations", json!({"kubernetes.io/config.source": "api"})),
            ("/metadata/annotations", Value::Null),
            ("/metadata/labels", json!({"app": "web", "k8s-app": "kube-dns"})),
            ("/metadata/labels", json!({"k8s-app": "web"})),
            ("/metadata/labels", json!(["kube-dns"])),
            ("/spec", Value::Null),
            ("/spec/nodeName", json!("cordoned")),
            ("/spec/nodeName", json!(1)),
            ("/status", Value::Null),
            ("/status", json!(["Succeeded", []])),
            ("/status/phase", json!("Succeeded")),
            ("/status/phase", json!("Pending")),
            ("/status/phase", json!("Failed")),
            ("/status/phase", json!(["Running"])),
            ("/status/conditions", ready("False")),
            ("/status/conditions", ready("Unknown")),
            ("/status/conditions", json!([])),
            ("/status/conditions", json!([["Ready", "True"]])),
            ("/status/conditions", Value::Null),
            ("/status/containerStatuses", counts(json!(3))),
            ("/status/containerStatuses", counts(json!(0.0))),
            ("/status/containerStatuses", counts(json!("0"))),
            ("/status/containerStatuses", counts(json!(-1))),
            ("/status/containerStatuses", json!([{"name": "a", "state": {"waiting": {}}}])),
            ("/status/containerStatuses", json!({})),
            ("/status/containerStatuses", Value::Null),
            ("/status/initContainerStatuses", counts(json!(0))),
            ("/status/initContainerStatuses", counts(json!(1))),
        ]
    }

    fn put(pod: &mut Value, path: &str, value: Value) {
        let (parent, field) = path.rsplit_once('/').expect("it is a path");
        if let Some(Value::Object(fields)) = pod.pointer_mut(parent) {
            fields.insert(field.to_owned(), value);
        }
    }

    /// What is kept of a pod, and which are known to be well.
    type Outcome = (Option<Value>, Vec<(String, Vec<String>)>);

    fn outcome(reduce: impl FnOnce(&mut Reducer) -> Option<Value>) -> Outcome {
        let mut reducer = Reducer::full();
        reducer.reduce("Node", json!({"metadata": {"name": "cordoned"}, "spec": {"unschedulable": true}}));
        let kept = reduce(&mut reducer);
        (kept, reducer.well().map(|well| (well.namespace, well.names)).collect())
    }

    proptest! {
        #[test]
        fn a_text_and_its_tree_are_reduced_alike(odd in prop::collection::vec(select(oddities()), 0..4), pretty: bool) {
            let mut pod = json!({
                "metadata": {"namespace": "a", "name": "web", "labels": {"app": "web"}, "managedFields": [{}]},
                "spec": {"nodeName": "one", "containers": [{"name": "c", "env": [{"name": "A", "value": "b"}]}]},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}],
                    "containerStatuses": [{"name": "c", "restartCount": 0}]},
            });
            for (path, value) in odd {
                put(&mut pod, path, value);
            }
            let text = if pretty { format!("{pod:#}") } else { pod.to_string() };
            let light = outcome(|reducer| reducer.reduce_text("Pod", &text).expect("it is JSON"));
            let full = outcome(|reducer| reducer.reduce("Pod", pod.clone()));
            prop_assert_eq!(&light, &full);
            let is_kept = !is_well(&pod) || is_looked_at(&pod);
            // What the API never sends is kept in any case.
            prop_assert!(light.0.is_some() || !is_kept, "{}", pod);
            if light.0.is_none() {
                let text = |field: &str| pod["metadata"][field].as_str().unwrap_or_default().to_owned();
                prop_assert_eq!(light.1, [(text("namespace"), vec![text("name")])]);
            }
        }
    }

    #[test]
    fn each_oddity_alone_decides_as_the_tree_does() {
        // Of types that the API never sends there: kept, although one could read them as well.
        let refused = ["/metadata/labels [\"kube-dns\"]", "/spec/nodeName 1", "/status/containerStatuses {}"];
        let usual = json!({"metadata": {"namespace": "a", "name": "web"}, "spec": {"nodeName": "one"},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        for (path, value) in oddities() {
            let mut pod = usual.clone();
            put(&mut pod, path, value.clone());
            let (kept, _) = outcome(|reducer| reducer.reduce_text("Pod", &pod.to_string()).expect("it is JSON"));
            let is_refused = refused.contains(&format!("{path} {value}").as_str());
            assert_eq!(kept.is_some(), is_refused || !is_well(&pod) || is_looked_at(&pod), "{path} {value}");
        }
    }

    #[test]
    fn what_says_another_kind_or_is_a_list_is_no_pod() {
        let well = |kind: Option<&str>, more: &str| {
            let text = format!(r#"{{"metadata":{{"name":"a"}},"status":{{"phase":"Succeeded"}}{more}}}"#);
            Reducer::full().pass(kind, &text)
        };
        assert!(well(Some("Pod"), "") && well(None, r#","kind":"Pod""#) && well(Some("Node"), r#","kind":"Pod""#));
        assert!(!well(None, "") && !well(Some("Pod"), r#","kind":"Job""#) && !well(Some("Pod"), r#","items":[]"#));
        // Of a field that stands there twice the last counts: for those who read all of it.
        assert!(!well(Some("Pod"), r#","status":{"phase":"Failed"}"#));
        assert!(!Reducer::default().pass(Some("Pod"), r#"{"metadata":{},"status":{"phase":"Succeeded"}}"#));
    }
}
