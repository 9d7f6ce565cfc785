//! Slices by example.

use super::*;
use crate::pods::fixtures::{pod, ready, with_phase};
use k8s_openapi::api::core::v1::{ServicePort, ServiceSpec};

fn service() -> Service {
    let mut service = Service {
        spec: Some(ServiceSpec {
            ports: Some(vec![ServicePort { port: 80, ..ServicePort::default() }]),
            ip_families: Some(vec!["IPv4".to_owned()]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    };
    service.metadata.name = Some("web".to_owned());
    service.metadata.namespace = Some("default".to_owned());
    service.metadata.uid = Some("service".to_owned());
    service
}

fn endpoint_pod(number: usize) -> Arc<Pod> {
    let mut pod = ready(pod(&format!("pod-{number:03}")), 0);
    pod.status.get_or_insert_default().pod_ip = Some(format!("10.0.{}.{}", number / 250, number % 250 + 1));
    Arc::new(pod)
}

fn run(service: &Service, pods: &[Arc<Pod>], slices: &[Arc<EndpointSlice>]) -> Plan {
    let zones = Zones::from([("node-1".to_owned(), None)]);
    plan(service, pods, &zones, slices, Timestamp::UNIX_EPOCH)
}

/// The slices after a plan was executed.
fn apply(plan: Plan, slices: Vec<Arc<EndpointSlice>>) -> Vec<Arc<EndpointSlice>> {
    let gone = |slice: &EndpointSlice| {
        plan.delete
            .iter()
            .map(|slice| &slice.metadata.name)
            .chain(plan.update.iter().map(|slice| &slice.metadata.name))
            .any(|name| *name == slice.metadata.name)
    };
    let mut after: Vec<_> = slices.into_iter().filter(|slice| !gone(slice)).collect();
    for mut slice in plan.update.clone().into_iter().chain(plan.create.clone()) {
        let count = after.len();
        slice.metadata.name.get_or_insert_with(|| format!("web-{count}"));
        after.push(Arc::new(slice));
    }
    after
}

fn sizes(slices: &[impl AsRef<EndpointSlice>]) -> Vec<usize> {
    let mut sizes: Vec<usize> =
        slices.iter().map(|slice| slice.as_ref().endpoints.as_ref().map_or(0, Vec::len)).collect();
    sizes.sort();
    sizes
}

fn show(plan: &Plan) -> String {
    let refs = |slices: &[EndpointSlice]| {
        let slices: Vec<Arc<EndpointSlice>> = slices.iter().cloned().map(Arc::new).collect();
        sizes(&slices)
    };
    format!("create {:?} update {:?} delete {:?}", refs(&plan.create), refs(&plan.update), sizes(&plan.delete))
}

#[test]
fn slices_are_filled_kept_and_emptied_with_few_writes() {
    let service = service();
    let pods: Vec<Arc<Pod>> = (0..250).map(endpoint_pod).collect();
    let mut slices = Vec::new();
    let mut step = |count: usize, expected: &str| {
        let plan = run(&service, &pods[..count], &slices);
        assert_eq!(show(&plan), expected, "{count} pods");
        slices = apply(plan, std::mem::take(&mut slices));
        let again = run(&service, &pods[..count], &slices);
        assert_eq!(show(&again), "create [] update [] delete []", "{count} pods, settled");
    };
    step(0, "create [0] update [] delete []");
    step(3, "create [] update [3] delete []");
    step(4, "create [] update [4] delete []");
    step(250, "create [46, 100, 100] update [] delete []");
    step(2, "create [] update [2] delete [46, 100, 100]");
    step(0, "create [] update [0] delete []");
}

#[test]
fn a_pod_that_becomes_unready_changes_only_its_slice() {
    let service = service();
    let mut pods: Vec<Arc<Pod>> = (0..3).map(endpoint_pod).collect();
    let slices = apply(run(&service, &pods, &[]), Vec::new());
    Arc::make_mut(&mut pods[1]).status.get_or_insert_default().conditions = None;
    let plan = run(&service, &pods, &slices);
    assert_eq!(show(&plan), "create [] update [3] delete []");
    let endpoints = plan.update[0].endpoints.as_ref().unwrap();
    let ready: Vec<_> = endpoints.iter().map(|endpoint| endpoint.conditions.as_ref().unwrap().ready.unwrap()).collect();
    assert_eq!(ready, [true, false, true]);
    Arc::make_mut(&mut pods[1]).metadata.name = Some("pod-001".to_owned());
    pods[2] = Arc::new(with_phase((*pods[2]).clone(), "Failed"));
    assert_eq!(show(&run(&service, &pods, &slices)), "create [] update [2] delete []");
}

#[test]
fn labels_ports_and_families_change_slices() {
    let mut service = service();
    let pods: Vec<Arc<Pod>> = (0..2).map(endpoint_pod).collect();
    let slices = apply(run(&service, &pods, &[]), Vec::new());
    service.metadata.labels = Some(BTreeMap::from([("team".to_owned(), "a".to_owned())]));
    let plan = run(&service, &pods, &slices);
    assert_eq!(show(&plan), "create [] update [2] delete []");
    assert_eq!(plan.update[0].metadata.labels.as_ref().unwrap()["team"], "a");
    let spec = service.spec.get_or_insert_default();
    spec.ports.get_or_insert_default()[0].port = 81;
    assert_eq!(show(&run(&service, &pods, &slices)), "create [] update [2] delete []");
    service.spec.get_or_insert_default().ip_families = Some(vec!["IPv6".to_owned()]);
    assert_eq!(show(&run(&service, &pods, &slices)), "create [0] update [] delete [2]");
}

#[test]
fn pods_on_unknown_nodes_wait() {
    let pods = [endpoint_pod(1)];
    let plan = plan(&service(), &pods, &Zones::new(), &[], Timestamp::UNIX_EPOCH);
    assert!(plan.misses_nodes);
    assert_eq!(show(&plan), "create [0] update [] delete []");
}
