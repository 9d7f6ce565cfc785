//! The Endpoints controller: the older form of what EndpointSlices say, for clients that still read it.
//!
//! Invariant: it writes only Endpoints of Services with a selector.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service};
use kedge_client::{Change, Informer, Queue, object_key, object_reference};
use kedge_meta::{LabelSelector, ObjectKey};
use kube::api::{Api, DeleteParams, ObjectMeta, PostParams};

use crate::endpoint_slice::desired::{
    endpoint_hostname, endpoint_ports, families, is_candidate, is_headless, is_selecting, pod_address,
    publishes_not_ready, target_reference, trigger_time,
};
use crate::endpoint_slice::plan::{HEADLESS, TRIGGER_TIME};
use crate::endpoint_slice::services_of_pod;
use crate::error::{ReconcileError, is_already_exists, is_namespace_terminating, message_of, unless_gone};
use crate::expectations::Expectations;
use crate::owners::selects;
use crate::pods::{is_ready, node_name};
use crate::runtime::{Context, Controller, Next, Outcome, Starter};

const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const CAPACITY: usize = 1000;

/// Starts the controller.
pub(crate) fn start(mut starter: Starter<'_>) {
    let services = starter.informer::<Service>();
    let pods = starter.informer::<Pod>();
    let endpoints = starter.informer::<Endpoints>();
    let queue = Queue::new();
    starter.enqueue(&services, &queue, |change| vec![object_key(&**change.object())]);
    let of_pods = services.clone();
    starter.enqueue(&pods, &queue, move |change| services_of_pod(change, &of_pods));
    // What was left over while nobody watched, and what somebody removes.
    starter.enqueue(&endpoints, &queue, |change| match change {
        Change::Updated { .. } => Vec::new(),
        change => vec![object_key(&**change.object())],
    });
    let workers = starter.context.config.concurrency;
    let expectations = Expectations::default();
    let controller = Legacy { context: starter.context.clone(), services, pods, endpoints, expectations };
    starter.work(Arc::new(controller), queue, workers);
}

struct Legacy {
    context: Context,
    services: Informer<Service>,
    pods: Informer<Pod>,
    endpoints: Informer<Endpoints>,
    expectations: Expectations,
}

#[derive(Debug, PartialEq)]
enum Action {
    Create(Endpoints),
    Update(Endpoints),
}

impl Controller for Legacy {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Outcome {
        let now = self.context.now();
        let current = self.endpoints.get(key);
        let Some(service) = self.services.get(key) else {
            self.expectations.forget(key);
            return self.delete_leftover(key, current.as_deref()).await;
        };
        if !is_selecting(&service) || service.metadata.deletion_timestamp.is_some() {
            return Ok(Next::Done);
        }
        if let Some(lag) = self.expectations.lag(key, &self.endpoints, now) {
            // No event wakes this key when the cache catches up, so it looks itself.
            return Ok(Next::After(lag.min(std::time::Duration::from_millis(50))));
        }
        let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref()).into_iter().flatten();
        let selector = LabelSelector::from_map(selector);
        let pods = self.pods.filter_in(&key.namespace, |pod| selects(&selector, &pod.metadata));
        match plan(&service, &pods, current.as_deref(), now) {
            None => Ok(Next::Done),
            Some(action) => self.execute(key, &service, action).await,
        }
    }
}

impl Legacy {
    async fn execute(&self, key: &ObjectKey, service: &Service, action: Action) -> Outcome {
        let api = Api::<Endpoints>::namespaced(self.context.client.clone(), &key.namespace);
        let (reason, verb, result) = match &action {
            Action::Create(endpoints) => {
                ("FailedToCreateEndpoint", "create", api.create(&PostParams::default(), endpoints).await)
            }
            Action::Update(endpoints) => {
                ("FailedToUpdateEndpoint", "update", api.replace(&key.name, &PostParams::default(), endpoints).await)
            }
        };
        match result {
            Ok(written) => {
                self.expectations.updated(key, &written.metadata, self.context.now());
                Ok(Next::Done)
            }
            Err(error) if is_namespace_terminating(&error) => Ok(Next::Done),
            Err(error) if is_already_exists(&error) => Err(error.into()),
            Err(error) => {
                let error = ReconcileError::Api(error);
                if let (false, ReconcileError::Api(cause)) = (error.is_race(), &error) {
                    let text = format!("Failed to {verb} endpoint {key}: {}", message_of(cause));
                    self.context.warning(&object_reference(service), reason, text);
                }
                Err(error)
            }
        }
    }

    async fn delete_leftover(&self, key: &ObjectKey, current: Option<&Endpoints>) -> Outcome {
        let is_ours = current
            .and_then(|current| current.metadata.labels.as_ref())
            .is_some_and(|labels| labels.get(MANAGED_BY).is_some_and(|manager| manager == MANAGER));
        // DIVERGES: upstream also deletes Endpoints that somebody else wrote by hand for the Service.
        if is_ours {
            let api = Api::<Endpoints>::namespaced(self.context.client.clone(), &key.namespace);
            unless_gone(api.delete(&key.name, &DeleteParams::default()).await)?;
        }
        Ok(Next::Done)
    }
}

fn plan(service: &Service, pods: &[Arc<Pod>], current: Option<&Endpoints>, now: Timestamp) -> Option<Action> {
    let mut subsets = plan_subsets(service, pods);
    let is_over = truncate(&mut subsets, CAPACITY);
    let subsets = Some(subsets).filter(|subsets| !subsets.is_empty());
    let labels = plan_labels(service);
    let over = is_over.then(|| "truncated".to_owned());
    let noted = current.and_then(|current| current.metadata.annotations.as_ref());
    if let Some(current) = current {
        let same_subsets = current.subsets.clone().filter(|subsets| !subsets.is_empty()) == subsets;
        let same_note = noted.and_then(|annotations| annotations.get(OVER_CAPACITY)) == over.as_ref();
        if same_subsets && same_note && current.metadata.labels.as_ref() == Some(&labels) {
            return None;
        }
    }
    let mut annotations = noted.cloned().unwrap_or_default();
    let trigger = trigger_time(service, pods).unwrap_or(now);
    annotations.insert(TRIGGER_TIME.to_owned(), kedge_meta::format_time(trigger));
    annotations.remove(OVER_CAPACITY);
    annotations.extend(over.map(|over| (OVER_CAPACITY.to_owned(), over)));
    let metadata = match current {
        Some(current) => current.metadata.clone(),
        None => ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            ..ObjectMeta::default()
        },
    };
    let metadata = ObjectMeta { labels: Some(labels), annotations: Some(annotations), ..metadata };
    let endpoints = Endpoints { metadata, subsets };
    Some(if current.is_some() { Action::Update(endpoints) } else { Action::Create(endpoints) })
}

fn plan_labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    match is_headless(service) {
        true => labels.insert(HEADLESS.to_owned(), String::new()),
        false => labels.remove(HEADLESS),
    };
    labels
}

/// A port as it is ordered within a subset.
type Port = (String, i32, String, Option<String>);

/// Addresses that serve the same ports share a subset.
fn plan_subsets(service: &Service, pods: &[Arc<Pod>]) -> Vec<EndpointSubset> {
    let family = families(service)[0];
    let publishes = publishes_not_ready(service);
    let has_ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref()).is_some_and(|ports| !ports.is_empty());
    let mut by_ports: BTreeMap<BTreeSet<Port>, (Vec<EndpointAddress>, Vec<EndpointAddress>)> = BTreeMap::new();
    for pod in pods {
        let is_terminating = pod.metadata.deletion_timestamp.is_some();
        let Some(ip) = pod_address(pod, family).filter(|_| is_candidate(pod) && (publishes || !is_terminating)) else {
            continue;
        };
        let ports: BTreeSet<Port> = endpoint_ports(pod, service)
            .into_iter()
            .map(|port| {
                let number = port.port.unwrap_or_default();
                (port.name.unwrap_or_default(), number, port.protocol.unwrap_or_default(), port.app_protocol)
            })
            .collect();
        if has_ports && ports.is_empty() {
            continue;
        }
        let address = EndpointAddress {
            ip: ip.to_owned(),
            hostname: endpoint_hostname(pod, service),
            node_name: node_name(pod).map(str::to_owned),
            target_ref: Some(target_reference(pod)),
        };
        let (ready, not_ready) = by_ports.entry(ports).or_default();
        if publishes || is_ready(pod) { ready.push(address) } else { not_ready.push(address) }
    }
    by_ports.into_iter().map(|(ports, (ready, not_ready))| subset(ports, ready, not_ready)).collect()
}

fn subset(
    ports: BTreeSet<Port>,
    mut ready: Vec<EndpointAddress>,
    mut not_ready: Vec<EndpointAddress>,
) -> EndpointSubset {
    let order = |address: &EndpointAddress| {
        (address.ip.clone(), address.target_ref.as_ref().and_then(|target| target.uid.clone()))
    };
    ready.sort_by_key(order);
    not_ready.sort_by_key(order);
    let ports = ports.into_iter().map(|(name, port, protocol, app_protocol)| EndpointPort {
        name: Some(name).filter(|name| !name.is_empty()),
        port,
        protocol: Some(protocol),
        app_protocol,
    });
    fn nonempty<T>(list: Vec<T>) -> Option<Vec<T>> {
        Some(list).filter(|list| !list.is_empty())
    }
    EndpointSubset {
        addresses: nonempty(ready),
        not_ready_addresses: nonempty(not_ready),
        ports: nonempty(ports.collect()),
    }
}

/// Cuts down to a number of addresses, ready ones kept first; says whether anything was cut.
fn truncate(subsets: &mut Vec<EndpointSubset>, capacity: usize) -> bool {
    let mut left = capacity;
    let mut is_cut = false;
    let mut cut = |addresses: &mut Option<Vec<EndpointAddress>>| {
        let Some(list) = addresses else { return };
        is_cut |= list.len() > left;
        list.truncate(left);
        left -= list.len();
        if list.is_empty() {
            *addresses = None;
        }
    };
    subsets.iter_mut().for_each(|subset| cut(&mut subset.addresses));
    subsets.iter_mut().for_each(|subset| cut(&mut subset.not_ready_addresses));
    subsets.retain(|subset| subset.addresses.is_some() || subset.not_ready_addresses.is_some());
    is_cut
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::fixtures::{pod, ready, terminating};
    use k8s_openapi::api::core::v1::{ServicePort, ServiceSpec};

    fn service(publish: bool) -> Service {
        let mut service = Service {
            spec: Some(ServiceSpec {
                ports: Some(vec![ServicePort { port: 80, ..ServicePort::default() }]),
                publish_not_ready_addresses: Some(publish),
                ..ServiceSpec::default()
            }),
            ..Service::default()
        };
        service.metadata.name = Some("web".to_owned());
        service.metadata.namespace = Some("default".to_owned());
        service
    }

    fn at(mut pod: Pod, ip: &str) -> Arc<Pod> {
        pod.status.get_or_insert_default().pod_ip = Some(ip.to_owned());
        Arc::new(pod)
    }

    fn show(subsets: &[EndpointSubset]) -> String {
        let list = |addresses: &Option<Vec<EndpointAddress>>| {
            addresses.iter().flatten().map(|address| address.ip.clone()).collect::<Vec<_>>().join(",")
        };
        let one =
            |subset: &EndpointSubset| format!("{}|{}", list(&subset.addresses), list(&subset.not_ready_addresses));
        subsets.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn pods_become_addresses_by_readiness() {
        let pods = [
            at(ready(pod("b"), 0), "10.0.0.2"),
            at(ready(pod("a"), 0), "10.0.0.1"),
            at(pod("c"), "10.0.0.3"),
            at(terminating(ready(pod("d"), 0)), "10.0.0.4"),
            Arc::new(ready(pod("no-address"), 0)),
        ];
        let check = |publish: bool, expected: &str| {
            assert_eq!(show(&plan_subsets(&service(publish), &pods)), expected);
        };
        check(false, "10.0.0.1,10.0.0.2|10.0.0.3");
        check(true, "10.0.0.1,10.0.0.2,10.0.0.3,10.0.0.4|");
        let mut subsets = plan_subsets(&service(false), &pods);
        assert!(truncate(&mut subsets, 2));
        assert_eq!(show(&subsets), "10.0.0.1,10.0.0.2|");
    }

    #[test]
    fn only_differences_are_written() {
        let pods = [at(ready(pod("a"), 0), "10.0.0.1")];
        let service = service(false);
        let Some(Action::Create(created)) = plan(&service, &pods, None, Timestamp::UNIX_EPOCH) else {
            panic!("nothing is created");
        };
        let labels = created.metadata.labels.as_ref().unwrap();
        assert_eq!(labels[MANAGED_BY], MANAGER);
        assert_eq!(plan(&service, &pods, Some(&created), Timestamp::UNIX_EPOCH), None);
        let emptied = plan(&service, &[], Some(&created), Timestamp::UNIX_EPOCH);
        let Some(Action::Update(emptied)) = emptied else { panic!("nothing is updated") };
        assert_eq!(emptied.subsets, None);
    }
}
