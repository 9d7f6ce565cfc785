//! Which node refuses a pod, and why: what can be computed of it from the pod and the nodes.
//!
//! Not a rule, and no scheduler: a reason is given only where it is certain. What else runs on a node is not counted, as
//! of a large cluster's pods only those in trouble are known whole.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::object::{condition, list, text};
use crate::rules::quantity::quantity;

/// Nodes that are named for one reason.
const MOST_NAMES: usize = 3;
/// Taints of the node lifecycle: what the node's own trouble says better.
const OF_TROUBLE: &[&str] = &[
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
    "node.kubernetes.io/disk-pressure",
    "node.kubernetes.io/memory-pressure",
    "node.kubernetes.io/pid-pressure",
    "node.kubernetes.io/network-unavailable",
];
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Why a node refuses a pod.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Refusal {
    /// It would take the pod, but for a trouble of its own.
    InTrouble(String),
    /// Something that the pod and the node say of themselves.
    Certain(String),
    /// Nothing that is certain: what runs there already, or other pods.
    Unknown,
}

/// Why each node refuses a pod, by name.
pub(super) fn refusals<'a>(pod: &Value, nodes: impl Iterator<Item = &'a Value>) -> BTreeMap<&'a str, Refusal> {
    nodes.map(|node| (text(&node["metadata"]["name"]), refusal(pod, node))).collect()
}

/// `cordoned: 2 (one, two); 4 cpu of the 64 that are asked for: 1 (three)`, most nodes first; nothing where all is unknown.
pub(super) fn table(refusals: &BTreeMap<&str, Refusal>) -> Option<String> {
    let mut names: BTreeMap<&Refusal, Vec<&str>> = BTreeMap::new();
    for (name, refusal) in refusals {
        names.entry(refusal).or_default().push(name);
    }
    if names.keys().all(|refusal| **refusal == Refusal::Unknown) {
        return None;
    }
    let mut rows: Vec<(&Refusal, Vec<&str>)> = names.into_iter().collect();
    rows.sort_by_key(|(_, names)| std::cmp::Reverse(names.len()));
    let rows = rows.iter().map(|(refusal, names)| {
        let why = match refusal {
            Refusal::InTrouble(why) | Refusal::Certain(why) => why.as_str(),
            Refusal::Unknown => "what runs there already",
        };
        let more = if names.len() > MOST_NAMES { ", ..." } else { "" };
        format!("{why}: {} ({}{more})", names.len(), names[..names.len().min(MOST_NAMES)].join(", "))
    });
    Some(rows.collect::<Vec<_>>().join("; "))
}

fn refusal(pod: &Value, node: &Value) -> Refusal {
    let certain = selected(pod, node).or_else(|| too_small(pod, node)).or_else(|| cordoned(pod, node));
    if let Some(why) = certain.or_else(|| tainted(pod, node, false)) {
        return Refusal::Certain(why);
    }
    tainted(pod, node, true).map_or(Refusal::Unknown, Refusal::InTrouble)
}

/// Labels that the pod asks for.
fn selected(pod: &Value, node: &Value) -> Option<String> {
    let labels = &node["metadata"]["labels"];
    let wanted = pod["spec"]["nodeSelector"].as_object();
    if let Some((key, value)) = wanted.into_iter().flatten().find(|(key, value)| labels[key.as_str()] != **value) {
        return Some(format!("no label {key}={}", text(value)));
    }
    let required = &pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    let mut terms = list(&required["nodeSelectorTerms"]).peekable();
    terms.peek()?;
    let matches = |term: &Value| {
        let of_labels = list(&term["matchExpressions"]).all(|wanted| holds(wanted, &labels[text(&wanted["key"])]));
        let of_fields = list(&term["matchFields"]).all(|wanted| holds(wanted, &node["metadata"]["name"]));
        let is_empty = [&term["matchExpressions"], &term["matchFields"]].iter().all(|part| list(part).next().is_none());
        of_labels && of_fields && !is_empty
    };
    (!terms.any(matches)).then(|| "not among those that the pod's node affinity asks for".to_owned())
}

fn holds(wanted: &Value, own: &Value) -> bool {
    let is_listed = list(&wanted["values"]).any(|value| value == own);
    let number = |value: &Value| text(value).parse::<i64>().ok();
    let bound = list(&wanted["values"]).next().and_then(number);
    match text(&wanted["operator"]) {
        "In" => is_listed,
        "NotIn" => !is_listed,
        "Exists" => own.is_string(),
        "DoesNotExist" => own.is_null(),
        "Gt" => number(own) > bound && bound.is_some(),
        "Lt" => number(own).is_some() && number(own) < bound,
        // A newer one: nothing is said of it.
        _ => true,
    }
}

/// A node that never could, with nothing else on it.
fn too_small(pod: &Value, node: &Value) -> Option<String> {
    let allocatable = node["status"]["allocatable"].as_object()?;
    let short = |resource: &str| {
        let wanted = requested(pod, resource);
        let has = allocatable.get(resource).and_then(|has| quantity(text(has)));
        (wanted > has.unwrap_or_default()).then(|| {
            let has = allocatable.get(resource).map_or("none", text);
            format!("{resource} of {has}, and more is asked for")
        })
    };
    let extended = list(&pod["spec"]["containers"]).flat_map(|container| {
        container["resources"]["requests"].as_object().into_iter().flatten().map(|(name, _)| name.as_str())
    });
    ["cpu", "memory"].into_iter().chain(extended).find_map(short)
}

/// What a pod asks for: its containers and sidecars together, or its largest init container.
fn requested(pod: &Value, resource: &str) -> f64 {
    let asks = |container: &Value| {
        let resources = &container["resources"];
        let own = [&resources["requests"][resource], &resources["limits"][resource]].into_iter();
        own.filter_map(|value| quantity(text(value))).next().unwrap_or_default()
    };
    let is_sidecar = |container: &&Value| container["restartPolicy"] == "Always";
    let init = || list(&pod["spec"]["initContainers"]);
    let running: f64 = list(&pod["spec"]["containers"]).chain(init().filter(is_sidecar)).map(asks).sum();
    init().map(asks).fold(running, f64::max)
}

fn cordoned(pod: &Value, node: &Value) -> Option<String> {
    let is_cordoned = node["spec"]["unschedulable"] == true
        && !tolerates(
            pod,
            &serde_json::json!({
                "key": UNSCHEDULABLE, "effect": "NoSchedule",
            }),
        );
    is_cordoned.then(|| "cordoned".to_owned())
}

/// A taint that the pod does not tolerate: of the node's trouble, or others.
fn tainted(pod: &Value, node: &Value, of_trouble: bool) -> Option<String> {
    let refusing = list(&node["spec"]["taints"]).filter(|taint| taint["effect"] != "PreferNoSchedule");
    let mut wanted = refusing.filter(|taint| {
        let key = text(&taint["key"]);
        key != UNSCHEDULABLE && OF_TROUBLE.contains(&key) == of_trouble && !tolerates(pod, taint)
    });
    let taint = wanted.next()?;
    if of_trouble {
        let is_ready = condition(node, "Ready").is_none_or(|ready| ready["status"] == "True");
        return Some(if is_ready { format!("taint {}", text(&taint["key"])) } else { "not ready".to_owned() });
    }
    let value = taint["value"].as_str().map_or(String::new(), |value| format!("={value}"));
    Some(format!("taint {}{value}:{}", text(&taint["key"]), text(&taint["effect"])))
}

fn tolerates(pod: &Value, taint: &Value) -> bool {
    list(&pod["spec"]["tolerations"]).any(|toleration| {
        let (key, effect) = (text(&toleration["key"]), text(&toleration["effect"]));
        let is_any = toleration["operator"] == "Exists";
        (effect.is_empty() || taint["effect"] == effect)
            && ((key.is_empty() && is_any) || taint["key"] == key)
            && (is_any || text(&toleration["value"]) == text(&taint["value"]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::fixtures::{json, node, pod};

    fn machine(name: &str, spec: Value, labels: Value) -> Value {
        let mut node = node(name, json!([{"type": "Ready", "status": "True"}]));
        node["spec"] = spec;
        node["metadata"]["labels"] = labels;
        node["status"]["allocatable"] = json!({"cpu": "4", "memory": "8Gi"});
        node
    }

    fn why(spec: Value, node: &Value) -> Option<String> {
        table(&refusals(&pod("a", "web", spec, json!({})), std::iter::once(node)))
    }

    #[test]
    fn certain_reasons_are_computed_and_others_are_not_guessed() {
        let plain = || machine("one", json!({}), json!({"disk": "hdd", "cores": "4"}));
        let asks = |cpu: &str| json!({"containers": [{"resources": {"requests": {"cpu": cpu}}}]});
        let term = |key: &str, operator: &str, values: Value| {
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": key, "operator": operator, "values": values}]}]}}}})
        };
        for (spec, expected) in [
            (json!({"nodeSelector": {"disk": "ssd"}}), Some("no label disk=ssd: 1 (one)")),
            (json!({"nodeSelector": {"disk": "hdd"}}), None),
            (asks("64"), Some("cpu of 4, and more is asked for: 1 (one)")),
            (asks("3500m"), None),
            (
                json!({"containers": [{"resources": {"limits": {"memory": "9Gi"}}}]}),
                Some("memory of 8Gi, and more is asked for: 1 (one)"),
            ),
            (
                json!({"containers": [{"resources": {"requests": {"example.com/gpu": "1"}}}]}),
                Some("example.com/gpu of none, and more is asked for: 1 (one)"),
            ),
            (
                term("disk", "In", json!(["ssd"])),
                Some("not among those that the pod's node affinity asks for: 1 (one)"),
            ),
            (term("cores", "Gt", json!(["2"])), None),
            (term("cores", "Lt", json!(["2"])), Some("not among those that the pod's node affinity asks for: 1 (one)")),
        ] {
            assert_eq!(why(spec.clone(), &plain()).as_deref(), expected, "{spec}");
        }
    }

    #[test]
    fn taints_are_held_against_tolerations() {
        let taint = json!({"key": "team", "value": "a", "effect": "NoSchedule"});
        let tainted = machine("one", json!({"taints": [taint]}), json!({}));
        let tolerating = |toleration: Value| json!({"tolerations": [toleration]});
        assert_eq!(why(json!({}), &tainted).as_deref(), Some("taint team=a:NoSchedule: 1 (one)"));
        assert_eq!(why(tolerating(json!({"key": "team", "operator": "Equal", "value": "a"})), &tainted), None);
        assert_eq!(why(tolerating(json!({"operator": "Exists"})), &tainted), None);
        assert!(why(tolerating(json!({"key": "team", "value": "b"})), &tainted).is_some());
        let cordoned = machine("one", json!({"unschedulable": true}), json!({}));
        assert_eq!(why(json!({}), &cordoned).as_deref(), Some("cordoned: 1 (one)"));
        assert_eq!(why(tolerating(json!({"key": UNSCHEDULABLE, "operator": "Exists"})), &cordoned), None);
    }

    #[test]
    fn nodes_are_counted_by_reason() {
        let nodes: Vec<Value> = (1..=5)
            .map(|number| machine(&format!("n{number}"), json!({"unschedulable": number < 5}), json!({})))
            .collect();
        let web = pod("a", "web", json!({}), json!({}));
        assert_eq!(
            table(&refusals(&web, nodes.iter())).as_deref(),
            Some("cordoned: 4 (n1, n2, n3, ...); what runs there already: 1 (n5)")
        );
    }
}
