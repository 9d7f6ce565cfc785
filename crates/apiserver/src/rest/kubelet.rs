//! The way from the API server to a node: which address, which container, and an HTTP request over TLS.
//!
//! A connection is made for each request and never shared. Invariant: whoever gets here has been authorized for the
//! subresource of the pod or node.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use kedge_meta::{ApiStatus, GroupResource};
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::body::{Body, BoxError};
use crate::call::Payload;
use crate::core::Core;
use crate::{object, reply};

/// How long a node may take to answer the call.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The port of kubelets that do not say.
const DEFAULT_PORT: u64 = 10250;

/// Bytes both ways.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Where a node's kubelet listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Endpoint {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Endpoint {
    /// As it stands in a `Host` header.
    pub(crate) fn authority(&self) -> String {
        match self.host.parse::<IpAddr>() {
            Ok(IpAddr::V6(address)) => format!("[{address}]:{}", self.port),
            _ => format!("{}:{}", self.host, self.port),
        }
    }
}

/// A pod, or upstream's 404.
pub(crate) async fn pod(core: &Core, namespace: &str, name: &str) -> Result<Value, ApiStatus> {
    let resource = GroupResource { group: String::new(), resource: "pods".to_owned() };
    let found = core.object("", "pods", namespace, name).await?;
    found.map(|(_, pod)| pod).ok_or_else(|| ApiStatus::not_found(&resource, name))
}

/// The kubelet of a node.
pub(crate) async fn endpoint(core: &Core, node: &str) -> Result<Endpoint, ApiStatus> {
    let resource = GroupResource { group: String::new(), resource: "nodes".to_owned() };
    let found = core.object("", "nodes", "", node).await?;
    let (_, node) = found.ok_or_else(|| ApiStatus::not_found(&resource, node))?;
    endpoint_of(&node, &core.config.kubelet_preferred_address_types).ok_or_else(|| {
        let name = object::name(&node);
        ApiStatus::internal(format!("no preferred addresses found; known addresses: [] (node {name})"))
    })
}

fn endpoint_of(node: &Value, wanted: &[String]) -> Option<Endpoint> {
    let addresses = object::list(node, &["status", "addresses"]);
    let address = wanted.iter().find_map(|kind| addresses.iter().find(|address| address["type"] == **kind))?;
    let port = object::at(node, &["status", "daemonEndpoints", "kubeletEndpoint", "Port"]).and_then(Value::as_u64);
    let port = u16::try_from(port.filter(|port| *port > 0).unwrap_or(DEFAULT_PORT)).ok()?;
    Some(Endpoint { host: object::text(address, &["address"]).to_owned(), port })
}

/// The container that is meant, where the request may leave it out.
pub(crate) fn container(pod: &Value, asked: &str) -> Result<String, ApiStatus> {
    let names = |list: &str| -> Vec<&str> {
        object::list(pod, &["spec", list]).iter().map(|container| object::text(container, &["name"])).collect()
    };
    let (main, init, ephemeral) = (names("containers"), names("initContainers"), names("ephemeralContainers"));
    let pod_name = object::name(pod);
    if !asked.is_empty() {
        let known = [&main, &init, &ephemeral].iter().any(|list| list.contains(&asked));
        return match known {
            true => Ok(asked.to_owned()),
            false => Err(ApiStatus::bad_request(format!("container {asked} is not valid for pod {pod_name}"))),
        };
    }
    match &main[..] {
        [one] => Ok((*one).to_owned()),
        [] => Err(ApiStatus::bad_request(format!("a container name must be specified for pod {pod_name}"))),
        several => {
            let mut text = format!(
                "a container name must be specified for pod {pod_name}, choose one of: [{}]",
                several.join(" ")
            );
            if !init.is_empty() {
                text.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            if !ephemeral.is_empty() {
                text.push_str(&format!(" or one of the ephemeral containers: [{}]", ephemeral.join(" ")));
            }
            Err(ApiStatus::bad_request(text))
        }
    }
}

/// Connects to a kubelet over TLS.
pub(crate) async fn dial(
    tls: Option<Arc<rustls::ClientConfig>>,
    endpoint: &Endpoint,
) -> std::io::Result<Box<dyn Stream>> {
    let tls = tls.ok_or_else(|| std::io::Error::other("this API server has no client certificate for kubelets"))?;
    let name = ServerName::try_from(endpoint.host.clone()).map_err(std::io::Error::other)?;
    let tcp = dial_plain(&endpoint.host, endpoint.port).await?;
    let stream = TlsConnector::from(tls).connect(name, tcp).await?;
    Ok(Box::new(stream))
}

/// Connects without TLS.
pub(crate) async fn dial_plain(host: &str, port: u16) -> std::io::Result<TcpStream> {
    let connect = TcpStream::connect((host, port));
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, connect).await.map_err(|_| {
        std::io::Error::new(std::io::ErrorKind::TimedOut, format!("dial tcp {host}:{port}: i/o timeout"))
    })??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends a request over a connection of its own and hands out the answer as it comes, until the server shuts down.
pub(crate) async fn exchange(
    core: &Core,
    stream: Box<dyn Stream>,
    request: Request<Payload>,
) -> Result<Response<Body>, BoxError> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to a node ended");
        }
    });
    let response = sender.send_request(request).await?;
    let shutdown = core.shutdown.clone().cancelled_owned();
    Ok(response.map(|body| {
        let frames = body.into_data_stream();
        // The sender lives as long as the body, so that the connection does.
        let stream = futures::stream::unfold((frames, sender), |(mut frames, sender)| async move {
            let bytes = frames.next().await?;
            Some((bytes.map_err(Into::into), (frames, sender)))
        });
        Body::stream(stream.take_until(shutdown))
    }))
}

/// 503 for a node or pod that can't be reached, in upstream's words.
pub(crate) fn unreachable(what: &str, error: &dyn std::fmt::Display) -> ApiStatus {
    reply::unavailable(&format!("error trying to reach service: {what}: {error}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check_container(asked: &str, count: usize, expected: Result<&str, &str>) {
        let containers: Vec<Value> = ["a", "b"][..count].iter().map(|name| json!({"name": name})).collect();
        let pod =
            json!({"metadata": {"name": "p"}, "spec": {"containers": containers, "initContainers": [{"name": "i"}]}});
        let actual = container(&pod, asked);
        assert_eq!(actual.as_deref().map_err(|status| status.message.as_str()), expected);
    }

    #[test]
    fn a_container_is_chosen_or_asked_for() {
        check_container("", 1, Ok("a"));
        check_container("i", 2, Ok("i"));
        check_container("x", 1, Err("container x is not valid for pod p"));
        let all =
            "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]";
        check_container("", 2, Err(all));
    }

    #[test]
    fn kubelets_are_found_by_their_node() {
        let wanted = crate::Config::default().kubelet_preferred_address_types;
        let node = json!({"status": {"addresses": [{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "10.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10251}}}});
        assert_eq!(endpoint_of(&node, &wanted).unwrap().authority(), "10.0.0.1:10251");
        let six = json!({"status": {"addresses": [{"type": "InternalIP", "address": "fd00::1"}]}});
        assert_eq!(endpoint_of(&six, &wanted).unwrap().authority(), "[fd00::1]:10250");
        assert_eq!(endpoint_of(&json!({}), &wanted), None);
    }
}
