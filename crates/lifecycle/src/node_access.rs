//! How the nodes of a cluster reach its API servers: through a balancer on each of them, or at the one endpoint that all share.
//!
//! The choice is made once, when the cluster is made, and noted at its configuration, where those who join see it. A cluster
//! without a note has no balancers. Invariant: a balancer listens on loopback only.

use std::net::{SocketAddr, TcpListener};

use k8s_openapi::api::core::v1::ConfigMap;
use kedge_balancer::{DEFAULT_LISTEN, TLS_SERVER_NAME};
use kedge_client::Client;
use kedge_pki::KubeconfigCluster;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::cluster_configuration::Argument;
use crate::cluster_objects::ApplyError;
use crate::documents::ConfigurationError;

const ANNOTATION: &str = "kedge.dev/api-balancer";
/// Not upstream's manager of the ConfigMap, so that it does not take the note away with what it applies.
const MANAGER: &str = "kedge";
const CONFIG_MAP: &str = "kubeadm-config";
const NONE: &str = "none";

/// Reads `--api-balancer`.
pub(crate) fn parse(text: Option<&str>) -> Result<Option<SocketAddr>, ConfigurationError> {
    let wrong = |why: String| ConfigurationError::Value { field: "--api-balancer".to_owned(), why };
    let text = match text {
        None => return Ok(Some(DEFAULT_LISTEN)),
        Some(NONE) => return Ok(None),
        Some(text) => text,
    };
    let address: SocketAddr =
        text.parse().map_err(|_| wrong(format!("{text:?} is neither an address with a port nor {NONE}")))?;
    match address.ip().is_loopback() && address.port() > 0 {
        true => Ok(Some(address)),
        false => Err(wrong(format!("{address} is not on loopback: what listens there serves this node only"))),
    }
}

/// Where the balancers of a cluster listen, by the ConfigMap of its configuration.
pub(crate) fn noted(map: &ConfigMap) -> Option<SocketAddr> {
    map.metadata.annotations.as_ref()?.get(ANNOTATION)?.parse().ok()
}

/// The same, asked of the cluster; none where that has no such ConfigMap.
pub(crate) async fn ask(client: &Client) -> Result<Option<SocketAddr>, ApplyError> {
    let map = maps(client).get_opt(CONFIG_MAP).await.map_err(failed)?;
    Ok(map.as_ref().and_then(noted))
}

/// Notes the choice.
pub(crate) async fn note(client: &Client, balancer: Option<SocketAddr>) -> Result<(), ApplyError> {
    let annotations: serde_json::Map<_, _> =
        balancer.iter().map(|address| (ANNOTATION.to_owned(), json!(address.to_string()))).collect();
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": CONFIG_MAP, "namespace": "kube-system", "annotations": annotations},
    });
    let params = PatchParams::apply(MANAGER).force();
    maps(client).patch(CONFIG_MAP, &params, &Patch::Apply(object)).await.map(|_| ()).map_err(failed)
}

fn maps(client: &Client) -> Api<ConfigMap> {
    Api::namespaced(client.clone(), "kube-system")
}

fn failed(source: kube::Error) -> ApplyError {
    ApplyError { kind: "ConfigMap".to_owned(), name: CONFIG_MAP.to_owned(), source: Box::new(source) }
}

/// `host:port` that programs of a node ask.
pub(crate) fn host_port(balancer: Option<SocketAddr>, endpoint: &str) -> String {
    balancer.map_or_else(|| endpoint.to_owned(), |balancer| balancer.to_string())
}

/// The name that programs of a node look for in the certificate of a server, where it is not that of the server's host.
pub(crate) fn tls_server_name(host_port: &str) -> Option<&'static str> {
    let is_loopback = host_port.parse().is_ok_and(|address: SocketAddr| address.ip().is_loopback());
    is_loopback.then_some(TLS_SERVER_NAME)
}

/// Whether a kubelet that starts now can have its balancer there; why not, otherwise.
pub(crate) fn ensure_free(balancer: Option<SocketAddr>) -> Result<(), String> {
    let Some(balancer) = balancer else { return Ok(()) };
    match TcpListener::bind(balancer) {
        Ok(_) => Ok(()),
        Err(error) => {
            Err(format!("the cluster's nodes have their API balancer at {balancer}, which is not free: {error}"))
        }
    }
}

/// A cluster as its nodes see it.
pub(crate) fn through(balancer: Option<SocketAddr>, cluster: KubeconfigCluster) -> KubeconfigCluster {
    match balancer {
        None => cluster,
        Some(balancer) => KubeconfigCluster {
            server: format!("https://{balancer}"),
            tls_server_name: Some(TLS_SERVER_NAME.to_owned()),
            ..cluster
        },
    }
}

/// The flags of a kubelet that has a balancer, which finds the cluster by `seeds`.
pub(crate) fn kubelet_flags(balancer: Option<SocketAddr>, seeds: &[String]) -> Vec<Argument> {
    let Some(balancer) = balancer else { return Vec::new() };
    let mut distinct: Vec<&str> = Vec::new();
    for seed in seeds {
        let seed = seed.trim_start_matches("https://").trim_end_matches('/');
        if !distinct.contains(&seed) {
            distinct.push(seed);
        }
    }
    let flag = |name: &str, value: String| Argument { name: name.to_owned(), value };
    vec![flag("api-balancer", balancer.to_string()), flag("api-balancer-seed", distinct.join(","))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_balancer_is_on_loopback_or_not_at_all() {
        let check = |text: Option<&str>, expected: Result<Option<&str>, &str>| {
            let found = parse(text).map(|found| found.map(|address| address.to_string()));
            match (found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found.as_deref(), expected, "{text:?}"),
                (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
                (found, _) => panic!("{text:?}: {found:?}"),
            }
        };
        check(None, Ok(Some("127.0.0.1:6444")));
        check(Some("[::1]:7000"), Ok(Some("[::1]:7000")));
        check(Some("none"), Ok(None));
        check(Some("192.0.2.1:6444"), Err("192.0.2.1:6444 is not on loopback"));
        check(Some("127.0.0.1:0"), Err("not on loopback"));
        check(Some("6444"), Err("neither an address with a port nor none"));
    }

    #[test]
    fn a_cluster_without_a_note_has_none() {
        let noting = |annotations: serde_json::Value| {
            let map = serde_json::from_value(json!({"metadata": {"annotations": annotations}})).unwrap();
            noted(&map).map(|address| address.to_string())
        };
        assert_eq!(noting(json!({"kedge.dev/api-balancer": "127.0.0.1:6444"})).as_deref(), Some("127.0.0.1:6444"));
        assert_eq!(noting(json!({})), None);
        assert_eq!(noted(&ConfigMap::default()), None);
    }

    #[test]
    fn nodes_ask_the_balancer_and_check_a_name() {
        let balancer = Some(DEFAULT_LISTEN);
        assert_eq!(host_port(balancer, "lb:6443"), "127.0.0.1:6444");
        assert_eq!((host_port(None, "lb:6443").as_str(), tls_server_name("lb:6443")), ("lb:6443", None));
        assert_eq!(tls_server_name("127.0.0.1:6444"), Some("kubernetes"));
        let seeds = ["https://lb:6443/", "lb:6443", "192.0.2.1:6443"].map(str::to_owned);
        let flags = kubelet_flags(balancer, &seeds);
        assert_eq!(flags[1].value, "lb:6443,192.0.2.1:6443");
        assert_eq!(kubelet_flags(None, &seeds), []);
    }

    #[test]
    fn a_place_that_is_taken_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        assert!(ensure_free(Some(address)).unwrap_err().contains(&address.to_string()));
        assert_eq!(ensure_free(None), Ok(()));
    }
}
