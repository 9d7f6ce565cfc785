//! TLS out of files that may change while a process runs: the certificate that it shows, and the authorities of those whom
//! it believes, of a server and of a client.
//!
//! Connections that are open end as they began. Invariant: what cannot be used is said, and what worked last goes on.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme};

use crate::PkiError;
use crate::authority::Identity;
use crate::file::read;
use crate::followed::Followed;
use crate::tls::{AnyServer, certified_key, roots};

/// The files of a server.
#[derive(Debug, Clone)]
pub struct ServerFiles {
    /// The certificate. It may come later; until then no connection comes about.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Who signs the certificates of clients, in any number of files; clients are not asked for one where empty.
    pub client_authorities: Vec<PathBuf>,
}

impl ServerFiles {
    /// A TLS configuration that follows the files. HTTP/1.1 and HTTP/2 are offered.
    pub fn server_config(&self) -> Result<ServerConfig, PkiError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| PkiError::Tls(error.to_string()))?;
        let shown = shown(&self.certificate, &self.key);
        let builder = match self.client_authorities.is_empty() {
            true => builder.with_no_client_auth(),
            false => builder.with_client_cert_verifier(following_client_verifier(&self.client_authorities)?),
        };
        let mut config = builder.with_cert_resolver(Arc::new(Shown(shown)));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// Takes the client certificates of the authorities that are in the files at the time, and callers without one.
pub fn following_client_verifier(authorities: &[PathBuf]) -> Result<Arc<dyn ClientCertVerifier>, PkiError> {
    let files = authorities.to_vec();
    let known = Followed::new(files.clone(), move || verifier(&files));
    known.current().ok_or_else(|| PkiError::Tls("no client authority".to_owned()))?;
    Ok(Arc::new(Verifier { known }))
}

/// A client's TLS that shows the certificate that is in the files at the time, and believes servers of the authorities that
/// are in `authority` at the time; every server, where no file is named.
pub fn following_client_config(
    certificate: &Path,
    key: &Path,
    authority: Option<&Path>,
) -> Result<ClientConfig, PkiError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match authority {
        None => Arc::new(AnyServer { algorithms: provider.signature_verification_algorithms }),
        Some(file) => Arc::new(ServerVerifier::following(file)?),
    };
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| PkiError::Tls(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(Shown(shown(certificate, key)))))
}

/// What a client shows: the certificate that is in the files at the time.
pub fn following_identity(certificate: &Path, key: &Path) -> Result<Arc<dyn ResolvesClientCert>, PkiError> {
    let shown = shown(certificate, key);
    shown.current().ok_or_else(|| PkiError::Tls(format!("{} cannot be used", certificate.display())))?;
    Ok(Arc::new(Shown(shown)))
}

fn needed(path: &Path) -> Result<String, PkiError> {
    read(path)?.ok_or_else(|| PkiError::Tls(format!("{} is missing", path.display())))
}

fn shown(certificate: &Path, key: &Path) -> Followed<Arc<CertifiedKey>> {
    let (certificate, key) = (certificate.to_owned(), key.to_owned());
    Followed::new(vec![certificate.clone(), key.clone()], move || {
        let identity = Identity { certificate_pem: needed(&certificate)?, key_pem: needed(&key)? };
        certified_key(&identity).map(Arc::new)
    })
}

fn verifier(files: &[PathBuf]) -> Result<Arc<dyn ClientCertVerifier>, PkiError> {
    let pems = files.iter().map(|file| needed(file)).collect::<Result<Vec<_>, _>>()?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots(&pems.join("\n"))?), provider)
        .allow_unauthenticated()
        .build()
        .map_err(|error| PkiError::Tls(error.to_string()))
}

#[derive(Debug)]
struct Shown(Followed<Arc<CertifiedKey>>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.current()
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.current()
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct Verifier {
    known: Followed<Arc<dyn ClientCertVerifier>>,
}

impl Verifier {
    fn current(&self) -> Result<Arc<dyn ClientCertVerifier>, Error> {
        self.known.current().ok_or_else(|| Error::General("no client authority".to_owned()))
    }
}

impl ClientCertVerifier for Verifier {
    /// None: a client that goes by them would not show a certificate of an authority that came later.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.current()?.verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.current()?.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.current()?.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.current().map(|verifier| verifier.supported_verify_schemes()).unwrap_or_default()
    }
}

#[derive(Debug)]
struct ServerVerifier {
    known: Followed<Arc<WebPkiServerVerifier>>,
}

impl ServerVerifier {
    fn following(file: &Path) -> Result<Self, PkiError> {
        let path = file.to_owned();
        let known = Followed::new(vec![path.clone()], move || {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots(&needed(&path)?)?), provider);
            builder.build().map_err(|error| PkiError::Tls(error.to_string()))
        });
        known.current().ok_or_else(|| PkiError::Tls("no authority of servers".to_owned()))?;
        Ok(Self { known })
    }

    fn current(&self) -> Result<Arc<WebPkiServerVerifier>, Error> {
        self.known.current().ok_or_else(|| Error::General("no authority of servers".to_owned()))
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.current()?.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.current()?.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.current()?.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.current().map(|verifier| verifier.supported_verify_schemes()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;
    use crate::{CertificateAuthority, LeafRequest, write_public};

    /// Whether a client and a server with these configurations come together.
    async fn meet(server: &Arc<ServerConfig>, client: &Arc<ClientConfig>) -> bool {
        let (near, far) = tokio::io::duplex(16_384);
        let accepting = tokio::spawn(TlsAcceptor::from(server.clone()).accept(far));
        let name = ServerName::try_from("server").unwrap();
        let connected = TlsConnector::from(client.clone()).connect(name, near).await;
        let accepted = accepting.await.unwrap();
        connected.is_ok() && accepted.is_ok_and(|stream| stream.get_ref().1.peer_certificates().is_some())
    }

    #[tokio::test]
    async fn an_authority_is_rotated_while_client_and_server_meet() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let old = CertificateAuthority::ensure(dir.path(), "old", "kubernetes").unwrap();
        let new = CertificateAuthority::ensure(dir.path(), "new", "kubernetes").unwrap();
        let put = |name: &str, text: &str| write_public(&path(name), text.as_bytes()).unwrap();
        let leaves = |authority: &CertificateAuthority| {
            for (name, request) in [
                ("server", LeafRequest::server("s", vec!["server".to_owned()], Vec::new())),
                ("client", LeafRequest::client("c", &[])),
            ] {
                let leaf = authority.issue(&request).unwrap();
                put(&format!("{name}.key"), &leaf.key_pem);
                put(&format!("{name}.crt"), &leaf.certificate_pem);
            }
        };
        // Further clients, with an authority of their own that does not change.
        CertificateAuthority::ensure(dir.path(), "proxies", "front-proxy-ca").unwrap();
        put("ca.crt", old.certificate_pem());
        leaves(&old);
        let files = ServerFiles {
            certificate: path("server.crt"),
            key: path("server.key"),
            client_authorities: vec![path("ca.crt"), path("proxies.crt")],
        };
        let server = Arc::new(files.server_config().unwrap());
        let authority = path("ca.crt");
        let client = following_client_config(&path("client.crt"), &path("client.key"), Some(&authority)).unwrap();
        let client = Arc::new(client);
        assert!(meet(&server, &client).await);
        put("ca.crt", &format!("{}{}", old.certificate_pem(), new.certificate_pem()));
        assert!(meet(&server, &client).await);
        leaves(&new);
        assert!(meet(&server, &client).await);
        put("ca.crt", new.certificate_pem());
        assert!(meet(&server, &client).await);
        leaves(&old);
        assert!(!meet(&server, &client).await, "the old authority is trusted no more");
    }
}
