//! Connections to webhooks and extension servers: found through the Service where there is one, then TLS.
//!
//! Invariant: connecting ends within its time, however long the call may take.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower::Service as TowerService;

use crate::handshakes::Handshakes;
use crate::target::Service;
use crate::tls;

/// Something to connect to: an IP address or a name, and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// An IP address, or a name that the machine can resolve.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Knows where Services are answered.
#[async_trait]
pub trait Resolver: Send + Sync {
    /// A ready endpoint of a Service's port; a text where there is none.
    async fn resolve(&self, namespace: &str, name: &str, port: u16) -> Result<Address, String>;
}

/// How long connecting may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConnectError(String);

/// Makes the connections of one place.
#[derive(Clone)]
pub struct Connector {
    way: Way,
    tls: Arc<ClientConfig>,
    handshakes: Arc<Handshakes>,
}

/// How a place is found.
#[derive(Clone)]
enum Way {
    /// By its URL.
    Host,
    /// Anew for each connection.
    Service(Arc<dyn Resolver>, Service),
    Fixed(Address),
}

impl Connector {
    pub(crate) fn new(
        resolver: Arc<dyn Resolver>,
        service: Option<Service>,
        tls: Arc<ClientConfig>,
        handshakes: Arc<Handshakes>,
    ) -> Self {
        let way = service.map_or(Way::Host, |service| Way::Service(resolver, service));
        Self { way, tls, handshakes }
    }

    /// To an address that is known, whatever host a request names; that host's certificate is expected.
    pub fn fixed(address: Address, tls: Arc<ClientConfig>, handshakes: Arc<Handshakes>) -> Self {
        Self { way: Way::Fixed(address), tls, handshakes }
    }

    async fn connect(self, uri: Uri) -> Result<TokioIo<Stream>, ConnectError> {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let address = match &self.way {
            Way::Service(resolver, service) => {
                let found = resolver.resolve(&service.namespace, &service.name, service.port).await;
                found.map_err(ConnectError)?
            }
            Way::Fixed(address) => address.clone(),
            Way::Host => Address { host: host.clone(), port: uri.port_u16().unwrap_or(443) },
        };
        let connected = tokio::time::timeout(PATIENCE, self.handshake(&address, host)).await;
        connected.unwrap_or_else(|_| Err(ConnectError(format!("dial tcp {address}: i/o timeout"))))
    }

    async fn handshake(&self, address: &Address, host: String) -> Result<TokioIo<Stream>, ConnectError> {
        let tcp = TcpStream::connect((address.host.as_str(), address.port)).await;
        let tcp = tcp.map_err(|error| ConnectError(dial_failure(address, &error)))?;
        tcp.set_nodelay(true).map_err(|error| ConnectError(error.to_string()))?;
        let name = ServerName::try_from(host).map_err(|error| ConnectError(error.to_string()))?;
        let stream = TlsConnector::from(Arc::clone(&self.tls)).connect(name, tcp).await;
        let stream = stream.map_err(|error| {
            if let Some(error) = tls::inner(&error) {
                self.handshakes.failed(error);
            }
            ConnectError(tls::handshake_failure(&error))
        })?;
        Ok(TokioIo::new(Stream(stream)))
    }
}

fn dial_failure(address: &Address, error: &std::io::Error) -> String {
    let why = match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        std::io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        std::io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        std::io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
        _ => error.to_string(),
    };
    format!("dial tcp {address}: {why}")
}

impl TowerService<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

/// A connection.
pub struct Stream(TlsStream<TcpStream>);

impl Connection for Stream {
    fn connected(&self) -> Connected {
        let connected = Connected::new();
        match self.0.get_ref().1.alpn_protocol() {
            Some(b"h2") => connected.negotiated_h2(),
            _ => connected,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
