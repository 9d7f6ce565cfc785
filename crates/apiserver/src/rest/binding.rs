//! `pods/binding`: the scheduler's write that gives a pod to a node.

use std::sync::Arc;

use http::StatusCode;
use kedge_meta::{ApiStatus, FieldError, FieldPath, GroupResource, GroupVersionKind, format_time};
use serde_json::{Value, json};

use crate::admission::{Attributes, Effects, Operation, Seen, Told};
use crate::call::Call;
use crate::core::Core;
use crate::registry::Resource;
use crate::reply::{self, Reply};
use crate::update::ATTEMPTS;
use crate::write::{self, Expected, Refusal, WriteOptions};
use crate::{convert, object};

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
    core.admission.admit(&attributes, &mut binding).await?;
    core.admission.validate(&attributes, &binding).await?;
    check(&binding, &name)?;
    let assignment = Assignment { binding: &binding, name: &name, time: format_time(call.now) };
    assignment.write(core, &pods, &target.namespace, options.dry_run).await?;
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

/// A pod's way to its node.
struct Assignment<'a> {
    binding: &'a Value,
    name: &'a str,
    time: String,
}

impl Assignment<'_> {
    /// Writes the pod as the store has it, with nothing but its node new: that was admitted as a binding, so nobody is asked
    /// about the pod again, and nobody comes to own its fields.
    async fn write(&self, core: &Core, pods: &Arc<Resource>, namespace: &str, dry_run: bool) -> Result<(), ApiStatus> {
        for _ in 0..ATTEMPTS {
            let record = core.record(pods, namespace, self.name).await?;
            let pod = self.bound(convert::live(pods, &record).await?)?;
            if dry_run {
                return Ok(());
            }
            let template = convert::own_template(pods, &pod);
            match write::put(core, pods, record.key.clone(), template, Some(&record), Effects::default()).await {
                Ok(_) => return Ok(()),
                Err(Refusal::Status(status)) => return Err(status),
                Err(Refusal::Conflict) => {}
            }
        }
        Err(ApiStatus::stale_update(&pods.group_resource, self.name))
    }

    /// The pod on its node.
    fn bound(&self, mut pod: Value) -> Result<Value, ApiStatus> {
        self.check(&pod)?;
        let host = object::text(self.binding, &["target", "name"]);
        object::child_mut(&mut pod, "spec").insert("nodeName".to_owned(), host.into());
        for part in ["annotations", "labels"] {
            let Some(added) = object::at(self.binding, &["metadata", part]).and_then(Value::as_object) else {
                continue;
            };
            let own = object::metadata_mut(&mut pod).entry(part).or_insert_with(|| json!({}));
            if let Some(own) = own.as_object_mut() {
                own.extend(added.clone());
            }
        }
        object::child_mut(&mut pod, "status").remove("nominatedNodeName");
        set_scheduled(&mut pod, &self.time);
        Ok(pod)
    }

    /// 409 for a pod that can't go to a node, or is another than the one that was meant.
    fn check(&self, pod: &Value) -> Result<(), ApiStatus> {
        let name = self.name;
        let resource = GroupResource { group: String::new(), resource: "pods/binding".to_owned() };
        let refuse = |why: &str| Err(ApiStatus::conflict(&resource, name, why));
        for (field, said) in [("uid", "UID"), ("resourceVersion", "ResourceVersion")] {
            let (asked, actual) = (object::meta(self.binding, field), object::meta(pod, field));
            if !asked.is_empty() && asked != actual {
                let why = format!("{said} in precondition: {asked}, {said} in object meta: {actual}");
                return refuse(&format!("Precondition failed: {why}"));
            }
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
        Ok(())
    }
}

/// Notes that the pod has a node, in the place where it was noted that it has none.
fn set_scheduled(pod: &mut Value, time: &str) {
    let conditions = object::child_mut(pod, "status").entry("conditions").or_insert_with(|| json!([]));
    let Some(conditions) = conditions.as_array_mut() else { return };
    let scheduled = json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": time});
    match conditions.iter_mut().find(|condition| condition["type"] == "PodScheduled") {
        Some(condition) => *condition = scheduled,
        None => conditions.push(scheduled),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(pod: Value, binding: &Value) -> Result<Value, ApiStatus> {
        Assignment { binding, name: "a", time: "2026-01-01T00:00:00Z".to_owned() }.bound(pod)
    }

    fn check_bound(pod: Value, expected: Result<&str, &str>) {
        let binding = json!({"metadata": {"name": "a", "resourceVersion": "7"}, "target": {"name": "n"}});
        let mut pod = pod;
        pod["metadata"]["resourceVersion"] = json!("7");
        match (bound(pod, &binding), expected) {
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

    #[test]
    fn only_the_pod_that_was_meant_is_bound() {
        let pod = json!({"metadata": {"uid": "u", "resourceVersion": "7"}});
        for (field, other) in [("uid", "v"), ("resourceVersion", "8")] {
            let mut binding = json!({"metadata": {"name": "a"}, "target": {"name": "n"}});
            binding["metadata"][field] = pod["metadata"][field].clone();
            assert!(bound(pod.clone(), &binding).is_ok());
            binding["metadata"][field] = json!(other);
            let refused = bound(pod.clone(), &binding).unwrap_err();
            assert!(refused.message.contains("in precondition"), "{}", refused.message);
        }
    }

    #[test]
    fn what_was_said_while_it_waited_is_over() {
        let waited = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable"});
        let other = json!({"type": "Other", "status": "True"});
        let pod = json!({"status": {"nominatedNodeName": "m", "conditions": [waited, other]}});
        let status = &bound(pod, &json!({"target": {"name": "n"}})).unwrap()["status"];
        let scheduled = json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        assert_eq!(*status, json!({"conditions": [scheduled, other]}));
    }
}
