//! What the controllers need to know and to be given, and upstream's syntax for choosing among them.

use std::sync::Arc;
use std::time::Duration;

use kedge_auth::TokenKeys;
use kedge_client::{Client, Informers, LeaderConfig};
use kedge_meta::{Clock, StatusBoard};
use tokio::sync::watch;

use crate::error::Error;
use crate::horizontal_pod_autoscaler::AutoscalerConfig;
use crate::load_balancer::AddressPool;
use crate::metrics::ControllerMetrics;

/// How the controllers work.
#[derive(Debug, Clone)]
pub struct Config {
    /// Which controllers run, in upstream's `--controllers` syntax: `*` for all that are on by default, `name` to add
    /// one, `-name` to leave one out.
    pub controllers: Vec<String>,
    /// The PEM bundle that `kube-root-ca.crt` in every namespace carries, as it is at the time; empty at the start leaves
    /// the publisher off.
    pub root_ca_pem: watch::Receiver<String>,
    /// Address ranges from which nodes get their pod CIDR, at most one for each family; empty leaves node IPAM off.
    pub cluster_cidrs: Vec<String>,
    /// The length of a node's IPv4 CIDR.
    pub node_cidr_mask_ipv4: u8,
    /// The length of a node's IPv6 CIDR.
    pub node_cidr_mask_ipv6: u8,
    /// The addresses that Services of type LoadBalancer get; empty leaves the service controller off.
    pub load_balancer_pool: AddressPool,
    /// How many keys a controller works on at a time.
    pub concurrency: usize,
    /// How long a node may be silent before it counts as not ready.
    pub node_monitor_grace_period: Duration,
    /// How long a new node may be silent before it counts as not ready.
    pub node_startup_grace_period: Duration,
    /// How often node health is looked at.
    pub node_monitor_period: Duration,
    /// Evictions per second from nodes that went not ready, as a rule.
    pub node_eviction_rate: f64,
    /// The same while more than `unhealthy_zone_threshold` of the nodes are not ready.
    pub secondary_node_eviction_rate: f64,
    /// From this share of nodes on that are not ready, the cluster's network is suspected rather than the nodes.
    pub unhealthy_zone_threshold: f64,
    /// Up to so many nodes, evictions stop while the zone is unhealthy.
    pub large_cluster_size_threshold: usize,
    /// How many terminated pods may lie around before the oldest are deleted; 0 for no limit.
    pub terminated_pod_gc_threshold: usize,
    /// How replicas follow metrics.
    pub autoscaler: AutoscalerConfig,
    /// The longest life of a certificate that is signed for a request.
    pub cluster_signing_duration: Duration,
    /// How long a token in a Secret that was made with its account may go unused before it is marked, and marked before it
    /// is deleted.
    pub legacy_token_clean_up_period: Duration,
    /// Compete for a Lease before working; `None` where this is the only instance.
    pub leader: Option<LeaderConfig>,
}

impl Default for Config {
    /// Upstream's defaults, without leader election, cluster CIDR and root CA.
    fn default() -> Self {
        Self {
            controllers: vec!["*".to_owned()],
            root_ca_pem: watch::channel(String::new()).1,
            cluster_cidrs: Vec::new(),
            node_cidr_mask_ipv4: 24,
            node_cidr_mask_ipv6: 64,
            load_balancer_pool: AddressPool::default(),
            concurrency: 5,
            node_monitor_grace_period: Duration::from_secs(50),
            node_startup_grace_period: Duration::from_secs(60),
            node_monitor_period: Duration::from_secs(5),
            node_eviction_rate: 0.1,
            secondary_node_eviction_rate: 0.01,
            unhealthy_zone_threshold: 0.55,
            large_cluster_size_threshold: 50,
            terminated_pod_gc_threshold: 12_500,
            autoscaler: AutoscalerConfig::default(),
            cluster_signing_duration: Duration::from_secs(365 * 24 * 3600),
            legacy_token_clean_up_period: Duration::from_secs(365 * 24 * 3600),
            leader: None,
        }
    }
}

/// Signs certificates for the CSR signing controller.
pub trait CertificateSigner: Send + Sync + 'static {
    /// Whether it signs under a signer name; requests under others are left for whoever does.
    fn signs(&self, _signer_name: &str) -> bool {
        true
    }

    /// Signs a PEM certificate request under a signer name, with exactly these usages and this life time, and returns
    /// the PEM chain. The text of an error goes into the request's `Failed` condition.
    fn sign(
        &self,
        signer_name: &str,
        request_pem: &[u8],
        usages: &[String],
        lifetime: Duration,
    ) -> Result<Vec<u8>, String>;

    /// What a certificate request says about itself; an error where it can't be read or its signature is wrong.
    fn inspect(&self, request_pem: &[u8]) -> Result<RequestedIdentity, String>;
}

/// The subject and names that a certificate request asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RequestedIdentity {
    /// The subject's common name.
    pub common_name: String,
    /// The subject's organizations.
    pub organizations: Vec<String>,
    /// DNS names.
    pub dns_names: Vec<String>,
    /// IP addresses.
    pub ip_addresses: Vec<String>,
    /// Email addresses.
    pub email_addresses: Vec<String>,
    /// URIs.
    pub uris: Vec<String>,
}

/// What the controllers work with.
pub struct Deps {
    /// The client of the shared work: leader election.
    pub client: Client,
    /// The client of one controller, by the name of its service account in `kube-system`, such as
    /// `deployment-controller`; it may give the same client for each.
    pub client_for: Arc<dyn Fn(&str) -> Client + Send + Sync>,
    /// The informers of this process.
    pub informers: Informers,
    /// Where the component reports, as `kube-controller-manager`.
    pub status: StatusBoard,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The certificate authority for the CSR controllers; without one they are off.
    pub signer: Option<Arc<dyn CertificateSigner>>,
    /// What signs the tokens that Secrets hold, as it is at the time; without it, such Secrets stay as they are.
    pub token_keys: Option<watch::Receiver<Arc<TokenKeys>>>,
    /// Where is counted what controllers and their queues do, and whether the lease is held.
    pub metrics: ControllerMetrics,
}

/// Older names that upstream still takes in `--controllers`.
const ALIASES: [(&str, &str); 37] = [
    ("attachdetach", "persistentvolume-attach-detach-controller"),
    ("bootstrapsigner", "bootstrap-signer-controller"),
    ("clusterrole-aggregation", "clusterrole-aggregation-controller"),
    ("cronjob", "cronjob-controller"),
    ("csrapproving", "certificatesigningrequest-approving-controller"),
    ("csrcleaner", "certificatesigningrequest-cleaner-controller"),
    ("csrsigning", "certificatesigningrequest-signing-controller"),
    ("daemonset", "daemonset-controller"),
    ("deployment", "deployment-controller"),
    ("disruption", "disruption-controller"),
    ("endpoint", "endpoints-controller"),
    ("endpointslice", "endpointslice-controller"),
    ("endpointslicemirroring", "endpointslice-mirroring-controller"),
    ("ephemeral-volume", "ephemeral-volume-controller"),
    ("garbagecollector", "garbage-collector-controller"),
    ("horizontalpodautoscaling", "horizontal-pod-autoscaler-controller"),
    ("job", "job-controller"),
    ("legacy-service-account-token-cleaner", "legacy-serviceaccount-token-cleaner-controller"),
    ("namespace", "namespace-controller"),
    ("nodeipam", "node-ipam-controller"),
    ("nodelifecycle", "node-lifecycle-controller"),
    ("persistentvolume-binder", "persistentvolume-binder-controller"),
    ("persistentvolume-expander", "persistentvolume-expander-controller"),
    ("podgc", "pod-garbage-collector-controller"),
    ("pv-protection", "persistentvolume-protection-controller"),
    ("pvc-protection", "persistentvolumeclaim-protection-controller"),
    ("replicaset", "replicaset-controller"),
    ("replicationcontroller", "replicationcontroller-controller"),
    ("resource-claim-controller", "resourceclaim-controller"),
    ("resourcequota", "resourcequota-controller"),
    ("root-ca-cert-publisher", "root-ca-certificate-publisher-controller"),
    ("serviceaccount", "serviceaccount-controller"),
    ("serviceaccount-token", "serviceaccount-token-controller"),
    ("statefulset", "statefulset-controller"),
    ("tokencleaner", "token-cleaner-controller"),
    ("ttl", "ttl-controller"),
    ("ttl-after-finished", "ttl-after-finished-controller"),
];

/// The name of a controller today.
pub(crate) fn current_name(name: &str) -> &str {
    ALIASES.iter().find(|(old, _)| *old == name).map_or(name, |(_, new)| new)
}

/// Which controllers of `known` (name, on by default) a `--controllers` list selects.
pub(crate) fn select_controllers<'a>(list: &[String], known: &[(&'a str, bool)]) -> Result<Vec<&'a str>, Error> {
    let is_known = |name: &str| {
        name == "*" || known.iter().any(|(known, _)| *known == name) || crate::upstream::reason(name).is_some()
    };
    for item in list {
        let name = current_name(item.strip_prefix('-').unwrap_or(item));
        if !is_known(name) {
            return Err(Error::UnknownController { name: name.to_owned() });
        }
    }
    let selected = |name: &str, on_by_default: bool| {
        for item in list {
            if current_name(item) == name {
                return true;
            }
            if item.strip_prefix('-').map(current_name) == Some(name) {
                return false;
            }
        }
        on_by_default && list.iter().any(|item| item == "*")
    };
    Ok(known.iter().filter(|(name, on)| selected(name, *on)).map(|(name, _)| *name).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_are_selected_as_upstream_does() {
        let known = [("a", true), ("b", true), ("c", false), ("token-cleaner-controller", false)];
        let check = |list: &[&str], expected: Result<&[&str], &str>| {
            let list: Vec<String> = list.iter().map(|&item| item.to_owned()).collect();
            let actual = select_controllers(&list, &known);
            match (actual, expected) {
                (Ok(actual), Ok(expected)) => assert_eq!(actual, expected, "{list:?}"),
                (Err(actual), Err(expected)) => assert_eq!(actual.to_string(), expected, "{list:?}"),
                (actual, _) => panic!("{list:?}: {actual:?}"),
            }
        };
        check(&["*"], Ok(&["a", "b"]));
        check(&["*", "c", "-a"], Ok(&["b", "c"]));
        check(&["*", "tokencleaner", "-b"], Ok(&["a", "token-cleaner-controller"]));
        check(&["b"], Ok(&["b"]));
        check(&[], Ok(&[]));
        check(&["-z"], Err("\"z\" is not in the list of known controllers"));
    }
}
