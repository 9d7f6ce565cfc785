//! What an object uses of everything that a quota can limit, and which objects a quota looks at.

use std::collections::BTreeMap;

use kedge_meta::Quantity;
use serde_json::{Map, Value, json};

use crate::admission::pod_amounts::pod_amounts;
use crate::object;

/// Pods that have ended use nothing any more.
pub(super) fn counts(object: &Value) -> bool {
    !matches!(object::text(object, &["status", "phase"]), "Succeeded" | "Failed") || object["kind"] != "Pod"
}

/// What one object uses of everything that can be limited.
pub(super) fn usage(group: &str, resource: &str, object: &Value) -> Vec<(String, Quantity)> {
    let one = Quantity::from_units(1);
    let counted = if group.is_empty() { format!("count/{resource}") } else { format!("count/{resource}.{group}") };
    let mut usage = vec![(counted, one)];
    match (group, resource) {
        ("", "pods") => {
            usage.push(("pods".to_owned(), one));
            usage.extend(pod_usage(object));
        }
        ("", "services") => {
            usage.push(("services".to_owned(), one));
            let ports = object::list(object, &["spec", "ports"]).len() as i64;
            match object::text(object, &["spec", "type"]) {
                "LoadBalancer" => {
                    usage.push(("services.loadbalancers".to_owned(), one));
                    usage.push(("services.nodeports".to_owned(), Quantity::from_units(ports)));
                }
                "NodePort" => usage.push(("services.nodeports".to_owned(), Quantity::from_units(ports))),
                _ => {}
            }
        }
        ("", "persistentvolumeclaims") => usage.extend(claim_usage(object)),
        ("resource.k8s.io", "resourceclaims") => usage.extend(device_usage(object)),
        ("", "replicationcontrollers" | "resourcequotas" | "secrets" | "configmaps") => {
            usage.push((resource.to_owned(), one));
        }
        _ => {}
    }
    usage
}

fn claim_usage(claim: &Value) -> Vec<(String, Quantity)> {
    let one = Quantity::from_units(1);
    let storage = object::text(claim, &["spec", "resources", "requests", "storage"]).parse().unwrap_or(Quantity::ZERO);
    let mut usage = vec![("persistentvolumeclaims".to_owned(), one), ("requests.storage".to_owned(), storage)];
    let class = object::text(claim, &["spec", "storageClassName"]);
    if !class.is_empty() {
        usage.push((format!("{class}.storageclass.storage.k8s.io/persistentvolumeclaims"), one));
        usage.push((format!("{class}.storageclass.storage.k8s.io/requests.storage"), storage));
    }
    usage
}

/// So many devices count where a claim asks for all: what an allocation can hold at most.
const ALL_DEVICES: i64 = 32;

/// The devices that a claim may get, by class; of alternatives, the most of each class.
fn device_usage(claim: &Value) -> Vec<(String, Quantity)> {
    let count = |asked: &Value| match object::text(asked, &["allocationMode"]) {
        "All" => ALL_DEVICES,
        _ => asked["count"].as_i64().unwrap_or(1),
    };
    let mut by_class: BTreeMap<&str, i64> = BTreeMap::new();
    for request in object::list(claim, &["spec", "devices", "requests"]) {
        let mut most: BTreeMap<&str, i64> = BTreeMap::new();
        for asked in object::at(request, &["exactly"]).into_iter().chain(object::list(request, &["firstAvailable"])) {
            let known = most.entry(object::text(asked, &["deviceClassName"])).or_default();
            *known = (*known).max(count(asked));
        }
        most.into_iter().for_each(|(class, count)| *by_class.entry(class).or_default() += count);
    }
    let named = |(class, count): (&str, i64)| {
        (format!("{class}.deviceclass.resource.k8s.io/devices"), Quantity::from_units(count))
    };
    by_class.into_iter().map(named).collect()
}

fn pod_usage(pod: &Value) -> Vec<(String, Quantity)> {
    let mut usage = Vec::new();
    for (name, amount) in pod_amounts(pod, "requests") {
        if is_extended(&name) {
            usage.push((format!("requests.{name}"), amount));
        } else if matches!(&*name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-") {
            usage.push((format!("requests.{name}"), amount));
            usage.push((name, amount));
        }
    }
    let limits = pod_amounts(pod, "limits").into_iter();
    let counted = limits.filter(|(name, _)| matches!(&**name, "cpu" | "memory" | "ephemeral-storage"));
    usage.extend(counted.map(|(name, amount)| (format!("limits.{name}"), amount)));
    usage
}

/// Whether a resource is of somebody else's making, as devices are.
fn is_extended(name: &str) -> bool {
    let is_native = name.contains("kubernetes.io/") && !name.starts_with("deviceclass.resource.kubernetes.io/");
    name.contains('/') && !is_native && !name.starts_with("requests.")
}

/// Whether a quota with this `spec` looks at an object at all.
pub(super) fn in_scopes(spec: &Value, object: &Value, is_pod: bool) -> bool {
    let scopes = object::list(spec, &["scopes"]).iter().filter_map(Value::as_str);
    let simple = scopes.map(|scope| json!({"scopeName": scope, "operator": "Exists"}));
    let selected = object::list(spec, &["scopeSelector", "matchExpressions"]).iter().cloned();
    let mut all = simple.chain(selected).peekable();
    if all.peek().is_some() && !is_pod {
        return false;
    }
    all.all(|scope| matches_scope(&scope, object))
}

fn matches_scope(scope: &Value, pod: &Value) -> bool {
    let best_effort = || {
        let mut containers =
            object::list(pod, &["spec", "containers"]).iter().chain(object::list(pod, &["spec", "initContainers"]));
        let silent = |kind: &str, container: &Value| {
            object::at(container, &["resources", kind]).and_then(Value::as_object).is_none_or(Map::is_empty)
        };
        containers.all(|container| silent("requests", container) && silent("limits", container))
    };
    let terminating =
        object::at(pod, &["spec", "activeDeadlineSeconds"]).and_then(Value::as_i64).is_some_and(|s| s >= 0);
    let class = object::text(pod, &["spec", "priorityClassName"]);
    match object::text(scope, &["scopeName"]) {
        "Terminating" => terminating,
        "NotTerminating" => !terminating,
        "BestEffort" => best_effort(),
        "NotBestEffort" => !best_effort(),
        "PriorityClass" => {
            let listed = object::list(scope, &["values"]).iter().any(|value| value == class);
            match object::text(scope, &["operator"]) {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => !class.is_empty(),
                _ => class.is_empty(),
            }
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_and_extended_resources_are_counted() {
        let asks =
            |class: &str, count: i64| json!({"deviceClassName": class, "allocationMode": "ExactCount", "count": count});
        let all = json!({"deviceClassName": "nic", "allocationMode": "All"});
        let claim = json!({"spec": {"devices": {"requests": [
            {"name": "a", "exactly": asks("gpu", 2)},
            {"name": "b", "firstAvailable": [asks("gpu", 3), asks("gpu", 1), asks("tpu", 4)]},
            {"name": "c", "exactly": all}]}}});
        let shown = |usage: Vec<(String, Quantity)>| -> Vec<String> {
            usage.into_iter().map(|(name, amount)| format!("{name}={amount}")).collect()
        };
        let expected = ["gpu", "nic", "tpu"].map(|class| format!("{class}.deviceclass.resource.k8s.io/devices"));
        let [gpu, nic, tpu] = expected;
        let counted = shown(usage("resource.k8s.io", "resourceclaims", &claim));
        assert_eq!(counted[1..], [format!("{gpu}=5"), format!("{nic}=32"), format!("{tpu}=4")]);
        let container = |count: &str| json!({"resources": {"requests": {"x.io/gpu": count}}});
        let pod = json!({"spec": {"containers": [container("1"), container("2")], "initContainers": [container("5")]}});
        assert!(shown(pod_usage(&pod)).contains(&"requests.x.io/gpu=5".to_owned()));
    }

    #[test]
    fn usage_is_counted() {
        let pod = json!({"spec": {"containers": [{"resources": {"requests": {"cpu": "100m"}}}, {"resources": {"requests": {"cpu": "200m"}}}],
            "initContainers": [{"resources": {"requests": {"cpu": "1"}}}]}});
        let usage = usage("", "pods", &pod);
        let of = |name: &str| usage.iter().find(|(own, _)| own == name).map(|(_, quantity)| quantity.to_string());
        for (name, expected) in
            [("pods", "1"), ("count/pods", "1"), ("requests.cpu", "1"), ("cpu", "1"), ("limits.cpu", "")]
        {
            assert_eq!(of(name).unwrap_or_default(), expected, "{name}");
        }
    }

    #[test]
    fn devices_and_huge_pages_are_counted() {
        let requests = json!({"example.com/gpu": "2", "hugepages-2Mi": "4Mi", "kubernetes.io/x": "1"});
        let pod = json!({"spec": {"containers": [{"resources": {"requests": requests, "limits": requests}}]}});
        let names: Vec<String> = pod_usage(&pod).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["requests.example.com/gpu", "requests.hugepages-2Mi", "hugepages-2Mi"]);
    }

    #[test]
    fn scopes_choose_pods() {
        let pod = json!({"spec": {"containers": [{}], "priorityClassName": "high"}});
        for (scopes, expected) in [
            (json!({"scopes": ["BestEffort"]}), true),
            (json!({"scopes": ["NotBestEffort"]}), false),
            (json!({"scopes": ["Terminating"]}), false),
            (
                json!({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]}}),
                true,
            ),
            (json!({}), true),
        ] {
            assert_eq!(in_scopes(&scopes, &pod, true), expected, "{scopes}");
        }
    }
}
