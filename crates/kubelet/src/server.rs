//! The kubelet's HTTPS server on port 10250: logs, exec, attach, port-forward, pods, health, statistics and metrics.
//!
//! It changes nothing. Invariant: every request is authenticated by the cluster's CA or a token (or is anonymous, where that
//! is configured), and authorized by the API server.

mod actions;
mod authorize;
mod cadvisor;
mod configz;
mod container_logs;
mod health;
pub(crate) mod healthz;
mod metrics;
mod node_logs;
mod resource;
mod routes;
mod stats;
mod streams;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use kedge_stats::Collector;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::agent::Agent;
use crate::manager::PodTable;
use crate::run::Error;
use authorize::{Authorizer, peer_user};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections at a time; further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 512;

/// The body of an answer: whole or streamed.
type Body = BoxBody<Bytes, std::io::Error>;

/// What every handler needs.
struct Server {
    agent: Arc<Agent>,
    pods: PodTable,
    collector: Arc<Collector>,
    authorizer: Authorizer,
}

/// Binds the port and serves until `shutdown`.
pub(crate) async fn start(
    agent: Arc<Agent>,
    pods: PodTable,
    collector: Arc<Collector>,
    tls: Arc<rustls::ServerConfig>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let mut listeners = Vec::new();
    for ip in agent.config.node_ips() {
        let address = SocketAddr::new(ip, agent.config.port);
        listeners.push(TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })?);
    }
    let authorizer = Authorizer::new(agent.objects.client().clone(), &agent.config);
    let server = Arc::new(Server { agent, pods, collector, authorizer });
    let acceptor = TlsAcceptor::from(tls);
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    for listener in listeners {
        tokio::spawn(accept(listener, server.clone(), acceptor.clone(), room.clone(), shutdown.clone()));
    }
    Ok(())
}

async fn accept(
    listener: TcpListener,
    server: Arc<Server>,
    acceptor: TlsAcceptor,
    room: Arc<Semaphore>,
    shutdown: CancellationToken,
) {
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            // Out of file descriptors: others have to end first.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (server, acceptor, shutdown) = (server.clone(), acceptor.clone(), shutdown.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = connection(server, acceptor, stream) => {}
            }
            drop(permit);
        });
    }
}

async fn connection(server: Arc<Server>, acceptor: TlsAcceptor, stream: TcpStream) {
    let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await;
    let Ok(Ok(stream)) = handshake else { return };
    let user = peer_user(stream.get_ref().1);
    let service = service_fn(move |request: Request<Incoming>| {
        let (server, user) = (server.clone(), user.clone());
        async move { Ok::<_, std::convert::Infallible>(routes::handle(&server, user, request).await) }
    });
    let served =
        auto::Builder::new(TokioExecutor::new()).serve_connection_with_upgrades(TokioIo::new(stream), service).await;
    if let Err(error) = served {
        tracing::debug!(error, "a connection to the kubelet's server ended");
    }
}

/// A whole answer in plain text.
fn text(status: StatusCode, body: impl Into<String>) -> Response<Body> {
    answer(status, "text/plain; charset=utf-8", body.into())
}

/// A whole answer in JSON.
fn json(value: &impl serde::Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(body) => answer(StatusCode::OK, "application/json", body),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    response
}

fn full(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).map_err(|never| match never {}).boxed()
}
