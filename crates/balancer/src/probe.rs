//! Asking an API server how it is: `/readyz`, again and again over one connection.
//!
//! Invariants: an answer means a server of this cluster, or it is `NotReady`; a connection that ends is a reason to ask
//! again at once.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use crate::authority::client_tls;
use crate::config::TLS_SERVER_NAME;
use crate::connect::connect;
use crate::track::Seen;

const PATH: &str = "/readyz";
/// How long an answer may take, the handshake before it included.
const PATIENCE: Duration = Duration::from_secs(2);
const MOST_BYTES: usize = 64 * 1024;

/// What one question found.
pub(crate) struct Found {
    pub(crate) seen: Seen,
    pub(crate) why: String,
}

impl Found {
    fn new(seen: Seen, why: impl Into<String>) -> Self {
        Self { seen, why: why.into() }
    }
}

/// A server that is asked.
pub(crate) struct Probe {
    server: SocketAddr,
    kubeconfigs: Vec<PathBuf>,
    open: Option<Open>,
}

/// A connection, and the task that drives it.
struct Open {
    sender: SendRequest<Empty<Bytes>>,
    driver: JoinHandle<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Probe {
    pub(crate) fn new(server: SocketAddr, kubeconfigs: Vec<PathBuf>) -> Self {
        Self { server, kubeconfigs, open: None }
    }

    /// Asks once.
    pub(crate) async fn ask(&mut self) -> Found {
        // Taken out, so that a connection on which something went wrong is not used again.
        let open = match self.open.take().filter(|open| !open.sender.is_closed()) {
            Some(open) => open,
            None => match self.connected().await {
                Ok(open) => open,
                Err(found) => return found,
            },
        };
        match tokio::time::timeout(PATIENCE, question(open)).await {
            Ok(Ok((open, status))) => {
                self.open = Some(open);
                judge(status)
            }
            Ok(Err(error)) => Found::new(Seen::Silent, error.to_string()),
            Err(_) => Found::new(Seen::Silent, format!("no answer within {} s", PATIENCE.as_secs())),
        }
    }

    /// Waits until the connection ends, which it may never do.
    pub(crate) async fn lost(&mut self) {
        match &mut self.open {
            Some(open) => {
                let _ = (&mut open.driver).await;
                self.open = None;
            }
            None => std::future::pending().await,
        }
    }

    async fn connected(&self) -> Result<Open, Found> {
        let stream = connect(self.server).await.map_err(|error| Found::new(Seen::Silent, error.to_string()))?;
        let tls = client_tls(&self.kubeconfigs).map_err(|why| Found::new(Seen::Connected, why))?;
        let name = ServerName::try_from(TLS_SERVER_NAME).map_err(|_| Found::new(Seen::NotReady, TLS_SERVER_NAME))?;
        let handshake = tokio::time::timeout(PATIENCE, TlsConnector::from(tls).connect(name, stream)).await;
        let stream = match handshake {
            Ok(Ok(stream)) => stream,
            // It speaks, but is not one of ours, or not yet: nobody is sent there who has another choice.
            Ok(Err(error)) if is_of_tls(&error) => return Err(Found::new(Seen::NotReady, error.to_string())),
            Ok(Err(error)) => return Err(Found::new(Seen::Silent, error.to_string())),
            Err(_) => return Err(Found::new(Seen::Silent, format!("no TLS within {} s", PATIENCE.as_secs()))),
        };
        let made = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = made.map_err(|error| Found::new(Seen::Silent, error.to_string()))?;
        let driver = tokio::spawn(async move {
            // How it ended is seen by who asks next.
            let _ = connection.await;
        });
        Ok(Open { sender, driver })
    }
}

fn is_of_tls(error: &std::io::Error) -> bool {
    error.get_ref().is_some_and(|cause| cause.is::<rustls::Error>())
}

async fn question(mut open: Open) -> hyper::Result<(Open, StatusCode)> {
    let request = Request::builder().method(Method::GET).uri(PATH).header(header::HOST, TLS_SERVER_NAME);
    let request = request.body(Empty::new()).unwrap_or_default();
    open.sender.ready().await?;
    let response = open.sender.send_request(request).await?;
    let status = response.status();
    // The connection is free for the next question when the body is read; one that is too long ends it.
    let _ = Limited::new(response.into_body(), MOST_BYTES).collect().await;
    Ok((open, status))
}

/// Where nobody unknown may ask, the refusal shows as well that the server is there.
fn judge(status: StatusCode) -> Found {
    match status {
        StatusCode::OK | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Found::new(Seen::Ready, ""),
        other => Found::new(Seen::NotReady, format!("{PATH} answers {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_not_always_a_good_one() {
        for (status, seen) in [
            (200, Seen::Ready),
            (401, Seen::Ready),
            (403, Seen::Ready),
            (404, Seen::NotReady),
            (500, Seen::NotReady),
            (503, Seen::NotReady),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(judge(status).seen, seen, "{status}");
        }
    }
}
