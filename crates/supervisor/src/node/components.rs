//! The components of a node, each with its configuration and what it works with.

use std::fmt::Display;
use std::net::IpAddr;
use std::sync::Arc;

use kedge_client::Informers;
use kedge_kubelet::PodGate;
use kedge_meta::ComponentStatus;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::PreparedRuntime;
use crate::control_plane::Ended;
use crate::error::Error;
use crate::node::access::Access;
use crate::options::{KUBELET_PORT, Plan};

/// Starts all of them.
pub(crate) fn start(
    plan: &Plan,
    access: &Access,
    prepared: &PreparedRuntime,
    components: &mut JoinSet<Ended>,
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    let mut node = Node { plan, access, prepared, components, shutdown };
    let agreement = kedge_network::Agreement::default();
    node.network(&agreement);
    node.mesh(&agreement);
    node.announce(&agreement);
    let gate = node.policy();
    node.proxy();
    node.kubelet(gate)?;
    node.dns();
    node.local_path();
    Ok(())
}

/// What every component takes something of.
struct Node<'a> {
    plan: &'a Plan,
    access: &'a Access,
    prepared: &'a PreparedRuntime,
    components: &'a mut JoinSet<Ended>,
    shutdown: &'a CancellationToken,
}

impl Node<'_> {
    fn spawn<E: Display>(&mut self, name: &'static str, run: impl Future<Output = Result<(), E>> + Send + 'static) {
        self.components.spawn(async move { (name, run.await.map_err(|error| error.to_string())) });
    }

    fn status(&self, name: &'static str) -> ComponentStatus {
        self.access.board.component(name)
    }

    fn network(&mut self, agreement: &kedge_network::Agreement) {
        let (plan, informers) = (self.plan, &self.access.informers);
        let state = plan.layout.root().join("network");
        let mut config = kedge_network::Config::new(plan.node_name.clone(), plan.node_ips.clone(), state);
        config.cluster_cidrs.clone_from(&plan.pod_networks);
        config.service_cidrs.clone_from(&plan.service_networks);
        config.cni_config_dir.clone_from(&self.prepared.cni_config_dir);
        config.ipam_dir = plan.layout.cni_state();
        plan.network.apply_to_node(&mut config);
        let mut deps = kedge_network::Deps::new(informers, &plan.node_name, self.status("kedge-network"));
        deps.agreement = agreement.clone();
        // What is said of a node is said by the node.
        deps.client = Some(self.access.kubelet.clone());
        self.spawn("kedge-network", kedge_network::run(config, deps, self.shutdown.clone()));
    }

    fn mesh(&mut self, agreement: &kedge_network::Agreement) {
        let (plan, informers) = (self.plan, &self.access.informers);
        let (name, cidrs) = (plan.node_name.clone(), plan.pod_networks.clone());
        let mut config = kedge_network::MeshConfig::new(name, plan.node_ip, cidrs);
        // A family that pods have not needs no routes.
        let has_pods = |ip: &IpAddr| plan.pod_networks.iter().any(|range| range.addr().is_ipv6() == ip.is_ipv6());
        config.second_node_ip = plan.node_ips.get(1).copied().filter(has_pods);
        config.state_dir = Some(plan.layout.root().join("network"));
        plan.network.apply_to_mesh(&mut config);
        let mut deps = kedge_network::MeshDeps::new(informers, self.status("kedge-bgp"));
        deps.agreement = agreement.clone();
        deps.client = Some(self.access.kubelet.clone());
        self.spawn("kedge-bgp", kedge_network::run_mesh(config, deps, self.shutdown.clone()));
    }

    /// Addresses of Services on the nodes' segment; IPv4 only.
    fn announce(&mut self, agreement: &kedge_network::Agreement) {
        let ipv4 = |ip: &IpAddr| if let IpAddr::V4(ip) = ip { Some(*ip) } else { None };
        let Some(node_ip) = self.plan.node_ips.iter().find_map(ipv4) else { return };
        let config = kedge_network::AnnounceConfig { node_name: self.plan.node_name.clone(), node_ip };
        let status = self.status("kedge-announce");
        let deps = kedge_network::AnnounceDeps::new(&self.access.informers, status, agreement.clone());
        self.spawn("kedge-announce", kedge_network::run_announce(config, deps, self.shutdown.clone()));
    }

    /// Returns where the kubelet asks before a pod starts.
    fn policy(&mut self) -> PodGate {
        let (plan, informers) = (self.plan, &self.access.informers);
        let config = kedge_policy::Config::new(plan.node_name.clone(), &plan.pod_networks);
        let mut deps = kedge_policy::Deps::new(informers, self.status("kedge-policy"));
        let (gate, keeper) = kedge_policy::Gate::new();
        deps.gate = Some(keeper);
        self.spawn("kedge-policy", kedge_policy::run(config, deps, self.shutdown.clone()));
        Arc::new(move |pod, ips| {
            let gate = gate.clone();
            Box::pin(async move { gate.admit(pod, ips).await })
        })
    }

    fn proxy(&mut self) {
        let (plan, access) = (self.plan, self.access);
        let state = plan.layout.root().join("proxy");
        let mut config = kedge_proxy::Config::new(plan.node_name.clone(), plan.node_ips.clone(), state);
        config.cluster_cidrs.clone_from(&plan.pod_networks);
        config.service_cidrs.clone_from(&plan.service_networks);
        let (status, clock) = (self.status("kube-proxy"), access.clock.clone());
        let deps = kedge_proxy::Deps::new(&access.informers, &plan.node_name, status, clock);
        self.spawn("kube-proxy", kedge_proxy::run(config, deps, self.shutdown.clone()));
    }

    fn kubelet(&mut self, gate: PodGate) -> Result<(), Error> {
        let (plan, access) = (self.plan, self.access);
        let mut config = self.kubelet_config();
        if let Some(file) = &plan.kubelet {
            let applied = file.apply(&mut config);
            applied.map_err(|error| Error::Component { component: "kubelet", why: error.to_string() })?;
        }
        let requests = Arc::<kedge_client::RequestMetrics>::default();
        let client = requests.counting(access.kubelet.clone(), &access.api_host);
        let deps = kedge_kubelet::Deps {
            informers: Informers::new(client.clone(), self.shutdown.clone()),
            client,
            runtime: self.prepared.runtime.clone(),
            status: access.board.clone(),
            clock: access.clock.clone(),
            server_tls: Some(access.kubelet_tls.clone()),
            network_ready: None,
            requests,
            pod_gate: Some(gate),
        };
        self.spawn("kubelet", kedge_kubelet::run(config, deps, self.shutdown.clone()));
        Ok(())
    }

    fn kubelet_config(&self) -> kedge_kubelet::Config {
        let plan = self.plan;
        kedge_kubelet::Config {
            node_name: plan.node_name.clone(),
            node_ip: plan.node_ip,
            second_node_ip: plan.node_ips.get(1).copied(),
            root_dir: plan.layout.kubelet(),
            pod_logs_dir: plan.layout.pod_logs(),
            container_logs_dir: Some(plan.layout.container_logs()),
            static_pod_path: Some(plan.layout.manifests()),
            // The first alone, as kubeadm does it: a resolver that asks all would ask the same server twice.
            cluster_dns: plan.dns_service_ips.first().copied().into_iter().collect(),
            cluster_domain: plan.options.service_dns_domain.clone(),
            port: KUBELET_PORT,
            cgroup_driver: self.prepared.cgroup_driver,
            sandbox_image: Some(self.prepared.images.sandbox.clone()),
            // DIVERGES: upstream takes a disk that is 85 % full for pressure, and removes images that nobody could pull
            // again where no registry can be reached.
            eviction: kedge_kubelet::Eviction::on_a_shared_disk(),
            image_gc: kedge_kubelet::ImageGc { high_threshold_percent: 100, ..Default::default() },
            // DIVERGES: off upstream unless configured.
            enable_system_log_query: true,
            ..kedge_kubelet::Config::default()
        }
    }

    fn dns(&mut self) {
        let plan = self.plan;
        let (clusters, services) = (plan.pod_networks.clone(), plan.service_networks.clone());
        let (node_ips, cluster_ips) = (&plan.node_ips, &plan.dns_service_ips);
        let mut config = kedge_dns::Config::new(&plan.node_name, node_ips, cluster_ips, clusters, services);
        config.domain.clone_from(&plan.options.service_dns_domain);
        let deps = kedge_dns::Deps::new(&self.access.informers, self.status("kedge-dns"));
        self.spawn("kedge-dns", kedge_dns::run(config, deps, self.shutdown.clone()));
    }

    fn local_path(&mut self) {
        let (plan, access) = (self.plan, self.access);
        let config = kedge_local_path::Config { node_name: plan.node_name.clone(), root: plan.layout.local_path() };
        let deps = kedge_local_path::Deps {
            client: access.provisioner.clone(),
            class_client: access.informers.client().clone(),
            informers: access.informers.clone(),
            status: self.status("kedge-local-path"),
        };
        self.spawn("kedge-local-path", kedge_local_path::run(config, deps, self.shutdown.clone()));
    }
}
