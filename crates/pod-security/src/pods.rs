//! Where pods are, when an update of one counts, and what those of a namespace violate.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::checks::evaluate;
use crate::policy::LevelVersion;

/// More pods of a namespace than this are not looked at.
const MOST: usize = 3000;

/// What pods that are there violate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected {
    /// Warnings, in order.
    pub warnings: Vec<String>,
}

/// Metadata and specification of the pods that an object makes; absent where it makes none.
pub fn pod_template<'a>(kind: &str, object: &'a Value) -> Option<(&'a Value, &'a Value)> {
    let path = match kind {
        "Pod" => return Some((object.get("metadata")?, object.get("spec")?)),
        "PodTemplate" => "/template",
        "CronJob" => "/spec/jobTemplate/spec/template",
        "ReplicationController" | "ReplicaSet" | "Deployment" | "StatefulSet" | "DaemonSet" | "Job" => "/spec/template",
        _ => return None,
    };
    let template = object.pointer(path)?;
    Some((template.get("metadata").unwrap_or(&Value::Null), template.get("spec")?))
}

/// Whether an update of a pod changes anything that is looked at: of all that may change, images and new containers.
pub fn is_significant_update(new: &Value, old: &Value) -> bool {
    let list = |pod: &'static str| move |object: &Value| object["spec"][pod].as_array().cloned().unwrap_or_default();
    for name in ["containers", "initContainers"] {
        let (new, old) = (list(name)(new), list(name)(old));
        let differs = |(new, old): (&Value, &Value)| new["image"] != old["image"];
        if new.len() != old.len() || new.iter().zip(&old).any(differs) {
            return true;
        }
    }
    let (new, old) = (list("ephemeralContainers")(new), list("ephemeralContainers")(old));
    new.iter().any(|container| {
        let before = old.iter().find(|before| before["name"] == container["name"]);
        before.is_none_or(|before| before["image"] != container["image"])
    })
}

/// What a namespace's pods violate of a level that is to be enforced there.
pub fn inspect(namespace: &str, pods: &[Value], enforce: &LevelVersion) -> Inspected {
    let ordered = one_of_each_controller_first(pods);
    let total = ordered.len();
    let mut found: BTreeMap<String, (usize, &str)> = BTreeMap::new();
    for pod in ordered.iter().take(MOST) {
        let reasons: Vec<&str> =
            evaluate(enforce, &pod["metadata"], &pod["spec"]).iter().map(|violation| violation.reason).collect();
        if reasons.is_empty() {
            continue;
        }
        let name = pod["metadata"]["name"].as_str().unwrap_or("");
        let entry = found.entry(reasons.join(", ")).or_insert((0, name));
        *entry = (entry.0 + 1, entry.1.min(name));
    }
    let mut warnings = Vec::new();
    if total > MOST {
        warnings.push(format!(
            "new PodSecurity enforce level only checked against the first {MOST} of {total} existing pods"
        ));
    }
    if !found.is_empty() {
        warnings.push(format!(
            "existing pods in namespace \"{namespace}\" violate the new PodSecurity enforce level \"{enforce}\""
        ));
    }
    let mut lines: Vec<String> = found.iter().map(|(reasons, (count, name))| line(name, *count, reasons)).collect();
    lines.sort();
    warnings.extend(lines);
    Inspected { warnings }
}

fn line(name: &str, count: usize, reasons: &str) -> String {
    match count {
        1 => format!("{name}: {reasons}"),
        2 => format!("{name} (and 1 other pod): {reasons}"),
        more => format!("{name} (and {} other pods): {reasons}", more - 1),
    }
}

/// Pods of one controller are alike; the first of each comes before all seconds.
fn one_of_each_controller_first(pods: &[Value]) -> Vec<&Value> {
    let mut seen = BTreeSet::new();
    let (mut first, mut rest) = (Vec::new(), Vec::new());
    for pod in pods {
        let owners = pod["metadata"]["ownerReferences"].as_array();
        let controller = owners.and_then(|owners| owners.iter().find(|owner| owner["controller"] == true));
        match controller.and_then(|controller| controller["uid"].as_str()) {
            Some(uid) if !seen.insert(uid) => rest.push(pod),
            _ => first.push(pod),
        }
    }
    first.extend(rest);
    first
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::policy::{Level, Version};

    #[test]
    fn templates_are_found() {
        let template = json!({"metadata": {"name": "t"}, "spec": {"x": 1}});
        for (kind, object) in [
            ("Pod", template.clone()),
            ("PodTemplate", json!({"template": template})),
            ("Deployment", json!({"spec": {"template": template}})),
            ("CronJob", json!({"spec": {"jobTemplate": {"spec": {"template": template}}}})),
        ] {
            assert_eq!(pod_template(kind, &object), Some((&template["metadata"], &template["spec"])), "{kind}");
        }
        assert_eq!(pod_template("ConfigMap", &template), None);
        assert_eq!(pod_template("ReplicationController", &json!({"spec": {}})), None);
    }

    #[test]
    fn images_and_new_containers_count() {
        let pod = |image: &str, debug: &[&str]| {
            let debug: Vec<_> = debug.iter().map(|name| json!({"name": name, "image": "d"})).collect();
            json!({"metadata": {"labels": {"image": image}}, "spec": {"containers": [{"name": "a", "image": image}], "ephemeralContainers": debug}})
        };
        assert!(!is_significant_update(&pod("a", &["x"]), &pod("a", &["x"])));
        assert!(is_significant_update(&pod("b", &[]), &pod("a", &[])));
        assert!(is_significant_update(&pod("a", &["x", "y"]), &pod("a", &["x"])));
    }

    #[test]
    fn violations_of_pods_are_counted() {
        let pod = |name: &str, owner: &str, host: bool| {
            let owners = json!([{"uid": owner, "controller": true}]);
            json!({"metadata": {"name": name, "ownerReferences": owners}, "spec": {"hostNetwork": host, "containers": [{"name": "c"}]}})
        };
        let pods = [pod("c", "1", true), pod("b", "1", true), pod("a", "2", true), pod("z", "3", false)];
        let enforce = LevelVersion { level: Level::Baseline, version: Version::Latest };
        let expected = [
            "existing pods in namespace \"n\" violate the new PodSecurity enforce level \"baseline:latest\"",
            "a (and 2 other pods): host namespaces",
        ];
        assert_eq!(inspect("n", &pods, &enforce).warnings, expected);
        assert!(inspect("n", &pods[3..], &enforce).warnings.is_empty());
    }
}
