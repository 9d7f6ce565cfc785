//! What a set of replicas needs: more pods, fewer, and which status.
//!
//! Pure.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::kind::{Condition, ReplicaKind, ReplicaStatus};
use super::ranking::sort_for_deletion;
use crate::pods::{is_active, is_available, is_ready, is_terminating, time_to_available};

/// At most so many pods are created or deleted in one go.
const BURST: usize = 500;

/// How the number of pods changes.
#[derive(Debug)]
pub(crate) enum Scale {
    Keep,
    Create(usize),
    Delete(Vec<Arc<Pod>>),
}

/// Compares the pods there are with how many are wanted. For the pods of related sets is asked only where some have to go: who
/// answers looks at all pods of the namespace.
pub(crate) fn plan_scale(
    wanted: i32,
    pods: &[Arc<Pod>],
    related: impl FnOnce() -> Vec<Arc<Pod>>,
    now: Timestamp,
) -> Scale {
    let mut active: Vec<Arc<Pod>> = pods.iter().filter(|pod| is_active(pod)).cloned().collect();
    let wanted = usize::try_from(wanted).unwrap_or_default();
    if active.len() < wanted {
        return Scale::Create((wanted - active.len()).min(BURST));
    }
    let surplus = (active.len() - wanted).min(BURST);
    if surplus == 0 {
        return Scale::Keep;
    }
    if surplus < active.len() {
        sort_for_deletion(&mut active, &related(), now);
    }
    active.truncate(surplus);
    Scale::Delete(active)
}

/// How the last attempt to change the number of pods went.
#[derive(Debug, Clone)]
pub(crate) enum Attempt {
    /// Not made: the cache lags, or the set is being deleted.
    None,
    /// There are as many as there should be.
    Settled,
    Succeeded,
    /// With the reason, `FailedCreate` or `FailedDelete`, and the error's text.
    Failed(&'static str, String),
}

/// The status that the pods give.
pub(crate) fn plan_status<K: ReplicaKind>(
    set: &K,
    pods: &[Arc<Pod>],
    attempt: &Attempt,
    now: Timestamp,
) -> ReplicaStatus {
    let active: Vec<&Arc<Pod>> = pods.iter().filter(|pod| is_active(pod)).collect();
    let count = |accept: &dyn Fn(&Pod) -> bool| active.iter().filter(|pod| accept(pod)).count() as i32;
    let old = set.status();
    ReplicaStatus {
        replicas: active.len() as i32,
        fully_labeled: count(&|pod| is_fully_labeled(set, pod)),
        ready: count(&|pod| is_ready(pod)),
        available: count(&|pod| is_available(pod, set.min_ready_seconds(), now)),
        terminating: Some(pods.iter().filter(|pod| is_terminating(pod)).count() as i32),
        observed_generation: set.meta().generation.unwrap_or_default(),
        conditions: plan_conditions(old.conditions, attempt, now),
    }
}

/// When the next ready pod becomes available by the mere passing of time.
pub(crate) fn plan_next_look(min_ready_seconds: i32, pods: &[Arc<Pod>], now: Timestamp) -> Option<Duration> {
    pods.iter().filter(|pod| is_active(pod)).filter_map(|pod| time_to_available(pod, min_ready_seconds, now)).min()
}

fn is_fully_labeled<K: ReplicaKind>(set: &K, pod: &Pod) -> bool {
    set.template_labels()
        .into_iter()
        .flatten()
        .all(|(key, value)| pod.metadata.labels.as_ref().and_then(|labels| labels.get(key)) == Some(value))
}

fn plan_conditions(mut conditions: Vec<Condition>, attempt: &Attempt, now: Timestamp) -> Vec<Condition> {
    let failed = conditions.iter().any(|condition| condition.type_ == "ReplicaFailure");
    match attempt {
        Attempt::Failed(reason, message) if !failed => conditions.push(Condition {
            type_: "ReplicaFailure".to_owned(),
            status: "True".to_owned(),
            reason: Some((*reason).to_owned()),
            message: Some(message.clone()),
            last_transition_time: Some(Time(now)),
        }),
        Attempt::Settled | Attempt::Succeeded => conditions.retain(|condition| condition.type_ != "ReplicaFailure"),
        Attempt::None | Attempt::Failed(..) => {}
    }
    conditions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::fixtures::{pod, ready, terminating, with_phase};
    use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetSpec};

    fn arcs(pods: impl IntoIterator<Item = Pod>) -> Vec<Arc<Pod>> {
        pods.into_iter().map(Arc::new).collect()
    }

    #[test]
    fn scaling() {
        let check = |wanted: i32, pods: Vec<Pod>, expected: &str| {
            let pods = arcs(pods);
            let actual = match plan_scale(wanted, &pods, || pods.clone(), Timestamp::UNIX_EPOCH) {
                Scale::Keep => "keep".to_owned(),
                Scale::Create(count) => format!("create {count}"),
                Scale::Delete(pods) => {
                    let names: Vec<&str> = pods.iter().map(|pod| pod.metadata.name.as_deref().unwrap()).collect();
                    format!("delete {}", names.join(" "))
                }
            };
            assert_eq!(actual, expected);
        };
        check(0, vec![], "keep");
        check(3, vec![pod("a")], "create 2");
        check(900, vec![], "create 500");
        check(1, vec![ready(pod("a"), 0), pod("b")], "delete b");
        check(0, vec![pod("a"), pod("b")], "delete a b");
        check(2, vec![pod("a"), terminating(pod("b")), with_phase(pod("c"), "Failed")], "create 1");
        check(1, vec![pod("a"), terminating(pod("b"))], "keep");
    }

    #[test]
    fn status_counts_what_is_there() {
        let set = ReplicaSet {
            spec: Some(ReplicaSetSpec { min_ready_seconds: Some(10), ..ReplicaSetSpec::default() }),
            ..ReplicaSet::default()
        };
        let now = Timestamp::from_second(100).unwrap();
        let pods = arcs([ready(pod("a"), 10), ready(pod("b"), 95), pod("c"), terminating(pod("d"))]);
        let status = plan_status(&set, &pods, &Attempt::None, now);
        let counts = (status.replicas, status.fully_labeled, status.ready, status.available, status.terminating);
        assert_eq!(counts, (3, 3, 2, 1, Some(1)));
        assert_eq!(plan_next_look(10, &pods, now), Some(Duration::from_secs(5)));
    }

    #[test]
    fn a_failure_stays_until_a_success() {
        let now = Timestamp::UNIX_EPOCH;
        let reasons = |conditions: &[Condition]| -> Vec<String> {
            conditions.iter().filter_map(|condition| condition.message.clone()).collect()
        };
        let failed = plan_conditions(Vec::new(), &Attempt::Failed("FailedCreate", "quota".to_owned()), now);
        assert_eq!(reasons(&failed), ["quota"]);
        let again = plan_conditions(failed, &Attempt::Failed("FailedCreate", "other".to_owned()), now);
        assert_eq!(reasons(&again), ["quota"]);
        let unknown = plan_conditions(again, &Attempt::None, now);
        assert_eq!(reasons(&unknown), ["quota"]);
        assert_eq!(reasons(&plan_conditions(unknown, &Attempt::Succeeded, now)), Vec::<String>::new());
    }
}
