//! The client's side of an upgrade, towards a kubelet or a container runtime.
//!
//! It does not dial, but for plain HTTP on a runtime's own URL. Invariant: a backend that does not upgrade is never a
//! connection; its answer is kept for the one who asked.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use http::{Method, Request, Response, StatusCode, Uri, response};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tracing::debug;

use crate::handshake::{SPDY, STREAM_PROTOCOL, is_spdy_request};
use crate::spdy::connection::SpdyConnection;

/// A refusal's text is for people; more of it than this helps nobody.
const MAX_REFUSAL_BYTES: usize = 64 * 1024;
/// A kubelet asks its runtime before it answers.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// What to ask a backend for.
#[derive(Clone, Debug)]
pub struct Target {
    /// The `Host` header.
    pub host: String,
    /// The path and the query, with the leading slash.
    pub path_and_query: String,
    /// Headers to add, such as `Authorization`; they replace those of the client's request.
    pub headers: HeaderMap,
}

impl Target {
    /// A target without further headers.
    pub fn new(host: impl Into<String>, path_and_query: impl Into<String>) -> Self {
        Self { host: host.into(), path_and_query: path_and_query.into(), headers: HeaderMap::new() }
    }
}

/// A backend that could not be upgraded.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// The path or the host cannot stand in a request.
    #[error("the request to the backend could not be made")]
    Request(#[from] http::Error),
    /// The connection failed before there was an answer.
    #[error("error sending request")]
    Send(#[from] hyper::Error),
    /// There was no answer in time.
    #[error("the backend did not answer within {} s", ANSWER_TIMEOUT.as_secs())]
    Timeout,
    /// The backend refused, with this status.
    #[error("unable to upgrade connection: {message}")]
    Refused {
        /// Its HTTP status code.
        code: u16,
        /// What it said.
        message: String,
        /// The API `Status` that it said, where it was one.
        status: Option<Box<Value>>,
    },
}

/// A backend's answer to a request to upgrade.
pub(crate) enum Answer {
    Switched(response::Parts, TokioIo<Upgraded>),
    Refused(Response<Bytes>),
}

/// Sends the request, which must ask for an upgrade, and waits for the answer.
pub(crate) async fn ask<IO>(io: IO, request: Request<Empty<Bytes>>) -> Result<Answer, UpgradeError>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    match tokio::time::timeout(ANSWER_TIMEOUT, send(io, request)).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(UpgradeError::Timeout),
    }
}

async fn send<IO>(io: IO, request: Request<Empty<Bytes>>) -> Result<Answer, hyper::Error>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // Go's servers do not care for the case of names, but others were seen that do.
    let (mut sender, connection) = http1::Builder::new().title_case_headers(true).handshake(TokioIo::new(io)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            debug!(%error, "a backend's connection failed before it was upgraded");
        }
    });
    let response = sender.send_request(request).await?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let (parts, body) = response.into_parts();
        let upgraded = hyper::upgrade::on(Response::from_parts(parts.clone(), body)).await?;
        return Ok(Answer::Switched(parts, TokioIo::new(upgraded)));
    }
    let (parts, body) = response.into_parts();
    let body = match Limited::new(body, MAX_REFUSAL_BYTES).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => Bytes::from(format!("the backend's answer could not be read: {error}\n")),
    };
    Ok(Answer::Refused(Response::from_parts(parts, body)))
}

/// The request with these headers, which are the target's own before all others.
pub(crate) fn request(
    method: Method,
    mut headers: HeaderMap,
    target: &Target,
) -> Result<Request<Empty<Bytes>>, http::Error> {
    // A name may be in the target several times, so that the client's go first and all of the target's come then.
    target.headers.keys().for_each(|name| drop(headers.remove(name)));
    headers.extend(target.headers.clone());
    headers.insert(HOST, HeaderValue::try_from(&target.host)?);
    let mut request =
        Request::builder().method(method).uri(target.path_and_query.as_str()).body(Empty::<Bytes>::new())?;
    *request.headers_mut() = headers;
    Ok(request)
}

/// Asks for SPDY and one of the protocols, best first; the connection and the protocol that the backend chose. Where it
/// chose none, it is the last one, as upstream falls back.
pub async fn upgrade_to_spdy<IO>(
    io: IO,
    target: &Target,
    protocols: &[&str],
) -> Result<(SpdyConnection, String), UpgradeError>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut headers = HeaderMap::new();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(SPDY));
    for protocol in protocols {
        headers.append(STREAM_PROTOCOL, HeaderValue::try_from(*protocol).map_err(http::Error::from)?);
    }
    match ask(io, request(Method::POST, headers, target)?).await? {
        Answer::Switched(parts, upgraded) if is_spdy_request(&parts.headers) => {
            let chosen = parts.headers.get(STREAM_PROTOCOL).and_then(|protocol| protocol.to_str().ok());
            let fallback = protocols.last().copied().unwrap_or_default();
            let protocol = chosen.filter(|protocol| !protocol.is_empty()).unwrap_or(fallback).to_owned();
            Ok((SpdyConnection::client(upgraded), protocol))
        }
        Answer::Switched(parts, _) => {
            Err(refused(parts.status, b"the backend switched to another protocol than SPDY/3.1"))
        }
        Answer::Refused(response) => Err(refused(response.status(), response.body())),
    }
}

fn refused(code: StatusCode, body: &[u8]) -> UpgradeError {
    let status = serde_json::from_slice::<Value>(body).ok().filter(|value| value["kind"] == "Status");
    let text = String::from_utf8_lossy(body).trim().to_owned();
    let message = match status.as_ref().and_then(|status| status["message"].as_str()) {
        Some(message) => message.to_owned(),
        None if text.is_empty() => format!("the backend answered {code}"),
        None => text,
    };
    UpgradeError::Refused { code: code.as_u16(), message, status: status.map(Box::new) }
}

/// Dials a URL of plain HTTP, such as a container runtime's streaming server has.
///
/// # Errors
/// `InvalidInput` where it is something else, such as HTTPS, or what dialling gave.
pub async fn dial_url(url: &str) -> io::Result<(TcpStream, Target)> {
    let invalid = |reason: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("{url:?} {reason}"));
    let uri: Uri = url.parse().map_err(|_| invalid("is not a URL"))?;
    if uri.scheme_str() != Some("http") {
        return Err(invalid("is not plain http; the runtime's streaming server must not use TLS"));
    }
    let host = uri.host().ok_or_else(|| invalid("has no host"))?;
    let port = uri.port_u16().unwrap_or(80);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let target = Target::new(uri.authority().map_or(host, |authority| authority.as_str()), path);
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
    // Keystrokes must not wait for each other.
    stream.set_nodelay(true)?;
    Ok((stream, target))
}

/// Headers that end at this hop, or that only this hop may see.
const NOT_FORWARDED: [HeaderName; 2] = [http::header::AUTHORIZATION, HOST];

/// The client's headers as a backend may see them: without what proved who the client is.
pub(crate) fn forwarded(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    NOT_FORWARDED.iter().for_each(|name| drop(headers.remove(name)));
    let impersonation = |name: &&HeaderName| name.as_str().starts_with("impersonate-");
    let names: Vec<HeaderName> = headers.keys().filter(impersonation).cloned().collect();
    names.iter().for_each(|name| drop(headers.remove(name)));
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_end_here() {
        let lines = [("authorization", "Bearer x"), ("impersonate-user", "y"), ("host", "z"), ("upgrade", "SPDY/3.1")];
        let header = |(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
        let headers = forwarded(&lines.into_iter().map(header).collect());
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["upgrade"]);
    }

    #[test]
    fn the_target_has_the_last_word() {
        let mut target = Target::new("127.0.0.1:10250", "/exec/ns/pod/main?command=ls");
        target.headers.append("x-a", HeaderValue::from_static("1"));
        target.headers.append("x-a", HeaderValue::from_static("2"));
        let mut client = HeaderMap::new();
        client.insert("x-a", HeaderValue::from_static("0"));
        client.insert("x-b", HeaderValue::from_static("3"));
        let request = request(Method::POST, client, &target).expect("a good request");
        assert_eq!(request.headers().get_all("x-a").iter().collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(request.headers()["x-b"], "3");
        assert_eq!(request.headers()[HOST], "127.0.0.1:10250");
        assert_eq!(request.uri().path(), "/exec/ns/pod/main");
    }

    #[test]
    fn refusals_tell_what_the_backend_said() {
        let check = |body: &str, expected: &str, is_status: bool| {
            let error = refused(StatusCode::NOT_FOUND, body.as_bytes());
            assert_eq!(error.to_string(), format!("unable to upgrade connection: {expected}"));
            assert!(matches!(error, UpgradeError::Refused { status, .. } if status.is_some() == is_status));
        };
        check("container not found (\"x\")\n", "container not found (\"x\")", false);
        check(r#"{"kind":"Status","message":"no","code":404}"#, "no", true);
        check("", "the backend answered 404 Not Found", false);
    }

    #[tokio::test]
    async fn only_plain_http_is_dialled() {
        for url in ["https://127.0.0.1:1/x", "/x", "not a url"] {
            let error = dial_url(url).await.expect_err("this is not dialled");
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{url}");
        }
    }
}
