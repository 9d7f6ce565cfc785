//! A body for WebSocket clients: everything that a request would have been answered with, in messages.
//!
//! Logs and watches are read so by clients in browsers. Invariant: messages carry the body's bytes in their order, and the
//! connection is closed properly once there are no more.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Body;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{Message, Role};

use crate::channels::websocket_config;
use crate::handshake::{accept_websocket, websocket_protocols};
use crate::upgrade::{SessionError, Upgrade, plain_error};

const BINARY: &str = "binary.k8s.io";
const BASE64: &str = "base64.binary.k8s.io";
const BEARER: &str = "base64url.bearer.authorization.k8s.io.";
/// How long a client may take to say goodbye.
const CLOSE_GRACE: Duration = Duration::from_secs(2);

/// Answers a WebSocket client with a body. A client that names no protocol gets binary messages.
pub fn stream_to_websocket<B, S>(mut request: Request<B>, body: S) -> Upgrade
where
    S: Body<Data = Bytes> + Send + Unpin + 'static,
    S::Error: std::fmt::Display + Send,
{
    let offered = websocket_protocols(request.headers());
    let protocol = match offered.iter().find_map(|offer| [BINARY, BASE64].into_iter().find(|known| known == offer)) {
        Some(protocol) => Some(protocol),
        None if offered.is_empty() => None,
        None => {
            let text = format!(
                "requested protocol(s) are not supported: [{}]; supports [{BASE64} {BINARY}]",
                offered.join(" ")
            );
            return Upgrade::refuse(plain_error(StatusCode::FORBIDDEN, &text));
        }
    };
    let response = match accept_websocket(request.method(), request.headers(), protocol) {
        Ok(response) => response,
        Err(refusal) => return Upgrade::refuse(*refusal),
    };
    let client = hyper::upgrade::on(&mut request);
    Upgrade::accept(response, async move {
        let client = TokioIo::new(client.await.map_err(SessionError::Upgrade)?);
        let socket = WebSocketStream::from_raw_socket(client, Role::Server, Some(websocket_config())).await;
        let base64 = protocol == Some(BASE64);
        copy(socket, body, move |bytes| vec![whole(bytes, base64)]).await
    })
}

/// Answers a WebSocket client with a watch: one message for each event. Events in text end with a line end, others begin
/// with their length in four bytes; every piece of the body must hold whole events.
pub fn watch_to_websocket<B, S>(mut request: Request<B>, body: S, text: bool) -> Upgrade
where
    S: Body<Data = Bytes> + Send + Unpin + 'static,
    S::Error: std::fmt::Display + Send,
{
    // A token that came as a protocol has been read.
    let mut offered = websocket_protocols(request.headers());
    offered.retain(|protocol| !protocol.starts_with(BEARER));
    let protocol = offered.first().copied().map(str::to_owned);
    if offered.len() > 1 {
        return Upgrade::refuse(plain_error(StatusCode::BAD_REQUEST, "bad Sec-WebSocket-Protocol"));
    }
    let response = match accept_websocket(request.method(), request.headers(), protocol.as_deref()) {
        Ok(response) => response,
        Err(refusal) => return Upgrade::refuse(*refusal),
    };
    let client = hyper::upgrade::on(&mut request);
    Upgrade::accept(response, async move {
        let client = TokioIo::new(client.await.map_err(SessionError::Upgrade)?);
        let socket = WebSocketStream::from_raw_socket(client, Role::Server, Some(websocket_config())).await;
        copy(socket, body, if text { lines } else { with_lengths }).await
    })
}

fn whole(bytes: Bytes, base64: bool) -> Message {
    if base64 { Message::text(STANDARD.encode(&bytes)) } else { Message::binary(bytes) }
}

fn lines(bytes: Bytes) -> Vec<Message> {
    let lines = bytes.split_inclusive(|byte| *byte == b'\n');
    lines.map(|line| Message::text(String::from_utf8_lossy(line).into_owned())).collect()
}

fn with_lengths(mut bytes: Bytes) -> Vec<Message> {
    let mut events = Vec::new();
    while let Some(length) = bytes.first_chunk().map(|length| u32::from_be_bytes(*length) as usize) {
        let mut event = bytes.split_to((4 + length).min(bytes.len()));
        events.push(Message::binary(event.split_off(4)));
    }
    events
}

async fn copy<IO, S>(
    socket: WebSocketStream<IO>,
    mut body: S,
    messages: impl Fn(Bytes) -> Vec<Message>,
) -> Result<(), SessionError>
where
    IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    S: Body<Data = Bytes> + Unpin,
    S::Error: std::fmt::Display,
{
    let (mut sink, mut source) = socket.split();
    let mut code = CloseCode::Normal;
    loop {
        let frame = tokio::select! {
            frame = body.frame() => frame,
            // What a client says is nothing to us, but for its end.
            said = source.next() => match said {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Ok(()),
                Some(Ok(_)) => continue,
            },
        };
        let bytes = match frame {
            None => break,
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            Some(Err(error)) => {
                tracing::debug!(%error, "a body for a WebSocket client broke off");
                code = CloseCode::Error;
                break;
            }
        };
        if bytes.is_empty() {
            continue;
        }
        for message in messages(bytes) {
            sink.feed(message).await.map_err(Box::new)?;
        }
        sink.flush().await.map_err(Box::new)?;
    }
    let end = Message::Close(Some(CloseFrame { code, reason: "".into() }));
    sink.send(end).await.map_err(Box::new)?;
    // Its answer is the proof that everything arrived.
    let _ = tokio::time::timeout(CLOSE_GRACE, async {
        while let Some(Ok(message)) = source.next().await {
            if message.is_close() {
                break;
            }
        }
    })
    .await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use http_body_util::{Full, StreamBody};

    use super::*;

    async fn messages<S>(body: S, cut: impl Fn(Bytes) -> Vec<Message> + Send + 'static) -> Vec<Message>
    where
        S: Body<Data = Bytes> + Send + Unpin + 'static,
        S::Error: std::fmt::Display + Send,
    {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let server = WebSocketStream::from_raw_socket(ours, Role::Server, None).await;
        let copying = tokio::spawn(async move { copy(server, body, cut).await.unwrap() });
        let mut client = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
        let mut seen = Vec::new();
        while let Some(Ok(message)) = client.next().await {
            seen.push(message);
        }
        copying.await.unwrap();
        seen
    }

    fn closed(code: CloseCode) -> Message {
        Message::Close(Some(CloseFrame { code, reason: "".into() }))
    }

    #[tokio::test]
    async fn a_body_arrives_in_either_form_and_ends() {
        let body = || Full::new(Bytes::from_static(b"a line\n"));
        let binary = Message::binary(Bytes::from_static(b"a line\n"));
        assert_eq!(
            messages(body(), |bytes| vec![whole(bytes, false)]).await,
            [binary.clone(), closed(CloseCode::Normal)]
        );
        let base64 = messages(body(), |bytes| vec![whole(bytes, true)]).await;
        assert_eq!(base64, [Message::text("YSBsaW5lCg=="), closed(CloseCode::Normal)]);
        let parts = [Ok(hyper::body::Frame::data(Bytes::from_static(b"a line\n"))), Err("cut off")];
        let broken = StreamBody::new(futures::stream::iter(parts));
        assert_eq!(messages(broken, |bytes| vec![whole(bytes, false)]).await, [binary, closed(CloseCode::Error)]);
    }

    #[tokio::test]
    async fn events_are_messages() {
        let text = Full::new(Bytes::from_static(b"{1}\n{2}\n"));
        let expected = [Message::text("{1}\n"), Message::text("{2}\n"), closed(CloseCode::Normal)];
        assert_eq!(messages(text, lines).await, expected);
        let binary = Full::new(Bytes::from_static(b"\0\0\0\x02ab\0\0\0\x01c"));
        let message = |text: &'static str| Message::binary(Bytes::from_static(text.as_bytes()));
        assert_eq!(messages(binary, with_lengths).await, [message("ab"), message("c"), closed(CloseCode::Normal)]);
        assert_eq!(with_lengths(Bytes::from_static(b"\0\0\0\x09ab")), [message("ab")], "cut off");
    }

    #[test]
    fn protocols_are_chosen_or_refused() {
        let answer = |offer: Option<&str>| {
            let mut request = Request::builder()
                .header("connection", "Upgrade")
                .header("upgrade", "websocket")
                .header("sec-websocket-version", "13")
                .header("sec-websocket-key", "x");
            if let Some(offer) = offer {
                request = request.header("sec-websocket-protocol", offer);
            }
            let upgrade = stream_to_websocket(request.body(()).unwrap(), Full::new(Bytes::new()));
            let chosen = upgrade.response.headers().get("sec-websocket-protocol");
            (upgrade.response.status().as_u16(), chosen.map(|chosen| chosen.to_str().unwrap().to_owned()))
        };
        assert_eq!(answer(None), (101, None));
        assert_eq!(answer(Some("other, base64.binary.k8s.io")), (101, Some(BASE64.to_owned())));
        assert_eq!(answer(Some(BINARY)), (101, Some(BINARY.to_owned())));
        assert_eq!(answer(Some("v4.channel.k8s.io")).0, 403);
    }
}
