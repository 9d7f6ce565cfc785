//! A StatefulSet after any history: a pod for each ordinal, of the revision that the partition gives it, and none besides.
//! On the way each step has its reason, and with ordered management all before it were available.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{
    RollingUpdateStatefulSetStrategy, StatefulSet, StatefulSetOrdinals, StatefulSetSpec, StatefulSetUpdateStrategy,
};
use k8s_openapi::api::core::v1::Pod;
use proptest::prelude::*;

use super::identity::{ordinal_of, revision_of};
use super::plan::{Plan, View, plan};
use crate::histories::{Cached, history};
use crate::history::REVISION_HASH;
use crate::pods::fixtures::{pod, ready, terminating, with_phase};
use crate::pods::{is_ready, is_terminal, phase};

/// The API as it is, and what the controller has heard of it.
struct World {
    set: StatefulSet,
    seen_set: StatefulSet,
    pods: Cached<Pod>,
    /// The set's template, and those of the pods, are this number.
    template: u16,
    seen_template: u16,
    version: u32,
    made: usize,
}

impl World {
    fn new(is_parallel: bool, partition: i32) -> Self {
        let mut set = StatefulSet::default();
        set.metadata.name = Some("db".to_owned());
        set.spec = Some(StatefulSetSpec {
            replicas: Some(3),
            pod_management_policy: is_parallel.then(|| "Parallel".to_owned()),
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateStatefulSetStrategy {
                    partition: Some(partition),
                    max_unavailable: None,
                }),
            }),
            ..StatefulSetSpec::default()
        });
        let seen_set = set.clone();
        Self { set, seen_set, pods: Cached::new(), template: 0, seen_template: 0, version: 0, made: 0 }
    }

    fn change_set(&mut self, change: impl FnOnce(&mut StatefulSet)) {
        change(&mut self.set);
        self.version += 1;
        self.set.metadata.resource_version = Some(self.version.to_string());
    }

    fn happen(&mut self, (what, number): (u8, u16)) {
        let one = self.pods.nth(number);
        match what {
            0 | 1 => self.pods.hear_one(what == 0, number),
            2 => (self.seen_set, self.seen_template) = (self.set.clone(), self.template),
            3 => self.pods.change(one.as_ref(), run),
            4 => self.pods.change(one.as_ref(), |pod| with_phase(unready(pod), "Failed")),
            5 => self.pods.change(one.as_ref(), terminating),
            6 => self.pods.real.retain(|_, pod| pod.metadata.deletion_timestamp.is_none()),
            7 => self.pods.change(one.as_ref(), unready),
            8 => {
                self.template = number % 4;
                self.change_set(|_| {});
            }
            9 => self.change_set(|set| {
                let ordinals = StatefulSetOrdinals { start: Some(i32::from(number % 3)) };
                set.spec.get_or_insert_default().ordinals = Some(ordinals);
            }),
            _ => self.change_set(|set| set.spec.get_or_insert_default().replicas = Some(i32::from(number % 6))),
        }
    }

    /// What the kubelets do in the end: pods that are deleted go, the others run.
    fn settle_pods(&mut self) {
        self.pods.real.retain(|_, pod| pod.metadata.deletion_timestamp.is_none());
        for pod in self.pods.real.values_mut().filter(|pod| !is_terminal(pod)) {
            *pod = run(pod.clone());
        }
        self.pods.hear_everything();
        (self.seen_set, self.seen_template) = (self.set.clone(), self.template);
    }

    /// One pass, of which only so many effects come about; whether it had anything to do.
    fn look(&mut self, mut effects: usize) -> Result<bool, TestCaseError> {
        if !self.pods.shows_writes() {
            return Ok(true);
        }
        let set = self.seen_set.clone();
        let update = revision(self.seen_template);
        let named = set.status.as_ref().and_then(|status| status.current_revision.clone());
        let current = named.unwrap_or_else(|| update.clone());
        let pods: Vec<Arc<Pod>> = self.pods.seen.values().cloned().map(Arc::new).collect();
        let spec = set.spec.as_ref().unwrap();
        let view = View { set: &set, spec, current: &current, update: &update, now: Timestamp::UNIX_EPOCH };
        let plan = plan(&view, &pods);
        check_steps(&view, &pods, &plan)?;
        let mut may = || {
            let may = effects > 0;
            effects = effects.saturating_sub(1);
            may
        };
        for pod in plan.recreate.iter().filter(|_| may()) {
            self.delete(pod);
        }
        for (ordinal, is_updated) in plan.create.iter().filter(|_| may()) {
            self.create(*ordinal, if *is_updated { &update } else { &current });
        }
        for pod in plan.delete.iter().filter(|_| may()) {
            self.delete(pod);
        }
        let changes = set.status.as_ref() != Some(&plan.status);
        if changes && may() && set.metadata.resource_version == self.set.metadata.resource_version {
            self.change_set(|set| set.status = Some(plan.status.clone()));
        }
        Ok(changes || !(plan.recreate.is_empty() && plan.create.is_empty() && plan.delete.is_empty()))
    }

    fn create(&mut self, ordinal: i32, revision: &str) {
        self.made += 1;
        let mut made = with_phase(pod(&format!("db-{ordinal}")), "Pending");
        made.metadata.uid = Some(self.made.to_string());
        made.metadata.labels = Some([(REVISION_HASH.to_owned(), revision.to_owned())].into());
        self.pods.create(made);
    }

    fn delete(&mut self, seen: &Pod) {
        if self.pods.ask_to_delete(seen) {
            self.pods.change(seen.metadata.name.as_ref(), terminating);
        }
    }

    fn spec(&self) -> &StatefulSetSpec {
        self.set.spec.as_ref().unwrap()
    }
}

fn revision(template: u16) -> String {
    format!("db-{template}")
}

fn run(pod: Pod) -> Pod {
    if is_terminal(&pod) || is_ready(&pod) { pod } else { ready(with_phase(pod, "Running"), 0) }
}

fn unready(mut pod: Pod) -> Pod {
    pod.status.get_or_insert_default().conditions = None;
    pod
}

/// Every pod that goes has a reason to; with ordered management one step is taken at a time, and those before it work.
fn check_steps(view: &View<'_>, pods: &[Arc<Pod>], plan: &Plan) -> Result<(), TestCaseError> {
    let start = view.spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or_default();
    let end = start + view.spec.replicas.unwrap();
    let partition = view.spec.update_strategy.as_ref().unwrap().rolling_update.as_ref().unwrap().partition.unwrap();
    let ordinal = |pod: &Pod| ordinal_of("db", pod).unwrap();
    for pod in &plan.delete {
        let is_surplus = !(start..end).contains(&ordinal(pod));
        let is_old = revision_of(pod) != view.update && ordinal(pod) >= start + partition;
        prop_assert!(is_surplus || is_old, "no reason to delete {:?}", pod.metadata);
    }
    prop_assert!(plan.recreate.iter().all(|pod| is_terminal(pod)));
    if view.spec.pod_management_policy.is_some() {
        return Ok(());
    }
    prop_assert!(plan.delete.len() + plan.recreate.len() + plan.create.len() <= 1, "one step at a time: {plan:?}");
    let works = |ordinal: i32| {
        let name = format!("db-{ordinal}");
        let pod = pods.iter().find(|pod| pod.metadata.name.as_ref() == Some(&name));
        pod.is_some_and(|pod| is_ready(pod) && phase(pod) == "Running" && pod.metadata.deletion_timestamp.is_none())
    };
    let before = plan.create.first().map_or(start, |(ordinal, _)| *ordinal);
    prop_assert!((start..before).all(works), "those before {before} do not work");
    Ok(())
}

fn check(is_parallel: bool, partition: i32, happened: &[(u8, u16)], looks: &[usize]) -> Result<(), TestCaseError> {
    let mut world = World::new(is_parallel, partition);
    for (index, event) in happened.iter().enumerate() {
        world.happen(*event);
        for _ in looks.iter().filter(|look| **look == index) {
            world.look(usize::from(event.1 % 7))?;
        }
    }
    // Pods below the partition keep the revision that they have when all is at rest.
    let settle = |world: &mut World| {
        for round in 0.. {
            prop_assert!(round < 80, "no end: {:?} {:?}", world.set.status, world.pods.real);
            world.settle_pods();
            if !world.look(usize::MAX)? {
                break;
            }
        }
        Ok(())
    };
    settle(&mut world)?;
    let start = world.spec().ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or_default();
    let wanted = world.spec().replicas.unwrap();
    let (least, update) = (start + partition, revision(world.template));
    let names: Vec<String> = (start..start + wanted).map(|ordinal| format!("db-{ordinal}")).collect();
    prop_assert_eq!(world.pods.real.keys().cloned().collect::<Vec<_>>(), names);
    for pod in world.pods.real.values().filter(|pod| ordinal_of("db", pod).unwrap() >= least) {
        prop_assert_eq!(revision_of(pod), &update);
    }
    let status = world.set.status.clone().unwrap();
    let all = |count: Option<i32>| count.unwrap_or_default() == wanted;
    prop_assert!(status.replicas == wanted && all(status.ready_replicas) && all(status.available_replicas));
    prop_assert_eq!(status.update_revision.as_ref(), Some(&update));
    let is_complete = world.pods.real.values().all(|pod| revision_of(pod) == update);
    prop_assert!(!is_complete || status.current_revision.as_ref() == Some(&update), "{:?}", status);
    // Nobody loses what runs by a partition that is raised and a pod that is lost: it comes back as it was.
    let current = status.current_revision.clone().unwrap();
    if let Some(lost) = world.pods.real.keys().next().cloned() {
        let was_below = start < least;
        world.pods.real.remove(&lost);
        settle(&mut world)?;
        let is = revision_of(&world.pods.real[&lost]);
        prop_assert_eq!(is, if was_below { &current } else { &update });
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn whatever_was_heard_each_ordinal_has_its_pod((happened, looks) in history(11, 60), partition in 0..4) {
        check(false, partition, &happened, &looks)?;
    }

    #[test]
    fn whatever_was_heard_each_ordinal_has_its_pod_also_in_parallel(
        (happened, looks) in history(11, 60), partition in 0..4,
    ) {
        check(true, partition, &happened, &looks)?;
    }
}
