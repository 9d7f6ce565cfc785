//! The kinds of `networking.k8s.io`.

mod ingress;
mod network_policy;
mod service_network;

use crate::generic::Generic;
use crate::strategy::Strategy;

pub(crate) fn strategy(resource: &str) -> &'static dyn Strategy {
    match resource {
        "ingressclasses" => &ingress::IngressClass,
        "ingresses" => &ingress::Ingress,
        "ipaddresses" => &service_network::IpAddress,
        "networkpolicies" => &network_policy::NetworkPolicy,
        "servicecidrs" => &service_network::ServiceCidr,
        _ => &Generic::PLAIN,
    }
}
