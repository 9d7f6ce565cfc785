//! Which API servers there are, as the cluster says: the endpoints of the Service `kubernetes`.

use std::net::SocketAddr;

use futures::StreamExt;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kedge_client::Client;
use kube::Api;
use kube::runtime::{WatchStreamExt, watcher};
use tokio_util::sync::CancellationToken;

use crate::run::Balancer;

const NAMESPACE: &str = "default";
/// Upstream's slice of the API servers; there is one, and only its readers may be asked for it by name.
const SLICE: &str = "metadata.name=kubernetes";
/// A cluster that begins has no API server at first, and then not yet the right to ask.
const WORTH_TELLING: u32 = 5;

impl Balancer {
    /// Follows the cluster's list of API servers until `shutdown`.
    pub async fn follow(&self, client: Client, shutdown: CancellationToken) {
        let slices: Api<EndpointSlice> = Api::namespaced(client, NAMESPACE);
        let events = watcher::watcher(slices, watcher::Config::default().fields(SLICE)).default_backoff();
        let mut slices = std::pin::pin!(events.applied_objects());
        let mut failures = 0u32;
        while let Some(Some(event)) = shutdown.run_until_cancelled(slices.next()).await {
            match event {
                Ok(slice) => {
                    failures = 0;
                    self.learn(&addresses(&slice));
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    if failures == WORTH_TELLING {
                        tracing::warn!(%error, "cannot see which API servers there are; those that are known go on");
                    }
                }
            }
        }
    }
}

/// The addresses of a slice. Those that are not ready are left out only where it says so.
fn addresses(slice: &EndpointSlice) -> Vec<SocketAddr> {
    let ports = slice.ports.as_deref().unwrap_or_default();
    let port = ports.iter().find(|port| port.name.as_deref() == Some("https")).or(ports.first());
    let Some(port) = port.and_then(|port| u16::try_from(port.port?).ok()) else { return Vec::new() };
    let is_ready = |ready: Option<bool>| ready.unwrap_or(true);
    let endpoints = slice.endpoints.iter().flatten();
    let ready =
        endpoints.filter(|endpoint| endpoint.conditions.as_ref().is_none_or(|conditions| is_ready(conditions.ready)));
    let texts = ready.flat_map(|endpoint| &endpoint.addresses);
    texts.filter_map(|text| Some(SocketAddr::new(text.parse().ok()?, port))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(endpoints: Value, ports: Value, expected: &[&str]) {
        let slice = json!({"addressType": "IPv4", "endpoints": endpoints, "ports": ports});
        let found = addresses(&serde_json::from_value(slice).unwrap());
        assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), expected, "{endpoints} {ports}");
    }

    #[test]
    fn a_slice_names_servers() {
        let https = json!([{"name": "https", "port": 6443}]);
        check(json!([{"addresses": ["192.0.2.1"]}]), https.clone(), &["192.0.2.1:6443"]);
        check(
            json!([
                {"addresses": ["192.0.2.1"], "conditions": {"ready": true}},
                {"addresses": ["192.0.2.2"], "conditions": {"ready": false}},
                {"addresses": ["fd00::1"], "conditions": {}},
            ]),
            https.clone(),
            &["192.0.2.1:6443", "[fd00::1]:6443"],
        );
        let two = json!([{"name": "other", "port": 1}, {"name": "https", "port": 7443}]);
        check(json!([{"addresses": ["192.0.2.1"]}]), two, &["192.0.2.1:7443"]);
        check(json!([{"addresses": ["192.0.2.1"]}]), json!([]), &[]);
        check(json!([{"addresses": ["nonsense"]}]), https, &[]);
    }
}
