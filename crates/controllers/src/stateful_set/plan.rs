//! The next step of a StatefulSet: which ordinals get a pod, which pods go, in order or all at once.
//!
//! Pure. Invariant: with ordered management, a step is taken only when all before it are ready.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetStatus};
use k8s_openapi::api::core::v1::Pod;

use super::identity::{ordinal_of, revision_of};
use crate::pods::{is_available, is_ready, is_terminal, name_of, phase, time_to_available};

/// A StatefulSet with everything that decides about its pods.
pub(crate) struct View<'a> {
    pub(crate) set: &'a StatefulSet,
    pub(crate) spec: &'a StatefulSetSpec,
    /// Names of the revisions that pods are, and are to be.
    pub(crate) current: &'a str,
    pub(crate) update: &'a str,
    pub(crate) now: Timestamp,
}

/// What to do.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// Ordinals that get a pod, and whether it is of the updated template.
    pub(crate) create: Vec<(i32, bool)>,
    pub(crate) delete: Vec<Arc<Pod>>,
    /// Ordinals whose pods wait, perhaps for claims that somebody deleted.
    pub(crate) claim: Vec<i32>,
    /// Pods that ended and are deleted to be made again.
    pub(crate) recreate: Vec<Arc<Pod>>,
    /// Pods beyond the wanted number.
    pub(crate) condemned: Vec<Arc<Pod>>,
    pub(crate) status: StatefulSetStatus,
    pub(crate) look_again: Option<Duration>,
}

impl Plan {
    /// Whether every pod stays as it is.
    pub(crate) fn changes_no_pod(&self) -> bool {
        self.create.is_empty() && self.delete.is_empty() && self.recreate.is_empty() && self.condemned.is_empty()
    }
}

impl View<'_> {
    fn start(&self) -> i32 {
        self.spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or_default()
    }

    fn end(&self) -> i32 {
        self.start() + self.spec.replicas.unwrap_or(1)
    }

    fn is_ordered(&self) -> bool {
        self.spec.pod_management_policy.as_deref() != Some("Parallel")
    }

    fn is_rolling(&self) -> bool {
        let strategy = self.spec.update_strategy.as_ref();
        strategy.and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete")
    }

    fn partition(&self) -> i32 {
        let strategy = self.spec.update_strategy.as_ref();
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        rolling.and_then(|rolling| rolling.partition).unwrap_or_default()
    }

    fn is_available(&self, pod: &Pod) -> bool {
        phase(pod) == "Running" && is_available(pod, self.spec.min_ready_seconds.unwrap_or_default(), self.now)
    }

    /// Neither ending nor still to become available.
    fn is_healthy(&self, pod: &Pod) -> bool {
        self.is_available(pod) && !is_terminating(pod)
    }

    /// Whether a new pod of an ordinal is to be of the updated template. Only the partition keeps the current one: counts of
    /// the status may be old, and a pod made by them would be replaced again at once.
    fn is_updated(&self, ordinal: i32) -> bool {
        !self.is_rolling() || ordinal >= self.start() + self.partition()
    }
}

fn is_running_and_ready(pod: &Pod) -> bool {
    phase(pod) == "Running" && is_ready(pod)
}

fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Plans the next step from the pods that the set owns.
pub(crate) fn plan(view: &View<'_>, pods: &[Arc<Pod>]) -> Plan {
    let mut wanted: BTreeMap<i32, Option<Arc<Pod>>> =
        (view.start()..view.end()).map(|ordinal| (ordinal, None)).collect();
    let mut condemned: BTreeMap<i32, Arc<Pod>> = BTreeMap::new();
    for pod in pods {
        let Some(ordinal) = ordinal_of(name_of(&view.set.metadata), pod) else { continue };
        match wanted.get_mut(&ordinal) {
            Some(slot) => *slot = Some(pod.clone()),
            None => drop(condemned.insert(ordinal, pod.clone())),
        }
    }
    let mut plan = Plan { status: plan_counts(view, pods), ..Plan::default() };
    plan.condemned = condemned.values().cloned().collect();
    let least = view.spec.min_ready_seconds.unwrap_or_default();
    plan.look_again = pods.iter().filter_map(|pod| time_to_available(pod, least, view.now)).min();
    if view.set.metadata.deletion_timestamp.is_none() {
        plan_steps(view, &wanted, &condemned, &mut plan);
    }
    plan
}

fn plan_steps(
    view: &View<'_>,
    wanted: &BTreeMap<i32, Option<Arc<Pod>>>,
    condemned: &BTreeMap<i32, Arc<Pod>>,
    plan: &mut Plan,
) {
    for (ordinal, pod) in wanted {
        let must_wait = match pod {
            None => {
                plan.create.push((*ordinal, view.is_updated(*ordinal)));
                true
            }
            Some(pod) if is_terminal(pod) && !is_terminating(pod) => {
                plan.recreate.push(pod.clone());
                true
            }
            Some(pod) => {
                if phase(pod) == "Pending" && !is_terminating(pod) {
                    plan.claim.push(*ordinal);
                }
                !view.is_healthy(pod)
            }
        };
        if must_wait && view.is_ordered() {
            return;
        }
    }
    let first_unhealthy =
        wanted.values().flatten().chain(condemned.values()).find(|pod| !view.is_healthy(pod)).cloned();
    for pod in condemned.values().rev() {
        if is_terminating(pod) {
            if view.is_ordered() {
                return;
            }
            continue;
        }
        let is_first_unhealthy = first_unhealthy.as_ref().is_some_and(|first| Arc::ptr_eq(first, pod));
        // DIVERGES: upstream waits for pods that have ended as if they could still become available.
        if view.is_ordered() && !view.is_available(pod) && !is_first_unhealthy && !is_terminal(pod) {
            return;
        }
        plan.delete.push(pod.clone());
        if view.is_ordered() {
            return;
        }
    }
    if plan.create.is_empty() && plan.recreate.is_empty() && view.is_rolling() {
        plan_update(view, wanted, plan);
    }
}

/// From the highest ordinal down to the partition, one after the other: the last one updated has to work first. As upstream
/// without its gate `MaxUnavailableStatefulSet`, which is off by default.
fn plan_update(view: &View<'_>, wanted: &BTreeMap<i32, Option<Arc<Pod>>>, plan: &mut Plan) {
    let least = view.start() + view.partition();
    for pod in wanted.range(least..).rev().filter_map(|(_, pod)| pod.as_ref()) {
        if revision_of(pod) != view.update && !is_terminating(pod) {
            plan.delete.push(pod.clone());
            return;
        }
        if !view.is_healthy(pod) {
            return;
        }
    }
}

fn plan_counts(view: &View<'_>, pods: &[Arc<Pod>]) -> StatefulSetStatus {
    let before = view.set.status.clone().unwrap_or_default();
    let created = |pod: &&Arc<Pod>| !phase(pod).is_empty();
    let count = |accept: &dyn Fn(&Pod) -> bool| pods.iter().filter(created).filter(|pod| accept(pod)).count() as i32;
    let nonzero = |count: i32| Some(count).filter(|count| *count != 0);
    let of = |revision: &str| count(&|pod| !is_terminating(pod) && revision_of(pod) == revision);
    let replicas = count(&|_| true);
    let ready = count(&is_running_and_ready);
    let mut status = StatefulSetStatus {
        observed_generation: view.set.metadata.generation,
        replicas,
        ready_replicas: nonzero(ready),
        available_replicas: Some(count(&|pod| view.is_available(pod))),
        current_replicas: nonzero(of(view.current)),
        updated_replicas: nonzero(of(view.update)),
        current_revision: Some(view.current.to_owned()),
        update_revision: Some(view.update.to_owned()),
        collision_count: before.collision_count,
        conditions: before.conditions,
    };
    let wanted = view.spec.replicas.unwrap_or(1);
    let is_complete = view.is_rolling() && [of(view.update), ready, replicas] == [wanted; 3];
    if is_complete {
        status.current_replicas = status.updated_replicas;
        status.current_revision = status.update_revision.clone();
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::REVISION_HASH;
    use crate::pods::fixtures::{pod, ready, terminating, with_phase};
    use k8s_openapi::api::apps::v1::{RollingUpdateStatefulSetStrategy, StatefulSetUpdateStrategy};
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

    fn set(replicas: i32) -> StatefulSet {
        let mut set = StatefulSet {
            spec: Some(StatefulSetSpec { replicas: Some(replicas), ..StatefulSetSpec::default() }),
            ..StatefulSet::default()
        };
        set.metadata.name = Some("db".to_owned());
        set
    }

    fn member(ordinal: i32, revision: &str) -> Pod {
        let mut pod = pod(&format!("db-{ordinal}"));
        pod.metadata.labels = Some([(REVISION_HASH.to_owned(), revision.to_owned())].into());
        pod
    }

    fn good(ordinal: i32, revision: &str) -> Pod {
        ready(member(ordinal, revision), 0)
    }

    fn run(set: &StatefulSet, pods: Vec<Pod>) -> Plan {
        let pods: Vec<Arc<Pod>> = pods.into_iter().map(Arc::new).collect();
        let spec = set.spec.as_ref().unwrap();
        plan(&View { set, spec, current: "old", update: "new", now: Timestamp::UNIX_EPOCH }, &pods)
    }

    fn show(plan: &Plan) -> String {
        let names =
            |pods: &[Arc<Pod>]| pods.iter().map(|pod| name_of(&pod.metadata).to_owned()).collect::<Vec<_>>().join(",");
        let created: Vec<String> = plan.create.iter().map(|(ordinal, _)| ordinal.to_string()).collect();
        format!("+{} -{} again {}", created.join(","), names(&plan.delete), names(&plan.recreate))
    }

    #[test]
    fn pods_come_and_go_in_order() {
        let check = |replicas, pods: Vec<Pod>, expected: &str| assert_eq!(show(&run(&set(replicas), pods)), expected);
        check(3, vec![], "+0 - again ");
        check(3, vec![member(0, "new")], "+ - again ");
        check(3, vec![good(0, "new")], "+1 - again ");
        check(3, vec![with_phase(member(0, "new"), "Failed")], "+ - again db-0");
        check(1, vec![good(0, "new"), good(1, "new"), good(2, "new")], "+ -db-2 again ");
        check(1, vec![good(0, "new"), good(1, "new"), terminating(good(2, "new"))], "+ - again ");
        check(1, vec![good(0, "new"), member(1, "new"), good(2, "new")], "+ -db-2 again ");
        let ended = |ordinal| with_phase(member(ordinal, "new"), "Failed");
        check(1, vec![good(0, "new"), ended(1), ended(2)], "+ -db-2 again ");
        check(1, vec![good(0, "new"), member(1, "new"), member(2, "new")], "+ - again ");
    }

    #[test]
    fn parallel_sets_do_not_wait() {
        let mut set = set(3);
        set.spec.get_or_insert_default().pod_management_policy = Some("Parallel".to_owned());
        assert_eq!(show(&run(&set, vec![member(1, "new")])), "+0,2 - again ");
        set.spec.get_or_insert_default().replicas = Some(0);
        assert_eq!(show(&run(&set, vec![good(0, "new"), member(1, "new")])), "+ -db-1,db-0 again ");
    }

    #[test]
    fn updates_go_from_the_top_down_to_the_partition() {
        let with = |partition: i32| {
            let mut set = set(3);
            // A set of a cluster where the gate was on.
            let max_unavailable = Some(IntOrString::Int(2));
            let rolling = RollingUpdateStatefulSetStrategy { partition: Some(partition), max_unavailable };
            set.spec.get_or_insert_default().update_strategy = Some(StatefulSetUpdateStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(rolling),
            });
            set
        };
        let old = || vec![good(0, "old"), good(1, "old"), good(2, "old")];
        assert_eq!(show(&run(&with(0), old())), "+ -db-2 again ");
        let half = vec![good(0, "old"), good(1, "old"), good(2, "new")];
        assert_eq!(show(&run(&with(0), half.clone())), "+ -db-1 again ");
        assert_eq!(show(&run(&with(2), half)), "+ - again ");
        let mut on_delete = with(0);
        on_delete.spec.get_or_insert_default().update_strategy.get_or_insert_default().type_ =
            Some("OnDelete".to_owned());
        assert_eq!(show(&run(&on_delete, old())), "+ - again ");
    }

    #[test]
    fn a_lost_pod_comes_back_as_the_partition_has_it() {
        let created = |partition: Option<i32>, current_replicas: i32| {
            let mut set = set(3);
            set.status = Some(StatefulSetStatus { current_replicas: Some(current_replicas), ..Default::default() });
            let rolling = RollingUpdateStatefulSetStrategy { partition, max_unavailable: None };
            set.spec.get_or_insert_default().update_strategy = Some(StatefulSetUpdateStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(rolling),
            });
            run(&set, vec![good(0, "old"), good(2, "new")]).create
        };
        assert_eq!(created(Some(2), 0), [(1, false)]);
        assert_eq!(created(Some(1), 0), [(1, true)]);
        // Whatever a status says that was written before.
        assert_eq!(created(None, 3), [(1, true)]);
    }

    #[test]
    fn pods_that_wait_get_their_claims_again() {
        let waiting = with_phase(member(1, "new"), "Pending");
        assert_eq!(run(&set(3), vec![good(0, "new"), waiting.clone()]).claim, [1]);
        assert_eq!(run(&set(3), vec![good(0, "new"), terminating(waiting)]).claim, [] as [i32; 0]);
    }

    #[test]
    fn a_set_without_pods_has_completed_nothing() {
        let status = run(&set(2), vec![]).status;
        assert_eq!((status.current_revision.as_deref(), status.update_revision.as_deref()), (Some("old"), Some("new")));
    }

    #[test]
    fn a_complete_update_makes_the_new_revision_current() {
        let status = run(&set(2), vec![good(0, "new"), good(1, "old")]).status;
        assert_eq!((status.current_replicas, status.updated_replicas), (Some(1), Some(1)));
        assert_eq!(status.current_revision.as_deref(), Some("old"));
        let status = run(&set(2), vec![good(0, "new"), good(1, "new")]).status;
        assert_eq!(status.current_revision.as_deref(), Some("new"));
        assert_eq!((status.replicas, status.ready_replicas, status.current_replicas), (2, Some(2), Some(2)));
    }
}
