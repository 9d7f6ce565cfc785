//! What a pod asks for in all: its containers, those that come before them, and the pod itself.
//!
//! By its spec alone: what a node has granted meanwhile is not looked at.

use std::collections::BTreeMap;

use kedge_meta::Quantity;
use serde_json::Value;

use crate::object;

/// Amounts by the name of the resource.
pub(super) type Amounts = BTreeMap<String, Quantity>;

/// Amounts as they stand in an object; those that cannot be read are left out.
pub(super) fn amounts(value: Option<&Value>) -> Amounts {
    let all = value.and_then(Value::as_object).into_iter().flatten();
    all.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.parse().ok()?))).collect()
}

/// What a pod asks for; `kind` is `requests` or `limits`.
pub(super) fn pod_amounts(pod: &Value, kind: &str) -> Amounts {
    let of = |container: &Value| amounts(object::at(container, &["resources", kind]));
    let mut total = Amounts::new();
    for container in object::list(pod, &["spec", "containers"]) {
        add(&mut total, &of(container));
    }
    // One that comes before the others runs beside the sidecars that were started before it.
    let (mut sidecars, mut before) = (Amounts::new(), Amounts::new());
    for container in object::list(pod, &["spec", "initContainers"]) {
        let mut own = of(container);
        if is_sidecar(container) {
            add(&mut total, &own);
            add(&mut sidecars, &own);
            own = sidecars.clone();
        } else {
            add(&mut own, &sidecars);
        }
        raise(&mut before, &own);
    }
    raise(&mut total, &before);
    let of_pod = amounts(object::at(pod, &["spec", "resources", kind]));
    total.extend(of_pod.into_iter().filter(|(name, _)| is_pod_level(name)));
    for (name, overhead) in amounts(object::at(pod, &["spec", "overhead"])) {
        match total.get_mut(&name) {
            Some(sum) => *sum = *sum + overhead,
            None if kind == "requests" => drop(total.insert(name, overhead)),
            None => {}
        }
    }
    total
}

/// Whether a container that is started before others stays with them.
pub(super) fn is_sidecar(container: &Value) -> bool {
    object::text(container, &["restartPolicy"]) == "Always"
}

/// Whether a pod says itself what it takes.
pub(super) fn has_pod_level(pod: &Value) -> bool {
    ["requests", "limits"]
        .iter()
        .any(|kind| amounts(object::at(pod, &["spec", "resources", kind])).keys().any(|name| is_pod_level(name)))
}

fn is_pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with("hugepages-")
}

fn add(total: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let sum = total.entry(name.clone()).or_default();
        *sum = *sum + *amount;
    }
}

fn raise(total: &mut Amounts, least: &Amounts) {
    for (name, amount) in least {
        let most = total.entry(name.clone()).or_default();
        *most = (*most).max(*amount);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn containers_are_summed_with_what_runs_before_and_beside_them() {
        let check = |spec: Value, kind: &str, expected: &str| {
            let cpu = pod_amounts(&json!({"spec": spec}), kind).get("cpu").map(Quantity::to_string);
            assert_eq!(cpu.unwrap_or_default(), expected, "{spec}");
        };
        let container = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}}});
        let sidecar = |cpu: &str| json!({"restartPolicy": "Always", "resources": {"requests": {"cpu": cpu}}});
        let containers = json!([container("1"), container("2")]);
        check(json!({"containers": containers}), "requests", "3");
        check(json!({"containers": containers}), "limits", "");
        check(json!({"containers": containers, "initContainers": [container("4")]}), "requests", "4");
        check(json!({"containers": containers, "initContainers": [sidecar("1")]}), "requests", "4");
        let before = json!([container("1"), sidecar("2"), container("5")]);
        check(json!({"containers": containers, "initContainers": before}), "requests", "7");
        let whole = json!({"requests": {"cpu": "10"}});
        check(json!({"containers": containers, "resources": whole}), "requests", "10");
        let overhead = json!({"cpu": "1"});
        check(json!({"containers": containers, "overhead": overhead}), "requests", "4");
        check(json!({"containers": containers, "overhead": overhead}), "limits", "");
    }
}
