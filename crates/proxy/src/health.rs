//! The health checks of load balancers: one port per Service whose external traffic must stay on the node, answering
//! how many of its endpoints are here (`spec.healthCheckNodePort`).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::StatusCode;
use kedge_meta::ObjectKey;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::http::{Answer, serve};
use crate::plan::HealthCheck;

/// The running health check servers.
pub(crate) struct HealthServers {
    ipv6: bool,
    proxy_healthy: Arc<dyn Fn() -> bool + Send + Sync>,
    running: BTreeMap<ObjectKey, Server>,
}

struct Server {
    node_port: u16,
    local_endpoints: Arc<AtomicUsize>,
    _stop: DropGuard,
}

impl HealthServers {
    pub(crate) fn new(ipv6: bool, proxy_healthy: Arc<dyn Fn() -> bool + Send + Sync>) -> Self {
        Self { ipv6, proxy_healthy, running: BTreeMap::new() }
    }

    /// Makes one Service's server be what its plan says. An error is the port that can't be had, and why.
    pub(crate) async fn set(
        &mut self,
        service: &ObjectKey,
        check: Option<&HealthCheck>,
    ) -> Result<(), (u16, std::io::Error)> {
        let Some(check) = check else {
            self.running.remove(service);
            return Ok(());
        };
        if let Some(server) = self.running.get(service).filter(|server| server.node_port == check.node_port) {
            server.local_endpoints.store(check.local_endpoints, Ordering::Relaxed);
            return Ok(());
        }
        self.running.remove(service);
        let any = if self.ipv6 { IpAddr::from(Ipv6Addr::UNSPECIFIED) } else { Ipv4Addr::UNSPECIFIED.into() };
        let listener = TcpListener::bind(SocketAddr::new(any, check.node_port)).await;
        let listener = listener.map_err(|error| (check.node_port, error))?;
        let local_endpoints = Arc::new(AtomicUsize::new(check.local_endpoints));
        let stop = CancellationToken::new();
        let (count, key, healthy) = (local_endpoints.clone(), service.clone(), self.proxy_healthy.clone());
        tokio::spawn(serve(listener, stop.clone(), move |_| answer(&key, count.load(Ordering::Relaxed), healthy())));
        let server = Server { node_port: check.node_port, local_endpoints, _stop: stop.drop_guard() };
        self.running.insert(service.clone(), server);
        Ok(())
    }
}

fn answer(service: &ObjectKey, local_endpoints: usize, proxy_healthy: bool) -> Answer {
    let good = local_endpoints > 0 && proxy_healthy;
    let body = serde_json::json!({
        "service": {"namespace": service.namespace, "name": service.name},
        "localEndpoints": local_endpoints,
        "serviceProxyHealthy": proxy_healthy,
    });
    Answer {
        status: if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE },
        headers: vec![
            ("Content-Type", "application/json".to_owned()),
            ("X-Load-Balancing-Endpoint-Weight", local_endpoints.to_string()),
        ],
        body: body.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_without_endpoints_or_without_rules_is_not_for_load_balancers() {
        let check = |endpoints, healthy, status: u16| {
            let answer = answer(&ObjectKey::new("ns", "svc"), endpoints, healthy);
            assert_eq!(answer.status.as_u16(), status);
            let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
            assert_eq!(body["localEndpoints"], endpoints);
            assert_eq!(body["service"]["name"], "svc");
        };
        check(2, true, 200);
        check(0, true, 503);
        check(2, false, 503);
    }
}
