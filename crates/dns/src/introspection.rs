//! `/metrics`, `/health` and `/ready` over HTTP, on one port of the node: CoreDNS has a port for each, which a process that
//! shares its address with everything else on the node had better not take.
//!
//! Invariant: a client that says nothing, or says it slowly, holds one of a bounded number of connections for seconds.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::resolver::Resolver;
use crate::server::next_connection;

const CONNECTIONS: usize = 32;
const PATIENCE: Duration = Duration::from_secs(5);

/// Serves until `shutdown`, whom the resolver would answer too. From `asked` on it is not ready.
pub(crate) async fn serve(
    listener: TcpListener,
    resolver: Arc<Resolver>,
    asked: CancellationToken,
    shutdown: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let Some((stream, _)) = next_connection(&listener, &resolver, &shutdown).await else { return };
        let (resolver, asked, shutdown) = (resolver.clone(), asked.clone(), shutdown.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let response = answer(&resolver, asked.is_cancelled(), request.uri().path());
                async move { Ok::<_, Infallible>(response) }
            });
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE).keep_alive(false);
            tokio::select! {
                () = shutdown.cancelled() => {}
                // What goes wrong on a client's connection is the client's business.
                _ = builder.serve_connection(TokioIo::new(stream), service) => {}
            }
            drop(slot);
        });
    }
}

fn answer(resolver: &Resolver, is_ending: bool, path: &str) -> Response<Full<Bytes>> {
    let (status, body) = match path {
        // Also as a lame duck, as CoreDNS: it is well, and nobody is to kill it.
        "/health" => (StatusCode::OK, "OK".to_owned()),
        "/ready" if is_ending => (StatusCode::SERVICE_UNAVAILABLE, "Shutting down".to_owned()),
        // CoreDNS names the plugins that are not ready.
        "/ready" if resolver.catalog.read().is_none() => (StatusCode::SERVICE_UNAVAILABLE, "kubernetes".to_owned()),
        "/ready" => (StatusCode::OK, "OK".to_owned()),
        "/metrics" => {
            let routing = resolver.routing();
            (StatusCode::OK, resolver.metrics.render(&routing.cache_sizes(), routing.hosts()))
        }
        _ => (StatusCode::NOT_FOUND, "404 page not found\n".to_owned()),
    };
    let kind =
        if path == "/metrics" { "text/plain; version=0.0.4; charset=utf-8" } else { "text/plain; charset=utf-8" };
    let builder = Response::builder().status(status).header(http::header::CONTENT_TYPE, kind);
    builder.body(Full::new(Bytes::from(body))).expect("the parts are ours")
}
