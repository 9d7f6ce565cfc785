//! The budgets that evictions spend: which one a pod is under, whether it allows a disruption, and taking it off.
//!
//! Not here: the deletion itself. Invariant: a disruption is taken off in the commit that found it allowed.

use std::sync::Arc;

use kedge_meta::{ApiStatus, LabelSelector, StatusCause, StatusReason, format_time};
use kedge_store::Record;
use serde_json::{Value, json};

use crate::admission::Effects;
use crate::core::Core;
use crate::registry::Resource;
use crate::reply::too_many_requests;
use crate::select::Selection;
use crate::write::{self, Refusal};
use crate::{encode, object, read};

/// How often a budget is tried to be changed.
const ATTEMPTS: usize = 20;

/// How many evicted pods a budget may wait for.
const MAX_DISRUPTED: usize = 2000;

/// What a budget said to an eviction.
pub(super) enum Spent {
    /// The pod is under none, or a disruption was taken off.
    Fully,
    /// Nothing was taken off the budget of this name, as the pod was not ready when it was looked at.
    Unready(String),
}

/// Takes the pod off the budget that it is under, if there is one.
pub(super) async fn spend(core: &Core, pod: &Value, dry_run: bool, now: jiff::Timestamp) -> Result<Spent, ApiStatus> {
    let resource = core.registry.load().storage("policy", "poddisruptionbudgets").cloned();
    let Some(resource) = resource else { return Ok(Spent::Fully) };
    for _ in 0..ATTEMPTS {
        let Some((record, mut budget)) = budget_of(core, &resource, pod).await? else { return Ok(Spent::Fully) };
        if !is_ready(pod) && may_go_unready(&budget) {
            return Ok(Spent::Unready(object::name(&budget).to_owned()));
        }
        check_budget(&budget)?;
        take(&mut budget, object::name(pod), &format_time(now));
        if dry_run {
            return Ok(Spent::Fully);
        }
        let template = encode::template(&budget);
        match write::put(core, &resource, record.key.clone(), template, Some(&record), Effects::default()).await {
            Ok(_) => return Ok(Spent::Fully),
            Err(Refusal::Conflict) => {}
            Err(Refusal::Status(status)) => return Err(status),
        }
    }
    let name = object::name(pod);
    Err(too_many_requests(&format!("couldn't update PodDisruptionBudget for pod {name} due to conflicts"), 10))
}

async fn budget_of(core: &Core, resource: &Arc<Resource>, pod: &Value) -> Result<Option<(Record, Value)>, ApiStatus> {
    let all = Selection::new(Arc::clone(resource), LabelSelector::everything(), kedge_meta::FieldSelector::default())?;
    let (records, _) = read::all(core, resource, object::namespace(pod), &all).await?;
    let mut found = Vec::new();
    for record in records {
        let budget = crate::core::decode(&record)?;
        if selects(&budget, pod) {
            found.push((record, budget));
        }
    }
    if found.len() > 1 {
        let text = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
        return Err(ApiStatus::new(500, StatusReason::InternalError, text));
    }
    Ok(found.pop())
}

fn selects(budget: &Value, pod: &Value) -> bool {
    let Some(selector) = object::at(budget, &["spec", "selector"]) else { return false };
    let Ok(selector) = LabelSelector::parse(&kedge_kinds::scale_selector(selector)) else { return false };
    selector.matches_with(|key| object::at(pod, &["metadata", "labels", key]).and_then(Value::as_str))
}

fn is_ready(pod: &Value) -> bool {
    let conditions = object::list(pod, &["status", "conditions"]);
    conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// Whether a pod that is not ready may be evicted without spending the budget.
fn may_go_unready(budget: &Value) -> bool {
    let number = |name: &str| object::at(budget, &["status", name]).and_then(Value::as_i64).unwrap_or(0);
    match object::text(budget, &["spec", "unhealthyPodEvictionPolicy"]) {
        "AlwaysAllow" => true,
        _ => number("currentHealthy") >= number("desiredHealthy") && number("desiredHealthy") > 0,
    }
}

/// The budget's word is older than what it is about.
pub(super) fn not_counted_yet(name: &str) -> ApiStatus {
    refusal(10, format!("The disruption budget {name} is still being processed by the server."))
}

fn refusal(seconds: u32, message: String) -> ApiStatus {
    let mut status = too_many_requests("Cannot evict pod as it would violate the pod's disruption budget.", seconds);
    if let Some(details) = &mut status.details {
        details.retry_after_seconds = Some(seconds).filter(|seconds| *seconds > 0);
        details.causes.push(StatusCause { reason: "DisruptionBudget".to_owned(), message, field: String::new() });
    }
    status
}

fn check_budget(budget: &Value) -> Result<(), ApiStatus> {
    let name = object::name(budget);
    let number = |path: &[&str]| object::at(budget, path).and_then(Value::as_i64).unwrap_or(0);
    if number(&["status", "observedGeneration"]) < number(&["metadata", "generation"]) {
        return Err(not_counted_yet(name));
    }
    let allowed = number(&["status", "disruptionsAllowed"]);
    if allowed < 0 {
        let resource =
            kedge_meta::GroupResource { group: "policy".to_owned(), resource: "poddisruptionbudgets".to_owned() };
        return Err(ApiStatus::forbidden(&resource, name, "pdb disruptions allowed is negative"));
    }
    let disrupted =
        object::at(budget, &["status", "disruptedPods"]).and_then(Value::as_object).map_or(0, |pods| pods.len());
    if disrupted > MAX_DISRUPTED {
        let resource =
            kedge_meta::GroupResource { group: "policy".to_owned(), resource: "poddisruptionbudgets".to_owned() };
        let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(ApiStatus::forbidden(&resource, name, why));
    }
    if allowed == 0 {
        let (needs, has) = (number(&["status", "desiredHealthy"]), number(&["status", "currentHealthy"]));
        return Err(refusal(
            0,
            format!("The disruption budget {name} needs {needs} healthy pods and has {has} currently"),
        ));
    }
    Ok(())
}

fn take(budget: &mut Value, pod: &str, time: &str) {
    let status = object::child_mut(budget, "status");
    let allowed = status.get("disruptionsAllowed").and_then(Value::as_i64).unwrap_or(0) - 1;
    status.insert("disruptionsAllowed".to_owned(), allowed.into());
    let disrupted = status.entry("disruptedPods").or_insert_with(|| json!({}));
    if let Some(disrupted) = disrupted.as_object_mut() {
        disrupted.insert(pod.to_owned(), time.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: Value, expected: Result<(), (u16, &str)>) {
        let budget = json!({"metadata": {"name": "b", "generation": 1}, "status": status});
        match (check_budget(&budget), expected) {
            (Ok(()), Ok(())) => {}
            (Err(status), Err((code, text))) => {
                let json = status.to_json().to_string();
                assert!(status.code == code && json.contains(text), "{json}");
            }
            (actual, expected) => panic!("{actual:?}, not {expected:?}"),
        }
    }

    #[test]
    fn budgets_are_kept() {
        check(json!({"observedGeneration": 1, "disruptionsAllowed": 1}), Ok(()));
        check(
            json!({"observedGeneration": 1, "desiredHealthy": 2, "currentHealthy": 2}),
            Err((429, "The disruption budget b needs 2 healthy pods and has 2 currently")),
        );
        check(json!({"disruptionsAllowed": 1}), Err((429, "still being processed by the server")));
        check(
            json!({"observedGeneration": 1, "disruptionsAllowed": -1}),
            Err((403, "pdb disruptions allowed is negative")),
        );
    }
}
