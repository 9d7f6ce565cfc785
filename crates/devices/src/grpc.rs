//! gRPC services of the node agent at unix sockets.

use std::convert::Infallible;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

/// What a service answers.
pub(crate) type Answer = hyper::Response<Body>;

/// A socket in a directory that is made where it is not there; what an earlier life left of it is replaced.
pub(crate) fn bind(socket: &Path) -> std::io::Result<UnixListener> {
    if let Some(directory) = socket.parent() {
        std::fs::create_dir_all(directory)?;
    }
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(socket)
}

/// Answers requests until `shutdown`.
pub(crate) async fn serve<R, F>(listener: UnixListener, route: R, shutdown: CancellationToken)
where
    R: Fn(hyper::Request<Body>) -> F + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let route = Arc::new(route);
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else { continue };
        let route = route.clone();
        let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
            let answer = route(request.map(Body::new));
            async move { Ok::<_, Infallible>(answer.await) }
        });
        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service);
        let ended = shutdown.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = ended.cancelled() => {}
                _ = connection => {}
            }
        });
    }
}

/// One request, one answer.
pub(crate) async fn unary<M, T, F>(request: hyper::Request<Body>, answer: impl Fn(M) -> F) -> Answer
where
    M: prost::Message + Default + 'static,
    T: prost::Message + Default + 'static,
    F: Future<Output = Result<T, Status>>,
{
    let service = tower::service_fn(|request: Request<M>| {
        let answer = answer(request.into_inner());
        async move { answer.await.map(Response::new) }
    });
    tonic::server::Grpc::new(ProstCodec::<T, M>::default()).unary(service, request).await
}

/// A method that is not there.
pub(crate) fn unknown(request: &hyper::Request<Body>) -> Answer {
    Status::unimplemented(request.uri().path().to_owned()).into_http()
}
