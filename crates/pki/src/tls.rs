//! TLS configurations made of PEM texts.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};

use crate::PkiError;
use crate::authority::Identity;

/// A server that takes client certificates of `client_authority_pem`, but does not insist on one.
pub fn server_config(identity: &Identity, client_authority_pem: &str) -> Result<ServerConfig, PkiError> {
    let (chain, key) = parse(identity)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = client_verifier(&[client_authority_pem])?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| PkiError::Tls(error.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|error| PkiError::Tls(error.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Takes client certificates of some authorities, and callers without one.
pub fn client_verifier(authorities_pem: &[&str]) -> Result<Arc<dyn ClientCertVerifier>, PkiError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots(&authorities_pem.join("\n"))?), provider)
        .allow_unauthenticated()
        .build()
        .map_err(|error| PkiError::Tls(error.to_string()))
}

/// A server that asks for no client certificates: whoever comes shows a token, or nothing.
pub fn server_config_without_client_certificates(identity: &Identity) -> Result<ServerConfig, PkiError> {
    let (chain, key) = parse(identity)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| PkiError::Tls(error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| PkiError::Tls(error.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// A client that trusts `authority_pem` and shows `identity`.
pub fn client_config(identity: &Identity, authority_pem: &str) -> Result<ClientConfig, PkiError> {
    let (chain, key) = parse(identity)?;
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| PkiError::Tls(error.to_string()))?
        .with_root_certificates(roots(authority_pem)?)
        .with_client_auth_cert(chain, key)
        .map_err(|error| PkiError::Tls(error.to_string()))
}

/// The certificates of a PEM text, as DER.
pub fn certificates_der(pem: &str) -> Result<Vec<Vec<u8>>, PkiError> {
    let certificates = CertificateDer::pem_slice_iter(pem.as_bytes()).map(|found| found.map(|found| found.to_vec()));
    certificates.collect::<Result<_, _>>().map_err(|error| PkiError::Tls(error.to_string()))
}

/// Certificate and key as TLS uses them; they belong together.
pub(crate) fn certified_key(identity: &Identity) -> Result<CertifiedKey, PkiError> {
    let (chain, key) = parse(identity)?;
    let key = rustls::crypto::ring::sign::any_supported_type(&key).map_err(|error| PkiError::Tls(error.to_string()))?;
    if chain.is_empty() {
        return Err(PkiError::Tls("there is no certificate".to_owned()));
    }
    let certified = CertifiedKey::new(chain, key);
    certified.keys_match().map_err(|error| PkiError::Tls(error.to_string()))?;
    Ok(certified)
}

/// A client that shows `identity` and takes whatever certificate a server shows, as upstream's API server does towards
/// kubelets where no authority is named for them.
pub fn client_config_without_server_authority(identity: &Identity) -> Result<ClientConfig, PkiError> {
    let (chain, key) = parse(identity)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(AnyServer { algorithms: provider.signature_verification_algorithms });
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| PkiError::Tls(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(chain, key)
        .map_err(|error| PkiError::Tls(error.to_string()))
}

/// A client that shows nothing and takes whatever certificate a server shows: for questions whose answer anybody may have.
pub fn client_config_for_any_server() -> Result<ClientConfig, PkiError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(AnyServer { algorithms: provider.signature_verification_algorithms });
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| PkiError::Tls(error.to_string()))?;
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

/// Believes every server; signatures of the handshake are checked.
#[derive(Debug)]
pub(crate) struct AnyServer {
    pub(crate) algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn parse(identity: &Identity) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), PkiError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(identity.certificate_pem.as_bytes()).collect();
    let chain = chain.map_err(|error| PkiError::Tls(error.to_string()))?;
    let key =
        PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).map_err(|error| PkiError::Tls(error.to_string()))?;
    Ok((chain, key))
}

pub(crate) fn roots(pem: &str) -> Result<RootCertStore, PkiError> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| PkiError::Tls(error.to_string()))?;
        store.add(certificate).map_err(|error| PkiError::Tls(error.to_string()))?;
    }
    Ok(store)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ClusterNames, ClusterPki};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_client_and_the_server_accept_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let names = ClusterNames {
            node_name: "n1".to_owned(),
            dns_domain: "cluster.local".to_owned(),
            api_addresses: vec!["127.0.0.1".parse().unwrap()],
            api_names: Vec::new(),
            node_addresses: vec!["127.0.0.1".parse().unwrap()],
        };
        let pki = ClusterPki::ensure(dir.path(), &names).unwrap();
        let authority = pki.authority.certificate_pem();
        let server = Arc::new(server_config(&pki.apiserver, authority).unwrap());
        let client = Arc::new(client_config(&pki.admin, authority).unwrap());
        for name in ["127.0.0.1", "kubernetes.default.svc.cluster.local", "n1"] {
            let (near, far) = tokio::io::duplex(4096);
            let serving = tokio::spawn(tokio_rustls::TlsAcceptor::from(server.clone()).accept(far));
            let name = rustls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
            let mut near = tokio_rustls::TlsConnector::from(client.clone()).connect(name, near).await.unwrap();
            near.write_all(b"hello").await.unwrap();
            let mut far = serving.await.unwrap().unwrap();
            let mut text = [0; 5];
            far.read_exact(&mut text).await.unwrap();
            assert_eq!(&text, b"hello");
            assert_eq!(far.get_ref().1.peer_certificates().unwrap().len(), 1);
        }
    }
}
