//! The command line. Flags that upstream has are spelled as upstream spells them.

mod apiserver;
mod audit;
mod autoscaler;
mod bootstrap;
mod cluster;
mod components;
mod config;
mod doctor;
mod drill;
pub(crate) mod ignored;
mod init;
mod join;
mod network;
mod shown;
mod signing;
mod upgrade;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use apiserver::ApiServerFlags;
pub(crate) use bootstrap::{
    CertDirs, CertsCommand, CertsFlags, CreateTokenFlags, KubeconfigCommand, KubeconfigFlags, KubeconfigUserFlags,
    RotateCaStep, TokenCommand, TokenFlags,
};
pub(crate) use cluster::{ClusterCommand, ClusterFlags, ClustersDir, CreateFlags, IpFamily, NodeCommand};
pub(crate) use components::{ControllerManagerFlags, DnsFlags, NetworkAgentFlags, ProxyFlags, SchedulerFlags};
pub(crate) use config::{ConfigCommand, ConfigFlags, ImagesCommand, PrintCommand};
pub(crate) use doctor::{
    DoctorCollectFlags, DoctorFlags, DoctorForm, DoctorLanguage, DoctorManifestsFlags, DoctorNodeFlags, DoctorPlace,
    DoctorUndoFlags, DoctorWatchFlags,
};
pub(crate) use drill::{DrillCommand, DrillFlags, DrillTarget};
pub(crate) use init::{InitCommand, InitFlags, KeeperAction, ResetFlags};
pub(crate) use join::{JoinCommand, JoinFlags};
pub(crate) use network::NetworkFlags;
pub(crate) use shown::read;
pub(crate) use upgrade::{ApplyCommand, NodeCommand as NodeUpgradeCommand, PlanOutput, UpgradeCommand, UpgradeFlags};

/// A Kubernetes cluster in one small binary that explains and repairs its own failures.
#[derive(Debug, Parser)]
#[command(name = "kedge", version = kedge_supervisor::build_version(), about, propagate_version = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a cluster on this machine, in this process.
    Up(Box<UpFlags>),
    /// Run a node of a cluster whose control plane is elsewhere.
    Node(Box<NodeFlags>),
    /// Clusters of several nodes on this machine.
    Cluster(ClusterFlags),
    /// Stop the pods and remove what kedge made on this machine.
    Down(DownFlags),
    /// Show what every component does.
    Status(StatusFlags),
    /// Manage bootstrap tokens.
    Token(TokenFlags),
    /// Look after the certificates of a control plane.
    Certs(CertsFlags),
    /// Kubeconfig file utilities.
    Kubeconfig(KubeconfigFlags),
    /// Run the node agent alone, against any API server; also under the name `kubelet`.
    Kubelet(Box<KubeletFlags>),
    /// Make this machine the first control plane of a cluster, as kubeadm does.
    Init(Box<InitFlags>),
    /// Make this machine a worker of a cluster, as kubeadm does.
    Join(Box<JoinFlags>),
    /// Print, check and convert the files that `init` and `join` read.
    Config(ConfigFlags),
    /// Take off this machine what `init` or `join` put on it.
    Reset(ResetFlags),
    /// Bring a cluster that `init` made to the version of this kedge, one machine after the other, as kubeadm does.
    Upgrade(Box<UpgradeFlags>),
    /// Keep the kubelet of this machine running, where no init system does.
    KubeletKeeper {
        /// What an init script asks for [default: keep it running, in the foreground].
        #[arg(value_enum)]
        action: Option<KeeperAction>,
    },
    /// Run the API server alone; also under this name of its own.
    KubeApiserver(Box<ApiServerFlags>),
    /// Run the controllers alone; also under this name of its own.
    KubeControllerManager(Box<ControllerManagerFlags>),
    /// Run the scheduler alone; also under this name of its own.
    KubeScheduler(Box<SchedulerFlags>),
    /// Run the proxy alone; also under this name of its own.
    KubeProxy(Box<ProxyFlags>),
    /// Run the agent of the pod network alone: CNI configuration, routes, policies.
    NetworkAgent(Box<NetworkAgentFlags>),
    /// Ask the agent of the pod network of this machine whether it is ready.
    #[command(hide = true)]
    NetworkReady(NetworkReadyFlags),
    /// Run cluster DNS alone.
    Dns(Box<DnsFlags>),
    /// Work with the images of the cluster's container runtime.
    Image(ImageFlags),
    /// Say what is wrong with a cluster or this machine, why, and what mends it. Nothing is changed.
    Doctor(DoctorFlags),
    /// Break a cluster on purpose, find out what it is, mend it; everything can be taken back.
    Drill(DrillFlags),
    /// Serve the small web application of the demo.
    DemoApp(DemoAppFlags),
    /// Be a controller manager as others write them, which ends when it loses its lease; to practise with.
    DemoManager(DemoManagerFlags),
    /// Print the script that completes kedge's commands and flags in a shell.
    Completion(CompletionFlags),
    /// Write a manual page for each command into a directory.
    #[command(hide = true)]
    Man(ManFlags),
    /// Print the version.
    Version,
}

#[derive(Debug, Args)]
pub(crate) struct NetworkReadyFlags {
    /// Where the agent says how it is.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9098")]
    pub(crate) health_address: SocketAddr,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Text,
    /// For machines.
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionFlags {
    /// The shell that reads the script, as in `source <(kedge completion bash)`.
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct ManFlags {
    /// Directory of the pages; made where it is missing.
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct DataDir {
    /// Directory of the cluster's state.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kedge", env = "KEDGE_DATA_DIR")]
    pub(crate) data_dir: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct UpFlags {
    #[command(flatten)]
    pub(crate) data_dir: DataDir,
    /// Address of this node, or one of each IP family with a comma between them [default: those of the interfaces with the
    /// default routes].
    #[arg(long, value_name = "ADDRESSES", value_delimiter = ',')]
    pub(crate) node_ip: Vec<IpAddr>,
    /// Name of this node [default: the host's name].
    #[arg(long, value_name = "NAME")]
    pub(crate) node_name: Option<String>,
    /// Port of the API server.
    #[arg(long, value_name = "PORT", default_value_t = 6443, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) secure_port: u16,
    /// Port of the controllers' health and metrics, 0 for none [default: 10257, or none where that is taken].
    #[arg(long, value_name = "PORT")]
    pub(crate) controller_manager_secure_port: Option<u16>,
    /// Port of the scheduler's health and metrics, 0 for none [default: 10259, or none where that is taken].
    #[arg(long, value_name = "PORT")]
    pub(crate) scheduler_secure_port: Option<u16>,
    /// Range of pod addresses, or one of each IP family with a comma between them; the first is the primary family.
    #[arg(long, value_name = "CIDRS", default_value = "10.244.0.0/16")]
    pub(crate) pod_network_cidr: String,
    /// Range of Service addresses, or one of each IP family in the same order.
    #[arg(long, value_name = "CIDRS", default_value = "10.96.0.0/12")]
    pub(crate) service_cidr: String,
    #[command(flatten)]
    pub(crate) node_cidr: NodeCidrFlags,
    /// For how long a node may be silent before it counts as gone; nodes speak up every 10 s.
    #[arg(long, value_name = "DURATION", default_value = "50s", value_parser = components::duration)]
    pub(crate) node_monitor_grace_period: std::time::Duration,
    /// Addresses for Services of type LoadBalancer: CIDRs and ranges FIRST-LAST, with commas between them [default: none].
    #[arg(long, value_name = "ADDRESSES", default_value = "", hide_default_value = true)]
    pub(crate) load_balancer_pool: String,
    /// DNS domain of the cluster.
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    pub(crate) service_dns_domain: String,
    #[command(flatten)]
    pub(crate) network: NetworkFlags,
    #[command(flatten)]
    pub(crate) etcd: EtcdFlags,
    /// Socket of the container runtime [default: a well-known one that answers, or a containerd of kedge's own].
    #[arg(long, value_name = "ENDPOINT")]
    pub(crate) container_runtime_endpoint: Option<String>,
    /// Configuration of the kubelet, a KubeletConfiguration of kubelet.config.k8s.io/v1beta1.
    #[arg(long, value_name = "FILE", conflicts_with = "control_plane_only")]
    pub(crate) kubelet_config: Option<PathBuf>,
    /// Configuration of the scheduler, a KubeSchedulerConfiguration of kubescheduler.config.k8s.io/v1.
    #[arg(long, value_name = "FILE")]
    pub(crate) scheduler_config: Option<PathBuf>,
    /// Run the API server, scheduler and controllers only: no root, no containers.
    #[arg(long)]
    pub(crate) control_plane_only: bool,
    /// Simulate nodes and pods without containers, such as nodes=5000,pods=150000; keys are nodes, pods, zones, cpu, memory,
    /// pods-per-node, seed and start-pods. Without a value, only nodes with the annotation kedge.dev/simulated=true.
    #[arg(long, value_name = "WHAT", num_args = 0..=1, default_missing_value = "", requires = "control_plane_only")]
    pub(crate) simulate: Option<kedge_supervisor::SimulateConfig>,
    /// Kubeconfig file into which the context `kedge` is merged [default: $KUBECONFIG, or ~/.kube/config].
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) audit: audit::AuditFlags,
    /// Deploy a small web application on NodePort 30090.
    #[arg(long, conflicts_with = "control_plane_only")]
    pub(crate) demo: bool,
    /// Let the doctor look after the cluster: `kubectl get findings`.
    #[arg(long)]
    pub(crate) doctor: bool,
    /// Where the doctor serves its metrics, over HTTP; nowhere by default.
    #[arg(long, value_name = "ADDRESS:PORT", requires = "doctor")]
    pub(crate) doctor_metrics_bind_address: Option<SocketAddr>,
    /// How to report.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct NodeCidrFlags {
    /// Length of the prefix that each node gets out of the IPv4 range of pods.
    #[arg(long, value_name = "LENGTH", default_value_t = 24)]
    pub(crate) node_cidr_mask_size_ipv4: u8,
    /// Length of the prefix that each node gets out of the IPv6 range of pods.
    #[arg(long, value_name = "LENGTH", default_value_t = 64)]
    pub(crate) node_cidr_mask_size_ipv6: u8,
}

impl NodeCidrFlags {
    pub(crate) fn masks(&self) -> (u8, u8) {
        (self.node_cidr_mask_size_ipv4, self.node_cidr_mask_size_ipv6)
    }
}

#[derive(Debug, Args)]
pub(crate) struct EtcdFlags {
    /// URLs of etcd's members, separated by commas; objects are kept there instead of in the data directory.
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub(crate) etcd_servers: Vec<String>,
    /// Authority that signed the certificates of etcd's members.
    #[arg(long, value_name = "FILE", requires = "etcd_servers")]
    pub(crate) etcd_cafile: Option<PathBuf>,
    /// Certificate to show to etcd.
    #[arg(long, value_name = "FILE", requires = "etcd_servers", requires = "etcd_keyfile")]
    pub(crate) etcd_certfile: Option<PathBuf>,
    /// Key of that certificate.
    #[arg(long, value_name = "FILE", requires = "etcd_servers", requires = "etcd_certfile")]
    pub(crate) etcd_keyfile: Option<PathBuf>,
    /// Below this everything lies in etcd.
    #[arg(long, value_name = "PATH", default_value = "/registry")]
    pub(crate) etcd_prefix: String,
}

#[derive(Debug, Args)]
pub(crate) struct NodeFlags {
    #[command(flatten)]
    pub(crate) data_dir: DataDir,
    /// How the kubelet reaches the API server, and as whom [default: kubelet.conf in the data directory].
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The same for the other components of the node [default: agent.conf in the data directory].
    #[arg(long, value_name = "FILE")]
    pub(crate) agent_kubeconfig: Option<PathBuf>,
    /// Address of this node, or one of each IP family with a comma between them [default: those of the interfaces with the
    /// default routes].
    #[arg(long, value_name = "ADDRESSES", value_delimiter = ',')]
    pub(crate) node_ip: Vec<IpAddr>,
    /// Name of this node [default: the host's name].
    #[arg(long, value_name = "NAME")]
    pub(crate) node_name: Option<String>,
    /// Range of pod addresses of the cluster, or one of each IP family with a comma between them; the first is the primary family.
    #[arg(long, value_name = "CIDRS", default_value = "10.244.0.0/16")]
    pub(crate) pod_network_cidr: String,
    /// Range of Service addresses of the cluster, or one of each IP family in the same order.
    #[arg(long, value_name = "CIDRS", default_value = "10.96.0.0/12")]
    pub(crate) service_cidr: String,
    #[command(flatten)]
    pub(crate) node_cidr: NodeCidrFlags,
    /// DNS domain of the cluster.
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    pub(crate) service_dns_domain: String,
    #[command(flatten)]
    pub(crate) network: NetworkFlags,
    /// Socket of the container runtime [default: a well-known one that answers, or a containerd of kedge's own].
    #[arg(long, value_name = "ENDPOINT")]
    pub(crate) container_runtime_endpoint: Option<String>,
    /// Configuration of the kubelet, a KubeletConfiguration of kubelet.config.k8s.io/v1beta1.
    #[arg(long, value_name = "FILE")]
    pub(crate) kubelet_config: Option<PathBuf>,
    /// How to report.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct DownFlags {
    #[command(flatten)]
    pub(crate) data_dir: DataDir,
    /// Remove the data directory too: every object, certificate and log of the cluster.
    #[arg(long)]
    pub(crate) delete_data: bool,
    /// How to report.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct StatusFlags {
    #[command(flatten)]
    pub(crate) data_dir: DataDir,
    /// How to report.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct ImageFlags {
    #[command(subcommand)]
    pub(crate) command: ImageCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Load an image archive (`docker save`, OCI layout) into the cluster's container runtime.
    Load {
        #[command(flatten)]
        data_dir: DataDir,
        /// The archive.
        archive: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct DemoAppFlags {
    /// Where to listen.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8080")]
    pub(crate) listen: SocketAddr,
    /// What it needs before it is ready: it is connected to again and again.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) needs: Option<String>,
}

/// The flags of the library that such managers are made with.
#[derive(Debug, Args)]
pub(crate) struct DemoManagerFlags {
    /// Whether to compete with other instances before working.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = false, action = clap::ArgAction::Set)]
    pub(crate) leader_elect: bool,
    /// How long others wait before they take over.
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = components::duration)]
    pub(crate) leader_elect_lease_duration: std::time::Duration,
    /// How long a leader tries to renew before it gives up.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = components::duration)]
    pub(crate) leader_elect_renew_deadline: std::time::Duration,
    /// The pause between attempts.
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = components::duration)]
    pub(crate) leader_elect_retry_period: std::time::Duration,
    /// Name of the Lease.
    #[arg(long, value_name = "NAME", default_value = "controller-leader-election")]
    pub(crate) leader_elect_resource_name: String,
    /// Namespace of the Lease [default: the pod's].
    #[arg(long, value_name = "NAME")]
    pub(crate) leader_elect_resource_namespace: Option<String>,
    /// Port of the webhook.
    #[arg(long, value_name = "PORT", default_value_t = 9443)]
    pub(crate) webhook_port: u16,
}

/// The command line under the name `kubelet`.
#[derive(Debug, Parser)]
#[command(name = "kubelet", version = kedge_supervisor::build_version(), about = "The node agent of kedge, with the flags of upstream's kubelet.")]
pub(crate) struct KubeletArguments {
    #[command(flatten)]
    pub(crate) flags: KubeletFlags,
}

#[derive(Debug, Args)]
pub(crate) struct KubeletFlags {
    /// How to reach the API server, and as whom.
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: PathBuf,
    /// With whose token a client certificate is asked for, where the kubeconfig is not there yet.
    #[arg(long, value_name = "FILE")]
    pub(crate) bootstrap_kubeconfig: Option<PathBuf>,
    /// File with a KubeletConfiguration (kubelet.config.k8s.io/v1beta1).
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Address of this node, or one of each IP family with a comma between them [default: those of the interfaces with the
    /// default routes].
    #[arg(long, value_name = "ADDRESSES", value_delimiter = ',')]
    pub(crate) node_ip: Vec<IpAddr>,
    /// Name of this node [default: the host's name].
    #[arg(long, value_name = "NAME")]
    pub(crate) hostname_override: Option<String>,
    /// Socket of the container runtime [default: unix:///run/containerd/containerd.sock].
    #[arg(long, value_name = "ENDPOINT")]
    pub(crate) container_runtime_endpoint: Option<String>,
    /// Directory of pods, volumes and checkpoints.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kubelet")]
    pub(crate) root_dir: PathBuf,
    /// Directory of the certificates that are asked for, or made where none is named.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kubelet/pki")]
    pub(crate) cert_dir: PathBuf,
    /// Directory of static pods.
    #[arg(long, value_name = "DIR")]
    pub(crate) pod_manifest_path: Option<PathBuf>,
    /// Whether to create the Node object.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) register_node: Option<bool>,
    /// Taints that the Node is registered with: <key>=<value>:<effect>,...
    #[arg(long, value_name = "TAINTS")]
    pub(crate) register_with_taints: Option<String>,
    /// Labels that the Node is registered with: <key>=<value>,...
    #[arg(long, value_name = "LABELS")]
    pub(crate) node_labels: Option<String>,
    /// Where to listen for programs of this node, to carry their connections to an API server that is well.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) api_balancer: Option<SocketAddr>,
    /// Where API servers are found as long as no other is known.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', requires = "api_balancer")]
    pub(crate) api_balancer_seed: Vec<String>,
    /// Name servers of pods.
    #[arg(long, value_name = "ADDRESSES", value_delimiter = ',')]
    pub(crate) cluster_dns: Option<Vec<IpAddr>>,
    /// DNS domain of the cluster.
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) cluster_domain: Option<String>,
    /// Port of the kubelet's server.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,
    /// Address on which `/healthz` answers in plain HTTP [default: 127.0.0.1].
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) healthz_bind_address: Option<IpAddr>,
    /// Its port; 0 for none [default: 10248].
    #[arg(long, value_name = "PORT")]
    pub(crate) healthz_port: Option<u16>,
    /// At most so many pods.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) max_pods: Option<u32>,
    /// Who makes the cgroups of pods [default: what the runtime uses].
    #[arg(long, value_enum, value_name = "DRIVER")]
    pub(crate) cgroup_driver: Option<CgroupDriver>,
    /// Resolver configuration of the node.
    #[arg(long, value_name = "FILE")]
    pub(crate) resolv_conf: Option<PathBuf>,
    /// Serving certificate.
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_cert_file: Option<PathBuf>,
    /// Key of the serving certificate.
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_private_key_file: Option<PathBuf>,
    /// Authority of the client certificates of those who ask.
    #[arg(long, value_name = "FILE")]
    pub(crate) client_ca_file: Option<PathBuf>,
    /// Whether the client certificate is renewed by the cluster.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) rotate_certificates: Option<bool>,
    /// Whether the cluster is asked for the serving certificate.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) rotate_server_certificates: Option<bool>,
    /// Whether the certificates of a control plane are renewed late in their lives, on a machine with its authority's key.
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub(crate) rotate_control_plane_certificates: bool,
    /// How much is logged: 2 and more is information, 4 and more is for finding faults. `KEDGE_LOG` wins.
    #[arg(short, long, value_name = "LEVEL", default_value_t = 0)]
    pub(crate) v: u8,
}

/// The names of cgroup drivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CgroupDriver {
    /// The kubelet writes the file system itself.
    Cgroupfs,
    /// systemd makes slices.
    Systemd,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kubelets_flags_are_upstreams() {
        let line = "kubelet --kubeconfig=/etc/kubernetes/kubelet.conf --config=/var/lib/kubelet/config.yaml \
                    --container-runtime-endpoint=unix:///run/containerd/containerd.sock --node-ip=192.0.2.1 \
                    --register-node=false --hostname-override=n --cluster-dns=10.96.0.10,10.96.0.11 -v=2";
        let flags = KubeletArguments::try_parse_from(line.split_whitespace()).unwrap().flags;
        assert_eq!(flags.register_node, Some(false));
        assert_eq!(flags.cluster_dns.unwrap().len(), 2);
        assert_eq!((flags.v, flags.hostname_override.as_deref()), (2, Some("n")));
        let bare = KubeletArguments::try_parse_from(["kubelet", "--kubeconfig", "k", "--register-node"]).unwrap();
        assert_eq!(bare.flags.register_node, Some(true));
        assert!(KubeletArguments::try_parse_from(["kubelet"]).is_err());
    }
}
