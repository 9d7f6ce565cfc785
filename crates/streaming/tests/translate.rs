//! Exec over WebSocket against a SPDY backend of our own: what happens when something goes wrong.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{SinkExt as _, StreamExt as _};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use kedge_streaming::{SpdyConnection, SpdyStream, StreamOptions, Target, translate_streams};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

type Handler = Arc<dyn Fn(Request<Incoming>) -> BoxFuture<'static, Response<Bytes>> + Send + Sync>;
type Socket = WebSocketStream<TcpStream>;

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

/// The streams as a kubelet has them.
struct Streams {
    connection: SpdyConnection,
    error: SpdyStream,
    stdin: SpdyStream,
    stdout: SpdyStream,
}

/// A kubelet that speaks version 4 and hands the streams of each exec to the test.
async fn kubelet() -> (SocketAddr, mpsc::Receiver<Streams>) {
    let (sender, receiver) = mpsc::channel(1);
    let address = serve(Arc::new(move |mut request| {
        let sender = sender.clone();
        Box::pin(async move {
            let offered = request.headers().get_all("x-stream-protocol-version");
            assert!(offered.iter().any(|protocol| protocol == "v4.channel.k8s.io"));
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let io = TokioIo::new(upgrade.await.expect("an upgrade"));
                let streams = accept_streams(SpdyConnection::server(io)).await;
                // The test may have seen enough.
                let _ = sender.send(streams).await;
            });
            let mut response = Response::new(Bytes::new());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            for (name, value) in
                [("connection", "Upgrade"), ("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", "v4.channel.k8s.io")]
            {
                response.headers_mut().insert(name, HeaderValue::from_static(value));
            }
            response
        })
    }))
    .await;
    (address, receiver)
}

async fn accept_streams(connection: SpdyConnection) -> Streams {
    let mut accepted = Vec::new();
    for expected in ["error", "stdin", "stdout"] {
        let incoming = connection.accept_stream().await.expect("a stream");
        assert_eq!(incoming.headers().get("streamType"), Some(expected));
        accepted.push(incoming.accept().await.expect("the client is there"));
    }
    let [error, stdin, stdout] = <[SpdyStream; 3]>::try_from(accepted).expect("three streams");
    Streams { connection, error, stdin, stdout }
}

/// An API server in front of whatever is dialled.
async fn api_server(backend: SocketAddr) -> SocketAddr {
    serve(Arc::new(move |request| {
        let options = StreamOptions { stdin: true, stdout: true, stderr: false, tty: false };
        let target = Target::new("kubelet", "/exec/default/web/main?command=x");
        let dial = move || async move { TcpStream::connect(backend).await };
        let upgrade = translate_streams(request, options, target, dial);
        Box::pin(async move { upgrade.spawn() })
    }))
    .await
}

async fn open(api: SocketAddr, protocol: &'static str) -> Result<Socket, Box<dyn std::error::Error>> {
    let mut request = format!("ws://{api}/exec").into_client_request()?;
    request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(protocol));
    let stream = TcpStream::connect(api).await?;
    let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await?;
    let first = socket.next().await.ok_or("no message")??;
    assert_eq!(first, Message::binary(vec![1]), "the message that says: connected");
    Ok(socket)
}

/// All that comes before the end.
async fn read_all(socket: &mut Socket) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    while let Some(Ok(message)) = socket.next().await {
        if let Message::Binary(bytes) = message {
            messages.push(bytes.to_vec());
        }
    }
    messages
}

fn outcome(messages: &[Vec<u8>]) -> Value {
    let last = messages.last().expect("an outcome");
    assert_eq!(last[0], 3, "on the error channel");
    serde_json::from_slice(&last[1..]).expect("a Status")
}

#[tokio::test]
async fn output_comes_before_the_outcome() {
    let (kubelet, mut execs) = kubelet().await;
    let mut socket = open(api_server(kubelet).await, "v5.channel.k8s.io").await.expect("connected");
    let Streams { connection, mut error, mut stdin, mut stdout } = execs.recv().await.expect("an exec");
    socket.send(Message::binary(b"\0in".to_vec())).await.expect("send");
    socket.send(Message::binary(vec![255, 0])).await.expect("end of stdin");
    let mut input = Vec::new();
    stdin.read_to_end(&mut input).await.expect("stdin ends while the connection goes on");
    assert_eq!(input, b"in");
    // The outcome first, and the output after it, as a runtime may order them.
    let status = json!({ "status": "Failure", "reason": "NonZeroExitCode",
        "details": { "causes": [{ "reason": "ExitCode", "message": "42" }] } });
    error.write_all(status.to_string().as_bytes()).await.expect("outcome");
    error.shutdown().await.expect("half close");
    stdout.write_all(b"late output").await.expect("output");
    stdout.shutdown().await.expect("half close");
    let messages = read_all(&mut socket).await;
    assert_eq!(messages[0], b"\x01late output");
    assert_eq!(
        outcome(&messages)["message"],
        "command terminated with non-zero exit code: command terminated with exit code 42"
    );
    drop(connection);
}

#[tokio::test]
async fn a_lost_backend_is_no_success() {
    let (kubelet, mut execs) = kubelet().await;
    let mut socket = open(api_server(kubelet).await, "v5.channel.k8s.io").await.expect("connected");
    drop(execs.recv().await.expect("an exec").connection);
    let outcome = outcome(&read_all(&mut socket).await);
    assert_eq!((&outcome["status"], &outcome["code"]), (&json!("Failure"), &json!(500)));
    let message = outcome["message"].as_str().expect("a message");
    assert!(message.starts_with("Internal error occurred: error reading from error stream: "), "{message}");
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_exec() {
    let (kubelet, mut execs) = kubelet().await;
    let socket = open(api_server(kubelet).await, "v5.channel.k8s.io").await.expect("connected");
    let Streams { connection, .. } = execs.recv().await.expect("an exec");
    drop(socket);
    connection.closed().await;
}

#[tokio::test]
async fn a_failed_dial_is_told_on_the_error_channel() {
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("loopback").local_addr().expect("bound");
    let mut socket = open(api_server(closed).await, "v5.channel.k8s.io").await.expect("connected");
    let outcome = outcome(&read_all(&mut socket).await);
    let refused = io::Error::from_raw_os_error(111);
    assert_eq!(outcome["message"], format!("Internal error occurred: error dialing backend: {refused}"));
}

#[tokio::test]
async fn a_refusal_of_the_backend_is_passed_on() {
    for (body, expected) in [
        (r#"{"kind":"Status","status":"Failure","message":"no such pod","code":404}"#, "no such pod"),
        (
            "container not found (\"x\")\n",
            "Internal error occurred: unable to upgrade connection: container not found (\"x\")",
        ),
    ] {
        let kubelet = serve(Arc::new(move |_| {
            Box::pin(async move {
                let mut response = Response::new(Bytes::from_static(body.as_bytes()));
                *response.status_mut() = StatusCode::NOT_FOUND;
                response
            })
        }))
        .await;
        let mut socket = open(api_server(kubelet).await, "v5.channel.k8s.io").await.expect("connected");
        assert_eq!(outcome(&read_all(&mut socket).await)["message"], expected);
    }
}

#[tokio::test]
async fn an_unknown_protocol_is_refused() {
    let (kubelet, _execs) = kubelet().await;
    let error = open(api_server(kubelet).await, "v9.channel.k8s.io").await.expect_err("nobody speaks it");
    assert!(error.to_string().contains("403"), "{error}");
}
