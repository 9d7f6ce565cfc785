//! Waiting until what was started answers that it is well.
//!
//! Invariant: every wait has an end, and its error carries what was heard last.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use crate::Say;
use crate::timeouts::go_duration;

/// How long upstream waits.
pub(crate) const HEALTH_PATIENCE: Duration = Duration::from_secs(240);
const ONE_TRY: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(100);

/// Something did not become well in time.
#[derive(Debug, thiserror::Error)]
#[error("{what} is not healthy after {patience}: {why}", patience = go_duration(*.patience))]
pub struct Unhealthy {
    patience: Duration,
    what: String,
    why: String,
}

/// How long what was started may take to become well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthPatience {
    /// Each component of the control plane.
    pub components: Duration,
    /// The kubelet.
    pub kubelet: Duration,
}

impl Default for HealthPatience {
    fn default() -> Self {
        Self { components: HEALTH_PATIENCE, kubelet: HEALTH_PATIENCE }
    }
}

/// Waits for the kubelet.
pub(crate) async fn wait_for_kubelet(
    address: SocketAddr,
    patience: HealthPatience,
    say: Say<'_>,
) -> Result<(), Unhealthy> {
    let patience = patience.kubelet;
    let url = format!("http://{address}/healthz");
    say(&format!(
        "[kubelet-check] Waiting for a healthy kubelet at {url}. This can take up to {}",
        go_duration(patience)
    ));
    let took = wait("the kubelet", address, "/healthz", None, patience).await?;
    say(&format!("[kubelet-check] The kubelet is healthy after {}", seconds(took)));
    Ok(())
}

/// Waits for components, each at an address and path of its own over HTTPS; whose certificate they show is not looked at.
pub(crate) async fn wait_for_components(
    components: &[(&str, SocketAddr, &str)],
    patience: HealthPatience,
    say: Say<'_>,
) -> Result<(), Unhealthy> {
    let patience = patience.components;
    let tls = kedge_pki::client_config_for_any_server();
    let tls = Arc::new(tls.map_err(|error| Unhealthy { patience, what: "TLS".to_owned(), why: error.to_string() })?);
    say(&format!(
        "[control-plane-check] Waiting for healthy control plane components. This can take up to {}",
        go_duration(patience)
    ));
    for (name, address, path) in components {
        say(&format!("[control-plane-check] Checking {name} at https://{address}{path}"));
    }
    let waits = components.iter().map(|(name, address, path)| {
        let tls = tls.clone();
        async move {
            let took = wait(name, *address, path, Some(tls), patience).await?;
            say(&format!("[control-plane-check] {name} is healthy after {}", seconds(took)));
            Ok::<_, Unhealthy>(())
        }
    });
    futures::future::try_join_all(waits).await.map(|_| ())
}

async fn wait(
    what: &str,
    address: SocketAddr,
    path: &str,
    tls: Option<Arc<rustls::ClientConfig>>,
    patience: Duration,
) -> Result<Duration, Unhealthy> {
    let began = Instant::now();
    loop {
        let tried = tokio::time::timeout(ONE_TRY, get(address, path, tls.clone())).await;
        let why = match tried {
            Ok(Ok(200)) => return Ok(began.elapsed()),
            Ok(Ok(status)) => format!("it answers {status}"),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} s", ONE_TRY.as_secs()),
        };
        if began.elapsed() > patience {
            return Err(Unhealthy { patience, what: what.to_owned(), why });
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The status of one GET, over TLS where that is said; whose certificate is shown is not looked at.
pub(crate) async fn probe(address: SocketAddr, path: &str, has_tls: bool) -> std::io::Result<u16> {
    let tls = match has_tls {
        true => Some(Arc::new(kedge_pki::client_config_for_any_server().map_err(std::io::Error::other)?)),
        false => None,
    };
    get(address, path, tls).await
}

/// The status of one GET.
async fn get(address: SocketAddr, path: &str, tls: Option<Arc<rustls::ClientConfig>>) -> std::io::Result<u16> {
    let stream = TcpStream::connect(address).await?;
    let Some(tls) = tls else { return exchange(stream, address, path).await };
    let name = ServerName::from(address.ip());
    exchange(TlsConnector::from(tls).connect(name, stream).await?, address, path).await
}

async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    address: SocketAddr,
    path: &str,
) -> std::io::Result<u16> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut head = [0u8; 64];
    let read = stream.read(&mut head).await?;
    let head = String::from_utf8_lossy(&head[..read]).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.get(..3)).and_then(|status| status.parse().ok());
    status.ok_or_else(|| std::io::Error::other("the answer is not HTTP"))
}

fn seconds(took: Duration) -> String {
    match took.as_secs() {
        0 => format!("{}ms", took.as_millis()),
        _ => format!("{:.6}s", took.as_secs_f64()),
    }
}
