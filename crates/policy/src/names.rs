//! Names of chains and of the owners of fragments.

use kedge_netfilter::hashed_name;

/// A direction as a pod sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Ingress,
    Egress,
}

impl Direction {
    pub(crate) const BOTH: [Direction; 2] = [Direction::Ingress, Direction::Egress];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        }
    }
}

pub(crate) fn pod_chain(direction: Direction, namespace: &str, name: &str) -> String {
    format!("pod-{}-{}", direction.as_str(), hashed_name(format!("{namespace}/{name}")))
}

pub(crate) fn policy_chain(direction: Direction, namespace: &str, name: &str) -> String {
    format!("policy-{}-{}", direction.as_str(), hashed_name(format!("{namespace}/{name}")))
}

pub(crate) fn pod_owner(key: &kedge_meta::ObjectKey) -> String {
    format!("pod {key}")
}

pub(crate) fn policy_owner(key: &kedge_meta::ObjectKey) -> String {
    format!("policy {key}")
}
