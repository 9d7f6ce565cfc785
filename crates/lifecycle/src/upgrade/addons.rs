//! The add-ons of a cluster, made again by the new version; what people changed in their configuration stays.
//!
//! Their DaemonSets reach a node only when it has the image, which each machine makes for itself (`kedge upgrade node`); until
//! then its old pods go on.

use serde_json::{Value, json};

use super::cluster_facts::FoundAddons;
use crate::Say;
use crate::addons::{NetworkAddon, dns_objects, network_objects, proxy_objects};
use crate::cluster_configuration::ClusterConfiguration;

/// An add-on and its objects.
pub(super) type Addon = (&'static str, Vec<Value>);

/// What add-ons are made of.
pub(super) struct AddonFacts<'a> {
    pub(super) cluster: &'a ClusterConfiguration,
    /// `host:port` of the API.
    pub(super) endpoint: String,
    /// The tenth address of the Service range.
    pub(super) dns_address: String,
    pub(super) image: String,
}

/// The objects of those add-ons that the cluster has.
pub(super) fn plan_addons(facts: &AddonFacts<'_>, found: &FoundAddons, say: Say<'_>) -> Vec<Addon> {
    let networking = &facts.cluster.networking;
    let mut addons = Vec::new();
    match &found.dns {
        Some(dns) if !facts.cluster.dns.disabled => {
            let ranges = [networking.pod_subnet.as_str(), &networking.service_subnet];
            let ranges = ranges.into_iter().filter(|range| !range.is_empty()).collect::<Vec<_>>().join(",");
            let mut objects = dns_objects(&facts.dns_address, &networking.dns_domain, &ranges, &facts.image);
            let replicas = dns.spec.as_ref().and_then(|spec| spec.replicas);
            objects.iter_mut().filter(|object| object["kind"] == "Deployment").for_each(|deployment| {
                // Somebody may have scaled it.
                deployment["spec"]["replicas"] = json!(replicas.unwrap_or(2));
            });
            addons.push(("CoreDNS", objects));
        }
        Some(_) => say("[upgrade/addon] Skipping the addon/coredns phase. The addon is disabled."),
        None => say("[upgrade/addon] Skipping the addon/coredns phase. The addon is not there."),
    }
    match &found.proxy {
        Some((_, configuration)) if !facts.cluster.proxy.disabled => {
            let objects = proxy_objects(&facts.endpoint, &networking.pod_subnet, &facts.image, configuration);
            addons.push(("kube-proxy", objects));
        }
        Some(_) => say("[upgrade/addon] Skipping the addon/kube-proxy phase. The addon is disabled."),
        None => say("[upgrade/addon] Skipping the addon/kube-proxy phase. The addon is not there."),
    }
    if found.network.is_some() {
        let flags = found.network_flags();
        let (pod_subnet, endpoint) = (&networking.pod_subnet, facts.endpoint.as_str());
        let addon = NetworkAddon { pod_subnet, endpoint, image: &facts.image, flags: &flags };
        addons.push(("kedge-network", network_objects(&addon)));
    }
    addons
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
    use serde_json::Map;

    #[test]
    fn what_people_changed_stays() {
        let cluster = ClusterConfiguration::default();
        let facts = AddonFacts {
            cluster: &cluster,
            endpoint: "192.0.2.2:6443".to_owned(),
            dns_address: "10.96.0.10".to_owned(),
            image: "localhost/kedge:v2".to_owned(),
        };
        let dns: Deployment =
            serde_json::from_value(json!({"spec": {"replicas": 5, "selector": {}, "template": {}}})).unwrap();
        let configuration: Map<String, Value> =
            serde_json::from_value(json!({"mode": "nftables", "nodePortAddresses": ["primary"]})).unwrap();
        let found = FoundAddons { dns: Some(dns), proxy: Some((DaemonSet::default(), configuration)), network: None };
        let addons = plan_addons(&facts, &found, &|line| panic!("{line}"));
        let names: Vec<&str> = addons.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["CoreDNS", "kube-proxy"]);
        let of_kind = |addon: usize, kind: &str| addons[addon].1.iter().find(|object| object["kind"] == kind).unwrap();
        assert_eq!(of_kind(0, "Deployment")["spec"]["replicas"], 5);
        let text = of_kind(1, "ConfigMap")["data"]["config.conf"].as_str().unwrap();
        assert!(text.contains("nodePortAddresses:\n- primary"), "{text}");
        assert_eq!(of_kind(1, "DaemonSet")["spec"]["template"]["spec"]["containers"][0]["image"], "localhost/kedge:v2");
    }

    #[test]
    fn what_is_not_there_is_not_made() {
        let cluster = ClusterConfiguration::default();
        let (endpoint, dns_address, image) = Default::default();
        let facts = AddonFacts { cluster: &cluster, endpoint, dns_address, image };
        assert!(plan_addons(&facts, &FoundAddons::default(), &|_| {}).is_empty());
    }
}
