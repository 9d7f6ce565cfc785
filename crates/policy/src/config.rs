//! What the enforcement of policies is told and given, and why it can't start.

use std::time::Duration;

use k8s_openapi::api::networking::v1::NetworkPolicy;
use kedge_client::{Informer, Informers};
use kedge_meta::ComponentStatus;
use kedge_netfilter::NftError;

use crate::gate::GateKeeper;

/// How policies are enforced.
#[derive(Debug, Clone)]
pub struct Config {
    /// The name of this node.
    pub node_name: String,
    /// Whether pods have addresses of IPv4.
    pub ipv4: bool,
    /// Whether pods have addresses of IPv6.
    pub ipv6: bool,
    /// For how long changes are collected before the kernel hears of them.
    pub min_sync_period: Duration,
    /// How often somebody looks whether the rules are still there.
    pub sync_period: Duration,
}

impl Config {
    /// The usual periods, for the families of the pods' ranges.
    pub fn new(node_name: impl Into<String>, pod_networks: &[ipnet::IpNet]) -> Self {
        Self {
            node_name: node_name.into(),
            ipv4: pod_networks.iter().any(|range| range.addr().is_ipv4()),
            ipv6: pod_networks.iter().any(|range| range.addr().is_ipv6()),
            min_sync_period: Duration::from_millis(20),
            sync_period: Duration::from_secs(10),
        }
    }
}

/// What the enforcement works with.
pub struct Deps {
    /// Policies of all namespaces.
    pub policies: Informer<NetworkPolicy>,
    /// Where informers of pods and namespaces come from, once there is a policy: a cluster without policies pays for
    /// neither.
    pub informers: Informers,
    /// Where the state is reported.
    pub status: ComponentStatus,
    /// Where the node's agent asks before it starts a pod; nobody asks where absent.
    pub gate: Option<GateKeeper>,
}

impl Deps {
    /// Takes what is needed from the shared informers.
    pub fn new(informers: &Informers, status: ComponentStatus) -> Self {
        Self { policies: informers.all(), informers: informers.clone(), status, gate: None }
    }
}

/// Why policies can't be enforced at all. What goes wrong later is reported as status and tried again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration makes no sense.
    #[error("the configuration of the network policies is not usable: {0}")]
    Config(String),
    /// The rules can't be removed.
    #[error("the rules of the network policies can't be removed")]
    Nft(#[from] NftError),
}
