//! A node's first certificate: with a bootstrap kubeconfig's token a kubelet asks for one, and writes the kubeconfig with
//! which it is from then on itself.
//!
//! Invariant: a kubeconfig that works is never replaced; the key stays in the certificates' directory.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use kedge_client::{Backoff, client_from_kubeconfig};
use kedge_pki::{CertificateFacts, KubeconfigCluster, KubeconfigUser, write_kubeconfig};
use tokio_util::sync::CancellationToken;

use crate::certificate_store::CertificateStore;
use crate::error::BootstrapError;
use crate::signing_request::SigningRequest;

/// Where a node's credentials are, and who it is.
#[derive(Debug, Clone)]
pub struct NodeIdentity {
    /// The node's name.
    pub node_name: String,
    /// The kubeconfig that it uses.
    pub kubeconfig: PathBuf,
    /// The kubeconfig with which it gets the first one.
    pub bootstrap_kubeconfig: Option<PathBuf>,
    /// Keys and certificates.
    pub cert_dir: PathBuf,
}

/// What is there at a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeCertificate {
    /// It works.
    Good,
    /// It has to be asked for.
    Missing,
    /// It is too old to ask for another one with it.
    Expired,
}

impl NodeIdentity {
    /// Where the client certificate is kept.
    pub fn store(&self) -> CertificateStore {
        CertificateStore::new(&self.cert_dir, "kubelet-client")
    }

    /// What is there.
    pub fn state(&self, now: Timestamp) -> NodeCertificate {
        if !self.kubeconfig.exists() {
            return NodeCertificate::Missing;
        }
        let certificate = kedge_pki::kubeconfig_certificate(&self.kubeconfig).ok().flatten();
        match certificate.map(|pem| CertificateFacts::read(&pem)) {
            Some(Ok(facts)) if facts.has_expired(now) => NodeCertificate::Expired,
            // Also a kubeconfig without a certificate: with a token, say.
            _ => NodeCertificate::Good,
        }
    }

    /// Makes sure that there is a kubeconfig that works; asks for a certificate until there is one.
    pub async fn ensure(&self, shutdown: &CancellationToken) -> Result<(), BootstrapError> {
        let state = self.state(Timestamp::now());
        let bootstrap = self.bootstrap_kubeconfig.as_deref().filter(|path| path.exists());
        match (state, bootstrap) {
            (NodeCertificate::Good, _) | (NodeCertificate::Missing, None) => Ok(()),
            (NodeCertificate::Expired, None) => Err(BootstrapError::Refused(self.advice())),
            (_, Some(bootstrap)) => self.bootstrap(bootstrap, shutdown).await,
        }
    }

    fn advice(&self) -> String {
        format!(
            "the client certificate in {} has expired, so this node cannot ask for another one; on a control plane run `kedge \
             token create --print-join-command`, and what it prints here",
            self.kubeconfig.display()
        )
    }

    async fn bootstrap(&self, bootstrap: &Path, shutdown: &CancellationToken) -> Result<(), BootstrapError> {
        let store = self.store();
        let is_good = |facts: &CertificateFacts| !facts.has_expired(Timestamp::now());
        if !store.load()?.is_some_and(|(_, facts)| is_good(&facts)) {
            let identity = self.obtain(bootstrap, shutdown).await?;
            store.save(&identity, Timestamp::now())?;
        }
        let cluster = KubeconfigCluster::read(bootstrap)?;
        let user = KubeconfigUser::Files { certificate: store.current(), key: store.current() };
        Ok(write_kubeconfig(&self.kubeconfig, "default-cluster", "default-auth", &cluster, &user)?)
    }

    /// Asks until there is an answer: the control plane may be later than the node.
    async fn obtain(
        &self,
        bootstrap: &Path,
        shutdown: &CancellationToken,
    ) -> Result<kedge_pki::Identity, BootstrapError> {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(10));
        loop {
            let client = client_from_kubeconfig(bootstrap).await.map_err(|error| BootstrapError::Kubeconfig {
                what: format!("cannot use the bootstrap kubeconfig: {error}"),
                source: None,
            })?;
            let request = SigningRequest::kubelet_client(&self.node_name);
            match shutdown.run_until_cancelled(request.obtain(&client)).await {
                None => return Err(BootstrapError::Interrupted),
                Some(Ok(identity)) => return Ok(identity),
                Some(Err(error)) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                    tracing::warn!(%error, cause, "no certificate for this node yet");
                }
            }
            let pause = tokio::time::sleep(backoff.next_delay());
            if shutdown.run_until_cancelled(pause).await.is_none() {
                return Err(BootstrapError::Interrupted);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_works_is_left_alone_and_what_cannot_be_mended_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let identity = NodeIdentity {
            node_name: "a".to_owned(),
            kubeconfig: dir.path().join("kubelet.conf"),
            bootstrap_kubeconfig: Some(dir.path().join("bootstrap-kubelet.conf")),
            cert_dir: dir.path().join("pki"),
        };
        let now = Timestamp::now();
        assert_eq!(identity.state(now), NodeCertificate::Missing);
        let authority = kedge_pki::CertificateAuthority::ensure(dir.path(), "ca", "kubernetes").unwrap();
        let issued = authority.issue(&kedge_pki::LeafRequest::client("system:node:a", &["system:nodes"])).unwrap();
        identity.store().save(&issued, now).unwrap();
        let cluster = KubeconfigCluster {
            server: "https://127.0.0.1:1".to_owned(),
            authority_pem: authority.certificate_pem().to_owned(),
            tls_server_name: None,
        };
        let user = KubeconfigUser::Files { certificate: identity.store().current(), key: identity.store().current() };
        write_kubeconfig(&identity.kubeconfig, "c", "u", &cluster, &user).unwrap();
        assert_eq!(identity.state(now), NodeCertificate::Good);
        identity.ensure(&CancellationToken::new()).await.unwrap();
        let later = now + jiff::SignedDuration::from_hours(366 * 24);
        assert_eq!(identity.state(later), NodeCertificate::Expired);
    }
}
