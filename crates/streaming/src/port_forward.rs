//! The server's side of port-forward over SPDY, for a kubelet that dials into its pods itself.
//!
//! A client opens two streams per connection, one for data and one for an error text, tied together by a request id. It
//! dials nothing itself. Invariant: both streams of a pair are ended when its forwarding is, for clients wait for that.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use http::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tracing::{debug, warn};

use crate::handshake::{PORT_FORWARD_PROTOCOLS, accept_spdy};
use crate::spdy::connection::{IncomingStream, SpdyConnection};
use crate::spdy::frame::Headers;
use crate::spdy::stream::SpdyStream;
use crate::upgrade::{SessionError, Upgrade};

/// Upstream's bound on the wait for the second stream of a pair.
const PAIR_TIMEOUT: Duration = Duration::from_secs(30);

/// The pod, as errors name it.
#[derive(Clone, Debug)]
pub struct PodIdentity {
    /// The name as upstream's kubelet builds it, `<pod>_<namespace>`.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// Answers a SPDY port-forward request and serves it: each pair of streams gets a connection of the dialler's.
pub fn serve_port_forward<B, IO, D, F>(mut request: Request<B>, pod: PodIdentity, dial: D) -> Upgrade
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    D: Fn(u16) -> F + Send + Sync + 'static,
    F: Future<Output = io::Result<IO>> + Send + 'static,
{
    let response: Response<Bytes> = match accept_spdy(request.headers(), &PORT_FORWARD_PROTOCOLS) {
        Ok((_, response)) => response,
        Err(refusal) => return Upgrade::refuse(*refusal),
    };
    let client = hyper::upgrade::on(&mut request);
    Upgrade::accept(response, async move {
        let client = TokioIo::new(client.await.map_err(SessionError::Upgrade)?);
        forward_ports(SpdyConnection::server(client), pod, dial).await;
        Ok(())
    })
}

/// Serves an upgraded connection until the client ends it.
pub async fn forward_ports<IO, D, F>(connection: SpdyConnection, pod: PodIdentity, dial: D)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    D: Fn(u16) -> F + Send + Sync + 'static,
    F: Future<Output = io::Result<IO>> + Send + 'static,
{
    let dial = Arc::new(dial);
    let mut waiting: HashMap<String, Half> = HashMap::new();
    let mut forwards: FuturesUnordered<BoxFuture<'static, ()>> = FuturesUnordered::new();
    let mut timeouts: FuturesUnordered<BoxFuture<'static, String>> = FuturesUnordered::new();
    loop {
        let incoming = tokio::select! {
            incoming = connection.accept_stream() => incoming,
            Some(()) = forwards.next() => continue,
            Some(id) = timeouts.next() => {
                if let Some(half) = waiting.remove(&id) {
                    half.complain(&format!("(request={id}) timed out waiting for streams")).await;
                }
                continue;
            }
        };
        let Some(incoming) = incoming else { break };
        let Some((id, half)) = accept(incoming).await else { continue };
        match waiting.remove(&id) {
            None => {
                let key = id.clone();
                timeouts.push(Box::pin(async move {
                    tokio::time::sleep(PAIR_TIMEOUT).await;
                    key
                }));
                waiting.insert(id, half);
            }
            Some(other) => match pair(other, half) {
                Ok(pair) => forwards.push(Box::pin(forward(pair, pod.clone(), dial.clone()))),
                Err((other, kind)) => {
                    other.complain(&format!("error processing stream for request {id}: {kind} already assigned")).await;
                }
            },
        }
    }
}

/// One stream of a pair.
enum Half {
    Data(SpdyStream, u16),
    Error(SpdyStream),
}

/// Both.
struct Pair {
    data: SpdyStream,
    error: SpdyStream,
    port: u16,
}

impl Half {
    async fn complain(self, text: &str) {
        warn!("{text}");
        if let Self::Error(mut stream) = self {
            say(&mut stream, text).await;
        }
    }
}

/// Takes the stream where its headers make sense, and resets it otherwise, as upstream does.
async fn accept(incoming: IncomingStream) -> Option<(String, Half)> {
    let id = request_id(incoming.headers(), incoming.id());
    let (port, is_data) = match parse(incoming.headers()) {
        Ok(parsed) => parsed,
        Err(reason) => {
            warn!(reason, "a port-forward stream was rejected");
            return None;
        }
    };
    let stream = incoming.accept().await.ok()?;
    Some((id, if is_data { Half::Data(stream, port) } else { Half::Error(stream) }))
}

/// The port, and whether it is the data stream.
fn parse(headers: &Headers) -> Result<(u16, bool), String> {
    let port = headers.get("port").filter(|port| !port.is_empty()).ok_or("\"port\" header is required")?;
    let number: u16 = port.parse().map_err(|_| format!("unable to parse {port:?} as a port"))?;
    if number == 0 {
        return Err(format!("port {port:?} must be > 0"));
    }
    match headers.get("streamType") {
        Some("data") => Ok((number, true)),
        Some("error") => Ok((number, false)),
        None | Some("") => Err("\"streamType\" header is required".to_owned()),
        Some(other) => Err(format!("invalid stream type {other:?}")),
    }
}

/// The request that a stream is of. Clients of old give no id: they open the error stream first and the data stream next, so
/// that the numbers tell.
fn request_id(headers: &Headers, stream: u32) -> String {
    match headers.get("requestID") {
        Some(id) if !id.is_empty() => id.to_owned(),
        _ if headers.get("streamType") == Some("data") => stream.saturating_sub(2).to_string(),
        _ => stream.to_string(),
    }
}

/// Where both are of one kind, the first of them and its name.
fn pair(first: Half, second: Half) -> Result<Pair, (Half, &'static str)> {
    match (first, second) {
        (Half::Data(data, port), Half::Error(error)) | (Half::Error(error), Half::Data(data, port)) => {
            Ok(Pair { data, error, port })
        }
        (first @ Half::Data(..), Half::Data(..)) => Err((first, "data stream")),
        (first @ Half::Error(..), Half::Error(..)) => Err((first, "error stream")),
    }
}

async fn forward<IO, D, F>(pair: Pair, pod: PodIdentity, dial: Arc<D>)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    D: Fn(u16) -> F + Send + Sync + 'static,
    F: Future<Output = io::Result<IO>> + Send + 'static,
{
    let Pair { mut data, mut error, port } = pair;
    let forwarded = match dial(port).await {
        Ok(io) => copy(&mut data, io).await,
        Err(error) => Err(error),
    };
    if let Err(cause) = forwarded {
        let text = format!("error forwarding port {port} to pod {}, uid {}: {cause}", pod.name, pod.uid);
        debug!("{text}");
        // A client ends its whole session on any text. A process that cuts one connection is no reason for that.
        if !matches!(cause.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) {
            say(&mut error, &text).await;
        }
    }
    // The client may have gone; then they are ended.
    let _ = data.shutdown().await;
    let _ = error.shutdown().await;
}

/// Copies both ways. The end of the pod's side is the end, as a client waits for it; the end of the client's side is passed
/// on, and the pod's answer still comes back, unless the client broke off.
async fn copy<IO: AsyncRead + AsyncWrite + Unpin>(data: &mut SpdyStream, mut io: IO) -> io::Result<()> {
    let watch = data.watch();
    let (mut io_read, mut io_write) = tokio::io::split(&mut io);
    let (mut data_read, mut data_write) = tokio::io::split(data);
    let inward = async {
        tokio::io::copy(&mut data_read, &mut io_write).await?;
        io_write.shutdown().await
    };
    let outward = tokio::io::copy(&mut io_read, &mut data_write);
    tokio::pin!(inward, outward);
    tokio::select! {
        copied = &mut outward => copied.map(drop),
        ended = &mut inward => {
            if watch.is_reset() {
                return Ok(());
            }
            ended?;
            outward.await.map(drop)
        }
    }
}

async fn say(stream: &mut SpdyStream, text: &str) {
    // A client that does not listen any more needs no explanation.
    let _ = stream.write_all(text.as_bytes()).await;
    let _ = stream.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_streams() {
        let check = |port: &str, kind: &str, expected: Result<(u16, bool), &str>| {
            let headers = Headers::new().with("port", port).with("streamType", kind);
            assert_eq!(parse(&headers), expected.map_err(str::to_owned), "{port} {kind}");
        };
        check("80", "data", Ok((80, true)));
        check("80", "error", Ok((80, false)));
        check("0", "data", Err("port \"0\" must be > 0"));
        check("70000", "data", Err("unable to parse \"70000\" as a port"));
        check("", "data", Err("\"port\" header is required"));
        check("80", "", Err("\"streamType\" header is required"));
        check("80", "x", Err("invalid stream type \"x\""));
    }

    #[test]
    fn clients_without_request_ids() {
        let check = |kind: &str, stream: u32, expected: &str| {
            assert_eq!(request_id(&Headers::new().with("streamType", kind), stream), expected);
        };
        check("error", 5, "5");
        check("data", 7, "5");
        assert_eq!(request_id(&Headers::new().with("requestID", "4").with("streamType", "data"), 7), "4");
    }
}
