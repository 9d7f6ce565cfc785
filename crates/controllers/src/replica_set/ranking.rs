//! Which pods go first when a set shrinks: upstream's order, from "costs least" to "is worth most".
//!
//! Pure. Rules: unassigned before assigned, pending before running, not ready before ready, cheaper by
//! `controller.kubernetes.io/pod-deletion-cost` first, doubled up on a node first, ready for a shorter time first, more
//! restarts first, newer first. Times compare on a logarithmic scale.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use crate::pods::{is_active, is_ready, node_name, phase, ready_since};

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Sorts `pods` so that those to delete first come first; `related` are the pods of all sets with the same owner.
pub(crate) fn sort_for_deletion(pods: &mut [Arc<Pod>], related: &[Arc<Pod>], now: Timestamp) {
    let mut on_node: HashMap<&str, usize> = HashMap::new();
    for pod in related.iter().filter(|pod| is_active(pod)) {
        *on_node.entry(node_name(pod).unwrap_or_default()).or_default() += 1;
    }
    pods.sort_by(|a, b| {
        let company = |pod: &Pod| on_node.get(node_name(pod).unwrap_or_default()).copied().unwrap_or_default();
        node_name(a)
            .is_some()
            .cmp(&node_name(b).is_some())
            .then_with(|| phase_rank(a).cmp(&phase_rank(b)))
            .then_with(|| is_ready(a).cmp(&is_ready(b)))
            .then_with(|| deletion_cost(a).cmp(&deletion_cost(b)))
            .then_with(|| company(b).cmp(&company(a)))
            .then_with(|| age(ready_since(a), now).cmp(&age(ready_since(b), now)))
            .then_with(|| restarts(b).cmp(&restarts(a)))
            .then_with(|| age(creation(a), now).cmp(&age(creation(b), now)))
            .then_with(|| a.metadata.uid.cmp(&b.metadata.uid))
    });
}

fn phase_rank(pod: &Pod) -> u8 {
    match phase(pod) {
        "Unknown" => 1,
        "Running" => 2,
        _ => 0,
    }
}

fn deletion_cost(pod: &Pod) -> i32 {
    let annotations = pod.metadata.annotations.as_ref();
    annotations.and_then(|annotations| annotations.get(DELETION_COST)).and_then(|cost| cost.parse().ok()).unwrap_or(0)
}

/// The most restarted container, then the most restarted init container.
fn restarts(pod: &Pod) -> (i32, i32) {
    let most = |statuses: Option<&Vec<ContainerStatus>>| {
        statuses.into_iter().flatten().map(|status| status.restart_count).max().unwrap_or_default()
    };
    let status = pod.status.as_ref();
    (
        most(status.and_then(|status| status.container_statuses.as_ref())),
        most(status.and_then(|status| status.init_container_statuses.as_ref())),
    )
}

fn creation(pod: &Pod) -> Option<Timestamp> {
    pod.metadata.creation_timestamp.as_ref().map(|time| time.0)
}

/// Unknown times first, then the younger by orders of magnitude.
// DIVERGES: upstream lets the uid decide between different times of one magnitude before it looks at restarts, but not
// between equal times. That is no order: a before b, b before c and c before a can all be so.
fn age(since: Option<Timestamp>, now: Timestamp) -> Option<i32> {
    since.map(|since| magnitude(now, since))
}

fn magnitude(now: Timestamp, since: Timestamp) -> i32 {
    let nanoseconds = now.duration_since(since).as_nanos();
    u128::try_from(nanoseconds).ok().and_then(u128::checked_ilog2).map_or(-1, |magnitude| magnitude as i32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::fixtures::{created, on_node, pod, ready, with_phase};
    use std::collections::BTreeMap;

    fn costing(mut pod: Pod, cost: &str) -> Pod {
        pod.metadata.annotations = Some(BTreeMap::from([(DELETION_COST.to_owned(), cost.to_owned())]));
        pod
    }

    fn restarted(mut pod: Pod, times: i32) -> Pod {
        let status = ContainerStatus { restart_count: times, ..ContainerStatus::default() };
        pod.status.get_or_insert_default().container_statuses = Some(vec![status]);
        pod
    }

    #[test]
    fn the_least_valuable_pod_goes_first() {
        let now = Timestamp::from_second(100_000).unwrap();
        let check = |first: Pod, second: Pod| {
            let (first, second) = (Arc::new(first), Arc::new(second));
            for mut pods in [vec![first.clone(), second.clone()], vec![second.clone(), first.clone()]] {
                let related = pods.clone();
                sort_for_deletion(&mut pods, &related, now);
                assert_eq!(pods[0].metadata.name, first.metadata.name, "{first:?} before {second:?}");
            }
        };
        check(on_node(pod("b"), None), pod("a"));
        check(with_phase(pod("b"), "Pending"), pod("a"));
        check(pod("b"), ready(pod("a"), 0));
        check(costing(ready(pod("b"), 0), "-5"), ready(pod("a"), 90_000));
        check(ready(pod("b"), 99_990), ready(pod("a"), 10));
        check(restarted(pod("b"), 3), restarted(pod("a"), 2));
        check(created(pod("b"), 99_990), created(pod("a"), 10));
        // The same order of magnitude: by uid.
        check(created(pod("a"), 11), created(pod("b"), 10));
    }

    #[test]
    fn regress_many_pods_of_about_one_age_have_an_order() {
        let now = Timestamp::from_second(100_000).unwrap();
        // Uids and restarts go against the times, which are equal for some and of one magnitude for all.
        let made = |number: i64| {
            let since = 99_000 + number % 3;
            Arc::new(restarted(
                created(ready(pod(&format!("p{:02}", number * 7 % 60)), since), since),
                (number % 2) as i32,
            ))
        };
        let mut pods: Vec<Arc<Pod>> = (0..60).map(made).collect();
        let related = pods.clone();
        sort_for_deletion(&mut pods, &related, now);
        let mut others: Vec<Arc<Pod>> = related.iter().rev().cloned().collect();
        sort_for_deletion(&mut others, &related, now);
        assert_eq!(pods, others);
        assert_eq!((restarts(&pods[0]).0, restarts(&pods[59]).0), (1, 0));
    }

    #[test]
    fn the_node_with_more_related_pods_gives_first() {
        let lone = Arc::new(on_node(pod("a"), Some("lone")));
        let crowded = Arc::new(on_node(pod("b"), Some("crowded")));
        let neighbour = Arc::new(on_node(pod("c"), Some("crowded")));
        let mut pods = [lone.clone(), crowded.clone()];
        sort_for_deletion(&mut pods, &[lone, crowded, neighbour], Timestamp::UNIX_EPOCH);
        assert_eq!(pods[0].metadata.name.as_deref(), Some("b"));
    }
}
