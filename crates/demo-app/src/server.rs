//! The server: connections in, answers out, with bounds on everything a client could hold or send.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::USER_AGENT;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::answer::{Answer, Request, answer};
use crate::needs::Need;

const BODY_MAX: usize = 1024 * 1024;
const CONNECTIONS_MAX: usize = 1024;
/// How long a client may take for its headers, and for its body.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long requests in flight may take after the shutdown; a little more than the longest delay.
const DRAIN: Duration = Duration::from_secs(15);

/// How the user agent of a kubelet's probe begins.
const PROBE_AGENT: &[u8] = b"kube-probe/";

/// Why the application can't serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken or not ours.
    #[error("the demo can't listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
}

/// Serves on `listen` until `shutdown`, then lets requests in flight end. It is ready once what it `needs`, a host and a
/// port, takes connections; at once where it needs nothing.
pub async fn run(listen: SocketAddr, needs: Option<String>, shutdown: CancellationToken) -> Result<(), Error> {
    let listener = TcpListener::bind(listen).await.map_err(|source| Error::Listen { address: listen, source })?;
    tracing::info!(%listen, "serving");
    let need = needs.map(|target| Arc::new(Need::new(target)));
    let trying = async {
        match &need {
            Some(need) => need.keep_trying().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = trying => {}
        () = serve(listener, need.clone(), shutdown) => {}
    }
    Ok(())
}

/// Who answers.
#[derive(Clone)]
struct Host {
    name: Arc<str>,
    need: Option<Arc<Need>>,
}

async fn serve(listener: TcpListener, need: Option<Arc<Need>>, shutdown: CancellationToken) {
    let host = Host { name: nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into(), need };
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let connections = TaskTracker::new();
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { break };
        tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let connection = serve_connection(stream, peer.ip(), host.clone(), shutdown.clone());
                    connections.spawn(async move {
                        connection.await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    // Out of file descriptors, mostly: connections that end give some back.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(DRAIN, connections.wait()).await.is_err() {
        tracing::warn!("requests were still in flight when the time was up");
    }
}

async fn serve_connection(stream: TcpStream, peer: IpAddr, host: Host, shutdown: CancellationToken) {
    let service = service_fn(move |request| {
        let host = host.clone();
        async move { Ok::<_, Infallible>(respond(request, peer, &host).await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        // What goes wrong on a client's connection is the client's business.
        _ = connection.as_mut() => return,
        () = shutdown.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

/// Answers, and writes a line of it to the log: a demo is there to be looked at.
async fn respond(request: http::Request<Incoming>, peer: IpAddr, host: &Host) -> Response<Full<Bytes>> {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let is_probe = request.headers().get(USER_AGENT).is_some_and(|agent| agent.as_bytes().starts_with(PROBE_AGENT));
    let response = answered(request, peer, host).await;
    // Probes come every other second and would hide everything else.
    if !is_probe {
        tracing::info!(%peer, status = response.status().as_u16(), "{method} {uri}");
    }
    response
}

async fn answered(request: http::Request<Incoming>, peer: IpAddr, host: &Host) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    if parts.uri.path() == "/readyz" && host.need.as_ref().is_some_and(|need| !need.is_met()) {
        return refusal(StatusCode::SERVICE_UNAVAILABLE, "503 what it needs cannot be reached\n");
    }
    if body.size_hint().lower() > BODY_MAX as u64 {
        return too_large();
    }
    let body = match tokio::time::timeout(PATIENCE, Limited::new(body, BODY_MAX).collect()).await {
        Ok(Ok(body)) => body.to_bytes().to_vec(),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            return too_large();
        }
        Ok(Err(_)) => return refusal(StatusCode::BAD_REQUEST, "400 the body can't be read\n"),
        Err(_) => return refusal(StatusCode::REQUEST_TIMEOUT, "408 the body takes too long\n"),
    };
    let request = Request { method: parts.method, uri: parts.uri, headers: parts.headers, body, peer };
    let Answer { status, headers, body, delay } = answer(&request, &host.name);
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    for (name, value) in headers {
        // A hostname that can't stand in a header is left out of it.
        if let Ok(value) = value.parse() {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

fn too_large() -> Response<Full<Bytes>> {
    refusal(StatusCode::PAYLOAD_TOO_LARGE, "413 the body is longer than 1 MiB\n")
}

fn refusal(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn started() -> (SocketAddr, CancellationToken, tokio::task::JoinHandle<()>) {
        started_with(None).await
    }

    async fn started_with(need: Option<Arc<Need>>) -> (SocketAddr, CancellationToken, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(serve(listener, need, shutdown.clone()));
        (address, shutdown, running)
    }

    async fn send(address: SocketAddr, request: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request).await.unwrap();
        stream
    }

    async fn read(mut stream: TcpStream) -> String {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn it_serves_and_ends_after_the_requests_in_flight() {
        let (address, shutdown, running) = started().await;
        let answer = read(send(address, b"GET /ip HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("\"origin\": \"127.0.0.1\""), "{answer}");
        let head = read(send(address, b"HEAD /get HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await).await;
        assert!(head.ends_with("\r\n\r\n"), "{head}");
        // The first bytes of the answer show that the request is in flight when the shutdown comes.
        let mut slow =
            send(address, b"POST /post HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n").await;
        let mut first = [0; 12];
        slow.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 100");
        shutdown.cancel();
        slow.write_all(b"hi").await.unwrap();
        let answer = read(slow).await;
        assert!(answer.contains("\"data\": \"hi\""), "{answer}");
        running.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn it_is_not_ready_without_what_it_needs() {
        let need = Arc::new(Need::new("127.0.0.1:1".to_owned()));
        let (address, shutdown, running) = started_with(Some(need)).await;
        for (path, status) in [("/readyz", 503), ("/livez", 200)] {
            let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            let answer = read(send(address, request.as_bytes()).await).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        }
        shutdown.cancel();
        running.await.unwrap();
    }

    #[tokio::test]
    async fn large_bodies_are_refused() {
        let (address, _shutdown, _running) = started().await;
        let request =
            format!("POST /post HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", BODY_MAX + 1);
        let answer = read(send(address, request.as_bytes()).await).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    }

    #[tokio::test]
    async fn a_taken_address_is_an_error() {
        let (address, _shutdown, _running) = started().await;
        let error = run(address, None, CancellationToken::new()).await.unwrap_err();
        assert_eq!(error.to_string(), format!("the demo can't listen on {address}"));
    }
}
