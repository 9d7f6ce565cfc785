//! `proxy` of nodes, pods and services: a request handed on to what they serve.
//!
//! The path after `proxy`, the query, the method and the body go on; credentials do not. Links in pages and redirects are
//! made to lead back through the proxy.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::BytesMut;
use futures::StreamExt;
use http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName,
    HeaderValue, LOCATION, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use kedge_meta::{ApiStatus, GroupResource};
use kedge_streaming::Target;
use serde_json::Value;

use super::connect;
use super::kubelet::{self, Endpoint, Stream};
use super::links::{self, Place};
use super::unverified;
use crate::body::{Body, BoxError};
use crate::call::Call;
use crate::core::Core;
use crate::object;
use crate::registry::Resource;
use crate::reply::{self, Reply};

/// `https:name:port`, `name:port` or `name`.
#[derive(Debug, PartialEq, Eq)]
struct Address<'a> {
    scheme: &'a str,
    name: &'a str,
    port: &'a str,
}

impl<'a> Address<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        match parts[..] {
            [name] => Some(Self { scheme: "", name, port: "" }),
            [name, port] => Some(Self { scheme: "", name, port }),
            [scheme @ ("" | "http" | "https"), name, port] => Some(Self { scheme, name, port }),
            _ => None,
        }
    }

    fn of(call: &'a Call, what: &str) -> Result<Self, ApiStatus> {
        let text = &call.resource().name;
        Self::parse(text).ok_or_else(|| ApiStatus::bad_request(format!("invalid {what} request \"{text}\"")))
    }
}

/// To a node's kubelet, or another port of the node.
pub(super) async fn node(core: &Arc<Core>, call: &mut Call, resource: &Resource) -> Reply {
    connect::ask(core, call, resource).await?;
    let address = Address::of(call, "node")?;
    let kubelet = kubelet::endpoint(core, address.name).await?;
    let port: u16 = if address.port.is_empty() { kubelet.port } else { number(address.port)? };
    let endpoint = Endpoint { port, ..kubelet.clone() };
    let is_kubelet = endpoint == kubelet;
    if !is_kubelet {
        check_proxyable(&endpoint.host)?;
    }
    let dial = match (is_kubelet, address.scheme) {
        (true, _) => Dial::Kubelet,
        (false, "https") => Dial::Tls,
        (false, _) => Dial::Plain,
    };
    forward(core, call, &endpoint, dial).await
}

/// To a pod.
pub(super) async fn pod(core: &Arc<Core>, call: &mut Call, resource: &Resource) -> Reply {
    connect::ask(core, call, resource).await?;
    let address = Address::of(call, "pod")?;
    let pod = kubelet::pod(core, &call.resource().namespace, address.name).await?;
    let host = object::text(&pod, &["status", "podIP"]);
    check_proxyable(host)?;
    let port = if address.port.is_empty() { first_port(&pod) } else { number(address.port)? };
    let endpoint = Endpoint { host: host.to_owned(), port };
    forward(core, call, &endpoint, Dial::of(address.scheme)).await
}

fn first_port(pod: &Value) -> u16 {
    let ports = object::list(pod, &["spec", "containers"]).iter().flat_map(|c| object::list(c, &["ports"]));
    let mut ports = ports.filter_map(|port| port["containerPort"].as_u64()).filter_map(|port| u16::try_from(port).ok());
    ports.next().unwrap_or(80)
}

/// To one of a Service's ready endpoints.
pub(super) async fn service(core: &Arc<Core>, call: &mut Call, resource: &Resource) -> Reply {
    connect::ask(core, call, resource).await?;
    let address = Address::of(call, "service")?;
    let namespace = call.resource().namespace.clone();
    let resource = GroupResource { group: String::new(), resource: "services".to_owned() };
    let found = core.object("", "services", &namespace, address.name).await?;
    let (_, service) = found.ok_or_else(|| ApiStatus::not_found(&resource, address.name))?;
    let none = || reply::unavailable(&format!("no endpoints available for service \"{}\"", address.name));
    let port = port_name(&service, address.port).ok_or_else(none)?;
    let endpoints = core.object("", "endpoints", &namespace, address.name).await?;
    let (_, endpoints) = endpoints.ok_or_else(none)?;
    let endpoint = ready_endpoint(&endpoints, &port, rand::random::<u32>() as usize).ok_or_else(none)?;
    check_proxyable(&endpoint.host)?;
    forward(core, call, &endpoint, Dial::of(address.scheme)).await
}

/// Nobody reaches the API server's own machine through a made-up pod address.
fn check_proxyable(host: &str) -> Result<(), ApiStatus> {
    let allowed = match host.parse() {
        Ok(IpAddr::V4(address)) => {
            !(address.is_loopback()
                || address.is_link_local()
                || address.is_unspecified()
                || address.is_multicast()
                || address.is_broadcast())
        }
        Ok(IpAddr::V6(address)) => {
            !(address.is_loopback()
                || address.is_unicast_link_local()
                || address.is_unspecified()
                || address.is_multicast())
        }
        Err(_) => false,
    };
    if allowed { Ok(()) } else { Err(ApiStatus::bad_request("address not allowed")) }
}

/// The name of a Service's port, given its name or number.
fn port_name(service: &Value, asked: &str) -> Option<String> {
    let ports = object::list(service, &["spec", "ports"]);
    let name = |port: &Value| object::text(port, &["name"]).to_owned();
    if asked.is_empty() && ports.len() == 1 {
        return ports.first().map(name);
    }
    let is_asked = |port: &&Value| name(port) == asked || port["port"].as_u64().is_some_and(|n| n.to_string() == asked);
    ports.iter().find(is_asked).map(name)
}

fn ready_endpoint(endpoints: &Value, port: &str, random: usize) -> Option<Endpoint> {
    let mut found = Vec::new();
    for subset in object::list(endpoints, &["subsets"]) {
        let ports = object::list(subset, &["ports"]);
        let Some(number) = ports.iter().find(|p| object::text(p, &["name"]) == port).and_then(|p| p["port"].as_u64())
        else {
            continue;
        };
        let hosts =
            object::list(subset, &["addresses"]).iter().map(|address| object::text(address, &["ip"]).to_owned());
        let port = u16::try_from(number).ok()?;
        found.extend(hosts.map(|host| Endpoint { host, port }));
    }
    if found.is_empty() { None } else { Some(found.swap_remove(random % found.len())) }
}

fn number(port: &str) -> Result<u16, ApiStatus> {
    port.parse().map_err(|_| ApiStatus::bad_request(format!("invalid port \"{port}\"")))
}

/// How a backend is spoken to.
#[derive(Clone, Copy)]
enum Dial {
    Plain,
    /// Pods have certificates of anybody: nothing is verified, and nothing is shown to them.
    Tls,
    Kubelet,
}

impl Dial {
    fn of(scheme: &str) -> Self {
        if scheme == "https" { Self::Tls } else { Self::Plain }
    }

    async fn connect(self, core: &Core, endpoint: &Endpoint) -> std::io::Result<Box<dyn Stream>> {
        match self {
            Self::Plain => Ok(Box::new(kubelet::dial_plain(&endpoint.host, endpoint.port).await?)),
            Self::Tls => unverified::dial(endpoint).await,
            Self::Kubelet => kubelet::dial(core.kubelet_tls.clone(), endpoint).await,
        }
    }
}

/// Relative links of a page only work below a path that ends with a slash.
fn redirect_to_root(call: &Call) -> Option<Response<Body>> {
    let reads = call.method == Method::GET || call.method == Method::HEAD;
    if !reads || !call.resource().rest.is_empty() || call.path.ends_with('/') {
        return None;
    }
    let query = if call.raw_query.is_empty() { String::new() } else { format!("?{}", call.raw_query) };
    let location = HeaderValue::from_str(&format!("{}/{query}", call.path)).ok()?;
    let mut response = Response::new(Body::full(""));
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    response.headers_mut().insert(LOCATION, location);
    Some(response)
}

async fn forward(core: &Arc<Core>, call: &mut Call, endpoint: &Endpoint, dial: Dial) -> Reply {
    let is_upgrade = kedge_streaming::is_upgrade_request(&call.headers);
    if let Some(redirect) = redirect_to_root(call).filter(|_| !is_upgrade) {
        return Ok(redirect);
    }
    let rest = call.resource().rest.clone();
    let slash = if call.path.ends_with('/') && !rest.ends_with('/') || rest.is_empty() { "/" } else { "" };
    let path = format!("{rest}{slash}");
    let path = if call.raw_query.is_empty() { path } else { format!("{path}?{}", call.raw_query) };
    let authority = endpoint.authority();
    let failed = |error: &dyn std::fmt::Display| kubelet::unreachable(&authority, error);
    let stream = dial.connect(core, endpoint).await.map_err(|error| failed(&error))?;
    if is_upgrade {
        let mut request = Request::new(());
        *request.method_mut() = call.method.clone();
        *request.headers_mut() = call.headers.clone();
        request.headers_mut().remove(AUTHORIZATION);
        *request.extensions_mut() = std::mem::take(&mut call.extensions);
        let upgrade = kedge_streaming::proxy_upgrade(request, stream, Target::new(authority, path)).await;
        return Ok(super::spawn(upgrade, call.kept()));
    }
    let mut request = Request::new(call.take_payload());
    *request.method_mut() = call.method.clone();
    *request.uri_mut() = path.parse().map_err(|error| ApiStatus::bad_request(format!("invalid path: {error}")))?;
    *request.headers_mut() = forwarded(&call.headers);
    let host = authority.parse().map_err(ApiStatus::internal)?;
    request.headers_mut().insert(HOST, host);
    let mut response = kubelet::exchange(core, stream, request).await.map_err(|error| failed(&error))?;
    for name in [CONNECTION, TRANSFER_ENCODING, HeaderName::from_static("keep-alive")] {
        response.headers_mut().remove(name);
    }
    let place = Place {
        prefix: call.path.strip_suffix(&rest).unwrap_or(&call.path).trim_end_matches('/'),
        backend: &authority,
        asked: call.header("host"),
    };
    if call.method == Method::HEAD {
        return Ok(response);
    }
    with_own_links(response, &place).await.map_err(|error| failed(&error))
}

fn is_readable_page(headers: &HeaderMap) -> bool {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    let media = text(CONTENT_TYPE).split(';').next().unwrap_or("");
    media.trim() == "text/html" && text(CONTENT_ENCODING).is_empty()
}

/// An answer whose redirect, or whose page, leads back through the proxy.
async fn with_own_links(mut response: Response<Body>, place: &Place<'_>) -> Result<Response<Body>, BoxError> {
    if let Some(location) = response.headers().get(LOCATION).and_then(|value| value.to_str().ok()) {
        let location = HeaderValue::from_str(&place.url(location))?;
        response.headers_mut().insert(LOCATION, location);
        return Ok(response);
    }
    // What cannot be read is left as it is, as is what is too large.
    if !is_readable_page(response.headers()) {
        return Ok(response);
    }
    let (mut head, mut body) = response.into_parts();
    let mut page = BytesMut::new();
    while page.len() <= links::LIMIT {
        let Some(frame) = body.frame().await else {
            let page = place.page(&page);
            head.headers.insert(CONTENT_LENGTH, page.len().into());
            return Ok(Response::from_parts(head, Body::full(page)));
        };
        page.extend_from_slice(&frame?.into_data().unwrap_or_default());
    }
    let read = futures::stream::iter([Ok(page.freeze())]);
    Ok(Response::from_parts(head, Body::stream(read.chain(body.into_data_stream()))))
}

/// The headers that go on: not the connection's own, and no credentials.
fn forwarded(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    // Links in a page can be read only if it is not compressed; on the way to the client it may be.
    for name in [AUTHORIZATION, CONNECTION, UPGRADE, TRANSFER_ENCODING, HOST, ACCEPT_ENCODING] {
        headers.remove(name);
    }
    let impersonating: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("impersonate-")).cloned().collect();
    for name in impersonating {
        headers.remove(name);
    }
    headers
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn addresses_are_read() {
        for (text, expected) in [
            ("web", Some(("", "web", ""))),
            ("web:http", Some(("", "web", "http"))),
            ("https:web:443", Some(("https", "web", "443"))),
            ("ftp:web:21", None),
            ("a:b:c:d", None),
        ] {
            let actual = Address::parse(text).map(|address| (address.scheme, address.name, address.port));
            assert_eq!(actual, expected, "{text}");
        }
    }

    #[test]
    fn own_addresses_are_out_of_reach() {
        for (host, allowed) in [
            ("10.0.0.1", true),
            ("fd00::1", true),
            ("127.0.0.1", false),
            ("169.254.169.254", false),
            ("0.0.0.0", false),
            ("::1", false),
            ("fe80::1", false),
            ("", false),
        ] {
            assert_eq!(check_proxyable(host).is_ok(), allowed, "{host}");
        }
    }

    #[test]
    fn a_ready_endpoint_is_chosen() {
        let service = json!({"spec": {"ports": [{"name": "http", "port": 80}, {"name": "admin", "port": 81}]}});
        assert_eq!(port_name(&service, "80").as_deref(), Some("http"));
        assert_eq!(port_name(&service, "admin").as_deref(), Some("admin"));
        assert_eq!(port_name(&service, ""), None);
        let endpoints = json!({"subsets": [{"ports": [{"name": "http", "port": 8080}],
            "addresses": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}], "notReadyAddresses": [{"ip": "10.0.0.3"}]}]});
        assert_eq!(ready_endpoint(&endpoints, "http", 1), Some(Endpoint { host: "10.0.0.2".to_owned(), port: 8080 }));
        assert_eq!(ready_endpoint(&endpoints, "admin", 1), None);
    }
}
