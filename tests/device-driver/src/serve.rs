//! gRPC over unix sockets, on a thread of its own.

use std::convert::Infallible;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use hyper::Response as HttpResponse;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

/// An answer on its way.
pub(crate) type Answer = Pin<Box<dyn Future<Output = HttpResponse<Body>> + Send>>;
/// Answers one request.
pub(crate) type Route = Arc<dyn Fn(hyper::Request<Body>) -> Answer + Send + Sync>;

/// A thread that serves until it is dropped.
pub(crate) struct Server {
    end: CancellationToken,
    sockets: Vec<PathBuf>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    /// Serves at sockets, then does `after` once.
    pub(crate) fn start<F>(sockets: Vec<PathBuf>, route: Route, after: F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let end = CancellationToken::new();
        let thread = std::thread::spawn({
            let (end, sockets) = (end.clone(), sockets.clone());
            move || run(&sockets, &route, after, &end)
        });
        Self { end, sockets, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was printed already.
            let _ = thread.join();
        }
        for socket in &self.sockets {
            let _ = std::fs::remove_file(socket);
        }
    }
}

fn run(sockets: &[PathBuf], route: &Route, after: impl Future<Output = ()> + Send + 'static, end: &CancellationToken) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made");
    runtime.block_on(async {
        for socket in sockets {
            tokio::spawn(accept(bind(socket), route.clone()));
        }
        tokio::spawn(after);
        end.cancelled().await;
    });
}

fn bind(socket: &Path) -> UnixListener {
    let _ = std::fs::remove_file(socket);
    UnixListener::bind(socket).expect("a socket of the test can be made")
}

async fn accept(listener: UnixListener, route: Route) {
    while let Ok((stream, _)) = listener.accept().await {
        let route = route.clone();
        let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
            let answer = route(request.map(Body::new));
            async move { Ok::<_, Infallible>(answer.await) }
        });
        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
    }
}

/// The last part of a request's path.
pub(crate) fn method(request: &hyper::Request<Body>) -> String {
    request.uri().path().rsplit('/').next().unwrap_or_default().to_owned()
}

/// One request, one answer.
pub(crate) fn unary<M, T>(
    request: hyper::Request<Body>,
    answer: impl FnOnce(M) -> Result<T, Status> + Send + Sync + 'static,
) -> Answer
where
    M: prost::Message + Default + 'static,
    T: prost::Message + Default + 'static,
{
    Box::pin(async move {
        let mut answer = Some(answer);
        let service = tower::service_fn(move |request: Request<M>| {
            let answer = answer.take().expect("a request is answered once");
            async move { answer(request.into_inner()).map(Response::new) }
        });
        tonic::server::Grpc::new(ProstCodec::<T, M>::default()).unary(service, request).await
    })
}
