//! Whose certificates are taken, and what is said of those that are not.

use std::sync::{Arc, LazyLock};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{CertificateError, ClientConfig, Error, RootCertStore};

use crate::handshakes::is_sha1;

/// The system's authorities, read once.
static SYSTEM: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    Arc::new(store)
});

/// A certificate with those that lead to its authority, and its key; PEM.
pub(crate) type Identity = (Vec<u8>, Vec<u8>);

/// How to speak TLS with what shows a certificate of these authorities (PEM; the system's where empty).
pub(crate) fn client_config(
    authorities: &[u8],
    takes_http2: bool,
    identity: Option<&Identity>,
) -> Result<Arc<ClientConfig>, String> {
    let roots = match authorities.is_empty() {
        true => Arc::clone(&SYSTEM),
        false => {
            let mut store = RootCertStore::empty();
            let (added, _) =
                store.add_parsable_certificates(CertificateDer::pem_slice_iter(authorities).filter_map(Result::ok));
            if added == 0 {
                return Err("unable to load root certificates: unable to parse bytes as PEM block".to_owned());
            }
            Arc::new(store)
        }
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?;
    let builder = builder.with_root_certificates(roots);
    let mut config = match identity {
        Some((certificate, key)) => {
            let unusable = |error: &dyn std::fmt::Display| format!("unusable client certificate: {error}");
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
            let chain = chain.map_err(|error| unusable(&error))?;
            let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| unusable(&error))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| unusable(&error))?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = match takes_http2 {
        true => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        false => vec![b"http/1.1".to_vec()],
    };
    Ok(Arc::new(config))
}

/// What TLS found wrong, where it was TLS.
pub(crate) fn inner(error: &std::io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref::<Error>()
}

/// What went wrong in a handshake, in the words that operators know from upstream.
pub(crate) fn handshake_failure(error: &std::io::Error) -> String {
    let of_certificate = |why: &str| format!("tls: failed to verify certificate: x509: {why}");
    match inner(error) {
        // An authority of the same name with another key is an unknown one, too.
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature)) => {
            of_certificate("certificate signed by unknown authority")
        }
        Some(Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        )) => of_certificate("certificate has expired or is not yet valid"),
        Some(Error::InvalidCertificate(CertificateError::NotValidForNameContext { expected, presented }))
            if presented.is_empty() =>
        {
            let why = "certificate is not valid for any names, but wanted to match";
            of_certificate(&format!("{why} {}", expected.to_str()))
        }
        Some(Error::InvalidCertificate(CertificateError::NotValidForNameContext { expected, presented })) => {
            let presented = presented.join(", ");
            of_certificate(&format!("certificate is valid for {presented}, not {}", expected.to_str()))
        }
        Some(error) if is_sha1(error) => of_certificate("cannot verify signature: insecure algorithm SHA1"),
        Some(error) => format!("tls: {error}"),
        None => error.to_string(),
    }
}
