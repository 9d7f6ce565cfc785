//! A Deployment after any history: all pods are of its template, and on the way there were never more than the surge allows.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use proptest::prelude::*;

use super::plan::plan;
use super::view::fixtures::{deployment, template};
use super::view::{replicas_of, set_name};
use crate::histories::history;

struct World {
    deployment: Deployment,
    sets: Vec<Arc<ReplicaSet>>,
}

impl World {
    fn new(surge: i32, unavailable: i32) -> Self {
        Self { deployment: deployment(4, surge, unavailable), sets: Vec::new() }
    }

    fn happen(&mut self, (what, number): (u8, u16)) {
        let spec = self.deployment.spec.get_or_insert_default();
        match what {
            0 => spec.template = template(&format!("v{}", number % 4)),
            1 => spec.replicas = Some(i32::from(number % 9)),
            2 => spec.paused = Some(number % 2 == 0),
            // Pods of a set become available, or cease to be.
            _ => {
                let at = usize::from(number) % self.sets.len().max(1);
                if let Some(set) = self.sets.get_mut(at) {
                    let replicas = replicas_of(set);
                    settle(set, i32::from(number) % (replicas + 1));
                }
            }
        }
        if what < 3 {
            *self.deployment.metadata.generation.get_or_insert(0) += 1;
        }
    }

    /// One look at the world, and what follows from it; whether that changed the sets.
    fn look(&mut self, number: usize) -> bool {
        let now = Timestamp::from_second(i64::try_from(number).unwrap()).unwrap();
        let plan = plan(&self.deployment, self.sets.clone(), |_| true, now);
        let changes = plan.create.is_some() || !plan.update.is_empty() || !plan.delete.is_empty();
        self.sets.retain(|set| !plan.delete.iter().any(|gone| set_name(gone) == set_name(set)));
        for update in plan.update {
            let status = update.set.status.clone();
            let at = self.sets.iter().position(|set| set_name(set) == set_name(&update.set));
            self.sets[at.unwrap()] = Arc::new(ReplicaSet { status, ..update.set });
        }
        if let Some(mut set) = plan.create {
            set.metadata.name.get_or_insert_with(|| format!("set-{number}"));
            set.metadata.uid = set.metadata.name.clone();
            set.metadata.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now));
            self.sets.push(Arc::new(set));
        }
        if let Some(changed) = plan.deployment {
            self.deployment.metadata.annotations = changed.metadata.annotations;
        }
        if let Some(status) = plan.status {
            self.deployment.status = Some(status);
        }
        changes
    }

    fn total(&self) -> i32 {
        self.sets.iter().map(|set| replicas_of(set)).sum()
    }
}

/// A set's controller has made its pods, and so many of them are available.
fn settle(set: &mut Arc<ReplicaSet>, available: i32) {
    let replicas = replicas_of(set);
    let set = Arc::make_mut(set);
    let generation = set.metadata.generation;
    let status = set.status.get_or_insert_default();
    (status.replicas, status.observed_generation) = (replicas, generation);
    (status.ready_replicas, status.available_replicas) = (Some(available), Some(available));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn whatever_was_heard_all_pods_are_of_the_template(
        (happened, looks) in history(6, 24), surge in 0..3, unavailable in 0..3,
    ) {
        let mut world = World::new(surge, unavailable);
        let mut number = 0;
        for (index, event) in happened.iter().enumerate() {
            world.happen(*event);
            for _ in looks.iter().filter(|look| **look == index) {
                number += 1;
                world.look(number);
            }
        }
        world.deployment.spec.get_or_insert_default().paused = Some(false);
        let wanted = world.deployment.spec.as_ref().unwrap().replicas.unwrap();
        let image = world.deployment.spec.as_ref().unwrap().template.clone();
        let mut rounds = 0;
        loop {
            number += 1;
            let before = world.total();
            let changes = world.look(number);
            prop_assert!(world.total() <= before.max(wanted + surge.max(i32::from(unavailable == 0))), "too many");
            let is_settled = world.sets.iter().all(|set| {
                let status = set.status.clone().unwrap_or_default();
                status.replicas == replicas_of(set) && status.available_replicas.unwrap_or_default() == replicas_of(set)
            });
            if !changes && is_settled {
                break;
            }
            for set in &mut world.sets {
                let replicas = replicas_of(set);
                settle(set, replicas);
            }
            rounds += 1;
            prop_assert!(rounds < 60, "it does not come to rest: {:?}", world.sets);
        }
        for set in &world.sets {
            let is_new = super::view::same_template(&image, set.spec.as_ref().unwrap().template.as_ref().unwrap());
            prop_assert_eq!(replicas_of(set), if is_new { wanted } else { 0 }, "{}", set_name(set));
        }
        prop_assert_eq!(world.total(), wanted);
    }
}
