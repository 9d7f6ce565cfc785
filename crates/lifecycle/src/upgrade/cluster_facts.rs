//! What a cluster says of itself before an upgrade: its configuration, the versions of its parts, what its add-ons were
//! made with.
//!
//! Reads only.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, PodTemplateSpec};
use kedge_client::Client;
use kube::Api;
use kube::api::ListParams;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::health::CONTROL_PLANE_LABEL;
use super::plan::{ConfigVersion, FoundVersions, NodesByVersion};
use super::version::ClusterVersion;
use crate::cluster_configuration::ClusterConfiguration;
use crate::documents::API_VERSION;
use crate::init::{PhaseError, failed};

const NAMESPACE: &str = "kube-system";
/// How long a kubelet may take to tell of an API server that runs.
const SETTLE_PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(500);
const COMPONENTS: [&str; 4] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];

/// The configuration that is kept in the cluster.
pub(super) struct KeptConfiguration {
    /// `ClusterConfiguration` of `kubeadm-config`.
    pub(super) cluster: ClusterConfiguration,
    /// The document of `kubelet-config`.
    pub(super) kubelet: Map<String, Value>,
}

impl KeptConfiguration {
    pub(super) async fn read(client: &Client) -> Result<Self, PhaseError> {
        let wrong = |map: &str, why: String| PhaseError::Missing(format!("the ConfigMap {map} cannot be read: {why}"));
        let text = entry(client, "kubeadm-config", "ClusterConfiguration").await?.ok_or_else(|| {
            PhaseError::Missing(
                "the ConfigMap \"kubeadm-config\" in the \"kube-system\" namespace was not found: use 'kedge init phase \
                 upload-config kubeadm --config your-config-file' to re-upload it"
                    .to_owned(),
            )
        })?;
        let cluster =
            ClusterConfiguration::from_cluster(&text).map_err(|error| wrong("kubeadm-config", error.to_string()))?;
        let text = entry(client, "kubelet-config", "kubelet").await?.unwrap_or_default();
        let kubelet: Option<Map<String, Value>> =
            serde_yaml::from_str(&text).map_err(|error| wrong("kubelet-config", error.to_string()))?;
        Ok(Self { cluster, kubelet: kubelet.unwrap_or_default() })
    }
}

/// An entry of a ConfigMap of the system.
pub(super) async fn entry(client: &Client, name: &str, key: &str) -> Result<Option<String>, PhaseError> {
    let map = Api::<ConfigMap>::namespaced(client.clone(), NAMESPACE).get_opt(name).await;
    let map = map.map_err(|source| failed("ConfigMap", name, source))?;
    Ok(map.and_then(|map| map.data?.remove(key)))
}

/// The add-ons that are there.
#[derive(Default)]
pub(super) struct FoundAddons {
    /// DNS: its Deployment.
    pub(super) dns: Option<Deployment>,
    /// The proxy, and its configuration document.
    pub(super) proxy: Option<(DaemonSet, Map<String, Value>)>,
    /// Kedge's own pod network.
    pub(super) network: Option<DaemonSet>,
}

impl FoundAddons {
    pub(super) async fn read(client: &Client) -> Result<Self, PhaseError> {
        let sets: Api<DaemonSet> = Api::namespaced(client.clone(), NAMESPACE);
        let set = async |name: &str| sets.get_opt(name).await.map_err(|error| failed("DaemonSet", name, error));
        let deployments: Api<Deployment> = Api::namespaced(client.clone(), NAMESPACE);
        let dns = deployments.get_opt("coredns").await.map_err(|error| failed("Deployment", "coredns", error))?;
        let configuration = entry(client, "kube-proxy", "config.conf").await?.unwrap_or_default();
        let configuration: Option<Map<String, Value>> = serde_yaml::from_str(&configuration).unwrap_or_default();
        let proxy = set("kube-proxy").await?.map(|set| (set, configuration.unwrap_or_default()));
        Ok(Self { dns, proxy, network: set("kedge-network").await? })
    }

    fn versions(&self) -> BTreeMap<String, String> {
        let dns = self.dns.as_ref().and_then(|found| Some(&found.spec.as_ref()?.template));
        let proxy = self.proxy.as_ref().and_then(|(found, _)| Some(&found.spec.as_ref()?.template));
        let network = self.network.as_ref().and_then(|found| Some(&found.spec.as_ref()?.template));
        let all = [("CoreDNS", dns), ("kube-proxy", proxy), ("kedge-network", network)];
        all.into_iter()
            .filter_map(|(name, template)| Some((name.to_owned(), version_of(first_image(template?)?))))
            .collect()
    }

    /// The flags of the network's agent that are not the usual ones.
    pub(super) fn network_flags(&self) -> Vec<String> {
        let template = self.network.as_ref().and_then(|found| Some(&found.spec.as_ref()?.template));
        let command = template.and_then(|template| template.spec.as_ref()?.containers.first()?.command.clone());
        let usual = ["--kubeconfig=", "--pod-network-cidr=", "--health-address="];
        let flags = command.unwrap_or_default().into_iter().skip(2);
        flags.filter(|flag| !usual.iter().any(|usual| flag.starts_with(usual))).collect()
    }
}

fn first_image(template: &PodTemplateSpec) -> Option<&str> {
    template.spec.as_ref()?.containers.first()?.image.as_deref()
}

/// A version as it shows; the tag where it is none.
fn version_of(image: &str) -> String {
    let tag = image.rsplit_once(':').map_or(image, |(_, tag)| tag);
    ClusterVersion::of_image(image).map_or_else(|| tag.to_owned(), |version| version.to_string())
}

/// The versions of everything that an upgrade concerns, once each control plane shows its API server: for a moment after
/// that was started anew, which an earlier run may have done, its kubelet has not told of it yet.
pub(super) async fn find_settled_versions(client: &Client, addons: &FoundAddons) -> Result<FoundVersions, PhaseError> {
    let deadline = Instant::now() + SETTLE_PATIENCE;
    loop {
        let (pods, nodes) = list(client).await?;
        // A control plane that is gone for good does not stand in the way.
        if unseen(&pods, &nodes).is_empty() || Instant::now() > deadline {
            return Ok(versions(&pods, nodes, addons));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The versions of everything that an upgrade concerns, as they are seen now.
pub(super) async fn find_versions(client: &Client, addons: &FoundAddons) -> Result<FoundVersions, PhaseError> {
    let (pods, nodes) = list(client).await?;
    Ok(versions(&pods, nodes, addons))
}

async fn list(client: &Client) -> Result<(Vec<Pod>, Vec<Node>), PhaseError> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let pods = pods.list(&ListParams::default().labels("tier=control-plane")).await;
    let pods = pods.map_err(|source| failed("Pod", "of the control plane", source))?;
    let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default()).await;
    let nodes = nodes.map_err(|source| failed("Node", "", source))?;
    Ok((pods.items, nodes.items))
}

/// The control planes whose API server has no pod in the API.
fn unseen(pods: &[Pod], nodes: &[Node]) -> Vec<String> {
    let servers = versions_of("kube-apiserver", pods);
    let is_control_plane =
        |node: &&Node| node.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(CONTROL_PLANE_LABEL));
    let names = nodes.iter().filter(is_control_plane).filter_map(|node| node.metadata.name.clone());
    names.filter(|name| !servers.values().flatten().any(|node| node == name)).collect()
}

fn versions(pods: &[Pod], nodes: Vec<Node>, addons: &FoundAddons) -> FoundVersions {
    let mut components: BTreeMap<String, NodesByVersion> = BTreeMap::new();
    for component in COMPONENTS {
        components.insert(component.to_owned(), versions_of(component, pods));
    }
    let mut kubelets = NodesByVersion::new();
    for node in nodes {
        let version = node.status.and_then(|status| Some(status.node_info?.kubelet_version));
        kubelets.entry(version.unwrap_or_default()).or_default().push(node.metadata.name.unwrap_or_default());
    }
    FoundVersions { components, kubelets, addons: addons.versions() }
}

fn versions_of(component: &str, pods: &[Pod]) -> NodesByVersion {
    let mut found = NodesByVersion::new();
    for pod in pods {
        let is_of = pod.metadata.labels.as_ref().and_then(|labels| labels.get("component"));
        let Some(spec) = pod.spec.as_ref().filter(|_| is_of.is_some_and(|name| name == component)) else { continue };
        let image = spec.containers.first().and_then(|container| container.image.as_deref()).unwrap_or_default();
        found.entry(version_of(image)).or_default().push(spec.node_name.clone().unwrap_or_default());
    }
    found.values_mut().for_each(|nodes| nodes.sort());
    found
}

/// The versions of the documents that the cluster keeps.
pub(super) fn config_versions(kept: &KeptConfiguration, addons: &FoundAddons) -> Vec<ConfigVersion> {
    let said = |document: &Map<String, Value>| {
        document
            .get("apiVersion")
            .and_then(Value::as_str)
            .and_then(|text| text.split_once('/'))
            .map(|(_, version)| version.to_owned())
    };
    let row = |group: &str, current: Option<String>, preferred: &str| {
        let current = current.unwrap_or_default();
        let manual_upgrade_required = !current.is_empty() && current != preferred;
        let (group, preferred_version) = (group.to_owned(), preferred.to_owned());
        ConfigVersion { group, current_version: current, preferred_version, manual_upgrade_required }
    };
    let proxy = addons.proxy.as_ref().and_then(|(_, configuration)| said(configuration));
    let kubeadm = API_VERSION.split_once('/').map(|(_, version)| version.to_owned());
    vec![
        row("kubeproxy.config.k8s.io", proxy, "v1alpha1"),
        row("kubelet.config.k8s.io", said(&kept.kubelet), "v1beta1"),
        // What was read is of this version: others are refused.
        row("kubeadm.k8s.io", kubeadm, "v1beta4"),
    ]
}

/// Nodes whose API server is of another version than a node's own.
pub(super) fn not_upgraded(versions: &FoundVersions, node: &str) -> Vec<String> {
    let servers = versions.of("kube-apiserver");
    let own = servers.iter().find(|(_, nodes)| nodes.iter().any(|known| known == node)).map(|(version, _)| version);
    let others = servers.iter().filter(|(version, _)| Some(*version) != own);
    let mut others: Vec<String> = others.flat_map(|(_, nodes)| nodes.clone()).collect();
    others.sort();
    others
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pods_say_versions_and_nodes() {
        let pod = |component: &str, node: &str, image: &str| -> Pod {
            serde_json::from_value(json!({
                "metadata": {"name": format!("{component}-{node}"), "labels": {"component": component}},
                "spec": {"nodeName": node, "containers": [{"name": component, "image": image}]},
            }))
            .unwrap()
        };
        let pods = [
            pod("kube-apiserver", "b", "localhost/kedge:v1.36.0_kedge-0.1.0"),
            pod("kube-apiserver", "a", "localhost/kedge:v1.36.0_kedge-0.1.0"),
            pod("kube-apiserver", "c", "localhost/kedge:v1.36.0_kedge-0.1.1"),
            pod("etcd", "a", "localhost/etcd:vnone"),
        ];
        let nodes: [Node; 4] = ["a", "b", "d", "worker"].map(|name| {
            let labels = if name == "worker" { json!({}) } else { json!({CONTROL_PLANE_LABEL: ""}) };
            serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}})).unwrap()
        });
        assert_eq!(unseen(&pods, &nodes), ["d"]);
        assert_eq!(unseen(&pods[1..], &nodes), ["b", "d"]);
        let servers = versions_of("kube-apiserver", &pods);
        assert_eq!(servers["v1.36.0+kedge-0.1.0"], ["a", "b"]);
        assert_eq!(versions_of("etcd", &pods)["vnone"], ["a"]);
        let components = [("kube-apiserver".to_owned(), servers)].into();
        let found = FoundVersions { components, ..FoundVersions::default() };
        assert_eq!(found.cluster().unwrap().to_string(), "v1.36.0+kedge-0.1.1");
        assert_eq!(not_upgraded(&found, "c"), ["a", "b"]);
    }

    #[test]
    fn flags_of_the_network_are_kept() {
        let command =
            ["kedge", "network-agent", "--kubeconfig=/a", "--network-mode=vxlan", "--pod-network-cidr=10.0.0.0/8"];
        let network: DaemonSet = serde_json::from_value(json!({
            "metadata": {"name": "kedge-network"},
            "spec": {"selector": {}, "template": {"spec": {"containers": [
                {"name": "a", "image": "localhost/kedge:v1.36.0_kedge-0.1.0", "command": command}]}}},
        }))
        .unwrap();
        let found = FoundAddons { network: Some(network), ..FoundAddons::default() };
        assert_eq!(found.network_flags(), ["--network-mode=vxlan"]);
        assert_eq!(found.versions()["kedge-network"], "v1.36.0+kedge-0.1.0");
    }
}
