//! How an API server shows that it is one of this cluster: by the authority in the node's kubeconfig.

use std::path::PathBuf;
use std::sync::Arc;

use kedge_pki::KubeconfigCluster;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};

/// TLS towards API servers, with the authority as the first of the kubeconfigs has it now.
pub(crate) fn client_tls(kubeconfigs: &[PathBuf]) -> Result<Arc<ClientConfig>, String> {
    let found = kubeconfigs.iter().find(|path| path.exists()).ok_or("there is no kubeconfig yet")?;
    let cluster = KubeconfigCluster::read(found).map_err(|error| error.to_string())?;
    let mut roots = RootCertStore::empty();
    for certificate in kedge_pki::certificates_der(&cluster.authority_pem).map_err(|error| error.to_string())? {
        roots.add(CertificateDer::from(certificate)).map_err(|error| error.to_string())?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}
