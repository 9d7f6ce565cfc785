//! What an update of a pod, its status, its ephemeral containers or its resources may change.
//!
//! The invariant: everything that is not named here as changeable is compared with the old pod.

use std::collections::BTreeSet;

use kedge_meta::{FieldError, FieldPath};
use serde_json::{Map, Value, json};

use crate::formats;
use crate::path::Path;
use crate::pod_spec::qos_class;
use crate::value::{at, at_mut, int, is_set, items, items_mut, map, set, text};

const SPEC: Path<'static> = Path::root("spec");

const NOT_CHANGEABLE: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
     `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
     tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// What a main update may not do.
pub(super) fn validate(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let (new, old) = (&new["spec"], &old["spec"]);
    for list in ["containers", "initContainers"] {
        if items(new, &[list]).len() != items(old, &[list]).len() {
            return SPEC.child(list).forbidden(errors, "pod updates may not add or remove containers");
        }
    }
    if !deadline(new, old, errors) {
        return;
    }
    tolerations(new, old, errors);
    gates(new, old, errors);
    let changed = changed_fields(new, old);
    if !changed.is_empty() {
        // DIVERGES: upstream appends a Go diff of the two specs; this lists the changed fields with both values.
        let lines: Vec<String> = changed
            .iter()
            .map(|field| format!("spec.{field}: {} -> {}", brief(old.get(*field)), brief(new.get(*field))))
            .collect();
        SPEC.forbidden(errors, &format!("{NOT_CHANGEABLE}\n{}\n", lines.join("\n")));
    }
}

fn brief(value: Option<&Value>) -> String {
    let text = value.map_or_else(|| "<unset>".to_owned(), Value::to_string);
    match text.char_indices().nth(200) {
        Some((cut, _)) => format!("{}...", &text[..cut]),
        None => text,
    }
}

/// Whether checking goes on.
fn deadline(new: &Value, old: &Value, errors: &mut Vec<FieldError>) -> bool {
    let path = SPEC.child("activeDeadlineSeconds");
    let before = int(old, &["activeDeadlineSeconds"]);
    match int(new, &["activeDeadlineSeconds"]) {
        Some(seconds) if !(0..=i64::from(i32::MAX)).contains(&seconds) => {
            path.check_number(errors, seconds, formats::in_range(seconds, 0, i64::from(i32::MAX)));
            false
        }
        Some(seconds) if before.is_some_and(|before| before < seconds) => {
            path.invalid(errors, seconds, "must be less than or equal to previous value");
            false
        }
        None if before.is_some() => {
            path.invalid(errors, Value::Null, "must not update from a positive integer to nil value");
            true
        }
        _ => true,
    }
}

fn tolerations(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let same = |a: &Value, b: &Value| {
        let fields = ["key", "operator", "value", "effect"];
        fields.iter().all(|field| text(a, &[field]) == text(b, &[field]))
    };
    let kept = |old: &Value| items(new, &["tolerations"]).iter().any(|new| same(new, old));
    if !items(old, &["tolerations"]).iter().all(kept) {
        let why = "existing toleration can not be modified except its tolerationSeconds";
        SPEC.child("tolerations").forbidden(errors, why);
    }
}

fn gates(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let known = items(old, &["schedulingGates"]);
    for (index, gate) in items(new, &["schedulingGates"]).iter().enumerate() {
        let name = text(gate, &["name"]);
        if !known.iter().any(|known| text(known, &["name"]) == name) {
            let why = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            SPEC.child("schedulingGates").index(index).child("name").forbidden(errors, &why);
        }
    }
}

/// Fields of the spec that changed and may not.
fn changed_fields<'a>(new: &'a Value, old: &'a Value) -> BTreeSet<&'a str> {
    let (Some(new_fields), Some(old_fields)) = (new.as_object(), old.as_object()) else {
        return BTreeSet::new();
    };
    let gated = !items(old, &["schedulingGates"]).is_empty();
    let fields: BTreeSet<&str> = new_fields.keys().chain(old_fields.keys()).map(String::as_str).collect();
    fields.into_iter().filter(|field| !may_change(field, new, old, gated)).collect()
}

fn may_change(field: &str, new: &Value, old: &Value, gated: bool) -> bool {
    let (after, before) = (at(new, &[field]), at(old, &[field]));
    after == before
        || match field {
            "activeDeadlineSeconds" | "tolerations" | "schedulingGates" => true,
            "containers" | "initContainers" => same_but(new, old, field, &["image"]),
            "terminationGracePeriodSeconds" => {
                before.and_then(Value::as_i64).is_some_and(|before| before < 0) && after == Some(&json!(1))
            }
            "nodeSelector" if gated => {
                let added = map(new, &[field]);
                map(old, &[field]).is_none_or(|old| {
                    old.iter().all(|(key, value)| added.and_then(|added| added.get(key)) == Some(value))
                })
            }
            "affinity" if gated => {
                ["podAffinity", "podAntiAffinity"].iter().all(|kind| at(new, &[field, kind]) == at(old, &[field, kind]))
            }
            _ => false,
        }
}

/// Whether two lists of containers are the same but for some fields.
fn same_but(new: &Value, old: &Value, list: &str, fields: &[&str]) -> bool {
    let strip = |container: &Value| -> Map<String, Value> {
        let all = container.as_object().cloned().unwrap_or_default();
        all.into_iter().filter(|(field, _)| !fields.contains(&field.as_str())).collect()
    };
    let (new, old) = (items(new, &[list]), items(old, &[list]));
    new.len() == old.len() && new.iter().zip(old).all(|(new, old)| strip(new) == strip(old))
}

/// What a status update may not do.
pub(super) fn validate_status(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let path = Path::root("status");
    let nominated = text(new, &["status", "nominatedNodeName"]);
    if nominated != text(old, &["status", "nominatedNodeName"]) && !nominated.is_empty() {
        let path = path.child("nominatedNodeName");
        path.check(errors, nominated, formats::subdomain(nominated));
        if !text(old, &["spec", "nodeName"]).is_empty() {
            path.forbidden(errors, "may not be set on pods that are already bound to a node");
        }
    }
    path.child("qosClass").immutable(errors, at(new, &["status", "qosClass"]), at(old, &["status", "qosClass"]));
    for (index, condition) in items(new, &["status", "conditions"]).iter().enumerate() {
        let kind = text(condition, &["type"]);
        let observed = int(condition, &["observedGeneration"]).unwrap_or(0);
        let list = path.child("conditions");
        let path = list.index(index);
        path.child("type").check(errors, kind, formats::qualified_name(kind));
        if observed < 0 {
            let why = "must be a non-negative integer";
            path.child("observedGeneration").invalid(errors, observed, why);
        }
    }
    state_transitions(new, old, &path.child("containerStatuses"), errors);
    for list in ["podIPs", "hostIPs"] {
        ips(new, list, &path, errors);
    }
    if let Some(status) = at(new, &["status", "extendedResourceClaimStatus"]) {
        extended_resources(status, new, &path.child("extendedResourceClaimStatus"), errors);
    }
}

/// Which claim has devices for extended resources, and which of its requests is for which container.
fn extended_resources(status: &Value, pod: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let containers = || ["initContainers", "containers"].iter().flat_map(|list| items(pod, &["spec", list]));
    let mappings = items(status, &["requestMappings"]);
    let list = path.child("requestMappings");
    if mappings.is_empty() {
        list.required(errors, "at least one request mapping is required");
    }
    for (index, mapping) in mappings.iter().enumerate() {
        let part = |name: &str| text(mapping, &[name]);
        let (container, resource, request) = (part("containerName"), part("resourceName"), part("requestName"));
        let path_of = list.index(index);
        match containers().find(|known| text(known, &["name"]) == container) {
            None => path_of.child("containerName").invalid(
                errors,
                container,
                "must match the name of an entry in spec.initContainers.name or spec.containers.name",
            ),
            Some(known) if at(known, &["resources", "requests", resource]).is_none() => {
                path_of.child("resourceName").invalid(
                    errors,
                    resource,
                    "must match the extended resource name of an entry in spec.initContainers.resources.requests or \
                     spec.containers.resources.requests",
                );
            }
            Some(_) => {}
        }
        path.child("requestName").check(errors, request, formats::label(request));
        let names = ["containerName", "resourceName", "requestName"];
        let is_same = |other: &&Value| names.iter().all(|name| text(other, &[name]) == text(mapping, &[name]));
        if mappings[..index].iter().any(|other| is_same(&other)) {
            names.iter().for_each(|name| path_of.child(name).duplicate(errors, part(name)));
        }
    }
    let claim = text(status, &["resourceClaimName"]);
    if claim.is_empty() {
        path.child("resourceClaimName").required(errors, "");
    } else {
        path.child("resourceClaimName").check(errors, claim, formats::subdomain(claim));
    }
}

/// A container that has ended stays so, unless its restart policy lets it run again.
fn state_transitions(new: &Value, old: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let pod_policy = text(old, &["spec", "restartPolicy"]);
    let specs = items(old, &["spec", "containers"]);
    for (index, before) in items(old, &["status", "containerStatuses"]).iter().enumerate() {
        let Some(terminated) = at(before, &["state", "terminated"]) else { continue };
        let name = text(before, &["name"]);
        let spec = specs.iter().find(|spec| text(spec, &["name"]) == name);
        if spec.is_some_and(|spec| is_set(spec, &["restartPolicyRules"])) {
            continue;
        }
        let policy = match spec.map(|spec| text(spec, &["restartPolicy"])).unwrap_or_default() {
            "" => pod_policy,
            own => own,
        };
        let failed = int(terminated, &["exitCode"]).unwrap_or(0) != 0;
        if policy == "Always" || (policy == "OnFailure" && failed) {
            continue;
        }
        let after = items(new, &["status", "containerStatuses"]).iter().find(|after| text(after, &["name"]) == name);
        if after.is_some_and(|after| at(after, &["state", "terminated"]).is_none()) {
            path.index(index).child("state").forbidden(errors, "may not be transitioned to non-terminated state");
        }
    }
}

fn ips(new: &Value, list: &str, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let all = items(new, &["status", list]);
    for (index, entry) in all.iter().enumerate() {
        let ip = text(entry, &["ip"]);
        path.child(list).index(index).check(errors, ip, formats::ip(ip));
        if all[..index].iter().any(|earlier| text(earlier, &["ip"]) == ip) {
            path.child(list).index(index).duplicate(errors, ip);
        }
    }
}

/// Makes `new` the old pod with the new ephemeral containers.
pub(super) fn keep_all_but_ephemeral_containers(new: &mut Value, old: &Value) {
    let containers = at(new, &["spec", "ephemeralContainers"]).cloned();
    replace(new, old);
    if let (Some(containers), Some(spec)) = (containers, new.get_mut("spec")) {
        set(spec, "ephemeralContainers", containers);
    }
}

/// Makes `new` the old pod with the new resources and resize policies of containers.
pub(super) fn keep_all_but_resources(new: &mut Value, old: &Value) {
    let spec = new.get_mut("spec").map(Value::take).unwrap_or_default();
    replace(new, old);
    for list in ["containers", "initContainers"] {
        for container in items_mut(new, &["spec", list]) {
            let name = text(container, &["name"]);
            let wanted = items(&spec, &[list]).iter().find(|wanted| text(wanted, &["name"]) == name).cloned();
            for field in ["resources", "resizePolicy"] {
                if let Some(value) = wanted.as_ref().and_then(|wanted| at(wanted, &[field])) {
                    set(container, field, value.clone());
                }
            }
        }
    }
    if let (Some(resources), Some(kept)) = (at(&spec, &["resources"]), at_mut(new, &["spec"])) {
        set(kept, "resources", resources.clone());
    }
}

/// Puts the old pod in the place of the new one, except for the version that the client has seen.
fn replace(new: &mut Value, old: &Value) {
    let version = at(new, &["metadata", "resourceVersion"]).cloned();
    new.clone_from(old);
    if let (Some(version), Some(metadata)) = (version, new.get_mut("metadata")) {
        set(metadata, "resourceVersion", version);
    }
}

/// What an update of ephemeral containers may not do: remove or change one that is there.
pub(super) fn validate_ephemeral_containers(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    if is_mirror(old) {
        *errors = vec![FieldError::forbidden(&FieldPath::default(), "static pods do not support ephemeral containers")];
        return;
    }
    let path = SPEC.child("ephemeralContainers");
    let after = items(new, &["spec", "ephemeralContainers"]);
    for before in items(old, &["spec", "ephemeralContainers"]) {
        let name = text(before, &["name"]);
        match after.iter().find(|after| text(after, &["name"]) == name) {
            None => path.forbidden(errors, &format!("existing ephemeral containers {name:?} may not be removed\n")),
            Some(after) if after != before => {
                path.forbidden(errors, &format!("existing ephemeral containers {name:?} may not be changed\n"));
            }
            Some(_) => {}
        }
    }
}

/// What a resize may not do.
pub(super) fn validate_resize(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    if is_mirror(old) {
        *errors = vec![FieldError::forbidden(&FieldPath::default(), "static pods cannot be resized")];
        return;
    }
    let class = text(old, &["status", "qosClass"]);
    if !class.is_empty() && qos_class(&new["spec"]) != class {
        SPEC.invalid(errors, class, "Pod QOS Class may not change as a result of resizing");
    }
    for list in ["initContainers", "containers"] {
        let pairs = items(new, &["spec", list]).iter().zip(items(old, &["spec", list])).enumerate();
        for (index, (new, old)) in pairs {
            let field = SPEC.child(list);
            let item = field.index(index);
            resized(new, old, list, &item, errors);
        }
    }
}

fn resized(new: &Value, old: &Value, list: &str, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let mut others_changed = at(new, &["resizePolicy"]) != at(old, &["resizePolicy"]);
    for amounts in ["requests", "limits"] {
        let before = map(old, &["resources", amounts]);
        let after = map(new, &["resources", amounts]);
        let removed = before.into_iter().flatten().any(|(name, _)| after.is_none_or(|after| !after.contains_key(name)));
        if removed {
            let what = if amounts == "requests" { "resource requests" } else { "resource limits" };
            path.child("resources").child(amounts).forbidden(errors, &format!("{what} cannot be removed"));
        }
        let other = |name: &str| !matches!(name, "cpu" | "memory");
        let rest = |amounts: Option<&Map<String, Value>>| -> Map<String, Value> {
            amounts.into_iter().flatten().filter(|(name, _)| other(name)).map(|(a, b)| (a.clone(), b.clone())).collect()
        };
        others_changed |= rest(before) != rest(after);
    }
    if list == "containers" {
        if others_changed {
            SPEC.forbidden(errors, "only cpu and memory resources are mutable");
        }
        return;
    }
    if others_changed {
        path.forbidden(errors, "only cpu and memory resources for init or sidecar containers are mutable");
    }
    let is_sidecar = text(old, &["restartPolicy"]) == "Always";
    let restarts = |policy: &Value| text(policy, &["restartPolicy"]) == "RestartContainer";
    let changed = at(new, &["resources"]) != at(old, &["resources"]);
    if changed && !is_sidecar && items(new, &["resizePolicy"]).iter().any(restarts) {
        let why = "non-sidecar init containers with a resize policy of RestartContainer cannot be resized";
        path.forbidden(errors, why);
    }
}

fn is_mirror(pod: &Value) -> bool {
    at(pod, &["metadata", "annotations", "kubernetes.io/config.mirror"]).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builtin;

    fn pod() -> Value {
        let mut pod = json!({"metadata": {"name": "web", "namespace": "default"}, "spec": {"containers": [
            {"name": "a", "image": "b:1", "resources": {"requests": {"cpu": "100m"}}}]}});
        builtin("", "v1", "Pod").unwrap().default(&mut pod);
        pod["status"] = json!({"phase": "Running", "qosClass": "Burstable"});
        pod
    }

    fn check(subresource: &str, change: &dyn Fn(&mut Value), expected: &[&str]) {
        let kind = builtin("", "v1", "Pod").unwrap();
        let old = pod();
        let mut new = old.clone();
        change(&mut new);
        kind.prepare_update(&mut new, &old, subresource);
        let errors = kind.validate_update(&new, &old, subresource);
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), expected.len(), "{texts:?}");
        for (text, expected) in texts.iter().zip(expected) {
            assert!(text.starts_with(expected), "{texts:?}");
        }
    }

    #[test]
    fn a_main_update_changes_little() {
        check("", &|_| {}, &[]);
        check("", &|pod| pod["spec"]["containers"][0]["image"] = json!("b:2"), &[]);
        check("", &|pod| pod["spec"]["tolerations"] = json!([{"operator": "Exists"}]), &[]);
        check("", &|pod| pod["spec"]["activeDeadlineSeconds"] = json!(5), &[]);
        check("", &|pod| pod["metadata"]["labels"] = json!({"a": "b"}), &[]);
        check(
            "",
            &|pod| pod["spec"]["nodeName"] = json!("n1"),
            &["spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,\
               `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to \
               existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was \
               previously negative)\nspec.nodeName: <unset> -> \"n1\""],
        );
        check(
            "",
            &|pod| {
                pod["spec"]["containers"].as_array_mut().unwrap().push(json!({"name": "c", "image": "d:1",
                "imagePullPolicy": "Always", "terminationMessagePolicy": "File"}))
            },
            &["spec.containers: Forbidden: pod updates may not add or remove containers"],
        );
        check("", &|pod| pod["status"]["phase"] = json!("Failed"), &[]);
    }

    #[test]
    fn subresources_change_their_part() {
        let ephemeral = json!([{"name": "debug", "image": "d:1", "imagePullPolicy": "Always",
            "terminationMessagePolicy": "File"}]);
        check(
            "ephemeralcontainers",
            &|pod| {
                pod["spec"]["ephemeralContainers"] = ephemeral.clone();
                pod["spec"]["nodeName"] = json!("ignored");
            },
            &[],
        );
        check(
            "ephemeralcontainers",
            &|pod| {
                pod["spec"]["ephemeralContainers"] = json!([{"name": "a", "image": "d:1", "imagePullPolicy": "Always",
                "terminationMessagePolicy": "File", "ports": [{"containerPort": 80, "protocol": "TCP"}]}])
            },
            &[
                "spec.ephemeralContainers[0].name: Duplicate value: \"a\"",
                "spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container",
            ],
        );
        check("resize", &|pod| pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("200m"), &[]);
        check(
            "resize",
            &|pod| pod["spec"]["containers"][0]["resources"] = json!({"requests": {"memory": "1Mi"}}),
            &["spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed"],
        );
        check(
            "status",
            &|pod| pod["status"] = json!({"phase": "Running", "qosClass": "Guaranteed"}),
            &["status.qosClass: Invalid value: \"Guaranteed\": field is immutable"],
        );
        check("status", &|pod| pod["status"] = json!({"phase": "Succeeded"}), &[]);
        check("status", &|pod| pod["status"]["nominatedNodeName"] = json!("n1"), &[]);
    }

    #[test]
    fn containers_that_come_first_are_resized_unless_that_restarts_them() {
        let check = |policy: &str, change: Value, expected: &[&str]| {
            let policy = json!([{"resourceName": "cpu", "restartPolicy": policy}]);
            let mut old = pod();
            old["spec"]["initContainers"] = json!([{"name": "i", "image": "i:1", "imagePullPolicy": "Always",
                "terminationMessagePolicy": "File", "resources": {"requests": {"cpu": "1"}}, "resizePolicy": policy}]);
            let mut new = old.clone();
            new["spec"]["initContainers"][0]["resources"] = change;
            let mut errors = Vec::new();
            validate_resize(&new, &old, &mut errors);
            assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
        };
        check("NotRequired", json!({"requests": {"cpu": "2"}}), &[]);
        check("RestartContainer", json!({"requests": {"cpu": "1"}}), &[]);
        let why = "spec.initContainers[0]: Forbidden: non-sidecar init containers with a resize policy of RestartContainer \
                   cannot be resized";
        check("RestartContainer", json!({"requests": {"cpu": "2"}}), &[why]);
        let why = "spec.initContainers[0]: Forbidden: only cpu and memory resources for init or sidecar containers are \
                   mutable";
        check("NotRequired", json!({"requests": {"cpu": "1", "ephemeral-storage": "1Gi"}}), &[why]);
    }

    #[test]
    fn a_bound_pod_is_promised_no_other_node() {
        let check = |before: Value, after: Value, expected: &[&str]| {
            let [mut old, mut new] = [pod(), pod()];
            for (pod, nominated) in [(&mut old, before), (&mut new, after)] {
                pod["spec"]["nodeName"] = json!("n1");
                pod["status"]["nominatedNodeName"] = nominated;
            }
            let errors = builtin("", "v1", "Pod").unwrap().validate_update(&new, &old, "status");
            assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
        };
        let text = "status.nominatedNodeName: Forbidden: may not be set on pods that are already bound to a node";
        check(Value::Null, json!("n2"), &[text]);
        check(json!("n2"), json!("n2"), &[]);
        check(json!("n2"), Value::Null, &[]);
    }

    #[test]
    fn grace_is_given_to_what_runs() {
        let strategy = &builtin("", "v1", "Pod").unwrap().strategy;
        for (node, phase, requested, expected) in [
            ("", "Pending", None, 0),
            ("n1", "Running", None, 30),
            ("n1", "Running", Some(5), 5),
            ("n1", "Running", Some(0), 0),
            ("n1", "Running", Some(-1), 1),
            ("n1", "Succeeded", Some(5), 0),
        ] {
            let mut pod = pod();
            pod["spec"]["nodeName"] = json!(node);
            pod["status"]["phase"] = json!(phase);
            assert_eq!(strategy.grace_period(&pod, requested), Some(expected), "{node} {phase} {requested:?}");
        }
        assert_eq!(builtin("", "v1", "Node").unwrap().strategy.grace_period(&json!({}), Some(5)), None);
    }
}
