//! What was asked for, checked once, and what follows from it.

mod addresses;
mod network;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use kedge_kubelet::{KubeletConfiguration, Starter};
use kedge_lifecycle::{Layout, Needs, find_node_ip, hostname};
use kedge_scheduler::KubeSchedulerConfiguration;

use crate::backend::EtcdOptions;
use crate::component::{CONTROLLER_MANAGER, SCHEDULER, read_scheduler_configuration};
use crate::error::Error;
use crate::kubelet::read_configuration;
pub(crate) use addresses::node_addresses;
use addresses::{AddressPlan, AskedAddresses, nth};
pub use network::NetworkOptions;
pub(crate) use network::NetworkPlan;

/// The name of the context, cluster and user in kubeconfigs.
pub(crate) const CONTEXT: &str = "kedge";
pub(crate) const KUBELET_PORT: u16 = 10250;

/// What `kedge up` was asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the cluster's state is.
    pub data_dir: PathBuf,
    /// The node's addresses, at most one of each IP family, the primary first; found where empty.
    pub node_ips: Vec<IpAddr>,
    /// The node's name; the host's where absent.
    pub node_name: Option<String>,
    /// Port of the API server.
    pub secure_port: u16,
    /// Port of the controllers' health and metrics, 0 for none; the usual one where absent and free.
    pub controller_manager_port: Option<u16>,
    /// The same for the scheduler's.
    pub scheduler_port: Option<u16>,
    /// Range of pod addresses, or one of each IP family with a comma between them.
    pub pod_network_cidr: String,
    /// Range of Service addresses, or two.
    pub service_cidr: String,
    /// The length of the prefixes that nodes get out of the pods' ranges, of IPv4 and IPv6.
    pub node_cidr_masks: (u8, u8),
    /// For how long a node may be silent before it counts as gone.
    pub node_monitor_grace_period: std::time::Duration,
    /// Addresses for Services of type LoadBalancer; empty where nobody gives them any.
    pub load_balancer_pool: String,
    /// DNS domain of the cluster.
    pub service_dns_domain: String,
    /// How packets get to other nodes.
    pub network: NetworkOptions,
    /// The etcd that keeps the objects; the data directory does where absent.
    pub etcd: Option<EtcdOptions>,
    /// Socket of the container runtime; found or started where absent.
    pub container_runtime_endpoint: Option<String>,
    /// Upstream's configuration file of the kubelet; the defaults where absent.
    pub kubelet_config: Option<PathBuf>,
    /// Upstream's configuration file of the scheduler; the defaults where absent.
    pub scheduler_config: Option<PathBuf>,
    /// Whether to run no node.
    pub control_plane_only: bool,
    /// What to simulate; nothing where absent. Only without a node of its own.
    pub simulate: Option<kedge_simulate::Config>,
    /// The kubeconfig into which the context is merged.
    pub kubeconfig: PathBuf,
    /// Which requests are written down, and where.
    pub audit: kedge_audit::AuditOptions,
    /// Whether to deploy the demo.
    pub demo: bool,
    /// The command line, for `/flagz`.
    pub flags: kedge_zpages::Flags,
}

/// The same, checked and complete.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) options: Options,
    pub(crate) layout: Layout,
    /// The first of `node_ips`.
    pub(crate) node_ip: IpAddr,
    /// At most one of each IP family, the primary first; the same order as the ranges have.
    pub(crate) node_ips: Vec<IpAddr>,
    pub(crate) node_name: String,
    pub(crate) pod_networks: Vec<IpNet>,
    pub(crate) service_networks: Vec<IpNet>,
    /// The first address of the first Service range: the API server's.
    pub(crate) api_service_ip: IpAddr,
    /// The tenth address of each Service range: the cluster DNS's.
    pub(crate) dns_service_ips: Vec<IpAddr>,
    /// The addresses for Services of type LoadBalancer.
    pub(crate) load_balancer_pool: kedge_controllers::AddressPool,
    /// What the kubelet's configuration file says.
    pub(crate) kubelet: Option<KubeletConfiguration>,
    /// How the scheduler decides.
    pub(crate) scheduler: KubeSchedulerConfiguration,
    /// How packets get to other nodes.
    pub(crate) network: NetworkPlan,
}

impl Plan {
    pub(crate) fn new(options: Options) -> Result<Self, Error> {
        let asked = AskedAddresses {
            node_ips: &options.node_ips,
            pods: &options.pod_network_cidr,
            services: &options.service_cidr,
            masks: options.node_cidr_masks,
            control_plane_only: options.control_plane_only,
        };
        let AddressPlan { node_ips, pods, services } = AddressPlan::new(&asked, find_node_ip)?;
        let (node_ip, api_service_ip) = (node_ips[0], nth(&services[0], 1));
        let dns_service_ips = services.iter().map(|range| nth(range, 10)).collect();
        check_domain(&options.service_dns_domain)?;
        let load_balancer_pool = load_balancer_pool(&options.load_balancer_pool)?;
        let node_name = match &options.node_name {
            Some(name) if kedge_meta::is_dns1123_subdomain(name) => name.clone(),
            Some(name) => {
                let why = "a node name has lower-case letters, digits, `-` and `.` only".to_owned();
                return Err(Error::Flag { flag: "--node-name", value: name.clone(), why });
            }
            None => hostname()?,
        };
        let layout = Layout::new(std::path::absolute(&options.data_dir).unwrap_or_else(|_| options.data_dir.clone()));
        let kubelet = options.kubelet_config.as_deref();
        let kubelet = kubelet.map(|path| read_configuration("--kubelet-config", path, Starter::Up)).transpose()?;
        let scheduler = options.scheduler_config.as_deref();
        let scheduler = scheduler.map(|path| read_scheduler_configuration("--scheduler-config", path)).transpose()?;
        let network = NetworkPlan::new(&options.network, &node_ips)?;
        Ok(Self {
            network,
            layout,
            node_ip,
            node_ips,
            node_name,
            pod_networks: pods,
            service_networks: services,
            api_service_ip,
            dns_service_ips,
            load_balancer_pool,
            kubelet,
            scheduler: scheduler.unwrap_or_default(),
            options,
        })
    }

    /// Where the API server listens: every address, so that loopback, node and tests reach it.
    pub(crate) fn api_address(&self) -> SocketAddr {
        // That of IPv6 takes connections of IPv4 as well.
        let any: IpAddr = match self.has_ipv6() {
            false => Ipv4Addr::UNSPECIFIED.into(),
            true => Ipv6Addr::UNSPECIFIED.into(),
        };
        match self.options.control_plane_only && self.node_ip.is_loopback() {
            true => SocketAddr::new(self.node_ip, self.options.secure_port),
            false => SocketAddr::new(any, self.options.secure_port),
        }
    }

    /// Whether the node has an address of IPv6 that the cluster uses.
    pub(crate) fn has_ipv6(&self) -> bool {
        self.node_ips.iter().any(IpAddr::is_ipv6)
    }

    /// Host and port of the API server.
    pub(crate) fn host(&self) -> String {
        SocketAddr::new(self.node_ip, self.options.secure_port).to_string()
    }

    /// The URL in kubeconfigs.
    pub(crate) fn server(&self) -> String {
        format!("https://{}", self.host())
    }

    /// Where the controllers and the scheduler were asked to show their pages, with the flag that did.
    fn component_addresses(&self) -> Vec<(&'static str, SocketAddr)> {
        let asked = [
            (CONTROLLER_MANAGER.flag, self.options.controller_manager_port),
            (SCHEDULER.flag, self.options.scheduler_port),
        ];
        let address = |port| SocketAddr::new(self.api_address().ip(), port);
        let ports = asked.into_iter().filter_map(|(flag, port)| Some((flag, address(port.filter(|port| *port != 0)?))));
        ports.collect()
    }

    /// What the machine must have.
    pub(crate) fn needs(&self, private_runtime: bool) -> Needs {
        let all = |flag, ranges: &[IpNet]| -> Vec<_> {
            ranges.iter().map(|range| (flag, range.network(), range.prefix_len())).collect()
        };
        Needs {
            api_addresses: vec![self.api_address()],
            component_addresses: self.component_addresses(),
            node: !self.options.control_plane_only,
            kubelet_port: KUBELET_PORT,
            private_runtime,
            ranges: [all("--pod-network-cidr", &self.pod_networks), all("--service-cidr", &self.service_networks)]
                .concat(),
            node_ips: self.node_ips.clone(),
        }
    }
}

fn load_balancer_pool(value: &str) -> Result<kedge_controllers::AddressPool, Error> {
    let wrong = |error: kedge_controllers::ParsePoolError| Error::Flag {
        flag: "--load-balancer-pool",
        value: value.to_owned(),
        why: error.to_string(),
    };
    value.parse().map_err(wrong)
}

fn check_domain(domain: &str) -> Result<(), Error> {
    match kedge_meta::is_dns1123_subdomain(domain) {
        true => Ok(()),
        false => Err(Error::Flag {
            flag: "--service-dns-domain",
            value: domain.to_owned(),
            why: "a DNS domain like cluster.local is expected".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        Options {
            data_dir: "/tmp/x".into(),
            node_ips: vec!["192.0.2.2".parse().unwrap()],
            node_name: Some("n1".to_owned()),
            secure_port: 6443,
            controller_manager_port: None,
            scheduler_port: None,
            pod_network_cidr: "10.244.0.0/16".to_owned(),
            service_cidr: "10.96.0.0/12".to_owned(),
            node_cidr_masks: (24, 64),
            node_monitor_grace_period: std::time::Duration::from_secs(50),
            load_balancer_pool: String::new(),
            service_dns_domain: "cluster.local".to_owned(),
            network: NetworkOptions::default(),
            container_runtime_endpoint: None,
            kubelet_config: None,
            scheduler_config: None,
            etcd: None,
            control_plane_only: false,
            simulate: None,
            audit: kedge_audit::AuditOptions::default(),
            kubeconfig: "/tmp/x/config".into(),
            demo: false,
            flags: Default::default(),
        }
    }

    #[test]
    fn addresses_follow_from_the_ranges() {
        let plan = Plan::new(options()).unwrap();
        assert_eq!(plan.api_service_ip.to_string(), "10.96.0.1");
        assert_eq!(plan.dns_service_ips, ["10.96.0.10".parse::<IpAddr>().unwrap()]);
        assert_eq!(plan.server(), "https://192.0.2.2:6443");
        assert_eq!(plan.api_address().to_string(), "0.0.0.0:6443");
        let six = Options {
            node_ips: vec!["2001:db8::2".parse().unwrap()],
            pod_network_cidr: "fd00:10:244::/56".to_owned(),
            service_cidr: "fd00:10:96::/112".to_owned(),
            ..options()
        };
        let plan = Plan::new(six).unwrap();
        assert_eq!(plan.api_service_ip.to_string(), "fd00:10:96::1");
        assert_eq!(plan.server(), "https://[2001:db8::2]:6443");
        assert_eq!(plan.api_address().to_string(), "[::]:6443");
    }

    #[test]
    fn ports_that_are_asked_for_must_be_free() {
        let ports = |controllers, scheduler| {
            let asked = Options { controller_manager_port: controllers, scheduler_port: scheduler, ..options() };
            let addresses = Plan::new(asked).unwrap().needs(false).component_addresses;
            addresses.into_iter().map(|(flag, address)| format!("{flag} {address}")).collect::<Vec<_>>()
        };
        assert_eq!(ports(None, Some(0)), [] as [String; 0]);
        let named = ["--controller-manager-secure-port 0.0.0.0:1", "--scheduler-secure-port 0.0.0.0:2"];
        assert_eq!(ports(Some(1), Some(2)), named);
    }

    #[test]
    fn flags_that_make_no_sense_are_named() {
        let check = |change: &dyn Fn(&mut Options), text: &str| {
            let mut options = options();
            change(&mut options);
            let error = Plan::new(options).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        };
        check(&|o| o.pod_network_cidr = "10.244".to_owned(), "--pod-network-cidr \"10.244\"");
        check(&|o| o.service_cidr = "10.96.0.0/30".to_owned(), "too small");
        check(&|o| o.load_balancer_pool = "192.0.2.9-192.0.2.1".to_owned(), "--load-balancer-pool");
        check(&|o| o.service_dns_domain = "a b".to_owned(), "--service-dns-domain");
        check(&|o| o.node_name = Some("Node_1".to_owned()), "--node-name");
        check(&|o| o.kubelet_config = Some("/no/such/file".into()), "--kubelet-config \"/no/such/file\"");
        check(&|o| o.scheduler_config = Some("/no/such/file".into()), "--scheduler-config \"/no/such/file\"");
    }
}
