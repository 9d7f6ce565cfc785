//! Services, endpoints and namespaces, indexed by what DNS is asked for. Pure.
//!
//! Invariant: the indexes hold exactly what the latest change of each object says.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kedge_client::{Change, object_key};
use kedge_meta::ObjectKey;

/// Everything that names can lead to.
#[derive(Debug, Default)]
pub struct Catalog {
    services: HashMap<ObjectKey, Arc<Service>>,
    slices_by_service: HashMap<ObjectKey, BTreeMap<String, Arc<EndpointSlice>>>,
    services_by_ip: HashMap<IpAddr, BTreeSet<ObjectKey>>,
    services_by_endpoint: HashMap<IpAddr, BTreeMap<ObjectKey, usize>>,
    namespaces: HashSet<String>,
}

impl Catalog {
    /// A Service.
    pub fn service(&self, namespace: &str, name: &str) -> Option<&Service> {
        self.services.get(&ObjectKey::new(namespace, name)).map(Arc::as_ref)
    }

    /// The EndpointSlices of a Service.
    pub fn slices(&self, namespace: &str, name: &str) -> impl Iterator<Item = &EndpointSlice> {
        let slices = self.slices_by_service.get(&ObjectKey::new(namespace, name));
        slices.into_iter().flat_map(|slices| slices.values().map(Arc::as_ref))
    }

    /// Whether a namespace exists.
    pub fn has_namespace(&self, name: &str) -> bool {
        self.namespaces.contains(name)
    }

    /// The Services that have an address as their ClusterIP.
    pub fn services_at(&self, ip: IpAddr) -> impl Iterator<Item = &ObjectKey> {
        self.services_by_ip.get(&ip).into_iter().flatten()
    }

    /// The Services that have an endpoint with an address.
    pub fn services_with_endpoint(&self, ip: IpAddr) -> impl Iterator<Item = &ObjectKey> {
        self.services_by_endpoint.get(&ip).into_iter().flat_map(BTreeMap::keys)
    }

    /// Takes in a change of a Namespace.
    pub fn note_namespace(&mut self, change: &Change<Namespace>) {
        let name = change.object().metadata.name.clone().unwrap_or_default();
        match change {
            Change::Deleted(_) => self.namespaces.remove(&name),
            Change::Added(_) | Change::Updated { .. } => self.namespaces.insert(name),
        };
    }

    /// Takes in a change of a Service.
    pub fn note_service(&mut self, change: &Change<Service>) {
        let key = object_key(change.object().as_ref());
        if let Some(old) = self.services.remove(&key) {
            for ip in cluster_ips(&old) {
                remove_from(&mut self.services_by_ip, ip, |keys| {
                    keys.remove(&key);
                    keys.is_empty()
                });
            }
        }
        if let Change::Added(new) | Change::Updated { new, .. } = change {
            for ip in cluster_ips(new) {
                self.services_by_ip.entry(ip).or_default().insert(key.clone());
            }
            self.services.insert(key, new.clone());
        }
    }

    /// Takes in a change of an EndpointSlice.
    pub fn note_slice(&mut self, change: &Change<EndpointSlice>) {
        if let Change::Updated { old, .. } | Change::Deleted(old) = change {
            self.remove_slice(old);
        }
        if let Change::Added(new) | Change::Updated { new, .. } = change {
            let Some(service) = service_of(new) else { return };
            for ip in ready_endpoints(new).flat_map(endpoint_ips) {
                *self.services_by_endpoint.entry(ip).or_default().entry(service.clone()).or_default() += 1;
            }
            let name = new.metadata.name.clone().unwrap_or_default();
            self.slices_by_service.entry(service).or_default().insert(name, new.clone());
        }
    }

    fn remove_slice(&mut self, old: &EndpointSlice) {
        let Some(service) = service_of(old) else { return };
        let name = old.metadata.name.clone().unwrap_or_default();
        let Some(slices) = self.slices_by_service.get_mut(&service) else { return };
        let Some(old) = slices.remove(&name) else { return };
        if slices.is_empty() {
            self.slices_by_service.remove(&service);
        }
        for ip in ready_endpoints(&old).flat_map(endpoint_ips) {
            remove_from(&mut self.services_by_endpoint, ip, |services| {
                if let Some(count) = services.get_mut(&service) {
                    *count -= 1;
                    if *count == 0 {
                        services.remove(&service);
                    }
                }
                services.is_empty()
            });
        }
    }
}

fn remove_from<V>(map: &mut HashMap<IpAddr, V>, ip: IpAddr, remove: impl FnOnce(&mut V) -> bool) {
    if map.get_mut(&ip).is_some_and(remove) {
        map.remove(&ip);
    }
}

/// The ClusterIPs of a Service; none for headless ones.
pub(crate) fn cluster_ips(service: &Service) -> impl Iterator<Item = IpAddr> {
    let spec = service.spec.as_ref();
    let listed = spec.and_then(|spec| spec.cluster_ips.as_ref()).filter(|listed| !listed.is_empty());
    let first = spec.and_then(|spec| spec.cluster_ip.as_ref()).filter(|_| listed.is_none());
    listed.into_iter().flatten().chain(first).filter_map(|ip| ip.parse().ok())
}

/// The endpoints that names lead to: the ready ones, and those that a Service publishes unready (their slices say ready).
pub(crate) fn ready_endpoints(slice: &EndpointSlice) -> impl Iterator<Item = &Endpoint> {
    let is_ready =
        |endpoint: &&Endpoint| endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true);
    slice.endpoints.iter().flatten().filter(is_ready)
}

/// The addresses of an endpoint.
pub(crate) fn endpoint_ips(endpoint: &Endpoint) -> impl Iterator<Item = IpAddr> {
    endpoint.addresses.iter().filter_map(|address| address.parse().ok())
}

fn service_of(slice: &EndpointSlice) -> Option<ObjectKey> {
    let name = slice.metadata.labels.as_ref()?.get("kubernetes.io/service-name").filter(|name| !name.is_empty())?;
    Some(ObjectKey::new(slice.metadata.namespace.clone().unwrap_or_default(), name.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(ips: &[&str]) -> Arc<EndpointSlice> {
        let endpoints: Vec<_> = ips.iter().map(|ip| serde_json::json!({"addresses": [ip]})).collect();
        let metadata =
            serde_json::json!({"name": "s-1", "namespace": "ns", "labels": {"kubernetes.io/service-name": "s"}});
        Arc::new(
            serde_json::from_value(
                serde_json::json!({"metadata": metadata, "addressType": "IPv4", "endpoints": endpoints}),
            )
            .unwrap(),
        )
    }

    fn service(ip: &str) -> Arc<Service> {
        let json = serde_json::json!({"metadata": {"name": "s", "namespace": "ns"}, "spec": {"clusterIP": ip, "clusterIPs": [ip]}});
        Arc::new(serde_json::from_value(json).unwrap())
    }

    #[test]
    fn indexes_follow_changes() {
        let mut catalog = Catalog::default();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let (one, two) = (slice(&["10.0.0.1", "10.0.0.2"]), slice(&["10.0.0.2"]));
        catalog.note_slice(&Change::Added(one.clone()));
        assert_eq!(catalog.services_with_endpoint(ip("10.0.0.1")).count(), 1);
        catalog.note_slice(&Change::Updated { old: one, new: two.clone() });
        assert_eq!(catalog.services_with_endpoint(ip("10.0.0.1")).count(), 0);
        assert_eq!(catalog.services_with_endpoint(ip("10.0.0.2")).count(), 1);
        catalog.note_slice(&Change::Deleted(two));
        assert!(catalog.services_by_endpoint.is_empty() && catalog.slices_by_service.is_empty());

        catalog.note_service(&Change::Added(service("10.96.0.1")));
        catalog.note_service(&Change::Updated { old: service("10.96.0.1"), new: service("10.96.0.2") });
        assert_eq!(catalog.services_at(ip("10.96.0.1")).count(), 0);
        assert_eq!(catalog.services_at(ip("10.96.0.2")).count(), 1);
        catalog.note_service(&Change::Deleted(service("10.96.0.2")));
        assert!(catalog.services.is_empty() && catalog.services_by_ip.is_empty());
    }
}
