//! What is written to extenders and read from them: upstream's `extender/v1`, whose names are Go's and whose readers do not
//! mind upper and lower case.
//!
//! Pure.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use serde_json::{Map, Value, json};

use super::{Filtered, Spared};
use crate::configuration::ExtenderConfiguration;
use crate::pod_info::PodInfo;
use crate::preemption::Candidate;

/// An extender's score is out of ten, a plugin's out of a hundred.
const SCALE: i64 = 10;

/// How to reach an extender, as a kubeconfig would say it.
pub(super) fn kubeconfig(said: &ExtenderConfiguration) -> Value {
    let mut cluster = Map::from_iter([("server".to_owned(), json!(said.url_prefix))]);
    let mut user = Map::new();
    let put = |into: &mut Map<String, Value>, name: &str, value: &str| {
        if !value.is_empty() {
            into.insert(name.to_owned(), json!(value));
        }
    };
    if let Some(tls) = &said.tls_config {
        put(&mut cluster, "certificate-authority", &tls.ca_file);
        put(&mut cluster, "certificate-authority-data", &tls.ca_data);
        put(&mut cluster, "tls-server-name", &tls.server_name);
        put(&mut user, "client-certificate", &tls.cert_file);
        put(&mut user, "client-certificate-data", &tls.cert_data);
        put(&mut user, "client-key", &tls.key_file);
        put(&mut user, "client-key-data", &tls.key_data);
        cluster.insert("insecure-skip-tls-verify".to_owned(), json!(tls.insecure));
    } else if said.enable_https {
        // Upstream believes any certificate where it is told nothing about one.
        cluster.insert("insecure-skip-tls-verify".to_owned(), json!(true));
    }
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "extender",
        "clusters": [{"name": "extender", "cluster": cluster}],
        "users": [{"name": "extender", "user": user}],
        "contexts": [{"name": "extender", "context": {"cluster": "extender", "user": "extender"}}],
    })
}

/// A pod and the nodes that are left, by name for extenders that know nodes.
pub(super) fn arguments(pod: &PodInfo, nodes: &[Arc<Node>], by_name: bool) -> Value {
    let names: Vec<&str> = nodes.iter().filter_map(|node| node.metadata.name.as_deref()).collect();
    match by_name {
        true => json!({"Pod": pod.pod(), "Nodes": null, "NodeNames": names}),
        false => {
            let items: Vec<&Node> = nodes.iter().map(|node| &**node).collect();
            let list = json!({"kind": "NodeList", "apiVersion": "v1", "metadata": {}, "items": items});
            json!({"Pod": pod.pod(), "Nodes": list, "NodeNames": null})
        }
    }
}

/// A field by its name, however it is written.
fn field<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    let fields = value.as_object()?;
    fields.iter().find(|(key, value)| key.eq_ignore_ascii_case(name) && !value.is_null()).map(|(_, value)| value)
}

/// The error that an answer tells of.
pub(super) fn error(answer: &Value) -> Result<(), String> {
    match field(answer, "Error").and_then(Value::as_str).filter(|text| !text.is_empty()) {
        Some(text) => Err(text.to_owned()),
        None => Ok(()),
    }
}

pub(super) fn filtered(answer: &Value) -> Result<Filtered, String> {
    error(answer)?;
    let names = field(answer, "NodeNames").and_then(Value::as_array);
    let items = field(answer, "Nodes").and_then(|list| field(list, "items")).and_then(Value::as_array);
    let name_of = |node: &Value| node.pointer("/metadata/name").and_then(Value::as_str).map(str::to_owned);
    let fitting = match (names, items) {
        (Some(names), _) => names.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        (None, Some(items)) => items.iter().filter_map(name_of).collect(),
        (None, None) => Vec::new(),
    };
    let mut failed = HashMap::new();
    for (name, is_unresolvable) in [("FailedNodes", false), ("FailedAndUnresolvableNodes", true)] {
        for (node, reason) in field(answer, name).and_then(Value::as_object).into_iter().flatten() {
            failed.insert(node.clone(), (reason.as_str().unwrap_or_default().to_owned(), is_unresolvable));
        }
    }
    Ok(Filtered { fitting, failed })
}

pub(super) fn scores(answer: &Value, weight: i64) -> HashMap<String, i64> {
    let entries = answer.as_array().into_iter().flatten();
    let score = |entry: &Value| {
        let host = field(entry, "Host")?.as_str()?.to_owned();
        let score = field(entry, "Score")?.as_i64()?.clamp(0, SCALE);
        Some((host, score.saturating_mul(weight).saturating_mul(SCALE)))
    };
    entries.filter_map(score).collect()
}

/// The victims on each node; their uids alone for extenders that know nodes.
pub(super) fn victims(pod: &PodInfo, candidates: &[Candidate], by_name: bool) -> Value {
    let of = |candidate: &Candidate| {
        let pods: Vec<Value> = candidate
            .victims
            .iter()
            .map(|victim| match by_name {
                true => json!({"UID": victim.uid}),
                false => json!(victim.pod()),
            })
            .collect();
        (candidate.node.clone(), json!({"Pods": pods, "NumPDBViolations": candidate.violations}))
    };
    let all: Map<String, Value> = candidates.iter().map(of).collect();
    match by_name {
        true => json!({"Pod": pod.pod(), "NodeNameToVictims": null, "NodeNameToMetaVictims": all}),
        false => json!({"Pod": pod.pod(), "NodeNameToVictims": all, "NodeNameToMetaVictims": null}),
    }
}

/// What an answer leaves: nodes, and who has to go from them.
pub(super) fn spared(answer: &Value) -> Vec<Spared> {
    let left = field(answer, "NodeNameToMetaVictims").and_then(Value::as_object);
    let read = |(node, said): (&String, &Value)| {
        let pods = field(said, "Pods").and_then(Value::as_array);
        let uid = |pod: &Value| Some(field(pod, "UID")?.as_str()?.to_owned());
        let violations = field(said, "NumPDBViolations").and_then(Value::as_u64).unwrap_or_default();
        Spared {
            node: node.clone(),
            uids: pods.into_iter().flatten().filter_map(uid).collect(),
            violations: usize::try_from(violations).unwrap_or(usize::MAX),
        }
    };
    left.into_iter().flatten().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::test_world::pod;

    #[test]
    fn answers_are_read_however_they_are_written() {
        let lists = json!({"nodes": {"items": [{"metadata": {"name": "n1"}}]}, "nodeNames": null,
            "FailedAndUnresolvableNodes": {"n2": "never"}, "error": ""});
        let read = filtered(&lists).unwrap();
        assert_eq!((read.fitting, read.failed["n2"].clone()), (vec!["n1".to_owned()], ("never".to_owned(), true)));
        assert_eq!(filtered(&json!({"Error": "broken"})), Err("broken".to_owned()));
        let answer = json!([{"Host": "n1", "Score": 3}, {"host": "n2", "score": 99}, {"Score": 1}]);
        assert_eq!(scores(&answer, 2), HashMap::from([("n1".to_owned(), 60), ("n2".to_owned(), 200)]));
    }

    #[test]
    fn victims_are_asked_about_whole_or_by_uid() {
        let victim = |uid: &str| Arc::new(pod(json!({"metadata": {"name": uid, "uid": uid}})));
        let victims_of = |uids: &[&str]| uids.iter().map(|uid| victim(uid)).collect();
        let candidates = [Candidate { node: "n1".to_owned(), victims: victims_of(&["a", "b"]), violations: 1 }];
        let (asking, metadata) = (pod(json!({})), |uid: &str| json!({"name": uid, "uid": uid}));
        let asked = victims(&asking, &candidates, true);
        let uids = json!({"n1": {"Pods": [{"UID": "a"}, {"UID": "b"}], "NumPDBViolations": 1}});
        assert_eq!((&asked["NodeNameToMetaVictims"], &asked["NodeNameToVictims"]), (&uids, &Value::Null));
        let asked = victims(&asking, &candidates, false);
        let whole = &asked["NodeNameToVictims"]["n1"];
        assert_eq!((&whole["NumPDBViolations"], &asked["NodeNameToMetaVictims"]), (&json!(1), &Value::Null));
        assert_eq!([&whole["Pods"][0]["metadata"], &whole["Pods"][1]["metadata"]], [&metadata("a"), &metadata("b")]);
    }

    #[test]
    fn who_has_to_go_is_read_by_uid() {
        let answer = json!({"nodeNameToMetaVictims": {"n1": {"pods": [{"uid": "b"}]}, "n2": {"NumPDBViolations": 2}}});
        let left = |node: &str, uids: &[&str], violations| Spared {
            node: node.to_owned(),
            uids: uids.iter().map(|uid| (*uid).to_owned()).collect(),
            violations,
        };
        assert_eq!(spared(&answer), [left("n1", &["b"], 0), left("n2", &[], 2)]);
        assert_eq!(spared(&json!({})), []);
    }
}
