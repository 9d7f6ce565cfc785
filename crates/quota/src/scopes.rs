//! Which objects a quota looks at.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, Pod, PodSpec, ResourceQuotaSpec, ResourceRequirements, ScopedResourceSelectorRequirement,
};
use kedge_meta::Quantity;

use crate::amounts::read;

/// What a quota may look at.
#[derive(Debug, Clone, Copy)]
pub enum Item<'a> {
    /// A pod.
    Pod(&'a Pod),
    /// A claim of storage.
    Claim(&'a PersistentVolumeClaim),
    /// Anything else, which no scope takes in.
    Other,
}

/// Whether all scopes of a quota with this `spec` take an object in.
pub fn looks_at(spec: &ResourceQuotaSpec, item: Item<'_>) -> bool {
    let named = spec.scopes.iter().flatten().all(|scope| takes_in(scope, Wanted::Any, item));
    let expressions = spec.scope_selector.as_ref().and_then(|selector| selector.match_expressions.as_ref());
    named && expressions.into_iter().flatten().all(|one| takes_in(&one.scope_name, Wanted::of(one), item))
}

/// Which names of a class are wanted.
enum Wanted<'a> {
    Any,
    None,
    In(&'a [String]),
    NotIn(&'a [String]),
}

impl<'a> Wanted<'a> {
    fn of(expression: &'a ScopedResourceSelectorRequirement) -> Self {
        let values = expression.values.as_deref().unwrap_or_default();
        match expression.operator.as_str() {
            "In" => Self::In(values),
            "NotIn" => Self::NotIn(values),
            "DoesNotExist" => Self::None,
            _ => Self::Any,
        }
    }

    /// Whether one of the names will do; an object without a class has none.
    fn has(&self, names: &BTreeSet<&str>) -> bool {
        let is_in = |values: &[String], name: &str| values.iter().any(|value| value == name);
        match self {
            Self::Any => !names.is_empty(),
            Self::None => names.is_empty(),
            Self::In(values) => names.iter().any(|name| is_in(values, name)),
            Self::NotIn(values) => names.is_empty() || names.iter().any(|name| !is_in(values, name)),
        }
    }
}

fn takes_in(scope: &str, wanted: Wanted<'_>, item: Item<'_>) -> bool {
    match item {
        Item::Pod(pod) => takes_in_pod(scope, wanted, pod),
        Item::Claim(claim) => scope == "VolumeAttributesClass" && wanted.has(&attributes_classes(claim)),
        Item::Other => false,
    }
}

fn takes_in_pod(scope: &str, wanted: Wanted<'_>, pod: &Pod) -> bool {
    let spec = pod.spec.as_ref();
    let has_deadline = || spec.and_then(|spec| spec.active_deadline_seconds).is_some_and(|seconds| seconds >= 0);
    match scope {
        "Terminating" => has_deadline(),
        "NotTerminating" => !has_deadline(),
        "BestEffort" => is_best_effort(pod),
        "NotBestEffort" => !is_best_effort(pod),
        "PriorityClass" => {
            let class = spec.and_then(|spec| spec.priority_class_name.as_deref());
            wanted.has(&class.into_iter().filter(|class| !class.is_empty()).collect())
        }
        "CrossNamespacePodAffinity" => spec.is_some_and(looks_into_other_namespaces),
        _ => false,
    }
}

/// By the class that is noted, or else by what is asked for.
fn is_best_effort(pod: &Pod) -> bool {
    if let Some(class) = pod.status.as_ref().and_then(|status| status.qos_class.as_deref()) {
        return class == "BestEffort";
    }
    let Some(spec) = &pod.spec else { return true };
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let all = containers.map(|container| container.resources.as_ref()).chain([spec.resources.as_ref()]);
    !all.flatten().any(asks_for_something)
}

fn asks_for_something(resources: &ResourceRequirements) -> bool {
    let amounts = [&resources.requests, &resources.limits].map(|amounts| read(amounts.as_ref()));
    let counts = |name: &str, amount: Quantity| matches!(name, "cpu" | "memory") && amount > Quantity::ZERO;
    amounts.iter().flatten().any(|(name, amount)| counts(name, *amount))
}

fn looks_into_other_namespaces(spec: &PodSpec) -> bool {
    let Some(affinity) = &spec.affinity else { return false };
    let near = affinity.pod_affinity.as_ref();
    let far = affinity.pod_anti_affinity.as_ref();
    let required = [
        near.and_then(|near| near.required_during_scheduling_ignored_during_execution.as_ref()),
        far.and_then(|far| far.required_during_scheduling_ignored_during_execution.as_ref()),
    ];
    let preferred = [
        near.and_then(|near| near.preferred_during_scheduling_ignored_during_execution.as_ref()),
        far.and_then(|far| far.preferred_during_scheduling_ignored_during_execution.as_ref()),
    ];
    let weighted = preferred.into_iter().flatten().flatten().map(|term| &term.pod_affinity_term);
    let mut terms = required.into_iter().flatten().flatten().chain(weighted);
    terms.any(|term| {
        term.namespace_selector.is_some() || term.namespaces.as_ref().is_some_and(|names| !names.is_empty())
    })
}

/// The VolumeAttributesClass that a claim is to have, the one that it has, and the one that it is on its way to.
pub fn attributes_classes(claim: &PersistentVolumeClaim) -> BTreeSet<&str> {
    let wanted = claim.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_deref());
    let status = claim.status.as_ref();
    let has = status.and_then(|status| status.current_volume_attributes_class_name.as_deref());
    let target = status.and_then(|status| status.modify_volume_status.as_ref());
    let target = target.and_then(|target| target.target_volume_attributes_class_name.as_deref());
    [wanted, has, target].into_iter().flatten().filter(|name| !name.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn scoped(scope: &str, operator: &str, values: &[&str]) -> ResourceQuotaSpec {
        let expression = json!({"scopeName": scope, "operator": operator, "values": values});
        serde_json::from_value(json!({"scopeSelector": {"matchExpressions": [expression]}})).unwrap()
    }

    #[test]
    fn scopes_choose_pods() {
        let check = |pod: Value, scope: &str, expected: bool| {
            let spec = ResourceQuotaSpec { scopes: Some(vec![scope.to_owned()]), ..ResourceQuotaSpec::default() };
            let pod: Pod = serde_json::from_value(pod).unwrap();
            assert_eq!(looks_at(&spec, Item::Pod(&pod)), expected, "{scope}");
        };
        let plain = || json!({"spec": {"containers": [{"name": "a"}]}});
        check(plain(), "BestEffort", true);
        check(plain(), "NotBestEffort", false);
        check(plain(), "NotTerminating", true);
        check(plain(), "PriorityClass", false);
        check(plain(), "CrossNamespacePodAffinity", false);
        check(plain(), "VolumeAttributesClass", false);
        check(json!({"spec": {"activeDeadlineSeconds": 5}}), "Terminating", true);
        let asking = |amounts: Value| json!({"spec": {"containers": [{"resources": {"limits": amounts}}]}});
        check(asking(json!({"cpu": "1"})), "BestEffort", false);
        check(asking(json!({"cpu": "0", "x.io/gpu": "1"})), "BestEffort", true);
        let far = json!({"podAffinityTerm": {"topologyKey": "zone", "namespaces": ["other"]}, "weight": 1});
        let affinity = json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [far]}});
        check(json!({"spec": {"affinity": affinity}}), "CrossNamespacePodAffinity", true);
    }

    #[test]
    fn classes_are_chosen_by_name() {
        let check = |class: &str, operator: &str, expected: bool| {
            let pod: Pod = serde_json::from_value(json!({"spec": {"priorityClassName": class}})).unwrap();
            let spec = scoped("PriorityClass", operator, &["high", "higher"]);
            assert_eq!(looks_at(&spec, Item::Pod(&pod)), expected, "{class} {operator}");
            assert!(!looks_at(&spec, Item::Other));
        };
        for (class, found) in [("high", [true, false, true, false]), ("low", [false, true, true, false])] {
            for (operator, expected) in ["In", "NotIn", "Exists", "DoesNotExist"].into_iter().zip(found) {
                check(class, operator, expected);
            }
        }
        check("", "NotIn", true);
        check("", "DoesNotExist", true);
    }

    #[test]
    fn a_claim_has_every_class_that_it_comes_from_or_goes_to() {
        let status = json!({"currentVolumeAttributesClassName": "silver",
            "modifyVolumeStatus": {"status": "InProgress", "targetVolumeAttributesClassName": "gold"}});
        let claim = json!({"spec": {"volumeAttributesClassName": "bronze"}, "status": status});
        let claim: PersistentVolumeClaim = serde_json::from_value(claim).unwrap();
        for (class, expected) in [("bronze", true), ("silver", true), ("gold", true), ("other", false)] {
            let spec = scoped("VolumeAttributesClass", "In", &[class]);
            assert_eq!(looks_at(&spec, Item::Claim(&claim)), expected, "{class}");
        }
        let others = scoped("VolumeAttributesClass", "NotIn", &["gold"]);
        assert!(looks_at(&others, Item::Claim(&claim)) && looks_at(&others, Item::Claim(&Default::default())));
        assert!(!looks_at(&scoped("PriorityClass", "Exists", &[]), Item::Claim(&claim)));
    }
}
