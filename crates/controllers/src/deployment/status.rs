//! The status of a Deployment: counts, and the conditions Available, Progressing and ReplicaFailure.
//!
//! Pure. Reasons and texts are upstream's; kubectl rollout status reads them.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{DeploymentCondition, DeploymentStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::view::{Sets, View, available_of, replicas_of, set_name, sum};

const AVAILABLE: &str = "Available";
const PROGRESSING: &str = "Progressing";
const REPLICA_FAILURE: &str = "ReplicaFailure";
const NEW_AVAILABLE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";

/// Conditions being worked on.
pub(crate) type Conditions = Vec<DeploymentCondition>;

/// A condition as of now.
pub(crate) fn condition(
    type_: &str,
    status: &str,
    reason: &str,
    message: String,
    now: Timestamp,
) -> DeploymentCondition {
    DeploymentCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

/// A `Progressing` condition as of now.
pub(crate) fn progressing(status: &str, reason: &str, message: String, now: Timestamp) -> DeploymentCondition {
    condition(PROGRESSING, status, reason, message, now)
}

pub(crate) fn find<'a>(conditions: &'a [DeploymentCondition], type_: &str) -> Option<&'a DeploymentCondition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Whether a Deployment has said anything about its progress.
pub(crate) fn progress(conditions: &[DeploymentCondition]) -> Option<&DeploymentCondition> {
    find(conditions, PROGRESSING)
}

/// Puts a condition in, unless it says nothing new; the transition time stays while the status does.
pub(crate) fn set_condition(conditions: &mut Conditions, mut new: DeploymentCondition) {
    if let Some(current) = find(conditions, &new.type_) {
        if current.status == new.status && current.reason == new.reason {
            return;
        }
        if current.status == new.status {
            new.last_transition_time = current.last_transition_time.clone();
        }
    }
    conditions.retain(|condition| condition.type_ != new.type_);
    conditions.push(new);
}

/// The counts, and whether enough pods are available.
pub(crate) fn plan_counts(
    view: &View<'_>,
    sets: &Sets,
    mut conditions: Conditions,
    now: Timestamp,
) -> DeploymentStatus {
    let status_of = |count: fn(&k8s_openapi::api::apps::v1::ReplicaSetStatus) -> i32| {
        sum(sets.all(), |set| set.status.as_ref().map_or(0, count))
    };
    let available = sum(sets.all(), available_of);
    let unavailable = (sum(sets.all(), replicas_of) - available).max(0);
    let terminating = status_of(|status| status.terminating_replicas.unwrap_or_default());
    let enough = match available >= view.replicas - view.max_unavailable {
        true => {
            condition(AVAILABLE, "True", "MinimumReplicasAvailable", "Deployment has minimum availability.".into(), now)
        }
        false => {
            let text = "Deployment does not have minimum availability.".to_owned();
            condition(AVAILABLE, "False", "MinimumReplicasUnavailable", text, now)
        }
    };
    set_condition(&mut conditions, enough);
    let nonzero = |count: i32| Some(count).filter(|count| *count != 0);
    DeploymentStatus {
        observed_generation: view.deployment.metadata.generation,
        replicas: nonzero(status_of(|status| status.replicas)),
        updated_replicas: nonzero(
            sets.new.as_ref().and_then(|set| set.status.as_ref()).map_or(0, |status| status.replicas),
        ),
        ready_replicas: nonzero(status_of(|status| status.ready_replicas.unwrap_or_default())),
        available_replicas: nonzero(available),
        unavailable_replicas: nonzero(unavailable),
        terminating_replicas: Some(terminating),
        collision_count: view.deployment.status.as_ref().and_then(|status| status.collision_count),
        conditions: Some(conditions),
    }
}

/// Adds what the sets' progress says.
pub(crate) fn plan_progress(view: &View<'_>, sets: &Sets, status: &mut DeploymentStatus, now: Timestamp) {
    let mut conditions = status.conditions.take().unwrap_or_default();
    if view.progress_deadline.is_none() {
        conditions.retain(|condition| condition.type_ != PROGRESSING);
    }
    let current = progress(&conditions).cloned();
    let was_complete = status.replicas == status.updated_replicas
        && current.as_ref().is_some_and(|current| current.reason.as_deref() == Some(NEW_AVAILABLE));
    if view.progress_deadline.is_some() && !was_complete {
        let who = match &sets.new {
            Some(set) => format!("ReplicaSet \"{}\"", set_name(set)),
            None => format!("Deployment \"{}\"", view.name()),
        };
        if is_complete(view, status) {
            let text = format!("{who} has successfully progressed.");
            set_condition(&mut conditions, progressing("True", NEW_AVAILABLE, text, now));
        } else if has_progressed(view, status) {
            let mut fresh = progressing("True", "ReplicaSetUpdated", format!("{who} is progressing."), now);
            if let Some(current) = current.filter(|current| current.status == "True") {
                fresh.last_transition_time = current.last_transition_time;
            }
            // Replaced even where it says the same, as the update time starts the deadline over.
            conditions.retain(|condition| condition.type_ != PROGRESSING);
            conditions.push(fresh);
        } else if is_timed_out(view, current.as_ref(), now) {
            let text = format!("{who} has timed out progressing.");
            set_condition(&mut conditions, progressing("False", TIMED_OUT, text, now));
        }
    }
    plan_replica_failure(sets, &mut conditions);
    status.conditions = Some(conditions);
}

fn plan_replica_failure(sets: &Sets, conditions: &mut Conditions) {
    let newest_first = sets.new.iter().chain(sets.old.iter());
    let failure = newest_first
        .flat_map(|set| set.status.iter().flat_map(|status| status.conditions.iter().flatten()))
        .find(|condition| condition.type_ == REPLICA_FAILURE);
    match failure {
        None => conditions.retain(|condition| condition.type_ != REPLICA_FAILURE),
        Some(failure) => set_condition(
            conditions,
            DeploymentCondition {
                type_: REPLICA_FAILURE.to_owned(),
                status: failure.status.clone(),
                reason: failure.reason.clone(),
                message: failure.message.clone(),
                last_update_time: failure.last_transition_time.clone(),
                last_transition_time: failure.last_transition_time.clone(),
            },
        ),
    }
}

/// Whether every pod is of the newest template and available.
pub(crate) fn is_complete(view: &View<'_>, status: &DeploymentStatus) -> bool {
    let is_all = |count: Option<i32>| count.unwrap_or_default() == view.replicas;
    is_all(status.updated_replicas)
        && is_all(status.replicas)
        && is_all(status.available_replicas)
        && status.observed_generation >= view.deployment.metadata.generation
}

fn has_progressed(view: &View<'_>, new: &DeploymentStatus) -> bool {
    let old = view.deployment.status.clone().unwrap_or_default();
    let count = |count: Option<i32>| count.unwrap_or_default();
    let outdated = |status: &DeploymentStatus| count(status.replicas) - count(status.updated_replicas);
    count(new.updated_replicas) > count(old.updated_replicas)
        || outdated(new) < outdated(&old)
        || count(new.ready_replicas) > count(old.ready_replicas)
        || count(new.available_replicas) > count(old.available_replicas)
}

fn is_timed_out(view: &View<'_>, current: Option<&DeploymentCondition>, now: Timestamp) -> bool {
    match current.and_then(|current| current.reason.as_deref()) {
        None => false,
        Some(NEW_AVAILABLE) => false,
        Some(TIMED_OUT) => true,
        Some(_) => time_left(view, current, now).is_some_and(|left| left < SignedDuration::ZERO),
    }
}

fn time_left(view: &View<'_>, current: Option<&DeploymentCondition>, now: Timestamp) -> Option<SignedDuration> {
    let since = current?.last_update_time.as_ref()?.0;
    Some(SignedDuration::from_secs(view.progress_deadline?) - now.duration_since(since))
}

/// When to look again whether the deadline has passed.
pub(crate) fn plan_deadline_look(view: &View<'_>, status: &DeploymentStatus, now: Timestamp) -> Option<Duration> {
    let current = progress(status.conditions.as_deref().unwrap_or_default());
    let reason = current.and_then(|current| current.reason.as_deref());
    if view.is_paused || is_complete(view, status) || matches!(reason, Some(TIMED_OUT | NEW_AVAILABLE)) {
        return None;
    }
    let left = time_left(view, current, now)?.max(SignedDuration::ZERO);
    Duration::try_from(left).ok().map(|left| left + Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use super::super::view::fixtures::{deployment, set, template};
    use super::*;
    use k8s_openapi::api::apps::v1::Deployment;

    fn status_of(deployment: &Deployment, sets: &Sets, now: Timestamp) -> DeploymentStatus {
        let view = View::new(deployment).unwrap();
        let conditions = deployment.status.clone().and_then(|status| status.conditions).unwrap_or_default();
        let mut status = plan_counts(&view, sets, conditions, now);
        plan_progress(&view, sets, &mut status, now);
        status
    }

    fn show(status: &DeploymentStatus) -> Vec<String> {
        let one = |condition: &DeploymentCondition| {
            format!("{}={} {}", condition.type_, condition.status, condition.reason.as_deref().unwrap())
        };
        status.conditions.iter().flatten().map(one).collect()
    }

    #[test]
    fn a_rollout_progresses_completes_and_times_out() {
        let now = Timestamp::from_second(1_000).unwrap();
        let mut deployment = deployment(2, 1, 0);
        let none = Sets::new(&template("v1"), vec![]);
        assert_eq!(show(&status_of(&deployment, &none, now)), ["Available=False MinimumReplicasUnavailable"]);

        let starting = Sets::new(&template("v1"), vec![set("v1", 1, 2, 0)]);
        let status = status_of(&deployment, &starting, now);
        assert_eq!(show(&status), ["Available=False MinimumReplicasUnavailable", "Progressing=True ReplicaSetUpdated"]);
        assert_eq!((status.replicas, status.unavailable_replicas), (Some(2), Some(2)));
        deployment.status = Some(status);

        let later = Timestamp::from_second(1_601).unwrap();
        let stuck = status_of(&deployment, &starting, later);
        assert_eq!(
            show(&stuck),
            ["Available=False MinimumReplicasUnavailable", "Progressing=False ProgressDeadlineExceeded"]
        );
        let done = Sets::new(&template("v1"), vec![set("v1", 1, 2, 2)]);
        let complete = status_of(&deployment, &done, later);
        assert_eq!(
            show(&complete),
            ["Available=True MinimumReplicasAvailable", "Progressing=True NewReplicaSetAvailable"]
        );
        let message = progress(complete.conditions.as_deref().unwrap()).unwrap().message.clone();
        assert_eq!(message.as_deref(), Some("ReplicaSet \"v1\" has successfully progressed."));
        // A complete Deployment that loses a pod stays complete.
        deployment.status = Some(complete);
        let lost = Sets::new(&template("v1"), vec![set("v1", 1, 2, 1)]);
        assert_eq!(
            show(&status_of(&deployment, &lost, later)),
            ["Progressing=True NewReplicaSetAvailable", "Available=False MinimumReplicasUnavailable"]
        );
    }

    #[test]
    fn the_deadline_is_looked_at_when_it_passes() {
        let deployment = deployment(2, 1, 0);
        let view = View::new(&deployment).unwrap();
        let start = Timestamp::from_second(1_000).unwrap();
        let mut status = DeploymentStatus::default();
        let check = |status: &DeploymentStatus, now: i64, expected: Option<u64>| {
            let look = plan_deadline_look(&view, status, Timestamp::from_second(now).unwrap());
            assert_eq!(look, expected.map(Duration::from_secs));
        };
        check(&status, 1_000, None);
        status.conditions = Some(vec![progressing("True", "ReplicaSetUpdated", String::new(), start)]);
        check(&status, 1_100, Some(501));
        check(&status, 9_999, Some(1));
        status.conditions = Some(vec![progressing("False", TIMED_OUT, String::new(), start)]);
        check(&status, 1_100, None);
    }
}
