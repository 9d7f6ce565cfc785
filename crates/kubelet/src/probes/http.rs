//! One HTTP or HTTPS request, as probes and hooks make it. Certificates are not verified, as upstream does not.
//!
//! Not a general client. Invariant: at most 10 KiB of a body are read.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::HTTPGetAction;
use rustls::ClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::dial_error;

const MAX_BODY: usize = 10 * 1024;

/// Where a request goes, and with which headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HttpTarget {
    pub(crate) tls: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct HttpAnswer {
    pub(crate) status: u16,
    pub(crate) body: String,
    location: Option<String>,
}

impl HttpTarget {
    pub(crate) fn new(action: &HTTPGetAction, pod_ip: &str, port: u16, user_agent: &str) -> Self {
        let host = action.host.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| pod_ip.to_owned());
        let path = action.path.clone().filter(|path| !path.is_empty()).unwrap_or_else(|| "/".to_owned());
        let mut headers: Vec<(String, String)> = Vec::new();
        let own = action.http_headers.iter().flatten();
        headers.extend(own.map(|header| (header.name.clone(), header.value.clone())));
        let has = |name: &str| headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
        let (agent, accept) = (!has("user-agent"), !has("accept"));
        if agent {
            headers.push(("User-Agent".to_owned(), user_agent.to_owned()));
        }
        if accept {
            headers.push(("Accept".to_owned(), "*/*".to_owned()));
        }
        // An empty value means that the header is not sent.
        headers.retain(|(_, value)| !value.is_empty());
        Self {
            tls: action.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")),
            host,
            port,
            path: if path.starts_with('/') { path } else { format!("/{path}") },
            headers,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("{}://{}{}", if self.tls { "https" } else { "http" }, self.authority(), self.path)
    }

    fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

impl HttpAnswer {
    /// Where a redirect leads.
    pub(super) fn redirect(&self, from: &HttpTarget) -> Option<HttpTarget> {
        if !matches!(self.status, 301 | 302 | 303 | 307 | 308) {
            return None;
        }
        let location = self.location.as_deref()?;
        if location.starts_with('/') {
            return Some(HttpTarget { path: location.to_owned(), ..from.clone() });
        }
        let uri: http::Uri = location.parse().ok()?;
        let tls = uri.scheme_str() == Some("https");
        Some(HttpTarget {
            tls,
            host: uri.host()?.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            path: uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string),
            headers: from.headers.clone(),
        })
    }
}

/// Sends one GET; errors read as those of Go's client.
pub(crate) async fn get(target: &HttpTarget) -> Result<HttpAnswer, String> {
    let fails = |text: String| format!("Get \"{}\": {text}", target.url());
    let stream = TcpStream::connect(target.authority())
        .await
        .map_err(|error| fails(format!("dial tcp {}: {}", target.authority(), dial_error(&error))))?;
    if !target.tls {
        return exchange(target, stream).await.map_err(fails);
    }
    let name = ServerName::try_from(target.host.clone()).map_err(|error| fails(error.to_string()))?;
    let tls = TlsConnector::from(unverified()).connect(name, stream).await;
    exchange(target, tls.map_err(|error| fails(error.to_string()))?).await.map_err(fails)
}

async fn exchange<S>(target: &HttpTarget, stream: S) -> Result<HttpAnswer, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let connection = tokio::spawn(connection);
    let host = target.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("host"));
    let host = host.map_or_else(|| target.authority(), |(_, value)| value.clone());
    let mut request = http::Request::get(&target.path).header("Host", host).header("Connection", "close");
    for (name, value) in target.headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("host")) {
        request = request.header(name, value);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(|error| match error.is_incomplete_message() {
        true => "EOF".to_owned(),
        false => error.to_string(),
    });
    let result = match answer {
        Ok(answer) => Ok(collect(answer).await),
        Err(error) => Err(error),
    };
    connection.abort();
    result
}

async fn collect(answer: http::Response<hyper::body::Incoming>) -> HttpAnswer {
    let status = answer.status().as_u16();
    let location = answer.headers().get("location").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let mut body = answer.into_body();
    let mut bytes = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        bytes.extend_from_slice(frame.data_ref().map(Bytes::as_ref).unwrap_or_default());
        if bytes.len() >= MAX_BODY {
            bytes.truncate(MAX_BODY);
            break;
        }
    }
    HttpAnswer { status, location, body: String::from_utf8_lossy(&bytes).into_owned() }
}

fn unverified() -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(AcceptAny(provider.clone()));
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring supports the default protocol versions")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Arc::new(config)
}

/// Probes ask whether somebody answers, not who.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn action(path: &str) -> HTTPGetAction {
        HTTPGetAction { path: Some(path.to_owned()), port: IntOrString::Int(1), ..HTTPGetAction::default() }
    }

    #[tokio::test]
    async fn a_request_and_its_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap();
            stream.write_all(b"HTTP/1.1 503 No\r\nContent-Length: 4\r\n\r\nbusy").await.unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        let answer = get(&HttpTarget::new(&action("healthz"), "127.0.0.1", port, "kube-probe/1.36")).await.unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (503, "busy"));
        let request = server.await.unwrap();
        assert!(request.starts_with("GET /healthz HTTP/1.1\r\n"), "{request}");
        assert!(request.to_lowercase().contains("user-agent: kube-probe/1.36"), "{request}");
    }

    #[tokio::test]
    async fn nobody_there_reads_as_in_go() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let error = get(&HttpTarget::new(&action("/"), "127.0.0.1", port, "x")).await.unwrap_err();
        assert_eq!(
            error,
            format!("Get \"http://127.0.0.1:{port}/\": dial tcp 127.0.0.1:{port}: connect: connection refused")
        );
    }

    #[test]
    fn redirects() {
        let from = HttpTarget::new(&action("/a"), "10.0.0.1", 80, "x");
        let check = |status: u16, location: &str, expected: Option<&str>| {
            let answer = HttpAnswer { status, body: String::new(), location: Some(location.to_owned()) };
            assert_eq!(answer.redirect(&from).map(|target| target.url()).as_deref(), expected);
        };
        check(302, "/b", Some("http://10.0.0.1:80/b"));
        check(301, "https://example.test/x", Some("https://example.test:443/x"));
        check(200, "/b", None);
    }
}
