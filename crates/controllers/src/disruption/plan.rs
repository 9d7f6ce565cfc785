//! How many pods of a PodDisruptionBudget may be disrupted right now.
//!
//! Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::int_or_percent::resolve;
use crate::pods::{is_ready, name_of};

const ALLOWED: &str = "DisruptionAllowed";
/// So long an eviction that was allowed may take until the pod is deleted.
const DELETION_TIMEOUT: SignedDuration = SignedDuration::from_secs(120);

/// How many pods there should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) expected: i32,
    pub(crate) healthy: i32,
}

/// Whether a budget's numbers depend on the scale of the pods' controllers.
pub(crate) fn needs_scale(spec: &PodDisruptionBudgetSpec) -> bool {
    spec.max_unavailable.is_some() || matches!(spec.min_available, Some(IntOrString::String(_)))
}

/// What the budget asks for, from the scale of its pods' controllers (or their number, where [`needs_scale`] says no).
pub(crate) fn wanted(spec: &PodDisruptionBudgetSpec, scale: i32) -> Option<Wanted> {
    let healthy = match (&spec.max_unavailable, &spec.min_available) {
        (Some(most), _) => (scale - resolve(most, scale, true)?).max(0),
        (None, Some(least)) => resolve(least, scale, true)?,
        (None, None) => 0,
    };
    Some(Wanted { expected: scale, healthy })
}

/// Pods whose disruption was allowed and has not happened, and when that is to be looked at again.
pub(crate) struct Disrupted {
    pub(crate) pods: BTreeMap<String, Time>,
    /// Those that were expected to go and did not.
    pub(crate) overdue: Vec<Arc<Pod>>,
    pub(crate) look_again: Option<Duration>,
}

/// Forgets disruptions that happened, and those that did not in time.
pub(crate) fn plan_disrupted(budget: &PodDisruptionBudget, pods: &[Arc<Pod>], now: Timestamp) -> Disrupted {
    let mut result = Disrupted { pods: BTreeMap::new(), overdue: Vec::new(), look_again: None };
    let noted = budget.status.as_ref().and_then(|status| status.disrupted_pods.clone()).unwrap_or_default();
    for (name, time) in noted {
        let Some(pod) = pods.iter().find(|pod| name_of(&pod.metadata) == name) else { continue };
        if pod.metadata.deletion_timestamp.is_some() {
            continue;
        }
        let left = DELETION_TIMEOUT - now.duration_since(time.0);
        match Duration::try_from(left).ok().filter(|left| !left.is_zero()) {
            None => result.overdue.push(pod.clone()),
            Some(left) => {
                result.look_again = Some(result.look_again.map_or(left, |sooner| sooner.min(left)));
                result.pods.insert(name, time);
            }
        }
    }
    result
}

/// The budget's status; `wanted` is an error's text where the scale could not be found out.
pub(crate) fn plan_status(
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    wanted: Result<Wanted, &str>,
    disrupted: BTreeMap<String, Time>,
    now: Timestamp,
) -> PodDisruptionBudgetStatus {
    let before = budget.status.clone().unwrap_or_default();
    let mut conditions = before.conditions.clone().unwrap_or_default();
    let generation = budget.metadata.generation;
    let Ok(wanted) = wanted else {
        let message = wanted.err().unwrap_or_default();
        set_condition(&mut conditions, ("False", "SyncFailed", message), generation, now);
        return PodDisruptionBudgetStatus { disruptions_allowed: Some(0), conditions: Some(conditions), ..before };
    };
    let is_healthy = |pod: &&Arc<Pod>| {
        pod.metadata.deletion_timestamp.is_none() && is_ready(pod) && !disrupted.contains_key(name_of(&pod.metadata))
    };
    let healthy = pods.iter().filter(is_healthy).count() as i32;
    let allowed = if wanted.expected <= 0 { 0 } else { (healthy - wanted.healthy).max(0) };
    let state = match allowed > 0 {
        true => ("True", "SufficientPods", ""),
        false => ("False", "InsufficientPods", ""),
    };
    set_condition(&mut conditions, state, generation, now);
    PodDisruptionBudgetStatus {
        current_healthy: Some(healthy),
        desired_healthy: Some(wanted.healthy),
        expected_pods: Some(wanted.expected),
        disruptions_allowed: Some(allowed),
        disrupted_pods: Some(disrupted).filter(|disrupted| !disrupted.is_empty()),
        observed_generation: generation,
        conditions: Some(conditions),
    }
}

fn set_condition(
    conditions: &mut Vec<Condition>,
    (status, reason, message): (&str, &str, &str),
    generation: Option<i64>,
    now: Timestamp,
) {
    let mut fresh = Condition {
        type_: ALLOWED.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: generation,
        last_transition_time: Time(now),
    };
    match conditions.iter_mut().find(|condition| condition.type_ == ALLOWED) {
        None => conditions.push(fresh),
        Some(known) => {
            if known.status == fresh.status {
                fresh.last_transition_time = known.last_transition_time.clone();
            }
            *known = fresh;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::fixtures::{pod, ready, terminating};

    fn spec(least: Option<&str>, most: Option<&str>) -> PodDisruptionBudgetSpec {
        let value = |text: &str| match text.parse() {
            Ok(number) => IntOrString::Int(number),
            Err(_) => IntOrString::String(text.to_owned()),
        };
        PodDisruptionBudgetSpec {
            min_available: least.map(value),
            max_unavailable: most.map(value),
            ..PodDisruptionBudgetSpec::default()
        }
    }

    #[test]
    fn budgets_are_numbers_or_shares() {
        let check = |least, most, scale, healthy, needs| {
            let spec = spec(least, most);
            assert_eq!(wanted(&spec, scale), Some(Wanted { expected: scale, healthy }));
            assert_eq!(needs_scale(&spec), needs);
        };
        check(Some("2"), None, 5, 2, false);
        check(Some("50%"), None, 5, 3, true);
        check(None, Some("1"), 5, 4, true);
        check(None, Some("30%"), 5, 3, true);
        check(None, Some("9"), 5, 0, true);
    }

    #[test]
    fn disruptions_are_allowed_down_to_what_is_wanted() {
        let pods: Vec<Arc<Pod>> =
            [ready(pod("a"), 0), ready(pod("b"), 0), pod("c"), terminating(ready(pod("d"), 0))].map(Arc::new).into();
        let check = |healthy, disrupted: &[&str], allowed, reason: &str| {
            let disrupted = disrupted.iter().map(|&name| (name.to_owned(), Time(Timestamp::UNIX_EPOCH))).collect();
            let wanted = Ok(Wanted { expected: 4, healthy });
            let status = plan_status(&PodDisruptionBudget::default(), &pods, wanted, disrupted, Timestamp::UNIX_EPOCH);
            assert_eq!(status.disruptions_allowed, Some(allowed));
            assert_eq!(status.conditions.unwrap()[0].reason, reason);
        };
        check(1, &[], 1, "SufficientPods");
        check(2, &[], 0, "InsufficientPods");
        check(1, &["a"], 0, "InsufficientPods");
        let failed = plan_status(
            &PodDisruptionBudget::default(),
            &pods,
            Err("no controller"),
            BTreeMap::new(),
            Timestamp::UNIX_EPOCH,
        );
        assert_eq!(failed.conditions.unwrap()[0].message, "no controller");
    }

    #[test]
    fn disruptions_that_do_not_happen_are_forgotten() {
        let mut budget = PodDisruptionBudget::default();
        let noted = ["a", "d", "gone"].map(|name| (name.to_owned(), Time(Timestamp::UNIX_EPOCH)));
        budget.status.get_or_insert_default().disrupted_pods = Some(noted.into());
        let pods: Vec<Arc<Pod>> = [pod("a"), terminating(pod("d"))].map(Arc::new).into();
        let early = plan_disrupted(&budget, &pods, Timestamp::from_second(100).unwrap());
        assert_eq!((early.pods.len(), early.overdue.len(), early.look_again), (1, 0, Some(Duration::from_secs(20))));
        let late = plan_disrupted(&budget, &pods, Timestamp::from_second(120).unwrap());
        assert_eq!((late.pods.len(), late.overdue.len(), late.look_again), (0, 1, None));
    }
}
