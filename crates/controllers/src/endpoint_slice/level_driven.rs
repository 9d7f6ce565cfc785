//! Slices after any history: the endpoints of the pods there are now, each once, in slices of bounded size.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use proptest::prelude::*;

use super::desired::Zones;
use super::plan::{Plan, plan};
use crate::histories::history;
use crate::pods::fixtures::{pod, ready};

fn service() -> Service {
    let spec = ServiceSpec {
        ports: Some(vec![ServicePort { port: 80, ..ServicePort::default() }]),
        ip_families: Some(vec!["IPv4".to_owned()]),
        ..ServiceSpec::default()
    };
    let mut service = Service { spec: Some(spec), ..Service::default() };
    service.metadata.name = Some("web".to_owned());
    service.metadata.namespace = Some("default".to_owned());
    service.metadata.uid = Some("service".to_owned());
    service
}

/// The pods there are, each with whether it is ready.
type World = BTreeMap<u16, bool>;

fn happen(world: &mut World, (what, number): (u8, u16)) {
    let number = number % 300;
    match what {
        0 => drop(world.insert(number, true)),
        1 => drop(world.insert(number, false)),
        2 => drop(world.remove(&number)),
        // Many at once: a rollout, or the loss of a node.
        3 => world.extend((0..number).map(|number| (number, true))),
        _ => world.retain(|other, _| *other > number),
    }
}

fn pods(world: &World) -> Vec<Arc<Pod>> {
    let made = |(number, is_ready): (&u16, &bool)| {
        let made = pod(&format!("pod-{number:03}"));
        let mut made = if *is_ready { ready(made, 0) } else { made };
        made.status.get_or_insert_default().pod_ip = Some(address(*number));
        Arc::new(made)
    };
    world.iter().map(made).collect()
}

fn address(number: u16) -> String {
    format!("10.0.{}.{}", number / 250, number % 250 + 1)
}

/// The slices as they are after a plan was executed.
fn execute(plan: Plan, slices: &mut BTreeMap<String, Arc<EndpointSlice>>, made: &mut usize) {
    for slice in &plan.delete {
        slices.remove(slice.metadata.name.as_deref().unwrap());
    }
    for mut slice in plan.update.into_iter().chain(plan.create) {
        *made += 1;
        let name = slice.metadata.name.get_or_insert_with(|| format!("web-{made:05}")).clone();
        slices.insert(name, Arc::new(slice));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_was_heard_the_endpoints_are_those_of_the_pods((happened, looks) in history(5, 24)) {
        let mut worlds = Vec::new();
        let mut world = World::new();
        for event in &happened {
            happen(&mut world, *event);
            worlds.push(world.clone());
        }
        let (service, zones) = (service(), Zones::from([("node-1".to_owned(), None)]));
        let (mut slices, mut made) = (BTreeMap::new(), 0);
        let run = |world: &World, slices: &BTreeMap<String, Arc<EndpointSlice>>| {
            let known: Vec<_> = slices.values().cloned().collect();
            plan(&service, &pods(world), &zones, &known, Timestamp::UNIX_EPOCH)
        };
        for look in looks {
            execute(run(&worlds[look], &slices), &mut slices, &mut made);
        }
        execute(run(&world, &slices), &mut slices, &mut made);
        let again = run(&world, &slices);
        prop_assert!(again.create.is_empty() && again.update.is_empty() && again.delete.is_empty(), "{again:?}");
        let endpoints: Vec<(String, bool)> = slices.values().flat_map(|slice| slice.endpoints.iter().flatten()).map(|one| {
            let is_ready = one.conditions.as_ref().and_then(|conditions| conditions.ready);
            (one.addresses[0].clone(), is_ready == Some(true))
        }).collect();
        let model: BTreeSet<(String, bool)> = world.iter().map(|(number, is)| (address(*number), *is)).collect();
        prop_assert_eq!(endpoints.len(), model.len(), "each once");
        prop_assert_eq!(endpoints.into_iter().collect::<BTreeSet<_>>(), model);
        prop_assert!(slices.values().all(|slice| slice.endpoints.as_ref().is_none_or(|all| all.len() <= 100)));
    }
}
