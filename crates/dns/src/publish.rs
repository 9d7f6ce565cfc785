//! The Service through which pods reach cluster DNS: `kube-system/kube-dns`, without a selector, with one EndpointSlice
//! of each family for each node that runs a server.
//!
//! Invariant: a Service or slice that somebody else has made is never changed.

use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, PostParams};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::config::{DEFAULT_PORT, Error, Publish};

const NAMESPACE: &str = "kube-system";
const SERVICE: &str = "kube-dns";
const MANAGER: &str = "kedge-dns";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";

/// The Service, as other software expects it.
pub fn plan_service(publish: &Publish) -> Service {
    let families: Vec<&str> = publish.cluster_ips.iter().map(|ip| family(ip.is_ipv6())).collect();
    let policy = if families.len() > 1 { "PreferDualStack" } else { "SingleStack" };
    let port = publish.endpoints.first().map_or(DEFAULT_PORT, SocketAddr::port);
    let mut ports = vec![
        json!({"name": "dns", "port": 53, "protocol": "UDP", "targetPort": port}),
        json!({"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": port}),
    ];
    let metrics = publish
        .metrics_port
        .map(|port| json!({"name": "metrics", "port": 9153, "protocol": "TCP", "targetPort": port}));
    ports.extend(metrics);
    serde_json::from_value(json!({
        "metadata": {
            "namespace": NAMESPACE,
            "name": SERVICE,
            "labels": {"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"},
            "annotations": {"prometheus.io/port": "9153", "prometheus.io/scrape": "true"},
        },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": publish.cluster_ips.first(),
            "clusterIPs": publish.cluster_ips,
            "ipFamilies": families,
            "ipFamilyPolicy": policy,
            "ports": ports,
        },
    }))
    .expect("it has the shape of a Service")
}

/// The slices with one node's server, one for each family. The hint keeps each node's pods with their own node's server, as
/// long as every server has one.
pub fn plan_endpoint_slices(publish: &Publish) -> Vec<EndpointSlice> {
    let primary = publish.cluster_ips.first().is_some_and(IpAddr::is_ipv6);
    publish.endpoints.iter().map(|endpoint| endpoint_slice(publish, *endpoint, primary)).collect()
}

fn endpoint_slice(publish: &Publish, endpoint: SocketAddr, primary: bool) -> EndpointSlice {
    let (port, ipv6) = (endpoint.port(), endpoint.is_ipv6());
    let suffix = match ipv6 {
        _ if ipv6 == primary => "",
        true => "-ipv6",
        false => "-ipv4",
    };
    let mut ports = vec![
        json!({"name": "dns", "port": port, "protocol": "UDP"}),
        json!({"name": "dns-tcp", "port": port, "protocol": "TCP"}),
    ];
    ports.extend(publish.metrics_port.map(|port| json!({"name": "metrics", "port": port, "protocol": "TCP"})));
    serde_json::from_value(json!({
        "metadata": {
            "namespace": NAMESPACE,
            "name": format!("{SERVICE}-{}{suffix}", publish.node_name),
            "labels": {"kubernetes.io/service-name": SERVICE, MANAGED_BY: MANAGER, "k8s-app": "kube-dns"},
        },
        "addressType": family(ipv6),
        "endpoints": [{
            "addresses": [endpoint.ip()],
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": publish.node_name,
            "hints": {"forNodes": [{"name": publish.node_name}]},
        }],
        "ports": ports,
    }))
    .expect("it has the shape of an EndpointSlice")
}

fn family(ipv6: bool) -> &'static str {
    if ipv6 { "IPv6" } else { "IPv4" }
}

/// What of a Service is wrong and ours to set right: its ports, and an address of a family that the cluster has since it
/// got a second range.
fn mend(found: &Service, wanted: &Service) -> Option<Service> {
    let ports = |service: &Service| {
        let ports = service.spec.as_ref().and_then(|spec| spec.ports.clone()).unwrap_or_default();
        ports
            .iter()
            .map(|port| (port.name.clone(), port.port, port.protocol.clone(), port.target_port.clone()))
            .collect::<Vec<_>>()
    };
    let addresses =
        |service: &Service| service.spec.as_ref().and_then(|spec| spec.cluster_ips.as_ref()).map_or(0, Vec::len);
    let (same_ports, has_all) = (ports(found) == ports(wanted), addresses(found) >= addresses(wanted));
    if same_ports && has_all {
        return None;
    }
    let mut changed = found.clone();
    if let (Some(spec), Some(wanted)) = (&mut changed.spec, &wanted.spec) {
        spec.ports.clone_from(&wanted.ports);
        if !has_all {
            spec.cluster_ips.clone_from(&wanted.cluster_ips);
            spec.ip_families.clone_from(&wanted.ip_families);
            spec.ip_family_policy.clone_from(&wanted.ip_family_policy);
        }
    }
    Some(changed)
}

/// Makes the Service and this node's slices be in the API. Doing it again changes nothing.
pub async fn ensure_service(client: &Client, publish: &Publish) -> Result<(), Error> {
    ensure(client, plan_service(publish), |found, wanted| {
        let spec = found.spec.as_ref();
        if spec.is_some_and(|spec| spec.selector.as_ref().is_some_and(|selector| !selector.is_empty())) {
            return Err(Error::Foreign("it has a selector".to_owned()));
        }
        let cluster_ip = spec.and_then(|spec| spec.cluster_ip.clone()).unwrap_or_default();
        let wanted_ip = publish.cluster_ips.first().map(IpAddr::to_string).unwrap_or_default();
        if cluster_ip != wanted_ip {
            return Err(Error::Foreign(format!("its clusterIP is {cluster_ip}, not {wanted_ip}")));
        }
        Ok(mend(found, wanted))
    })
    .await?;
    for slice in plan_endpoint_slices(publish) {
        ensure_slice(client, slice).await?;
    }
    Ok(())
}

async fn ensure_slice(client: &Client, slice: EndpointSlice) -> Result<(), Error> {
    ensure(client, slice, |found, wanted| {
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

    fn publish(cluster_ips: &[&str], endpoints: &[&str]) -> Publish {
        Publish {
            cluster_ips: cluster_ips.iter().map(|ip| ip.parse().unwrap()).collect(),
            node_name: "node-1".to_owned(),
            endpoints: endpoints.iter().map(|endpoint| endpoint.parse().unwrap()).collect(),
            metrics_port: Some(10054),
        }
    }

    #[test]
    fn the_service_leads_to_the_server_on_its_node() {
        let publish = publish(&["10.96.0.10"], &["192.0.2.2:10053"]);
        let service = plan_service(&publish).spec.unwrap();
        assert_eq!(service.cluster_ip.as_deref(), Some("10.96.0.10"));
        assert_eq!(service.ip_family_policy.as_deref(), Some("SingleStack"));
        assert!(service.selector.is_none());
        let [slice] = &plan_endpoint_slices(&publish)[..] else { panic!("one family has one slice") };
        assert_eq!(slice.metadata.name.as_deref(), Some("kube-dns-node-1"));
        assert_eq!(slice.address_type, "IPv4");
        let names = |ports: Vec<Option<String>>| ports.into_iter().flatten().collect::<Vec<_>>().join(" ");
        let of_service = names(service.ports.unwrap().into_iter().map(|port| port.name).collect());
        let of_slice = names(slice.ports.clone().unwrap().into_iter().map(|port| port.name).collect());
        assert_eq!(of_service, "dns dns-tcp metrics");
        assert_eq!(of_service, of_slice, "the proxy joins them by name");
    }

    #[test]
    fn two_families_have_two_slices_and_one_service() {
        let both = publish(&["fd00:10:96::a", "10.96.0.10"], &["[fd00::2]:10053", "192.0.2.2:10053"]);
        let service = plan_service(&both);
        let spec = service.spec.clone().unwrap();
        assert_eq!(spec.ip_families, Some(vec!["IPv6".to_owned(), "IPv4".to_owned()]));
        assert_eq!(spec.ip_family_policy.as_deref(), Some("PreferDualStack"));
        let slices = plan_endpoint_slices(&both);
        let shown: Vec<String> = slices
            .iter()
            .map(|slice| {
                let name = slice.metadata.name.as_deref().unwrap_or_default();
                format!("{name} {} {}", slice.address_type, slice.endpoints.as_ref().unwrap()[0].addresses[0])
            })
            .collect();
        assert_eq!(shown, ["kube-dns-node-1 IPv6 fd00::2", "kube-dns-node-1-ipv4 IPv4 192.0.2.2"]);
        let single = plan_service(&publish(&["fd00:10:96::a"], &["[fd00::2]:10053"]));
        let mended = mend(&single, &service).unwrap().spec.unwrap();
        assert_eq!(mended.cluster_ips, spec.cluster_ips);
        assert_eq!(mend(&service, &service), None);
        assert_eq!(mend(&service, &single), None, "a second family is not taken away");
    }
}
