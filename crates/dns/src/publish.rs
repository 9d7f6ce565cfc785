//! The Service through which pods reach cluster DNS: `kube-system/kube-dns`, without a selector, with one EndpointSlice
//! for each node that runs a server.
//!
//! Invariant: a Service or slice that somebody else has made is never changed.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, PostParams};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::config::{Error, Publish};

const NAMESPACE: &str = "kube-system";
const SERVICE: &str = "kube-dns";
const MANAGER: &str = "kedge-dns";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";

/// The Service, as other software expects it.
pub fn plan_service(publish: &Publish) -> Service {
    let family = family(publish);
    serde_json::from_value(json!({
        "metadata": {
            "namespace": NAMESPACE,
            "name": SERVICE,
            "labels": {"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"},
        },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": publish.cluster_ip,
            "clusterIPs": [publish.cluster_ip],
            "ipFamilies": [family],
            "ipFamilyPolicy": "SingleStack",
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": publish.endpoint.port()},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": publish.endpoint.port()},
            ],
        },
    }))
    .expect("it has the shape of a Service")
}

/// The slice with one node's server. The hint keeps each node's pods with their own node's server, as long as every
/// server has one.
pub fn plan_endpoint_slice(publish: &Publish) -> EndpointSlice {
    let port = publish.endpoint.port();
    serde_json::from_value(json!({
        "metadata": {
            "namespace": NAMESPACE,
            "name": format!("{SERVICE}-{}", publish.node_name),
            "labels": {"kubernetes.io/service-name": SERVICE, MANAGED_BY: MANAGER, "k8s-app": "kube-dns"},
        },
        "addressType": family(publish),
        "endpoints": [{
            "addresses": [publish.endpoint.ip()],
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": publish.node_name,
            "hints": {"forNodes": [{"name": publish.node_name}]},
        }],
        "ports": [
            {"name": "dns", "port": port, "protocol": "UDP"},
            {"name": "dns-tcp", "port": port, "protocol": "TCP"},
        ],
    }))
    .expect("it has the shape of an EndpointSlice")
}

fn family(publish: &Publish) -> &'static str {
    if publish.cluster_ip.is_ipv6() { "IPv6" } else { "IPv4" }
}

/// Makes the Service and this node's slice be in the API. Doing it again changes nothing.
pub async fn ensure_service(client: &Client, publish: &Publish) -> Result<(), Error> {
    ensure(client, plan_service(publish), |found, wanted| {
        let spec = found.spec.as_ref();
        if spec.is_some_and(|spec| spec.selector.as_ref().is_some_and(|selector| !selector.is_empty())) {
            return Err(Error::Foreign("it has a selector".to_owned()));
        }
        let cluster_ip = spec.and_then(|spec| spec.cluster_ip.clone()).unwrap_or_default();
        if cluster_ip != publish.cluster_ip.to_string() {
            return Err(Error::Foreign(format!("its clusterIP is {cluster_ip}, not {}", publish.cluster_ip)));
        }
        let ports = |service: &Service| {
            let ports = service.spec.as_ref().and_then(|spec| spec.ports.clone()).unwrap_or_default();
            ports
                .iter()
                .map(|port| (port.name.clone(), port.port, port.protocol.clone(), port.target_port.clone()))
                .collect::<Vec<_>>()
        };
        if ports(found) == ports(wanted) {
            return Ok(None);
        }
        let mut changed = found.clone();
        if let (Some(spec), Some(wanted)) = (&mut changed.spec, &wanted.spec) {
            spec.ports.clone_from(&wanted.ports);
        }
        Ok(Some(changed))
    })
    .await?;
    ensure(client, plan_endpoint_slice(publish), |found, wanted| {
        if found.labels().get(MANAGED_BY).map(String::as_str) != Some(MANAGER) {
            return Err(Error::Foreign(format!("the EndpointSlice {} is managed by another", found.name_any())));
        }
        if (&found.endpoints, &found.ports) == (&wanted.endpoints, &wanted.ports) {
            return Ok(None);
        }
        let mut changed = found.clone();
        changed.endpoints.clone_from(&wanted.endpoints);
        changed.ports.clone_from(&wanted.ports);
        Ok(Some(changed))
    })
    .await
}

/// Creates an object, or changes the one that is there to what `change` makes of it.
async fn ensure<K>(client: &Client, wanted: K, change: impl Fn(&K, &K) -> Result<Option<K>, Error>) -> Result<(), Error>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + serde::Serialize
        + std::fmt::Debug,
    K::DynamicType: Default,
{
    let api = Api::<K>::namespaced(client.clone(), NAMESPACE);
    let name = wanted.name_any();
    let parameters = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    match api.get_opt(&name).await? {
        None => drop(api.create(&parameters, &wanted).await?),
        Some(found) => {
            if let Some(changed) = change(&found, &wanted)? {
                api.replace(&name, &parameters, &changed).await?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_leads_to_the_server_on_its_node() {
        let publish = Publish {
            cluster_ip: "10.96.0.10".parse().unwrap(),
            node_name: "node-1".to_owned(),
            endpoint: "192.0.2.2:10053".parse().unwrap(),
        };
        let service = plan_service(&publish).spec.unwrap();
        assert_eq!(service.cluster_ip.as_deref(), Some("10.96.0.10"));
        assert!(service.selector.is_none());
        let slice = plan_endpoint_slice(&publish);
        assert_eq!(slice.metadata.name.as_deref(), Some("kube-dns-node-1"));
        assert_eq!(slice.address_type, "IPv4");
        let names = |ports: Vec<Option<String>>| ports.into_iter().flatten().collect::<Vec<_>>().join(" ");
        let of_service = names(service.ports.unwrap().into_iter().map(|port| port.name).collect());
        let of_slice = names(slice.ports.unwrap().into_iter().map(|port| port.name).collect());
        assert_eq!(of_service, "dns dns-tcp");
        assert_eq!(of_service, of_slice, "the proxy joins them by name");
    }
}
