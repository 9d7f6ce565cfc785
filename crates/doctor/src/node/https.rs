//! One question to a server of this machine, over TLS or without.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kedge_pki::PkiError;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A machine that is well answers itself at once.
const TIMEOUT: Duration = Duration::from_millis(1500);
const MOST_BYTES: u64 = 4 << 20;

/// Status and body of an answer.
pub(super) type Answer = (u16, String);

/// Asks with HTTP/1.0, whose answer ends with the connection; without a body it is a `GET`.
pub(super) async fn ask(
    address: SocketAddr,
    tls: Option<&Arc<ClientConfig>>,
    path: &str,
    body: Option<&str>,
) -> Result<Answer, String> {
    let asked = async {
        let stream = TcpStream::connect(address).await?;
        match tls {
            None => exchange(stream, address, path, body).await,
            Some(tls) => {
                let stream = TlsConnector::from(tls.clone()).connect(ServerName::from(address.ip()), stream).await?;
                exchange(stream, address, path, body).await
            }
        }
    };
    within(asked).await
}

/// The certificate that a server shows, as DER; whatever it is.
pub(super) async fn shown(address: SocketAddr) -> Result<Vec<u8>, String> {
    let tls = Arc::new(any_server().map_err(|error| error.to_string())?);
    let shown = async {
        let stream = TcpStream::connect(address).await?;
        let stream = TlsConnector::from(tls).connect(ServerName::from(address.ip()), stream).await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        shown.map(|certificate| certificate.to_vec()).ok_or_else(|| std::io::Error::other("it shows none"))
    };
    within(shown).await
}

/// A client that takes any server: what it shows is what is asked for.
pub(super) fn any_server() -> Result<ClientConfig, PkiError> {
    kedge_pki::client_config_for_any_server()
}

async fn within<T>(work: impl Future<Output = std::io::Result<T>>) -> Result<T, String> {
    match tokio::time::timeout(TIMEOUT, work).await {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} ms", TIMEOUT.as_millis())),
    }
}

async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    address: SocketAddr,
    path: &str,
    body: Option<&str>,
) -> std::io::Result<Answer> {
    let (method, body) = body.map_or(("GET", ""), |body| ("POST", body));
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    let mut answer = Vec::new();
    // Some servers end without a word of farewell; what they said before counts.
    if let Err(error) = (&mut stream).take(MOST_BYTES).read_to_end(&mut answer).await
        && answer.is_empty()
    {
        return Err(error);
    }
    parse(&String::from_utf8_lossy(&answer)).ok_or_else(|| std::io::Error::other("the answer is not HTTP"))
}

fn parse(answer: &str) -> Option<Answer> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/")?.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_is_asked_and_one_that_is_not_there_is_told() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("it listens");
        let address = listener.local_addr().expect("it has one");
        let serving = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a client");
            let mut request = [0; 1024];
            let read = stream.read(&mut request).await.expect("a request");
            stream.write_all(b"HTTP/1.0 200 OK\r\nA: b\r\n\r\nwell").await.expect("it is written");
            String::from_utf8_lossy(&request[..read]).into_owned()
        });
        assert_eq!(ask(address, None, "/health", None).await, Ok((200, "well".to_owned())));
        assert!(serving.await.expect("it ends").starts_with("GET /health HTTP/1.0\r\n"));
        let gone = ask(address, None, "/health", None).await;
        assert!(gone.as_ref().is_err_and(|error| error.contains("refused")), "{gone:?}");
    }
}
