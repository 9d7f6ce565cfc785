//! The schemas and levels that every cluster has, and how they are kept.
//!
//! Mandatory ones are always as they stand here. Suggested ones are, as long as their annotation says so or nobody changed
//! them.

use serde_json::{Value, json};

use crate::objects::{CATCH_ALL, EXEMPT};

const API: &str = "flowcontrol.apiserver.k8s.io/v1";

/// Says whether an object is kept as it stands here.
const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

/// What is to be done with a bootstrap object that is there.
#[derive(Debug, Clone, PartialEq)]
pub enum Revision {
    /// Nothing.
    Keep,
    /// It is to look like this.
    Replace(Value),
    /// It is of an older release, and nobody's own.
    Delete,
}

/// Whether an object is mandatory.
pub fn is_mandatory(name: &str) -> bool {
    matches!(name, EXEMPT | CATCH_ALL)
}

/// All of them, levels first.
pub fn bootstrap_objects() -> Vec<Value> {
    let mut objects = levels();
    objects.extend(schemas());
    objects
}

fn levels() -> Vec<Value> {
    let exempt = json!({"type": "Exempt", "exempt": {"lendablePercent": 0, "nominalConcurrencyShares": 0}});
    let catch_all = json!({"type": "Limited", "limited": {"lendablePercent": 0, "nominalConcurrencyShares": 5,
        "limitResponse": {"type": "Reject"}}});
    let mut levels = vec![object("PriorityLevelConfiguration", EXEMPT, exempt)];
    levels.push(object("PriorityLevelConfiguration", CATCH_ALL, catch_all));
    for (name, shares, lendable, queues, hand) in [
        ("system", 30, 33, 64, 6),
        ("node-high", 40, 25, 64, 6),
        ("leader-election", 10, 0, 16, 4),
        ("workload-high", 40, 50, 128, 6),
        ("workload-low", 100, 90, 128, 6),
        ("global-default", 20, 50, 128, 6),
    ] {
        let queuing = json!({"queues": queues, "handSize": hand, "queueLengthLimit": 50});
        let spec = json!({"type": "Limited", "limited": {"nominalConcurrencyShares": shares, "lendablePercent": lendable,
            "limitResponse": {"type": "Queue", "queuing": queuing}}});
        levels.push(object("PriorityLevelConfiguration", name, spec));
    }
    levels
}

fn schemas() -> Vec<Value> {
    let everybody = || groups(&["system:unauthenticated", "system:authenticated"]);
    let nodes = || groups(&["system:nodes"]);
    let system_accounts =
        || json!({"kind": "ServiceAccount", "serviceAccount": {"name": "*", "namespace": "kube-system"}});
    let leases = |verbs: Value| resources(verbs, &["coordination.k8s.io"], &["leases"], false);
    let electors = vec![user("system:kube-controller-manager"), user("system:kube-scheduler"), system_accounts()];
    let probes = json!([{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}]);
    let node_rules = vec![resources(json!(["*"]), &[""], &["nodes", "nodes/status"], true), leases(json!(["*"]))];
    let (by_user, by_namespace) = (Some("ByUser"), Some("ByNamespace"));
    let any = |name: &str, level: &str, precedence: i64, method: Option<&str>, subjects: Vec<Value>| {
        let rules = vec![resources(json!(["*"]), &["*"], &["*"], true)];
        let paths = json!([{"verbs": ["*"], "nonResourceURLs": ["*"]}]);
        schema(name, level, precedence, method, subjects, rules, paths)
    };
    let election = leases(json!(["get", "create", "update"]));
    vec![
        any(EXEMPT, EXEMPT, 1, None, groups(&["system:masters"])),
        schema("probes", EXEMPT, 2, None, everybody(), vec![], probes),
        schema("system-leader-election", "leader-election", 100, by_user, electors, vec![election], Value::Null),
        schema("system-node-high", "node-high", 400, by_user, nodes(), node_rules, Value::Null),
        any("system-nodes", "system", 500, by_user, nodes()),
        any(
            "kube-controller-manager",
            "workload-high",
            800,
            by_namespace,
            vec![user("system:kube-controller-manager")],
        ),
        any("kube-scheduler", "workload-high", 800, by_namespace, vec![user("system:kube-scheduler")]),
        any("kube-system-service-accounts", "workload-high", 900, by_namespace, vec![system_accounts()]),
        any("service-accounts", "workload-low", 9000, by_user, groups(&["system:serviceaccounts"])),
        any("global-default", "global-default", 9900, by_user, everybody()),
        any(CATCH_ALL, CATCH_ALL, 10_000, by_user, everybody()),
    ]
}

fn schema(
    name: &str,
    level: &str,
    precedence: i64,
    method: Option<&str>,
    subjects: Vec<Value>,
    resources: Vec<Value>,
    paths: Value,
) -> Value {
    let mut rule = json!({"subjects": subjects});
    if !resources.is_empty() {
        rule["resourceRules"] = resources.into();
    }
    if !paths.is_null() {
        rule["nonResourceRules"] = paths;
    }
    let mut spec =
        json!({"matchingPrecedence": precedence, "priorityLevelConfiguration": {"name": level}, "rules": [rule]});
    if let Some(method) = method {
        spec["distinguisherMethod"] = json!({"type": method});
    }
    object("FlowSchema", name, spec)
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": API, "kind": kind, "metadata": {"name": name, "annotations": {AUTO_UPDATE: "true"}}, "spec": spec})
}

fn groups(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| json!({"kind": "Group", "group": {"name": name}})).collect()
}

fn user(name: &str) -> Value {
    json!({"kind": "User", "user": {"name": name}})
}

fn resources(verbs: Value, groups: &[&str], resources: &[&str], cluster: bool) -> Value {
    let mut rule = json!({"verbs": verbs, "apiGroups": groups, "resources": resources, "namespaces": ["*"]});
    if cluster {
        rule["clusterScope"] = Value::Bool(true);
    }
    rule
}

/// What is to become of an object that is there. `wanted` is the bootstrap object of its name, defaulted as the present one
/// is; absent where there is none.
pub fn revise(present: &Value, wanted: Option<&Value>) -> Revision {
    let annotation = present["metadata"]["annotations"][AUTO_UPDATE].as_str().and_then(read_bool);
    let Some(wanted) = wanted else {
        return if annotation == Some(true) { Revision::Delete } else { Revision::Keep };
    };
    let mandatory = wanted["metadata"]["name"].as_str().is_some_and(is_mandatory);
    let untouched = present["metadata"]["generation"].as_i64() == Some(1);
    let updates = mandatory || annotation.unwrap_or(untouched);
    let differs = updates && present["spec"] != wanted["spec"];
    if annotation == Some(updates) && !differs {
        return Revision::Keep;
    }
    let mut revised = present.clone();
    if differs {
        revised["spec"] = wanted["spec"].clone();
        revised["metadata"]["generation"] = json!(present["metadata"]["generation"].as_i64().unwrap_or(0) + 1);
    }
    if !revised["metadata"]["annotations"].is_object() {
        revised["metadata"]["annotations"] = json!({});
    }
    revised["metadata"]["annotations"][AUTO_UPDATE] = json!(updates.to_string());
    Revision::Replace(revised)
}

/// Booleans as Go reads them.
fn read_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::{in_order, read_level, read_schema};
    use crate::{Digest, FlowSchema};

    fn of_kind(kind: &str) -> Vec<Vec<u8>> {
        let all = bootstrap_objects().into_iter().filter(|object| object["kind"] == kind);
        all.map(|object| object.to_string().into_bytes()).collect()
    }

    #[test]
    fn all_can_be_read_and_lead_somewhere() {
        let levels: Vec<_> =
            of_kind("PriorityLevelConfiguration").iter().map(|json| read_level(json).unwrap()).collect();
        for json in of_kind("FlowSchema") {
            let schema = read_schema(&json).unwrap();
            assert!(levels.iter().any(|level| level.name == schema.level), "{schema:?}");
        }
        assert_eq!(levels.iter().map(|level| level.spec.shares.nominal).sum::<u64>(), 245);
    }

    #[test]
    fn everybody_has_a_place() {
        let mut schemas: Vec<FlowSchema> =
            of_kind("FlowSchema").iter().map(|json| read_schema(json).unwrap()).collect();
        in_order(&mut schemas);
        for (user, group, verb, resource, path, expected) in [
            ("admin", "system:masters", "list", "pods", "", "exempt"),
            ("x", "system:authenticated", "get", "", "/livez", "probes"),
            ("x", "system:authenticated", "get", "", "/version", "global-default"),
            ("system:anonymous", "system:unauthenticated", "get", "", "/", "global-default"),
            ("system:kube-scheduler", "system:authenticated", "update", "leases", "", "system-leader-election"),
            ("system:kube-scheduler", "system:authenticated", "list", "pods", "", "kube-scheduler"),
            ("system:kube-controller-manager", "system:authenticated", "list", "pods", "", "kube-controller-manager"),
            ("system:node:a", "system:nodes", "update", "leases", "", "system-node-high"),
            ("system:node:a", "system:nodes", "get", "secrets", "", "system-nodes"),
            (
                "system:serviceaccount:kube-system:x",
                "system:serviceaccounts",
                "get",
                "pods",
                "",
                "kube-system-service-accounts",
            ),
            ("system:serviceaccount:a:x", "system:serviceaccounts", "get", "pods", "", "service-accounts"),
            ("x", "other", "get", "pods", "", ""),
        ] {
            let groups = [group.to_owned()];
            let group = if resource == "leases" { "coordination.k8s.io" } else { "" };
            let is_resource = !resource.is_empty();
            let namespace = if is_resource { "a" } else { "" };
            let digest =
                Digest { user, groups: &groups, verb, resource, path, group, is_resource, namespace, subresource: "" };
            let found = schemas.iter().find(|schema| schema.matches(&digest)).map_or("", |schema| &schema.name);
            assert_eq!(found, expected, "{user} {verb} {resource}{path}");
        }
    }

    #[track_caller]
    fn check(name: &str, annotation: Option<&str>, generation: i64, changed: bool, expected: &str) {
        let wanted = bootstrap_objects().into_iter().find(|object| object["metadata"]["name"] == name);
        let mut present = wanted.clone().unwrap_or_else(|| json!({"metadata": {"name": name}, "spec": {}}));
        present["metadata"]["generation"] = json!(generation);
        present["metadata"]["annotations"] = annotation.map_or(Value::Null, |text| json!({AUTO_UPDATE: text}));
        if changed {
            present["spec"] = json!({"other": true});
        }
        let seen = match revise(&present, wanted.as_ref()) {
            Revision::Keep => "keep".to_owned(),
            Revision::Delete => "delete".to_owned(),
            Revision::Replace(revised) => {
                let annotation = revised["metadata"]["annotations"][AUTO_UPDATE].as_str().unwrap().to_owned();
                let spec = wanted.map(|wanted| wanted["spec"].clone()) == Some(revised["spec"].clone());
                format!("{annotation} {spec} {}", revised["metadata"]["generation"])
            }
        };
        assert_eq!(seen, expected, "{name} {annotation:?} {generation} {changed}");
    }

    #[test]
    fn what_is_kept_and_what_is_mended() {
        check("exempt", Some("true"), 1, false, "keep");
        check("exempt", Some("false"), 3, true, "true true 4");
        check("system", Some("true"), 3, true, "true true 4");
        check("system", Some("false"), 3, true, "keep");
        check("system", None, 1, true, "true true 2");
        check("system", None, 2, true, "false false 2");
        check("system", Some("nonsense"), 2, false, "false true 2");
        check("mine", None, 1, false, "keep");
        check("old", Some("true"), 1, false, "delete");
    }
}
