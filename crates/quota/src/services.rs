//! What a Service uses.

use k8s_openapi::api::core::v1::ServiceSpec;
use kedge_meta::Quantity;

use crate::amounts::{Amounts, add, one_of};

/// What a Service with this `spec` uses: node ports are counted by what it will get.
pub fn of_service(spec: &ServiceSpec) -> Amounts {
    let mut used = one_of(["services", "count/services"]);
    let ports = spec.ports.as_deref().unwrap_or_default();
    let count = |ports: usize| Quantity::from_units(i64::try_from(ports).unwrap_or(i64::MAX));
    match spec.type_.as_deref() {
        Some("NodePort") => add(&mut used, "services.nodeports", count(ports.len())),
        Some("LoadBalancer") => {
            add(&mut used, "services.loadbalancers", Quantity::from_units(1));
            let named = ports.iter().filter(|port| port.node_port.is_some_and(|number| number != 0));
            let given = match spec.allocate_load_balancer_node_ports {
                Some(false) => named.count(),
                _ => ports.len(),
            };
            add(&mut used, "services.nodeports", count(given));
        }
        _ => {}
    }
    used
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ServicePort;

    use super::*;
    use crate::amounts::shown;

    #[test]
    fn services_use_ports_and_balancers() {
        let check = |type_: &str, allocates: Option<bool>, expected: &str| {
            let named = ServicePort { node_port: Some(30_001), ..ServicePort::default() };
            let spec = ServiceSpec {
                type_: Some(type_.to_owned()),
                ports: Some(vec![ServicePort::default(), named]),
                allocate_load_balancer_node_ports: allocates,
                ..ServiceSpec::default()
            };
            assert_eq!(shown(&of_service(&spec)), format!("count/services=1 services=1{expected}"));
        };
        check("ClusterIP", None, "");
        check("NodePort", None, " services.nodeports=2");
        check("LoadBalancer", None, " services.loadbalancers=1 services.nodeports=2");
        check("LoadBalancer", Some(false), " services.loadbalancers=1 services.nodeports=1");
    }
}
