//! The rules of the two handshakes: SPDY as Kubernetes does it, and WebSocket (RFC 6455).
//!
//! Pure: headers in, an answer out. Texts and status codes are upstream's. Invariant: a 101 is made only for a request that
//! asked for that very protocol.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{Method, Response, StatusCode};

use crate::upgrade::{plain_error, switching};

/// The protocols of exec and attach over SPDY, best first.
pub const REMOTE_COMMAND_PROTOCOLS: [&str; 5] =
    ["v5.channel.k8s.io", "v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];
/// The protocols of port-forward over SPDY.
pub const PORT_FORWARD_PROTOCOLS: [&str; 1] = ["portforward.k8s.io"];

pub(crate) const SPDY: &str = "SPDY/3.1";
pub(crate) const TUNNEL_PREFIX: &str = "SPDY/3.1+";
const KUBERNETES_SUFFIX: &str = ".k8s.io";
const WEBSOCKET_GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

pub(crate) const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED_PROTOCOLS: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");

/// Whether the request asks for another protocol.
pub fn is_upgrade_request(headers: &HeaderMap) -> bool {
    headers.get_all(CONNECTION).iter().any(|value| contains(value, "upgrade"))
}

/// Whether it asks for WebSocket.
pub fn is_websocket_request(headers: &HeaderMap) -> bool {
    let websocket = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"websocket");
    is_upgrade_request(headers) && headers.get(UPGRADE).is_some_and(websocket)
}

/// Whether it asks for SPDY/3.1.
pub fn is_spdy_request(headers: &HeaderMap) -> bool {
    is_upgrade_request(headers) && headers.get(UPGRADE).is_some_and(|value| contains(value, "spdy/3.1"))
}

/// Whether it asks for SPDY inside WebSocket, as port-forward does.
pub fn wants_tunnel(headers: &HeaderMap) -> bool {
    is_websocket_request(headers) && !tunnelled_protocols(headers).is_empty()
}

/// The proof that a server read the client's `Sec-WebSocket-Key`.
pub fn websocket_accept(key: &str) -> String {
    let text = format!("{key}{WEBSOCKET_GUID}");
    STANDARD.encode(ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()))
}

/// The WebSocket subprotocols that the client offers, best first.
pub(crate) fn websocket_protocols(headers: &HeaderMap) -> Vec<&str> {
    list(headers, &SEC_WEBSOCKET_PROTOCOL)
}

/// The SPDY protocols that the client wants to speak inside WebSocket.
pub(crate) fn tunnelled_protocols(headers: &HeaderMap) -> Vec<&str> {
    let spdy = |protocol: &str| protocol.ends_with(KUBERNETES_SUFFIX);
    let inner = |protocol| str::strip_prefix(protocol, TUNNEL_PREFIX).filter(|inner| spdy(inner));
    websocket_protocols(headers).into_iter().filter_map(inner).collect()
}

/// Checks a WebSocket request; the answer with this subprotocol, or the refusal.
pub(crate) fn accept_websocket(
    method: &Method,
    headers: &HeaderMap,
    protocol: Option<&str>,
) -> Result<Response<Bytes>, Box<Response<Bytes>>> {
    if method != Method::GET {
        return Err(Box::new(plain_error(StatusCode::METHOD_NOT_ALLOWED, "bad method")));
    }
    if !is_websocket_request(headers) {
        return Err(Box::new(plain_error(StatusCode::BAD_REQUEST, "not websocket protocol")));
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let mut response = plain_error(StatusCode::BAD_REQUEST, "missing or bad WebSocket Version");
        response.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return Err(Box::new(response));
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok()).filter(|key| !key.is_empty());
    let Some(key) = key else {
        return Err(Box::new(plain_error(StatusCode::BAD_REQUEST, "mismatch challenge/response")));
    };
    let mut response = switching("websocket");
    let proof = HeaderValue::try_from(websocket_accept(key)).expect("base64 fits a header");
    response.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, proof);
    if let Some(protocol) = protocol.and_then(|protocol| HeaderValue::from_str(protocol).ok()) {
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    Ok(response)
}

/// Checks a SPDY request and chooses the first protocol of the client's that the server knows.
pub(crate) fn accept_spdy(
    headers: &HeaderMap,
    server: &[&'static str],
) -> Result<(&'static str, Response<Bytes>), Box<Response<Bytes>>> {
    let client = list(headers, &STREAM_PROTOCOL);
    if client.is_empty() {
        let text = "unable to upgrade: X-Stream-Protocol-Version is required";
        return Err(Box::new(plain_error(StatusCode::BAD_REQUEST, text)));
    }
    let chosen = client.iter().find_map(|wanted| server.iter().find(|known| *known == wanted));
    let Some(chosen) = chosen else {
        let (client, known) = (client.join(" "), server.join(" "));
        let text = format!(
            "unable to upgrade: unable to negotiate protocol: client supports [{client}], server accepts [{known}]"
        );
        let mut response = plain_error(StatusCode::FORBIDDEN, &text);
        for protocol in server {
            response.headers_mut().append(ACCEPTED_PROTOCOLS, HeaderValue::from_static(protocol));
        }
        return Err(Box::new(response));
    };
    if !is_spdy_request(headers) {
        let text = "unable to upgrade: missing upgrade headers in request";
        return Err(Box::new(plain_error(StatusCode::BAD_REQUEST, text)));
    }
    let mut response = switching(SPDY);
    response.headers_mut().insert(STREAM_PROTOCOL, HeaderValue::from_static(chosen));
    Ok((chosen, response))
}

/// The words of a header that may be given several times, and several of them in one, parted by commas.
fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|word| !word.is_empty()).collect()
}

fn contains(value: &HeaderValue, lower_case: &str) -> bool {
    value.to_str().is_ok_and(|value| value.to_ascii_lowercase().contains(lower_case))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a good value"))
        };
        lines.iter().map(line).collect()
    }

    const WEBSOCKET: [(&str, &str); 4] = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    #[test]
    fn the_proof_is_that_of_the_rfc() {
        assert_eq!(websocket_accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn kinds_of_upgrades() {
        let check = |lines: &[(&'static str, &str)], expected: (bool, bool, bool)| {
            let headers = headers(lines);
            let kinds = (is_upgrade_request(&headers), is_websocket_request(&headers), is_spdy_request(&headers));
            assert_eq!(kinds, expected, "{lines:?}");
        };
        check(&WEBSOCKET, (true, true, false));
        check(&[("connection", "Upgrade"), ("upgrade", "SPDY/3.1")], (true, false, true));
        check(&[("connection", "close"), ("upgrade", "SPDY/3.1")], (false, false, false));
        check(&[("connection", "Upgrade")], (true, false, false));
        check(&[], (false, false, false));
    }

    #[test]
    fn websocket_answers() {
        let check = |change: (&'static str, &str), method: &Method, expected: u16| {
            let mut headers = headers(&WEBSOCKET);
            headers.insert(change.0, HeaderValue::from_str(change.1).expect("a good value"));
            let answer = accept_websocket(method, &headers, Some("v5.channel.k8s.io"));
            assert_eq!(answer.unwrap_or_else(|refusal| *refusal).status(), expected, "{change:?}");
        };
        check(("x", "y"), &Method::GET, 101);
        check(("x", "y"), &Method::POST, 405);
        check(("upgrade", "SPDY/3.1"), &Method::GET, 400);
        check(("sec-websocket-version", "8"), &Method::GET, 400);
        check(("sec-websocket-key", ""), &Method::GET, 400);
    }

    #[test]
    fn spdy_answers() {
        let answer = |protocols: &str, upgrade: &str| {
            let lines = [("connection", "Upgrade"), ("upgrade", upgrade), ("x-stream-protocol-version", protocols)];
            accept_spdy(&headers(&lines), &["v4.channel.k8s.io", "channel.k8s.io"])
        };
        let chosen = |protocols| answer(protocols, SPDY).map(|(chosen, _)| chosen).ok();
        assert_eq!(chosen("v5.channel.k8s.io, v4.channel.k8s.io,channel.k8s.io"), Some("v4.channel.k8s.io"));
        assert_eq!(chosen("channel.k8s.io"), Some("channel.k8s.io"));
        assert_eq!(chosen("v5.channel.k8s.io"), None);
        let refusal = answer("a,b", SPDY).expect_err("neither is known");
        assert_eq!(refusal.status(), 403);
        assert_eq!(
            std::str::from_utf8(refusal.body()),
            Ok("unable to upgrade: unable to negotiate protocol: client supports [a b], server accepts \
                [v4.channel.k8s.io channel.k8s.io]\n")
        );
        assert_eq!(refusal.headers().get_all(ACCEPTED_PROTOCOLS).iter().count(), 2);
        assert_eq!(answer("", SPDY).expect_err("none is given").status(), 400);
        assert_eq!(answer("channel.k8s.io", "websocket").expect_err("not SPDY").status(), 400);
    }

    #[test]
    fn tunnels() {
        let check = |protocols: &str, expected: &[&str]| {
            let mut headers = headers(&WEBSOCKET);
            headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_str(protocols).expect("a good value"));
            assert_eq!(tunnelled_protocols(&headers), expected);
            assert_eq!(wants_tunnel(&headers), !expected.is_empty());
        };
        check("SPDY/3.1+portforward.k8s.io", &["portforward.k8s.io"]);
        check("v5.channel.k8s.io, SPDY/3.1+portforward.k8s.io", &["portforward.k8s.io"]);
        check("SPDY/3.1+other", &[]);
        check("v5.channel.k8s.io", &[]);
    }
}
