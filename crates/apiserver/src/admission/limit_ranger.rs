//! LimitRanger: a namespace's LimitRanges fill in and bound what containers, pods and claims ask for.

use async_trait::async_trait;
use kedge_meta::ApiStatus;
use serde_json::{Map, Value, json};

use super::pod_amounts::{Amounts, amounts, pod_amounts};
use super::{Attributes, Operation, Plugin, objects};
use crate::object;

#[derive(Debug, Default)]
pub(super) struct LimitRanger;

#[async_trait]
impl Plugin for LimitRanger {
    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        let pod = match attributes.operation {
            Operation::Create => attributes.is_main("", "pods"),
            Operation::Update => attributes.resource.is("", "pods") && attributes.subresource == "resize",
            Operation::Delete | Operation::Connect => false,
        };
        let claim = attributes.is_main("", "persistentvolumeclaims")
            && matches!(attributes.operation, Operation::Create | Operation::Update);
        pod || claim
    }

    async fn admit(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), ApiStatus> {
        if !attributes.resource.is("", "pods") {
            return Ok(());
        }
        for range in objects(attributes.core, "", "limitranges", attributes.namespace).await? {
            fill(&range, object);
        }
        Ok(())
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: &Value) -> Result<(), ApiStatus> {
        let mut errors = Vec::new();
        for range in objects(attributes.core, "", "limitranges", attributes.namespace).await? {
            for limit in object::list(&range, &["spec", "limits"]) {
                match attributes.resource.is("", "pods") {
                    true => check_pod(limit, object, &mut errors),
                    false => check_claim(limit, object, &mut errors),
                }
            }
        }
        match errors.len() {
            0 => Ok(()),
            1 => Err(attributes.forbidden(&errors[0])),
            _ => Err(attributes.forbidden(&format!("[{}]", errors.join(", ")))),
        }
    }
}

/// Gives containers the defaults of a range.
fn fill(range: &Value, pod: &mut Value) {
    let limits = object::list(range, &["spec", "limits"]).iter().filter(|limit| limit["type"] == "Container");
    let (mut limit_defaults, mut request_defaults) = (Map::new(), Map::new());
    for limit in limits {
        for (field, into) in [("default", &mut limit_defaults), ("defaultRequest", &mut request_defaults)] {
            into.extend(limit[field].as_object().cloned().unwrap_or_default());
        }
    }
    if limit_defaults.is_empty() && request_defaults.is_empty() {
        return;
    }
    let mut notes = Vec::new();
    for (list, what) in [("containers", "container"), ("initContainers", "init container")] {
        let Some(containers) = pod["spec"].get_mut(list).and_then(Value::as_array_mut) else { continue };
        for container in containers.iter_mut().filter(|container| container.is_object()) {
            let name = object::text(container, &["name"]).to_owned();
            for (kind, defaults) in [("limits", &limit_defaults), ("requests", &request_defaults)] {
                let set = fill_container(container, kind, defaults);
                if !set.is_empty() {
                    let word = kind.trim_end_matches('s');
                    notes.push(format!("{} {word} for {what} {name}", set.join(", ")));
                }
            }
        }
    }
    if !notes.is_empty() {
        let text = format!("LimitRanger plugin set: {}", notes.join("; "));
        let annotations = object::metadata_mut(pod).entry("annotations").or_insert_with(|| json!({}));
        annotations["kubernetes.io/limit-ranger"] = json!(text);
    }
}

fn fill_container(container: &mut Value, kind: &str, defaults: &Map<String, Value>) -> Vec<String> {
    let resources = object::child_mut(container, "resources");
    let mut own = resources.get(kind).and_then(Value::as_object).cloned().unwrap_or_default();
    let mut set: Vec<String> = Vec::new();
    for (name, value) in defaults {
        if !own.contains_key(name) {
            own.insert(name.clone(), value.clone());
            set.push(name.clone());
        }
    }
    if !own.is_empty() {
        resources.insert(kind.to_owned(), own.into());
    }
    set.sort();
    set
}

fn check_pod(limit: &Value, pod: &Value, errors: &mut Vec<String>) {
    match object::text(limit, &["type"]) {
        "Container" => {
            for list in ["containers", "initContainers"] {
                for container in object::list(pod, &["spec", list]) {
                    let of = |kind: &str| amounts(object::at(container, &["resources", kind]));
                    check(limit, "Container", &of("requests"), &of("limits"), errors);
                }
            }
        }
        "Pod" => check(limit, "Pod", &pod_amounts(pod, "requests"), &pod_amounts(pod, "limits"), errors),
        _ => {}
    }
}

fn check_claim(limit: &Value, claim: &Value, errors: &mut Vec<String>) {
    if limit["type"] == "PersistentVolumeClaim" {
        let requests = amounts(object::at(claim, &["spec", "resources", "requests"]));
        check(limit, "PersistentVolumeClaim", &requests, &Amounts::new(), errors);
    }
}

fn check(limit: &Value, what: &str, requests: &Amounts, limits: &Amounts, errors: &mut Vec<String>) {
    let text = |bound: &str, name: &str| object::text(limit, &[bound, name]).to_owned();
    for (name, min) in amounts(limit.get("min")) {
        let bound = text("min", &name);
        match requests.get(&name).copied().or_else(|| limits.get(&name).copied()) {
            None => errors.push(format!("minimum {name} usage per {what} is {bound}.  No request is specified")),
            Some(request) if request < min => {
                errors.push(format!("minimum {name} usage per {what} is {bound}, but request is {request}"));
            }
            Some(_) => {}
        }
    }
    let claim = what == "PersistentVolumeClaim";
    for (name, max) in amounts(limit.get("max")) {
        let bound = text("max", &name);
        let (given, word) =
            if claim { (requests.get(&name).copied(), "request") } else { (limits.get(&name).copied(), "limit") };
        match given {
            None => errors.push(format!("maximum {name} usage per {what} is {bound}.  No {word} is specified")),
            Some(given) if given > max => {
                errors.push(format!("maximum {name} usage per {what} is {bound}, but {word} is {given}"));
            }
            Some(_) => {}
        }
    }
    for (name, ratio) in amounts(limit.get("maxLimitRequestRatio")) {
        let bound = text("maxLimitRequestRatio", &name);
        let (Some(request), Some(given)) = (requests.get(&name).copied(), limits.get(&name).copied()) else {
            errors.push(format!(
                "{name} max limit to request ratio per {what} is {bound}, but no request is specified or request is 0"
            ));
            continue;
        };
        let actual = given.millis() as f64 / (request.millis().max(1)) as f64;
        if actual > ratio.millis() as f64 / 1000.0 {
            errors.push(format!(
                "{name} max limit to request ratio per {what} is {bound}, but provided ratio is {actual:.6}"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_get_the_defaults() {
        let range = json!({"spec": {"limits": [{"type": "Container", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "100m"}}]}});
        let mut pod = json!({"metadata": {}, "spec": {"containers": [{"name": "a"}, {"name": "b", "resources": {"limits": {"cpu": "2"}}}]}});
        fill(&range, &mut pod);
        assert_eq!(
            pod["spec"]["containers"][0]["resources"],
            json!({"limits": {"cpu": "1"}, "requests": {"cpu": "100m"}})
        );
        assert_eq!(pod["spec"]["containers"][1]["resources"]["limits"]["cpu"], "2");
        let note = "LimitRanger plugin set: cpu limit for container a; cpu request for container a; cpu request for container b";
        assert_eq!(pod["metadata"]["annotations"]["kubernetes.io/limit-ranger"], note);
    }

    #[test]
    fn bounds_are_kept() {
        let limit = json!({"type": "Container", "min": {"cpu": "100m"}, "max": {"cpu": "1"}});
        for (resources, expected) in [
            (json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "1"}}), vec![]),
            (
                json!({"requests": {"cpu": "50m"}, "limits": {"cpu": "1"}}),
                vec!["minimum cpu usage per Container is 100m, but request is 50m"],
            ),
            (
                json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "2"}}),
                vec!["maximum cpu usage per Container is 1, but limit is 2"],
            ),
            (
                json!({"requests": {"cpu": "100m"}}),
                vec!["maximum cpu usage per Container is 1.  No limit is specified"],
            ),
        ] {
            let pod = json!({"spec": {"containers": [{"resources": resources}]}});
            let mut errors = Vec::new();
            check_pod(&limit, &pod, &mut errors);
            assert_eq!(errors, expected);
        }
    }
}
