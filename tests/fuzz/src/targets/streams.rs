//! Upgraded connections: what a client says after the handshake, in WebSocket and in SPDY.
//!
//! Time is that of a paused clock, so that no wait takes any.

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use kedge_streaming::{Headers, SpdyConnection, StreamOptions, Target};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::size;

const PATIENCE: Duration = Duration::from_secs(60);
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
    X-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n";
const CHANNELS: &str = "v5.channel.k8s.io";
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";

fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime can be made");
    runtime.block_on(future)
}

/// A SPDY server that takes every stream and reads it to its end.
async fn serve(io: DuplexStream) -> u64 {
    let connection = SpdyConnection::server(io);
    let read = Arc::new(Mutex::new(0));
    let mut streams = 0;
    while let Ok(Some(incoming)) = tokio::time::timeout(PATIENCE, connection.accept_stream()).await {
        let read = Arc::clone(&read);
        streams += 1;
        tokio::spawn(async move {
            let Ok(mut stream) = incoming.accept().await else { return };
            let mut bytes = Vec::new();
            let _ = tokio::time::timeout(PATIENCE, (&mut stream).take(1 << 20).read_to_end(&mut bytes)).await;
            *read.lock().unwrap_or_else(PoisonError::into_inner) += bytes.len();
            let _ = tokio::time::timeout(PATIENCE, stream.write_all(&bytes)).await;
        });
    }
    let _ = tokio::time::timeout(PATIENCE, connection.close()).await;
    let read = *read.lock().unwrap_or_else(PoisonError::into_inner);
    size(streams) << 32 | size(read)
}

pub(super) fn spdy(input: &[u8]) -> u64 {
    block_on(async {
        let (ours, theirs) = tokio::io::duplex(1 << 12);
        let serving = tokio::spawn(serve(theirs));
        let said = converse(ours, input).await;
        let served = serving.await;
        served.expect("the server does not panic") ^ said << 16
    })
}

/// Says something, and reads until the other side ends.
async fn converse(io: DuplexStream, input: &[u8]) -> u64 {
    let (mut reader, mut writer) = tokio::io::split(io);
    let reading = tokio::spawn(async move {
        let mut bytes = Vec::new();
        let _ = tokio::time::timeout(10 * PATIENCE, (&mut reader).take(4 << 20).read_to_end(&mut bytes)).await;
        bytes.len()
    });
    let _ = tokio::time::timeout(PATIENCE, writer.write_all(input)).await;
    let _ = writer.shutdown().await;
    size(reading.await.unwrap_or(0))
}

/// The first byte chooses between exec and port-forward.
pub(super) fn websocket(input: &[u8]) -> u64 {
    let Some((choice, frames)) = input.split_first() else { return 0 };
    let protocol = if choice % 2 == 0 { CHANNELS } else { TUNNEL };
    block_on(async {
        let (ours, theirs) = tokio::io::duplex(1 << 12);
        let service = hyper::service::service_fn(move |request| answer(request, protocol));
        let serving = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(theirs), service);
        let serving = tokio::spawn(serving.with_upgrades());
        let head = format!(
            "GET /exec?command=a&stdin=1&stdout=1 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: {protocol}\r\n\r\n"
        );
        let said = converse(ours, &[head.as_bytes(), frames].concat()).await;
        let served = tokio::time::timeout(PATIENCE, serving).await;
        assert!(!matches!(served, Ok(Err(error)) if error.is_panic()), "the server panicked");
        said << 1 | u64::from(choice % 2)
    })
}

async fn answer(request: Request<Incoming>, protocol: &str) -> Result<http::Response<Full<Bytes>>, Infallible> {
    let (near, far) = tokio::io::duplex(1 << 12);
    tokio::spawn(backend(far));
    let target = Target::new("backend", "/exec");
    let upgrade = match protocol {
        CHANNELS => {
            let options = StreamOptions::from_query(request.uri().query().unwrap_or(""));
            kedge_streaming::translate_streams(
                request,
                options,
                target,
                move || async move { Ok::<_, io::Error>(near) },
            )
        }
        _ => kedge_streaming::tunnel_port_forward(request, near, target).await,
    };
    Ok(upgrade.spawn().map(Full::new))
}

/// A kubelet that upgrades whatever it is asked.
async fn backend(mut io: DuplexStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match io.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    if io.write_all(SWITCH.as_bytes()).await.is_ok() {
        serve(io).await;
    }
}

/// What a SPDY client says that opens two streams and writes to them.
pub(super) fn conversations() -> Vec<Vec<u8>> {
    vec![recorded()]
}

fn recorded() -> Vec<u8> {
    block_on(async {
        let ((near, far), (left, right)) = (tokio::io::duplex(1 << 16), tokio::io::duplex(1 << 16));
        let said = Arc::new(Mutex::new(Vec::new()));
        let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
            (tokio::io::split(far), tokio::io::split(left));
        let record = Arc::clone(&said);
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = from_client.read(&mut buffer).await {
                record.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..length]);
                if to_server.write_all(&buffer[..length]).await.is_err() {
                    return;
                }
            }
            let _ = to_server.shutdown().await;
        });
        tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
        let serving = tokio::spawn(serve(right));
        let client = SpdyConnection::client(near);
        for kind in ["error", "stdin"] {
            let headers = Headers::new().with("streamtype", kind).with("port", "80").with("requestid", "0");
            let mut stream = client.open_stream(headers).await.expect("the server takes it");
            stream.write_all(b"hello").await.expect("it can be written");
            stream.shutdown().await.expect("it can be ended");
        }
        client.ping().await.expect("the server answers");
        client.close().await;
        let _ = tokio::time::timeout(10 * PATIENCE, serving).await;
        let said = said.lock().unwrap_or_else(PoisonError::into_inner);
        said.clone()
    })
}

/// Masked frames: text and binary, in pieces, pings, ends, for both kinds of connections.
pub(super) fn messages() -> Vec<Vec<u8>> {
    let frame = |first: u8, payload: &[u8]| {
        let length = u8::try_from(payload.len()).expect("these are short");
        [&[first, 0x80 | length, 0, 0, 0, 0][..], payload].concat()
    };
    let channels = [
        vec![0],
        frame(0x82, b"\x00hello"),
        frame(0x82, b"\x04{\"Width\":80,\"Height\":24}"),
        frame(0x02, b"\x00a"),
        frame(0x80, b"b"),
        frame(0x89, b"ping"),
        frame(0x82, b"\xff\x00"),
        frame(0x88, b"\x03\xe8"),
    ];
    let mut tunnel = vec![1];
    for piece in recorded().chunks(100) {
        tunnel.extend(frame(0x82, piece));
    }
    vec![channels.concat(), tunnel]
}
