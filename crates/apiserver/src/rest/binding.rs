//! `pods/binding`: the scheduler's write that gives a pod to a node.

use std::sync::Arc;

use http::StatusCode;
use kedge_meta::{ApiStatus, FieldError, FieldPath, GroupResource, GroupVersionKind, format_time};
use serde_json::{Value, json};

use crate::admission::{Attributes, Operation, Seen, Told};
use crate::call::Call;
use crate::core::Core;
use crate::object;
use crate::registry::Resource;
use crate::reply::{self, Reply};
use crate::update::{Edited, Update};
use crate::write::{self, Expected, WriteOptions};

/// POST of a `Binding`, below a pod or to the collection.
pub(super) async fn bind(core: &Core, call: &mut Call, _resource: &Arc<Resource>) -> Reply {
    if call.verb != "create" {
        return Err(ApiStatus::method_not_allowed());
    }
    let encoding = call.accepted_object()?;
    let options = WriteOptions::of(call)?;
    let expected = Expected::builtin("", "v1", "Binding", "v1");
    let mut binding = write::read_object(core, call, expected, options.validation).await?;
    let target = call.resource().clone();
    write::place_namespace(&mut binding, &target.namespace)?;
    let name = match target.name.is_empty() {
        true => object::name(&binding).to_owned(),
        false => target.name.clone(),
    };
    let given = object::name(&binding);
    if !given.is_empty() && given != name {
        let text = format!("the name of the object ({given}) does not match the name on the URL ({name})");
        return Err(ApiStatus::bad_request(text));
    }
    let pods = Arc::clone(core.registry.load().storage("", "pods").expect("pods are built in"));
    let kind = GroupVersionKind::new("", "v1", "Binding");
    let described = options.described(true);
    let told = Told { options: &described, dry_run: options.dry_run, notes: &call.notes, seen: Seen::As(&kind) };
    let attributes = Attributes {
        subresource: "binding",
        name: &name,
        ..Attributes::of(core, call, &pods, Operation::Create, told)
    };
    core.admission.ask(&attributes, &mut binding).await?;
    check(&binding, &name)?;
    let update = Update {
        core,
        user: &call.user,
        resource: &pods,
        subresource: "binding",
        part: "binding",
        namespace: &target.namespace,
        name: &name,
        options: &options,
        seen: Seen::Nothing,
        now: call.now,
    };
    let time = format_time(call.now);
    update.run(&|pod| bound(pod, &binding, &name, &time).map(Edited::new)).await?;
    let success = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
    Ok(reply::document(StatusCode::CREATED, encoding, &success))
}

fn check(binding: &Value, name: &str) -> Result<(), ApiStatus> {
    let path = FieldPath::new("target");
    let mut errors = Vec::new();
    let kind = object::text(binding, &["target", "kind"]);
    if !matches!(kind, "" | "Node") {
        errors.push(FieldError::not_supported(&path.child("kind"), &json!(kind), &["Node", "<empty>"]));
    }
    if object::text(binding, &["target", "name"]).is_empty() {
        errors.push(FieldError::required(&path.child("name"), ""));
    }
    if errors.is_empty() { Ok(()) } else { Err(ApiStatus::invalid("", "Binding", name, &errors)) }
}

/// The pod on its node.
fn bound(pod: &Value, binding: &Value, name: &str, time: &str) -> Result<Value, ApiStatus> {
    let refuse = |why: &str| {
        let resource = GroupResource { group: String::new(), resource: "pods/binding".to_owned() };
        Err(ApiStatus::conflict(&resource, name, why))
    };
    let uid = object::meta(binding, "uid");
    if !uid.is_empty() && uid != object::meta(pod, "uid") {
        let actual = object::meta(pod, "uid");
        return refuse(&format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {actual}"));
    }
    if object::is_deleting(pod) {
        return refuse(&format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let node = object::text(pod, &["spec", "nodeName"]);
    if !node.is_empty() {
        return refuse(&format!("pod {name} is already assigned to node \"{node}\""));
    }
    if !object::list(pod, &["spec", "schedulingGates"]).is_empty() {
        return refuse(&format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    let mut pod = pod.clone();
    let host = object::text(binding, &["target", "name"]);
    object::child_mut(&mut pod, "spec").insert("nodeName".to_owned(), host.into());
    for part in ["annotations", "labels"] {
        let Some(added) = object::at(binding, &["metadata", part]).and_then(Value::as_object) else { continue };
        let own = object::metadata_mut(&mut pod).entry(part).or_insert_with(|| json!({}));
        if let Some(own) = own.as_object_mut() {
            own.extend(added.clone());
        }
    }
    set_scheduled(&mut pod, time);
    Ok(pod)
}

fn set_scheduled(pod: &mut Value, time: &str) {
    let conditions = object::child_mut(pod, "status").entry("conditions").or_insert_with(|| json!([]));
    let Some(conditions) = conditions.as_array_mut() else { return };
    conditions.retain(|condition| condition["type"] != "PodScheduled");
    conditions.push(json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": time}));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_bound(pod: Value, expected: Result<&str, &str>) {
        let binding = json!({"metadata": {"name": "a"}, "target": {"name": "n"}});
        match (bound(&pod, &binding, "a", "2026-01-01T00:00:00Z"), expected) {
            (Ok(pod), Ok(node)) => assert_eq!(
                (&pod["spec"]["nodeName"], pod["status"]["conditions"][0]["status"].as_str()),
                (&json!(node), Some("True"))
            ),
            (Err(status), Err(text)) => assert!(status.message.ends_with(text), "{}", status.message),
            (result, _) => panic!("{result:?}"),
        }
    }

    #[test]
    fn a_pod_is_bound_once() {
        check_bound(json!({"spec": {}}), Ok("n"));
        check_bound(json!({"spec": {"nodeName": "m"}}), Err("pod a is already assigned to node \"m\""));
        check_bound(
            json!({"spec": {"schedulingGates": [{"name": "x"}]}}),
            Err("pod a has non-empty .spec.schedulingGates"),
        );
        check_bound(
            json!({"metadata": {"deletionTimestamp": "x"}}),
            Err("pod a is being deleted, cannot be assigned to a host"),
        );
    }
}
