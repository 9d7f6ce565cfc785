//! A request handed on to the server that answers for its API, with headers that say who asks.
//!
//! Invariant: what a client sends as such a header never goes on, and neither do its credentials.

use std::sync::Arc;

use futures::StreamExt;
use http::header::{AUTHORIZATION, CONNECTION, HOST, HeaderName, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body_util::BodyExt;
use kedge_meta::{ApiStatus, UserInfo};
use kedge_streaming::Target;
use kedge_webhooks::{Address, Connector};
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::{Extension, check};
use crate::body::Body;
use crate::call::{Call, Payload};
use crate::core::Core;
use crate::reply::{self, Reply};
use crate::rest::{self, Endpoint, Stream};
use crate::service_endpoints::locate;

const USER: &str = "x-remote-user";
const UID: &str = "x-remote-uid";
const GROUP: &str = "x-remote-group";
const EXTRA: &str = "x-remote-extra-";

/// Answers by another server.
pub(crate) async fn answer(core: &Arc<Core>, call: &mut Call, extension: &Extension) -> Reply {
    let unavailable = || reply::unavailable("service unavailable");
    if !extension.is_available {
        return Err(unavailable());
    }
    let endpoint = locate(&*core.store, &extension.namespace, &extension.service, extension.port).await;
    let endpoint = endpoint.map_err(|why| {
        tracing::warn!(api_service = extension.name, ?why, "nobody answers for an aggregated API");
        unavailable()
    })?;
    let failed = |why: String| reply::unavailable(&format!("error trying to reach service: {why}"));
    let path = if call.raw_query.is_empty() { call.path.clone() } else { format!("{}?{}", call.path, call.raw_query) };
    let mut headers = forwarded(&call.headers);
    identify(&mut headers, &call.user);
    if kedge_streaming::is_upgrade_request(&call.headers) {
        let stream = dial(core, extension, &endpoint).await.map_err(failed)?;
        for name in [CONNECTION, UPGRADE] {
            if let Some(value) = call.headers.get(&name) {
                headers.insert(name, value.clone());
            }
        }
        let mut request = Request::new(());
        *request.method_mut() = call.method.clone();
        *request.headers_mut() = headers;
        *request.extensions_mut() = std::mem::take(&mut call.extensions);
        let upgrade = kedge_streaming::proxy_upgrade(request, stream, Target::new(extension.host(), path)).await;
        return Ok(rest::spawn(upgrade, call.kept()));
    }
    let payload = call.take_payload();
    let request = request(extension, call.method.clone(), &path, headers, payload).map_err(ApiStatus::bad_request)?;
    let mut response = send(core, extension, &endpoint, request).await.map_err(failed)?;
    for name in [CONNECTION, TRANSFER_ENCODING, HeaderName::from_static("keep-alive")] {
        response.headers_mut().remove(name);
    }
    Ok(response)
}

/// A request to an extension server.
pub(super) fn request(
    extension: &Extension,
    method: Method,
    path: &str,
    headers: HeaderMap,
    payload: Payload,
) -> Result<Request<Payload>, String> {
    let mut request = Request::new(payload);
    *request.method_mut() = method;
    let url = format!("https://{}{path}", extension.host());
    *request.uri_mut() = url.parse().map_err(|error| format!("invalid path: {error}"))?;
    *request.headers_mut() = headers;
    Ok(request)
}

/// Sends a request over a connection that is there already, where there is one, and hands out the answer as it comes, until
/// this server shuts down.
pub(super) async fn send(
    core: &Core,
    extension: &Extension,
    endpoint: &Endpoint,
    request: Request<Payload>,
) -> Result<Response<Body>, String> {
    let extensions = &core.extensions;
    let place = (endpoint.clone(), extension.host(), extension.trust.clone());
    let connections = extensions.pool.connections(place, || {
        let address = Address { host: endpoint.host.clone(), port: endpoint.port };
        let tls = check::tls(&extension.trust, extensions.identity.clone())?;
        Ok(Connector::fixed(address, tls, Arc::clone(&extensions.handshakes)))
    })?;
    let response = connections.send(request).await?;
    let shutdown = core.shutdown.clone().cancelled_owned();
    Ok(response.map(|body| {
        let pieces = body.into_data_stream().map(|bytes| bytes.map_err(Into::into));
        Body::stream(pieces.take_until(shutdown))
    }))
}

/// A connection that becomes something else than HTTP.
async fn dial(core: &Core, extension: &Extension, endpoint: &Endpoint) -> Result<Box<dyn Stream>, String> {
    let tls = check::tls(&extension.trust, core.extensions.identity.clone())?;
    let name = ServerName::try_from(extension.host()).map_err(|error| error.to_string())?;
    let tcp = rest::dial_plain(&endpoint.host, endpoint.port).await;
    let tcp = tcp.map_err(|error| format!("dial tcp {}: {error}", endpoint.authority()))?;
    let stream = TlsConnector::from(tls).connect(name, tcp).await.map_err(|error| format!("tls: {error}"))?;
    Ok(Box::new(stream))
}

/// The headers that go on: not the connection's own, no credentials, and nothing that only this server may say.
fn forwarded(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    for name in [AUTHORIZATION, CONNECTION, UPGRADE, TRANSFER_ENCODING, HOST] {
        headers.remove(name);
    }
    let is_own = |name: &HeaderName| {
        let name = name.as_str();
        [USER, UID, GROUP].contains(&name) || name.starts_with(EXTRA) || name.starts_with("impersonate-")
    };
    let own: Vec<HeaderName> = headers.keys().filter(|name| is_own(name)).cloned().collect();
    for name in own {
        headers.remove(name);
    }
    headers
}

/// Says who asks. What cannot stand in a header is left out.
pub(super) fn identify(headers: &mut HeaderMap, user: &UserInfo) {
    let mut add = |name: &str, value: &str| {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.append(name, value);
        }
    };
    add(USER, &user.username);
    if !user.uid.is_empty() {
        add(UID, &user.uid);
    }
    for group in &user.groups {
        add(GROUP, group);
    }
    for (key, values) in &user.extra {
        let name = format!("{EXTRA}{}", escape(key));
        values.iter().for_each(|value| add(&name, value));
    }
}

/// A key of an extra fact as a part of a header's name: everything else is percent-encoded.
fn escape(key: &str) -> String {
    let mut escaped = String::new();
    for byte in key.to_lowercase().bytes() {
        match byte {
            b'0'..=b'9'
            | b'a'..=b'z'
            | b'!'
            | b'#'
            | b'$'
            | b'&'
            | b'\''
            | b'*'
            | b'+'
            | b'-'
            | b'.'
            | b'^'
            | b'_'
            | b'`'
            | b'|'
            | b'~' => escaped.push(char::from(byte)),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_says_who_they_are_but_this_server() {
        let mut sent = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer secret"),
            ("x-remote-user", "system:admin"),
            ("x-remote-extra-scopes", "all"),
            ("impersonate-user", "jane"),
            ("accept", "application/json"),
        ] {
            sent.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let mut user = UserInfo::authenticated("jane", ["a"]);
        user.extra.insert("example.org/Scope".to_owned(), vec!["read".to_owned(), "write".to_owned()]);
        let mut headers = forwarded(&sent);
        identify(&mut headers, &user);
        let mut shown: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}={}", value.to_str().unwrap())).collect();
        shown.sort();
        assert_eq!(
            shown,
            [
                "accept=application/json",
                "x-remote-extra-example.org%2fscope=read",
                "x-remote-extra-example.org%2fscope=write",
                "x-remote-group=a",
                "x-remote-group=system:authenticated",
                "x-remote-user=jane",
            ]
        );
    }
}
