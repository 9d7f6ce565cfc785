//! The webhook: it allows everything, with a certificate of its own, and says which handshakes fail.
//!
//! Invariant: connections, bodies and handshakes are bounded.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use kedge_pki::{CertificateAuthority, Identity, LeafRequest};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::{Error, lines};

const MOST_CONNECTIONS: usize = 64;
const MOST_BYTES: usize = 3 << 20;
const PATIENCE: Duration = Duration::from_secs(10);

/// Listens, and serves until `shutdown`; where it listens.
pub(crate) async fn serve(address: SocketAddr, shutdown: CancellationToken) -> Result<SocketAddr, Error> {
    let tls = kedge_pki::server_config_without_client_certificates(&identity()?)?;
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listen = |source| Error::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    tokio::spawn(async move {
        let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        while let Ok(permit) = room.clone().acquire_owned().await {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, peer)) = accepted else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                connection(acceptor, stream, peer).await;
                drop(permit);
            });
        }
    });
    Ok(address)
}

async fn connection(acceptor: TlsAcceptor, stream: TcpStream, peer: SocketAddr) {
    let failed = match timeout(PATIENCE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            let service =
                service_fn(|request: http::Request<Incoming>| async { Ok::<_, Infallible>(respond(request).await) });
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
            // What goes wrong on a client's connection is the client's business.
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            return;
        }
        Ok(Err(error)) => reason(&error),
        Err(_) => "i/o timeout".to_owned(),
    };
    lines::of_server(&format!("TLS handshake error from {peer}: {failed}"));
}

/// As upstream's server says it.
fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => "EOF".to_owned(),
        std::io::ErrorKind::ConnectionReset => "read: connection reset by peer".to_owned(),
        _ => error.to_string(),
    }
}

async fn respond(request: http::Request<Incoming>) -> Response<Full<Bytes>> {
    let body = timeout(PATIENCE, Limited::new(request.into_body(), MOST_BYTES).collect()).await;
    let review = match body {
        Ok(Ok(body)) => serde_json::from_slice(&body.to_bytes()).unwrap_or(Value::Null),
        _ => Value::Null,
    };
    let (status, body) = match admitted(&review) {
        Some(answer) => (StatusCode::OK, answer.to_string()),
        None => (StatusCode::BAD_REQUEST, "an AdmissionReview with a request is expected\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
}

/// The answer to a review: yes.
fn admitted(review: &Value) -> Option<Value> {
    let uid = review["request"]["uid"].as_str()?;
    let (version, kind) = (&review["apiVersion"], &review["kind"]);
    Some(json!({"apiVersion": version, "kind": kind, "response": {"uid": uid, "allowed": true}}))
}

fn identity() -> Result<Identity, Error> {
    let scratch = tempfile::tempdir().map_err(Error::Scratch)?;
    let authority = CertificateAuthority::ensure(scratch.path(), "ca", "webhook-ca")?;
    Ok(authority.issue(&LeafRequest::server("webhook", vec!["webhook".to_owned()], Vec::new()))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn reviews_are_answered_and_other_bodies_refused() {
        let shutdown = CancellationToken::new();
        let address = serve("127.0.0.1:0".parse().expect("an address"), shutdown.clone()).await.expect("it listens");
        let config = kedge_pki::client_config_for_any_server().expect("it is a configuration");
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        for (body, status, words) in [
            (r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"7"}}"#, "200", "\"7\""),
            ("{}", "400", "is expected"),
        ] {
            let stream = TcpStream::connect(address).await.expect("it is there");
            let name = rustls_pki_types::ServerName::try_from("webhook").expect("a name");
            let mut stream = connector.connect(name, stream).await.expect("a handshake");
            let request = format!(
                "POST /validate HTTP/1.1\r\nhost: webhook\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(request.as_bytes()).await.expect("it is sent");
            let mut answer = Vec::new();
            // A server that closes without a word is no trouble here.
            let _ = stream.read_to_end(&mut answer).await;
            let answer = String::from_utf8_lossy(&answer).into_owned();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(words), "{answer}");
        }
        shutdown.cancel();
    }

    #[test]
    fn failed_handshakes_are_told_as_upstream_tells_them() {
        let of = |kind: std::io::ErrorKind| reason(&std::io::Error::new(kind, "other words"));
        assert_eq!(of(std::io::ErrorKind::UnexpectedEof), "EOF");
        assert_eq!(of(std::io::ErrorKind::InvalidData), "other words");
    }
}
