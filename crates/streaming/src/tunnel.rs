//! Port-forward for WebSocket clients: SPDY inside WebSocket messages, in front of a SPDY backend.
//!
//! It is the API server's part, and reads nothing of the SPDY inside. Invariant: the client's handshake succeeds only after
//! the backend's did, so that it hears a refusal as an HTTP answer.

use bytes::BytesMut;
use futures::{SinkExt as _, StreamExt as _};
use http::header::{
    CONNECTION, HeaderMap, HeaderValue, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{Method, Request, StatusCode, response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{Message, Role};

use crate::backend::{Answer, Target, UpgradeError, ask, forwarded, request as backend_request};
use crate::channels::websocket_config;
use crate::handshake::{SPDY, STREAM_PROTOCOL, TUNNEL_PREFIX, accept_websocket, is_spdy_request, tunnelled_protocols};
use crate::proxy::{bad_gateway, pass_on};
use crate::upgrade::{SessionError, Upgrade, plain_error};

const READ_BYTES: usize = 32 * 1024;

/// Upgrades the backend to SPDY, takes the client's WebSocket connection, and carries the one inside the other.
pub async fn tunnel_port_forward<B, IO>(mut request: Request<B>, backend: IO, target: Target) -> Upgrade
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    if tunnelled_protocols(request.headers()).is_empty() {
        let text = "unable to upgrade: no tunneling spdy protocols provided";
        return Upgrade::refuse(plain_error(StatusCode::BAD_REQUEST, text));
    }
    let answer = match backend_request(Method::POST, spdy_headers(request.headers()), &target) {
        Ok(request) => ask(backend, request).await,
        Err(error) => Err(UpgradeError::Request(error)),
    };
    let (parts, upgraded) = match answer {
        Ok(Answer::Switched(parts, upgraded)) if is_spdy_request(&parts.headers) => (parts, upgraded),
        Ok(Answer::Switched(..)) => {
            let text = "unable to upgrade: missing upgrade headers in response";
            return Upgrade::refuse(plain_error(StatusCode::INTERNAL_SERVER_ERROR, text));
        }
        Ok(Answer::Refused(response)) => return Upgrade::refuse(pass_on(response)),
        Err(error) => return Upgrade::refuse(bad_gateway(&error)),
    };
    let protocol = chosen_protocol(&parts);
    let response = match accept_websocket(request.method(), request.headers(), protocol.as_deref()) {
        Ok(response) => response,
        Err(refusal) => return Upgrade::refuse(*refusal),
    };
    let client = hyper::upgrade::on(&mut request);
    Upgrade::accept(response, async move {
        let client = TokioIo::new(client.await.map_err(SessionError::Upgrade)?);
        let socket = WebSocketStream::from_raw_socket(client, Role::Server, Some(websocket_config())).await;
        carry(socket, upgraded).await
    })
}

/// The client's request as one for SPDY.
fn spdy_headers(client: &HeaderMap) -> HeaderMap {
    let mut headers = forwarded(client);
    for name in [SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, SEC_WEBSOCKET_EXTENSIONS] {
        headers.remove(name);
    }
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(SPDY));
    headers.remove(STREAM_PROTOCOL);
    for protocol in tunnelled_protocols(client) {
        if let Ok(protocol) = HeaderValue::from_str(protocol) {
            headers.append(STREAM_PROTOCOL, protocol);
        }
    }
    headers
}

fn chosen_protocol(backend: &response::Parts) -> Option<String> {
    let protocol = backend.headers.get(STREAM_PROTOCOL)?.to_str().ok()?.trim();
    (!protocol.is_empty()).then(|| format!("{TUNNEL_PREFIX}{protocol}"))
}

/// Carries bytes until one end has no more to say.
async fn carry<C, B>(socket: WebSocketStream<C>, backend: B) -> Result<(), SessionError>
where
    C: AsyncRead + AsyncWrite + Unpin + Send,
    B: AsyncRead + AsyncWrite + Send,
{
    let (mut sink, mut source) = socket.split();
    let (mut backend_read, mut backend_write) = tokio::io::split(backend);
    let inward = async {
        while let Some(message) = source.next().await {
            match message.map_err(Box::new)? {
                Message::Binary(bytes) => backend_write.write_all(&bytes).await.map_err(SessionError::Backend)?,
                Message::Ping(_) | Message::Pong(_) => {}
                // A text message is against the protocol; upstream ends the connection on it as well.
                Message::Close(_) | Message::Text(_) | Message::Frame(_) => break,
            }
        }
        Ok(())
    };
    let outward = async {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(READ_BYTES);
            if backend_read.read_buf(&mut buffer).await.map_err(SessionError::Backend)? == 0 {
                return Ok(());
            }
            sink.send(Message::Binary(buffer.split().freeze())).await.map_err(Box::new)?;
        }
    };
    let result: Result<(), SessionError> = tokio::select! {
        result = inward => result,
        result = outward => result,
    };
    // Either end may be gone; the good-bye is a courtesy then.
    let good_bye = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    let _ = sink.send(Message::Close(Some(good_bye))).await;
    let _ = sink.close().await;
    let _ = backend_write.shutdown().await;
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backend_is_asked_for_spdy() {
        let lines = [
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-key", "x"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-protocol", "SPDY/3.1+portforward.k8s.io"),
            ("user-agent", "kubectl"),
        ];
        let header = |(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value));
        let headers = spdy_headers(&lines.into_iter().map(header).collect());
        let mut told: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().expect("ASCII"))).collect();
        told.sort();
        assert_eq!(
            told,
            [
                "connection: Upgrade",
                "upgrade: SPDY/3.1",
                "user-agent: kubectl",
                "x-stream-protocol-version: portforward.k8s.io"
            ]
        );
    }
}
