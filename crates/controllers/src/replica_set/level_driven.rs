//! The number of pods after any history: as many active ones as are wanted, and never fewer on the way than there were or
//! are wanted.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use proptest::prelude::*;

use super::plan::{Scale, plan_scale};
use crate::histories::history;
use crate::pods::fixtures::{pod, ready, terminating, with_phase};
use crate::pods::is_active;

#[derive(Default)]
struct World {
    pods: BTreeMap<String, Arc<Pod>>,
    wanted: i32,
    made: usize,
}

impl World {
    fn happen(&mut self, (what, number): (u8, u16)) {
        let nth = self.pods.keys().nth(usize::from(number) % self.pods.len().max(1)).cloned();
        let change = |pods: &mut BTreeMap<String, Arc<Pod>>, with: &dyn Fn(Pod) -> Pod| {
            if let Some(name) = nth.clone() {
                pods.entry(name).and_modify(|pod| *pod = Arc::new(with(Pod::clone(pod))));
            }
        };
        match what {
            0 => self.wanted = i32::from(number % 1200),
            1 => change(&mut self.pods, &|pod| ready(pod, 0)),
            2 => change(&mut self.pods, &|pod| with_phase(pod, "Failed")),
            3 => change(&mut self.pods, &terminating),
            4 => drop(nth.and_then(|name| self.pods.remove(&name))),
            // Somebody else's pod is adopted.
            _ => self.add(),
        }
    }

    fn add(&mut self) {
        self.made += 1;
        let name = format!("pod-{:05}", self.made);
        self.pods.insert(name.clone(), Arc::new(pod(&name)));
    }

    fn active(&self) -> usize {
        self.pods.values().filter(|pod| is_active(pod)).count()
    }

    /// One look at the world, and what follows from it; whether it was anything.
    fn look(&mut self) -> bool {
        let known: Vec<Arc<Pod>> = self.pods.values().cloned().collect();
        match plan_scale(self.wanted, &known, || known.clone(), Timestamp::UNIX_EPOCH) {
            Scale::Keep => return false,
            Scale::Create(count) => (0..count).for_each(|_| self.add()),
            Scale::Delete(pods) => pods.iter().for_each(|pod| {
                let name = pod.metadata.name.clone().unwrap();
                self.pods.insert(name, Arc::new(terminating(Pod::clone(pod))));
            }),
        }
        true
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_was_heard_there_are_as_many_pods_as_wanted((happened, looks) in history(6, 40)) {
        let mut world = World::default();
        for (index, event) in happened.iter().enumerate() {
            world.happen(*event);
            // A look that came twice finds nothing more to do than one that came once; one that was lost is made up for.
            for _ in looks.iter().filter(|look| **look == index) {
                let (before, wanted) = (world.active(), usize::try_from(world.wanted).unwrap());
                world.look();
                let now = world.active();
                prop_assert!(now >= before.min(wanted) && now <= before.max(wanted), "{before} to {now}, {wanted} wanted");
            }
        }
        let mut looks = 0;
        while world.look() {
            looks += 1;
            prop_assert!(looks <= 3, "at most 500 at a time are enough for 1,200");
        }
        prop_assert_eq!(world.active(), usize::try_from(world.wanted).unwrap());
    }
}
