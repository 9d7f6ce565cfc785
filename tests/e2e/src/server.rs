//! An HTTP server of the test's own inside a host's network namespace, for HTTP/1.1 and for HTTP/2 without TLS.
//!
//! Invariant: it ends with its value, and nobody outside of the namespace reaches it.

use std::convert::Infallible;
use std::fs::File;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use http_body_util::combinators::BoxBody;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use nix::sched::{CloneFlags, setns};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// What it answers.
pub type Answer = Response<BoxBody<Bytes, Infallible>>;

/// A running server.
pub struct Server {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens at an address of the namespace.
    pub fn start(
        namespace: &str,
        address: SocketAddr,
        handler: impl Fn(Request<Incoming>) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (tell, ready) = std::sync::mpsc::channel();
        let file = format!("/run/netns/{namespace}");
        let handler = Arc::new(handler);
        let thread = std::thread::spawn(move || {
            let namespace = File::open(file).expect("the namespace is there");
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("root may enter a namespace");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime can be made").block_on(async move {
                let listener = TcpListener::bind(address).await.expect("the address is free");
                tell.send(()).expect("the test waits");
                tokio::select! {
                    () = serve(listener, handler) => {}
                    _ = stopped => {}
                }
            });
        });
        ready.recv().expect("the server starts");
        Self { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // It may have panicked, which the test shows anyway.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve<H: Fn(Request<Incoming>) -> Answer + Send + Sync + 'static>(listener: TcpListener, handler: Arc<H>) {
    while let Ok((stream, _)) = listener.accept().await {
        let handler = handler.clone();
        tokio::spawn(async move {
            let answer = service_fn(move |request| std::future::ready(Ok::<_, Infallible>(handler(request))));
            // A client that leaves early is no matter of the test's.
            let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

/// An answer of bytes.
pub fn answer(code: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::builder().status(code);
    for (name, value) in headers {
        answer = answer.header(*name, *value);
    }
    answer.body(http_body_util::Full::new(body.into()).boxed()).expect("the headers are good")
}

/// What the health service of gRPC answers: serving.
pub fn grpc_serving() -> Answer {
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
    let frames = [
        Ok(hyper::body::Frame::data(Bytes::from_static(&[0, 0, 0, 0, 2, 8, 1]))),
        Ok(hyper::body::Frame::trailers(trailers)),
    ];
    let body = http_body_util::StreamBody::new(futures::stream::iter(frames));
    let answer = Response::builder().header("content-type", "application/grpc");
    answer.body(BodyExt::boxed(body)).expect("the headers are good")
}
