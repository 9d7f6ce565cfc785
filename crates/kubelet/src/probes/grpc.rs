//! The gRPC health check (`grpc.health.v1.Health/Check`), spoken directly over HTTP/2.
//!
//! Not a gRPC client: one request of one field, one answer of one field. Invariant: no answer in time is unhealthy.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::Checked;

const SERVING: u64 = 1;

/// Asks for the health of a service.
pub(super) async fn check(host: &str, port: u16, service: &str, timeout: Duration) -> Checked {
    let address = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let unreachable = |cause: String| {
        Checked::Unhealthy(format!(
            "timeout: failed to connect service {address:?} within {}s: {cause}",
            timeout.as_secs()
        ))
    };
    match tokio::time::timeout(timeout, exchange(&address, service)).await {
        Err(_) => unreachable("context deadline exceeded".to_owned()),
        Ok(Err(error)) => unreachable(error),
        Ok(Ok(Answer { code: 0, status: Some(SERVING), .. })) => Checked::Healthy,
        Ok(Ok(Answer { code: 0, status, .. })) => {
            Checked::Unhealthy(format!("service unhealthy (responded with {:?})", status_name(status.unwrap_or(0))))
        }
        Ok(Ok(Answer { code: 12, message, .. })) => Checked::Unhealthy(format!(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {message}"
        )),
        Ok(Ok(Answer { message, .. })) => Checked::Unhealthy(format!("error: health rpc failed: {message}")),
    }
}

fn status_name(status: u64) -> &'static str {
    match status {
        1 => "SERVING",
        2 => "NOT_SERVING",
        3 => "SERVICE_UNKNOWN",
        _ => "UNKNOWN",
    }
}

struct Answer {
    code: u32,
    message: String,
    status: Option<u64>,
}

async fn exchange(address: &str, service: &str) -> Result<Answer, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| super::dial_error(&error))?;
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let connection = tokio::spawn(connection);
    let request = http::Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.36")
        .body(Full::new(encode(service)))
        .map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await;
    let answer = match answer {
        Ok(answer) => read(answer).await,
        Err(error) => Err(error.to_string()),
    };
    connection.abort();
    answer
}

/// A `HealthCheckRequest` (field 1: the service's name) in a gRPC frame.
fn encode(service: &str) -> Bytes {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.push(u8::try_from(length & 0x7f).unwrap_or(0) | 0x80);
            length >>= 7;
        }
        message.push(u8::try_from(length).unwrap_or(0));
        message.extend_from_slice(service.as_bytes());
    }
    let mut frame = vec![0];
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend_from_slice(&message);
    frame.into()
}

async fn read(answer: http::Response<hyper::body::Incoming>) -> Result<Answer, String> {
    let mut headers = answer.headers().clone();
    let collected = answer.into_body().collect().await.map_err(|error| error.to_string())?;
    headers.extend(collected.trailers().cloned().unwrap_or_default());
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let code = text("grpc-status").parse().unwrap_or(2);
    let body = BytesMut::from(collected.to_bytes().as_ref());
    Ok(Answer { code, message: text("grpc-message"), status: (code == 0).then(|| decode(&body)) })
}

/// The status (field 1, a varint) of a `HealthCheckResponse` in a gRPC frame; zero where it is absent.
fn decode(frame: &[u8]) -> u64 {
    match frame.get(5..) {
        Some([0x08, status, ..]) => u64::from(*status),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that gives one answer to every check: the message's bytes, and the code in the trailers.
    async fn server(message: &'static [u8], code: &'static str) -> u16 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let answer =
                    hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| async move {
                        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                        let trailers = [("grpc-status", code), ("grpc-message", "no")].map(|(name, value)| {
                            (http::HeaderName::from_static(name), http::HeaderValue::from_static(value))
                        });
                        let body = Full::new(Bytes::from_static(message))
                            .with_trailers(async move { Some(Ok(trailers.into_iter().collect())) });
                        Ok::<_, std::convert::Infallible>(http::Response::new(body))
                    });
                let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), answer);
                tokio::spawn(served);
            }
        });
        port
    }

    #[tokio::test]
    async fn services_are_asked_for_their_health() {
        let check = async |message: &'static [u8], code: &'static str, expected: Option<&str>| {
            let port = server(message, code).await;
            let text = match super::check("127.0.0.1", port, "svc", Duration::from_secs(20)).await {
                Checked::Healthy => None,
                Checked::Warning(text) | Checked::Unhealthy(text) => Some(text),
            };
            assert_eq!(text.as_deref(), expected);
        };
        check(&[0, 0, 0, 0, 2, 8, 1], "0", None).await;
        check(&[0, 0, 0, 0, 2, 8, 2], "0", Some("service unhealthy (responded with \"NOT_SERVING\")")).await;
        check(&[], "5", Some("error: health rpc failed: no")).await;
        let text = "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): no";
        check(&[], "12", Some(text)).await;
    }

    #[test]
    fn messages() {
        assert_eq!(encode("").as_ref(), [0, 0, 0, 0, 0]);
        assert_eq!(encode("ab").as_ref(), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(encode(&"x".repeat(200))[5..8], [0x0a, 0xc8, 0x01]);
        for (frame, status) in
            [(&[0, 0, 0, 0, 2, 8, 1][..], 1), (&[0, 0, 0, 0, 2, 8, 2], 2), (&[0, 0, 0, 0, 0], 0), (&[], 0)]
        {
            assert_eq!(decode(frame), status);
        }
    }
}
