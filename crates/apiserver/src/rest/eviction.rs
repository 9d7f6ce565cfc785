//! `pods/eviction`: a deletion that a PodDisruptionBudget may refuse, and that the pod's status tells.
//!
//! Not here: budgets (`budget.rs`). Invariant: no pod goes by an eviction that does not say so in its conditions, by which
//! controllers tell it from a failure of the pod's own.

mod budget;

use std::sync::Arc;

use http::StatusCode;
use kedge_meta::{ApiStatus, GroupVersionKind, StatusReason, format_time};
use serde_json::{Value, json};

use crate::admission::{Attributes, Effects, Operation, Seen, Told};
use crate::call::Call;
use crate::core::Core;
use crate::delete::{DeleteOptions, Deletion};
use crate::registry::Resource;
use crate::reply::{self, Reply};
use crate::write::{self, Expected, Refusal, WriteOptions};
use crate::{encode, object};

use budget::Spent;

/// How often an eviction starts over where somebody else changed the pod.
const ATTEMPTS: usize = 20;

/// POST of an `Eviction`.
pub(super) async fn evict(core: &Core, call: &mut Call, resource: &Arc<Resource>) -> Reply {
    if call.verb != "create" {
        return Err(ApiStatus::method_not_allowed());
    }
    let encoding = call.accepted_object()?;
    let options = WriteOptions::of(call)?;
    let expected = Expected::builtin("policy", "v1", "Eviction", "policy/v1");
    let mut eviction = write::read_object(core, call, expected, options.validation).await?;
    let target = call.resource().clone();
    let given = object::name(&eviction);
    if !given.is_empty() && given != target.name {
        let text = format!("name in URL does not match name in Eviction object: {} != {given}", target.name);
        return Err(ApiStatus::bad_request(text));
    }
    let kind = GroupVersionKind::new("policy", "v1", "Eviction");
    let described = options.described(true);
    let told = Told { options: &described, dry_run: options.dry_run, notes: &call.notes, seen: Seen::As(&kind) };
    let attributes = Attributes::of(core, call, resource, Operation::Create, told);
    core.admission.admit(&attributes, &mut eviction).await?;
    core.admission.validate(&attributes, &eviction).await?;
    let mut delete: DeleteOptions = match eviction.get("deleteOptions") {
        Some(options) => {
            serde_json::from_value(options.clone()).map_err(|error| ApiStatus::bad_request(error.to_string()))?
        }
        None => DeleteOptions::default(),
    };
    if options.dry_run {
        delete.dry_run = vec!["All".to_owned()];
    }
    let eviction = Eviction {
        core,
        resource,
        options: &delete,
        dry_run: delete.is_dry_run()?,
        deletion: Deletion {
            core,
            user: &call.user,
            resource,
            namespace: &target.namespace,
            name: &target.name,
            options: &delete,
            notes: &call.notes,
            // They were asked about the eviction.
            seen: Seen::Nothing,
            now: call.now,
        },
    };
    eviction.run().await?;
    let success = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Ok(reply::document(StatusCode::CREATED, encoding, &success))
}

/// One eviction, as it was asked for.
struct Eviction<'a> {
    core: &'a Core,
    resource: &'a Arc<Resource>,
    options: &'a DeleteOptions,
    dry_run: bool,
    deletion: Deletion<'a>,
}

impl Eviction<'_> {
    async fn run(&self) -> Result<(), ApiStatus> {
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let pod = self.pod().await?;
            if needs_budget(&pod) {
                return self.spend_and_delete(&pod).await;
            }
            // A pod that has not begun must not become ready in between.
            match self.delete(Some(&pod).filter(|pod| !has_ended(pod))).await {
                Err(status) if status.reason == StatusReason::Conflict && !self.names_a_version() => {
                    last = Some(status)
                }
                done => return done,
            }
        }
        Err(last.unwrap_or_else(|| ApiStatus::stale_update(&self.resource.group_resource, self.deletion.name)))
    }

    async fn pod(&self) -> Result<Value, ApiStatus> {
        let Deletion { namespace, name, .. } = self.deletion;
        crate::core::decode(&self.core.record(self.resource, namespace, name).await?)
    }

    fn names_a_version(&self) -> bool {
        self.options.preconditions.resource_version.is_some()
    }

    async fn spend_and_delete(&self, pod: &Value) -> Result<(), ApiStatus> {
        match budget::spend(self.core, pod, self.dry_run, self.deletion.now).await? {
            Spent::Fully => self.delete(None).await,
            Spent::Unready(name) => match self.delete(Some(pod)).await {
                Err(status) if status.reason == StatusReason::Conflict && !self.names_a_version() => {
                    Err(budget::not_counted_yet(&name))
                }
                done => done,
            },
        }
    }

    /// Says why in the pod's status, and deletes it; only as it is in `unchanged`, where that is given.
    async fn delete(&self, unchanged: Option<&Value>) -> Result<(), ApiStatus> {
        let mut options = self.options.clone();
        if let (Some(pod), false) = (unchanged, self.names_a_version()) {
            options.preconditions.resource_version = Some(object::meta(pod, "resourceVersion").to_owned());
        }
        if !self.dry_run {
            let version = self.tell(&options).await?;
            if let Some(wanted) = &mut options.preconditions.resource_version {
                *wanted = version;
            }
        }
        Deletion { options: &options, ..self.deletion }.run().await?;
        Ok(())
    }

    /// Writes the condition, and gives the pod's version after that.
    async fn tell(&self, options: &DeleteOptions) -> Result<String, ApiStatus> {
        for _ in 0..ATTEMPTS {
            let Deletion { namespace, name, now, .. } = self.deletion;
            let record = self.core.record(self.resource, namespace, name).await?;
            let mut pod = crate::core::decode(&record)?;
            options.check_preconditions(self.resource, &pod)?;
            if !set_condition(&mut pod, &format_time(now)) {
                return Ok(object::meta(&pod, "resourceVersion").to_owned());
            }
            let (key, template) = (record.key.clone(), encode::template(&pod));
            let put = write::put(self.core, self.resource, key, template, Some(&record), Effects::default()).await;
            match put {
                Ok(record) => return Ok(record.modified.to_string()),
                Err(Refusal::Conflict) => {}
                Err(Refusal::Status(status)) => return Err(status),
            }
        }
        Err(ApiStatus::stale_update(&self.resource.group_resource, self.deletion.name))
    }
}

/// Whether the condition was not there before.
fn set_condition(pod: &mut Value, now: &str) -> bool {
    const TYPE: &str = "DisruptionTarget";
    let told = json!({
        "type": TYPE, "status": "True", "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting",
        "lastProbeTime": null, "lastTransitionTime": now,
    });
    let status = object::child_mut(pod, "status");
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
    let Some(conditions) = conditions.as_array_mut() else { return false };
    let Some(found) = conditions.iter_mut().find(|condition| condition["type"] == TYPE) else {
        conditions.push(told);
        return true;
    };
    let since = found["lastTransitionTime"].clone();
    let (was, before) = (found["status"] == "True", found.clone());
    for field in ["status", "reason", "message"] {
        found[field] = told[field].clone();
    }
    found["lastTransitionTime"] = if was { since } else { told["lastTransitionTime"].clone() };
    *found != before
}

/// Pods that serve nobody (any more) are evicted without asking.
fn needs_budget(pod: &Value) -> bool {
    let phase = object::text(pod, &["status", "phase"]);
    !matches!(phase, "Succeeded" | "Failed" | "Pending" | "") && !object::is_deleting(pod)
}

fn has_ended(pod: &Value) -> bool {
    matches!(object::text(pod, &["status", "phase"]), "Succeeded" | "Failed") || object::is_deleting(pod)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(before: Value, changed: bool, reason: &str, since: &str) {
        let mut pod = json!({"status": {"conditions": before}});
        assert_eq!(set_condition(&mut pod, "now"), changed, "{pod}");
        let conditions = object::list(&pod, &["status", "conditions"]);
        let told: Vec<&Value> = conditions.iter().filter(|condition| condition["type"] == "DisruptionTarget").collect();
        assert_eq!(told.len(), 1, "{pod}");
        let told = (&told[0]["status"], &told[0]["reason"], &told[0]["lastTransitionTime"]);
        assert_eq!(told, (&json!("True"), &json!(reason), &json!(since)));
    }

    #[test]
    fn the_condition_stands_once_and_keeps_its_time() {
        let ours = "EvictionByEvictionAPI";
        let told = |status: &str, reason: &str| {
            json!([{"type": "Ready", "status": "True"}, {"type": "DisruptionTarget", "status": status, "reason": reason,
                "message": "Eviction API: evicting", "lastTransitionTime": "before"}])
        };
        check(json!([]), true, ours, "now");
        check(told("True", ours), false, ours, "before");
        check(told("True", "PreemptionByScheduler"), true, ours, "before");
        check(told("False", ours), true, ours, "now");
    }
}
