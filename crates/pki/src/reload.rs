//! A server's TLS out of files that may change while it runs: the certificate that it shows, and the authorities of the
//! clients that it takes.
//!
//! The files are looked at when somebody connects, at most once a second. Invariant: what cannot be used is said, and what
//! worked last goes on.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustls::client::ResolvesClientCert;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme};

use crate::PkiError;
use crate::authority::Identity;
use crate::file::read;
use crate::tls::{certified_key, roots};

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The files of a server.
#[derive(Debug, Clone)]
pub struct ServerFiles {
    /// The certificate. It may come later; until then no connection comes about.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Who signs the certificates of clients; they are not asked for one where absent.
    pub client_authority: Option<PathBuf>,
}

impl ServerFiles {
    /// A TLS configuration that follows the files. HTTP/1.1 and HTTP/2 are offered.
    pub fn server_config(&self) -> Result<ServerConfig, PkiError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| PkiError::Tls(error.to_string()))?;
        let shown = shown(&self.certificate, &self.key);
        let builder = match self.client_authority.clone() {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let known = Followed::new(vec![path.clone()], move || verifier(&path));
                known.current().ok_or_else(|| PkiError::Tls("no client authority".to_owned()))?;
                builder.with_client_cert_verifier(Arc::new(Verifier { known }))
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(Shown(shown)));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// A client's TLS that trusts `authority_pem` and shows the certificate that is in the files at the time.
pub fn following_client_config(certificate: &Path, key: &Path, authority_pem: &str) -> Result<ClientConfig, PkiError> {
    Ok(ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| PkiError::Tls(error.to_string()))?
        .with_root_certificates(roots(authority_pem)?)
        .with_client_cert_resolver(Arc::new(Shown(shown(certificate, key)))))
}

fn shown(certificate: &Path, key: &Path) -> Followed<Arc<CertifiedKey>> {
    let (certificate, key) = (certificate.to_owned(), key.to_owned());
    Followed::new(vec![certificate.clone(), key.clone()], move || {
        let text = |path: &Path| read(path)?.ok_or_else(|| PkiError::Tls(format!("{} is missing", path.display())));
        let identity = Identity { certificate_pem: text(&certificate)?, key_pem: text(&key)? };
        certified_key(&identity).map(Arc::new)
    })
}

fn verifier(path: &Path) -> Result<Arc<dyn ClientCertVerifier>, PkiError> {
    let pem = read(path)?.ok_or_else(|| PkiError::Tls(format!("{} is missing", path.display())))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots(&pem)?), provider)
        .allow_unauthenticated()
        .build()
        .map_err(|error| PkiError::Tls(error.to_string()))
}

/// Something that is made of files, and made again when they have changed.
struct Followed<T> {
    files: Vec<PathBuf>,
    make: Box<dyn Fn() -> Result<T, PkiError> + Send + Sync>,
    state: Mutex<State<T>>,
}

struct State<T> {
    made: Option<T>,
    marks: Vec<Option<(SystemTime, u64)>>,
    looked: Option<Instant>,
}

impl<T: Clone> Followed<T> {
    fn new(files: Vec<PathBuf>, make: impl Fn() -> Result<T, PkiError> + Send + Sync + 'static) -> Self {
        let state = Mutex::new(State { made: None, marks: Vec::new(), looked: None });
        Self { files, make: Box::new(make), state }
    }

    fn current(&self) -> Option<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.is_some_and(|looked| looked.elapsed() < LOOK_EVERY) && state.made.is_some() {
            return state.made.clone();
        }
        state.looked = Some(Instant::now());
        let marks: Vec<_> = self.files.iter().map(|file| mark(file)).collect();
        if marks != state.marks || state.made.is_none() {
            match (self.make)() {
                Ok(made) => state.made = Some(made),
                Err(error) => tracing::warn!(%error, "TLS files cannot be used; what was there before goes on"),
            }
            state.marks = marks;
        }
        state.made.clone()
    }
}

impl<T> fmt::Debug for Followed<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Followed").field(&self.files).finish()
    }
}

fn mark(file: &Path) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_files_make_follows_them_and_outlives_what_is_broken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let followed = Followed::new(vec![path.clone()], {
            let path = path.clone();
            move || match read(&path)?.unwrap_or_default().as_str() {
                "" => Err(PkiError::Tls("empty".to_owned())),
                text => Ok(text.to_owned()),
            }
        });
        let look_again = || followed.state.lock().unwrap().looked = None;
        assert_eq!(followed.current(), None);
        std::fs::write(&path, "one").unwrap();
        assert_eq!(followed.current().as_deref(), Some("one"));
        std::fs::write(&path, "second").unwrap();
        look_again();
        assert_eq!(followed.current().as_deref(), Some("second"));
        std::fs::write(&path, "").unwrap();
        look_again();
        assert_eq!(followed.current().as_deref(), Some("second"));
    }
}
