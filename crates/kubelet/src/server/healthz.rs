//! `/healthz` in plain HTTP on a port of its own (10248), for init systems and kubeadm.
//!
//! Nothing else is there, and nobody is asked who they are. Invariant: a port that is taken stops nothing; it is tried again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::{Body, health, text};
use crate::agent::Agent;

/// Upstream's.
const RETRY: Duration = Duration::from_secs(5);
const MAX_CONNECTIONS: usize = 32;
const REQUEST_PATIENCE: Duration = Duration::from_secs(30);

/// Serves until the agent ends.
pub(crate) async fn run(agent: Arc<Agent>) {
    let config = &agent.config;
    if config.healthz_port == 0 {
        return;
    }
    let address = SocketAddr::new(config.healthz_bind_address, config.healthz_port);
    let mut told = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return serve(&agent, listener).await,
            Err(error) if !told => tracing::warn!(%address, %error, "failed to start the healthz server; trying again"),
            Err(_) => {}
        }
        told = true;
        tokio::time::sleep(RETRY).await;
    }
}

async fn serve(agent: &Arc<Agent>, listener: TcpListener) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors: others have to end first.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let agent = agent.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = agent.shutdown.cancelled() => {}
                () = connection(&agent, stream) => {}
            }
            drop(permit);
        });
    }
}

async fn connection(agent: &Agent, stream: TcpStream) {
    let service =
        service_fn(
            |request: Request<Incoming>| async move { Ok::<_, std::convert::Infallible>(answer(agent, &request)) },
        );
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_PATIENCE)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        tracing::debug!(%error, "a connection to the healthz server ended");
    }
}

fn answer(agent: &Agent, request: &Request<Incoming>) -> http::Response<Body> {
    let parts: Vec<&str> = request.uri().path().trim_matches('/').split('/').collect();
    match parts.as_slice() {
        ["healthz", name @ ..] if matches!(*request.method(), Method::GET | Method::HEAD) => {
            health::answer(agent, name, request.uri().query().unwrap_or_default())
        }
        _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}
