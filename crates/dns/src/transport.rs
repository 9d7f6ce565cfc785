//! One question to one resolver: over UDP, over TCP where the answer was cut or that is wished, or over TLS (RFC 7858).
//!
//! Invariant: every question has an identifier and a source port of its own, and an answer counts only if it repeats the
//! question; each attempt ends in time.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, Query};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::message::EDNS_MAX;

/// For one attempt at one resolver.
const PATIENCE: Duration = Duration::from_secs(2);
/// The same where a handshake comes before.
const TLS_PATIENCE: Duration = Duration::from_secs(5);
/// What tells encrypted questions from padding (RFC 8467) is left to the resolver.
const ALPN: &[u8] = b"dot";

/// How to reach a resolver.
#[derive(Clone)]
pub(crate) enum Way {
    /// UDP first.
    Plain,
    /// TCP only.
    Tcp,
    /// TLS; the name is what its certificate is to have.
    Tls(Tls),
}

/// What TLS needs.
#[derive(Clone)]
pub(crate) struct Tls {
    connector: TlsConnector,
    name: Option<ServerName<'static>>,
}

impl Tls {
    /// Trusts the authorities of a file, or else those of the machine.
    pub(crate) fn new(authorities: Option<&Path>, name: Option<&str>) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        match authorities {
            Some(file) => {
                let wrong = |error: String| format!("{} has no certificates of authorities: {error}", file.display());
                let certificates = CertificateDer::pem_file_iter(file).map_err(|error| wrong(error.to_string()))?;
                for certificate in certificates {
                    let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
                    roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
                }
            }
            None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
        }
        if roots.is_empty() {
            return Err("there are no authorities to trust (Debian's package ca-certificates)".to_owned());
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config =
            builder.map_err(|error| error.to_string())?.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![ALPN.to_vec()];
        let name = name.map(|name| ServerName::try_from(name.to_owned())).transpose();
        let name = name.map_err(|error| error.to_string())?;
        Ok(Self { connector: Arc::new(config).into(), name })
    }
}

/// Asks, and gives the answer to this question.
pub(crate) async fn exchange(server: SocketAddr, way: &Way, query: &Query, dnssec: bool) -> io::Result<Message> {
    let mut question = Message::query();
    question.metadata.recursion_desired = true;
    question.add_query(query.clone());
    let mut edns = Edns::new();
    edns.set_max_payload(EDNS_MAX);
    edns.set_dnssec_ok(dnssec);
    question.set_edns(edns);
    let bytes = question.to_vec().map_err(io::Error::other)?;
    match way {
        Way::Tls(tls) => return timeout(TLS_PATIENCE, over_tls(server, tls, &question, &bytes)).await?,
        Way::Tcp => {}
        Way::Plain => {
            let answer = timeout(PATIENCE, over_udp(server, &question, &bytes)).await??;
            if !answer.metadata.truncation {
                return Ok(answer);
            }
        }
    }
    timeout(PATIENCE, async { over_stream(TcpStream::connect(server).await?, &question, &bytes).await }).await?
}

async fn over_udp(server: SocketAddr, question: &Message, bytes: &[u8]) -> io::Result<Message> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.connect(server).await?;
    socket.send(bytes).await?;
    let mut buffer = vec![0; usize::from(EDNS_MAX) + 1];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // Anything else that arrives is late, broken or forged: the real answer may still come.
        if let Some(answer) = read_answer(question, &buffer[..length]) {
            return Ok(answer);
        }
    }
}

async fn over_tls(server: SocketAddr, tls: &Tls, question: &Message, bytes: &[u8]) -> io::Result<Message> {
    let name = tls.name.clone().unwrap_or_else(|| ServerName::from(server.ip()));
    let stream = TcpStream::connect(server).await?;
    over_stream(tls.connector.connect(name, stream).await?, question, bytes).await
}

async fn over_stream(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    question: &Message,
    bytes: &[u8],
) -> io::Result<Message> {
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], bytes].concat()).await?;
    stream.flush().await?;
    let length = stream.read_u16().await?;
    let mut buffer = vec![0; usize::from(length)];
    stream.read_exact(&mut buffer).await?;
    read_answer(question, &buffer).ok_or_else(|| io::Error::other("the resolver's answer is to another question"))
}

fn read_answer(question: &Message, bytes: &[u8]) -> Option<Message> {
    let answer = Message::from_vec(bytes).ok()?;
    let (asked, repeated) = (question.queries.first()?, answer.queries.first()?);
    let same = answer.metadata.id == question.metadata.id
        && answer.metadata.message_type == MessageType::Response
        && asked.name == repeated.name
        && asked.query_type == repeated.query_type
        && asked.query_class == repeated.query_class;
    same.then_some(answer)
}
