//! A tiny HTTP server for health checks: it reads no bodies and answers from a function.
//!
//! Invariant: a client that says nothing, or says it slowly, holds one of a bounded number of connections for seconds.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

const CONNECTIONS: usize = 64;
const PATIENCE: Duration = Duration::from_secs(5);

/// What to answer.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: String,
}

/// Serves until `shutdown`. `answer` gets the path.
pub(crate) async fn serve(
    listener: TcpListener,
    shutdown: CancellationToken,
    answer: impl Fn(&str) -> Answer + Clone + Send + Sync + 'static,
) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else { return };
        let stream = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, mostly: others need the time as well.
                    tracing::debug!(%error, "a health check could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let (answer, shutdown) = (answer.clone(), shutdown.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let response = respond(answer(request.uri().path()));
                async move { Ok::<_, Infallible>(response) }
            });
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE).keep_alive(false);
            tokio::select! {
                () = shutdown.cancelled() => {}
                // What goes wrong on a client's connection is the client's business.
                _ = builder.serve_connection(TokioIo::new(stream), service) => {}
            }
            drop(permit);
        });
    }
}

fn respond(answer: Answer) -> Response<Full<Bytes>> {
    let mut response = Response::builder().status(answer.status).header("X-Content-Type-Options", "nosniff");
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    response.body(Full::new(Bytes::from(answer.body))).expect("names and values are ours")
}
