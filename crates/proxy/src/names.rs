//! Names of chains and sets, as upstream's nftables proxy makes them, so that people find them where they look.
//!
//! Invariant: a name contains a slash exactly if it belongs to a Service.

use kedge_netfilter::hashed_name;

use crate::endpoints::Endpoint;
use crate::service::ServicePort;

pub(crate) fn cluster_chain(port: &ServicePort) -> String {
    format!("service-{}", port_base(port))
}

pub(crate) fn local_chain(port: &ServicePort) -> String {
    format!("local-{}", port_base(port))
}

pub(crate) fn external_chain(port: &ServicePort) -> String {
    format!("external-{}", port_base(port))
}

pub(crate) fn firewall_chain(port: &ServicePort) -> String {
    format!("firewall-{}", port_base(port))
}

pub(crate) fn endpoint_chain(port: &ServicePort, endpoint: &Endpoint) -> String {
    format!("endpoint-{}", endpoint_base(port, endpoint))
}

pub(crate) fn affinity_set(port: &ServicePort, endpoint: &Endpoint) -> String {
    format!("affinity-{}", endpoint_base(port, endpoint))
}

fn port_base(port: &ServicePort) -> String {
    hashed_name(format!("{}/{}/{}/{}", port.namespace, port.name, port.protocol.as_str(), port.port_name))
}

fn endpoint_base(port: &ServicePort, endpoint: &Endpoint) -> String {
    // A colon may not stand in a chain's name.
    let address = endpoint.address.to_string().replace(':', ".");
    hashed_name(format!(
        "{}/{}/{}/{}__{address}/{}",
        port.namespace,
        port.name,
        port.protocol.as_str(),
        port.port_name,
        endpoint.port
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::tests::port;

    #[test]
    fn names_are_upstreams() {
        // Upstream's documentation gives these two as examples.
        let mut port = port("ns1/svc1", "172.30.0.41", 80);
        port.port_name = "p80".to_owned();
        assert_eq!(cluster_chain(&port), "service-ULMVA6XW-ns1/svc1/tcp/p80");
        let endpoint = Endpoint::at("10.180.0.1", 80);
        assert_eq!(endpoint_chain(&port, &endpoint), "endpoint-5OJB2KTY-ns1/svc1/tcp/p80__10.180.0.1/80");
        assert!(affinity_set(&port, &Endpoint::at("fd00::1", 80)).ends_with("p80__fd00..1/80"));
    }

    #[test]
    fn long_names_fit() {
        let mut port = port("ns1/svc1", "172.30.0.41", 80);
        port.namespace = "n".repeat(63);
        port.name = "s".repeat(63);
        port.port_name = "p".repeat(63);
        let endpoint = Endpoint::at("fd00:1111:2222:3333:4444:5555:6666:7777", 65535);
        let chain = endpoint_chain(&port, &endpoint);
        assert!(chain.len() < 256 && chain.ends_with("..."), "{chain}");
    }
}
