//! Upgrades over real HTTP/1.1 on loopback: port-forward straight, through the proxy, and inside WebSocket.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{SinkExt as _, StreamExt as _};
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use kedge_streaming::{
    Headers, PORT_FORWARD_PROTOCOLS, PodIdentity, SpdyConnection, Target, UpgradeError, proxy_upgrade,
    serve_port_forward, tunnel_port_forward, upgrade_to_spdy,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

type Handler = Arc<dyn Fn(Request<Incoming>) -> BoxFuture<'static, Response<Bytes>> + Send + Sync>;

/// A server on loopback that gives every request to the handler.
async fn serve(handler: Handler) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let handler = handler.clone();
            let service = hyper::service::service_fn(move |request| {
                let answer = handler(request);
                async move { Ok::<_, Infallible>(answer.await.map(Full::new)) }
            });
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection.with_upgrades());
        }
    });
    address
}

/// A process that answers each line with itself, and ends when its client does.
async fn echo_process() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let port = listener.local_addr().expect("bound").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await
            });
        }
    });
    port
}

/// A kubelet that forwards into this machine's own loopback.
async fn kubelet() -> SocketAddr {
    serve(Arc::new(|request| {
        let pod = PodIdentity { name: "web_default".to_owned(), uid: "u1".to_owned() };
        let dial = |port| async move { TcpStream::connect(("127.0.0.1", port)).await };
        Box::pin(async move { serve_port_forward(request, pod, dial).spawn() })
    }))
    .await
}

fn target() -> Target {
    Target::new("kubelet", "/portForward/default/web")
}

/// Forwards one connection and returns what came back and what the error stream said.
async fn forward(connection: &SpdyConnection, port: u16, id: &str, text: &[u8]) -> (Vec<u8>, String) {
    let headers =
        |kind: &str| Headers::new().with("streamType", kind).with("port", &port.to_string()).with("requestID", id);
    let mut error = connection.open_stream(headers("error")).await.expect("error stream");
    error.shutdown().await.expect("nothing is written to it");
    let mut data = connection.open_stream(headers("data")).await.expect("data stream");
    // Where the dial failed, the stream may be ended before this is written; the error stream tells.
    let _ = data.write_all(text).await;
    let _ = data.shutdown().await;
    let (mut answer, mut complaint) = (Vec::new(), String::new());
    data.read_to_end(&mut answer).await.expect("data");
    error.read_to_string(&mut complaint).await.expect("error text");
    (answer, complaint)
}

async fn check_forwarding(connection: &SpdyConnection) {
    let port = echo_process().await;
    let large = vec![42; 1_000_000];
    let (one, two, three) = tokio::join!(
        forward(connection, port, "0", b"hello"),
        forward(connection, port, "1", &large),
        forward(connection, port, "2", b""),
    );
    assert_eq!(one, (b"hello".to_vec(), String::new()));
    assert!(two == (large, String::new()), "{} {}", two.0.len(), two.1);
    assert_eq!(three, (Vec::new(), String::new()));
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("loopback").local_addr().expect("bound").port();
    let (answer, complaint) = forward(connection, closed, "3", b"x").await;
    assert_eq!(answer, b"");
    let expected = format!("error forwarding port {closed} to pod web_default, uid u1: Connection refused");
    assert!(complaint.starts_with(&expected), "{complaint}");
}

#[tokio::test]
async fn port_forward_over_spdy() {
    let io = TcpStream::connect(kubelet().await).await.expect("connect");
    let (connection, protocol) = upgrade_to_spdy(io, &target(), &PORT_FORWARD_PROTOCOLS).await.expect("upgrade");
    assert_eq!(protocol, "portforward.k8s.io");
    check_forwarding(&connection).await;
    connection.close().await;
}

#[tokio::test]
async fn port_forward_through_the_proxy() {
    let kubelet = kubelet().await;
    let apiserver = serve(Arc::new(move |request| {
        Box::pin(async move {
            let backend = TcpStream::connect(kubelet).await.expect("the kubelet listens");
            proxy_upgrade(request, backend, target()).await.spawn()
        })
    }))
    .await;
    let io = TcpStream::connect(apiserver).await.expect("connect");
    let (connection, _) = upgrade_to_spdy(io, &target(), &PORT_FORWARD_PROTOCOLS).await.expect("upgrade");
    check_forwarding(&connection).await;
    // A refusal comes through as the kubelet gave it.
    let io = TcpStream::connect(apiserver).await.expect("connect");
    let refused = upgrade_to_spdy(io, &target(), &["other.k8s.io"]).await.err().expect("the protocol is unknown");
    assert!(matches!(refused, UpgradeError::Refused { code: 403, .. }), "{refused}");
    assert!(refused.to_string().contains("client supports [other.k8s.io]"), "{refused}");
}

/// The bytes inside a client's WebSocket connection, as kubectl sees them.
async fn open_tunnel(apiserver: SocketAddr) -> io::Result<SpdyConnection> {
    let mut request = format!("ws://{apiserver}/api/v1/namespaces/default/pods/web/portforward")
        .into_client_request()
        .map_err(io::Error::other)?;
    let protocol = HeaderValue::from_static("SPDY/3.1+portforward.k8s.io");
    request.headers_mut().insert("sec-websocket-protocol", protocol.clone());
    let stream = TcpStream::connect(apiserver).await?;
    let (socket, response) = tokio_tungstenite::client_async(request, stream).await.map_err(io::Error::other)?;
    assert_eq!(response.headers()["sec-websocket-protocol"], protocol);
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    tokio::spawn(async move {
        let (mut sink, mut source) = socket.split();
        let (mut read, mut write) = tokio::io::split(theirs);
        let outward = async {
            let mut buffer = vec![0; 4096];
            loop {
                match read.read(&mut buffer).await.expect("duplex") {
                    0 => return,
                    length => sink.send(Message::binary(buffer[..length].to_vec())).await.expect("send"),
                }
            }
        };
        let inward = async {
            while let Some(Ok(Message::Binary(bytes))) = source.next().await {
                write.write_all(&bytes).await.expect("duplex");
            }
        };
        tokio::select! { () = outward => {}, () = inward => {} }
    });
    Ok(SpdyConnection::client(ours))
}

#[tokio::test]
async fn port_forward_inside_websocket() {
    let kubelet = kubelet().await;
    let apiserver = serve(Arc::new(move |request| {
        Box::pin(async move {
            let backend = TcpStream::connect(kubelet).await.expect("the kubelet listens");
            tunnel_port_forward(request, backend, target()).await.spawn()
        })
    }))
    .await;
    let connection = open_tunnel(apiserver).await.expect("tunnel");
    check_forwarding(&connection).await;
}

#[tokio::test]
async fn a_kubelet_that_refuses_is_heard_by_websocket_clients() {
    let kubelet = serve(Arc::new(|_| {
        Box::pin(async {
            let mut response = Response::new(Bytes::from_static(b"pod does not exist\n"));
            *response.status_mut() = http::StatusCode::NOT_FOUND;
            response
        })
    }))
    .await;
    let apiserver = serve(Arc::new(move |request| {
        Box::pin(async move {
            let backend = TcpStream::connect(kubelet).await.expect("the kubelet listens");
            tunnel_port_forward(request, backend, target()).await.spawn()
        })
    }))
    .await;
    let error = open_tunnel(apiserver).await.err().expect("the pod does not exist");
    assert!(error.to_string().contains("404"), "{error}");
}

#[tokio::test]
async fn a_reset_data_stream_ends_its_forwarding() {
    let port = echo_process().await;
    let io = TcpStream::connect(kubelet().await).await.expect("connect");
    let (connection, _) = upgrade_to_spdy(io, &target(), &PORT_FORWARD_PROTOCOLS).await.expect("upgrade");
    // Of old: no request id, the error stream first.
    let headers = |kind: &str| Headers::new().with("streamType", kind).with("port", &port.to_string());
    let mut error = connection.open_stream(headers("error")).await.expect("error stream");
    let mut data = connection.open_stream(headers("data")).await.expect("data stream");
    data.write_all(b"ping").await.expect("write");
    let mut answer = [0; 4];
    data.read_exact(&mut answer).await.expect("answer");
    data.reset();
    let mut complaint = String::new();
    error.read_to_string(&mut complaint).await.expect("the error stream is ended too");
    assert_eq!((&answer, complaint.as_str()), (b"ping", ""));
}
