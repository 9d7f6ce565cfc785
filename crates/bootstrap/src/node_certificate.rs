//! A node's first certificate: with a bootstrap kubeconfig's token a kubelet asks for one, and writes the kubeconfig with
//! which it is from then on itself.
//!
//! Invariant: a kubeconfig that works is never replaced; the key stays in the certificates' directory.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use kedge_balancer::{MEMORY_FILE, Memory};
use kedge_client::{Backoff, client_from_kubeconfig};
use kedge_pki::{
    CertificateAuthority, CertificateDirs, CertificateFacts, KubeconfigCluster, KubeconfigUser, LeafRequest,
    public_key_pins, write_kubeconfig,
};
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
    /// The certificate of the authority whose clients the node takes; a control plane has its key beside it. Where absent,
    /// it is looked for in `pki/ca.crt` beside the kubeconfig.
    pub authority: Option<PathBuf>,
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
            (NodeCertificate::Expired, _) if self.authority_files().is_some() => self.mend(),
            (NodeCertificate::Expired, None) => Err(BootstrapError::Refused(self.advice())),
            (_, Some(bootstrap)) => self.bootstrap(bootstrap, shutdown).await,
        }
    }

    /// The certificates of the authorities that this node trusts.
    pub(crate) fn authority_file(&self) -> Option<PathBuf> {
        let usual = || Some(self.kubeconfig.parent()?.join("pki/ca.crt"));
        self.authority.clone().or_else(usual)
    }

    /// The cluster's authority with its key, which a control plane's machine has beside the kubeconfig.
    fn authority_files(&self) -> Option<(PathBuf, PathBuf)> {
        let certificate = self.authority_file()?;
        let files = (certificate.clone(), certificate.with_extension("key"));
        (files.0.exists() && files.1.exists()).then_some(files)
    }

    /// Where certificates of the whole control plane are renewed, if this is the machine of one.
    pub fn control_plane_dirs(&self) -> Option<CertificateDirs> {
        let pki = self.authority_files()?.0.parent()?.to_owned();
        Some(CertificateDirs { pki, kubernetes: self.kubeconfig.parent()?.to_owned() })
    }

    /// Makes another client certificate where the one that is there has expired and the authority is here.
    pub fn mend_if_expired(&self, now: Timestamp) -> Result<(), BootstrapError> {
        match self.state(now) {
            NodeCertificate::Expired => self.mend(),
            NodeCertificate::Good | NodeCertificate::Missing => Ok(()),
        }
    }

    /// Nobody answers to an expired certificate; a control plane's machine makes itself another one.
    fn mend(&self) -> Result<(), BootstrapError> {
        let Some((certificate, key)) = self.authority_files() else { return Ok(()) };
        let authority = CertificateAuthority::load_files(&certificate, &key)?;
        let user = format!("system:node:{}", self.node_name);
        let identity = authority.issue(&LeafRequest::client(&user, &["system:nodes"]))?;
        self.store().save(&identity, Timestamp::now())?;
        tracing::info!(node = self.node_name, "the node's client certificate had expired and was made anew");
        self.point_to_store(&KubeconfigCluster::read(&self.kubeconfig)?)
    }

    fn point_to_store(&self, cluster: &KubeconfigCluster) -> Result<(), BootstrapError> {
        let current = self.store().current();
        let user = KubeconfigUser::Files { certificate: current.clone(), key: current };
        Ok(write_kubeconfig(&self.kubeconfig, "default-cluster", "default-auth", cluster, &user)?)
    }

    fn advice(&self) -> String {
        format!(
            "the client certificate in {} has expired, so this node cannot ask for another one: run `{}` on this machine",
            self.kubeconfig.display(),
            self.renewal_command()
        )
    }

    /// The one command that gives a node another certificate when it cannot ask for one any more.
    pub fn renewal_command(&self) -> String {
        renewal_command(&self.kubeconfig, self.cert_dir.parent().unwrap_or(Path::new("")))
    }

    async fn bootstrap(&self, bootstrap: &Path, shutdown: &CancellationToken) -> Result<(), BootstrapError> {
        let store = self.store();
        let is_good = |facts: &CertificateFacts| !facts.has_expired(Timestamp::now());
        if !store.load()?.is_some_and(|(_, facts)| is_good(&facts)) {
            let identity = self.obtain(bootstrap, shutdown).await?;
            store.save(&identity, Timestamp::now())?;
        }
        self.point_to_store(&KubeconfigCluster::read(bootstrap)?)
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

/// The one command that gives a node another certificate when it cannot ask for one any more, by its kubeconfig and by what
/// its balancer remembers in the kubelet's directory.
pub fn renewal_command(kubeconfig: &Path, kubelet_dir: &Path) -> String {
    let cluster = KubeconfigCluster::read(kubeconfig).ok();
    let endpoint = cluster.as_ref().map(|cluster| cluster.server.trim_start_matches("https://").to_owned());
    // A node's own balancer ends with its kubelet; it found the cluster by an address that still leads there.
    let is_own = |endpoint: &String| endpoint.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_loopback());
    let endpoint = endpoint.filter(|endpoint| !is_own(endpoint)).or_else(|| found_by(kubelet_dir));
    let endpoint = endpoint.as_deref().unwrap_or("<address of a control plane>:6443");
    let pins = cluster.and_then(|cluster| public_key_pins(&cluster.authority_pem).ok()).unwrap_or_default();
    let pins: Vec<String> = pins.iter().map(|pin| format!(" --discovery-token-ca-cert-hash {pin}")).collect();
    format!(
        "kedge join {endpoint} --renew{} --token <what `kedge token create` prints on a control plane>",
        pins.concat()
    )
}

/// By what a node's balancer found the cluster.
fn found_by(kubelet_dir: &Path) -> Option<String> {
    let seeds = Memory::read(&kubelet_dir.join(MEMORY_FILE))?.seeds;
    let seed = seeds.into_iter().next_back()?;
    Some(seed.trim_start_matches("https://").to_owned())
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
            authority: None,
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

    #[tokio::test]
    async fn an_expired_certificate_is_mended_where_the_authority_is() {
        let dir = tempfile::tempdir().unwrap();
        let identity = NodeIdentity {
            node_name: "a".to_owned(),
            kubeconfig: dir.path().join("kubelet.conf"),
            bootstrap_kubeconfig: None,
            cert_dir: dir.path().join("kubelet"),
            authority: None,
        };
        let pki = dir.path().join("pki");
        let authority = CertificateAuthority::ensure(&pki, "ca", "kubernetes").unwrap();
        let pending =
            kedge_pki::PendingIdentity::new(&LeafRequest::client("system:node:a", &["system:nodes"])).unwrap();
        let request = kedge_pki::CertificateRequest::read(pending.request_pem.as_bytes()).unwrap();
        let certificate_pem = authority.sign_request(&request, &["client auth".to_owned()], Duration::ZERO).unwrap();
        let cluster = KubeconfigCluster {
            server: "https://127.0.0.1:1".to_owned(),
            authority_pem: authority.certificate_pem().to_owned(),
            tls_server_name: None,
        };
        let user = KubeconfigUser::Embedded(kedge_pki::Identity { certificate_pem, key_pem: pending.key_pem });
        write_kubeconfig(&identity.kubeconfig, "c", "u", &cluster, &user).unwrap();
        assert_eq!(identity.state(Timestamp::now()), NodeCertificate::Expired);
        std::fs::rename(pki.join("ca.key"), dir.path().join("away")).unwrap();
        // The balancer listens where its kubelet does not run; what it remembers leads to the cluster.
        let memory = r#"{"listen": "127.0.0.1:1", "servers": [], "seeds": ["lb.example:6443"]}"#;
        std::fs::write(dir.path().join(MEMORY_FILE), memory).unwrap();
        assert!(identity.renewal_command().starts_with("kedge join lb.example:6443 --renew "));
        std::fs::remove_file(dir.path().join(MEMORY_FILE)).unwrap();
        let error = identity.ensure(&CancellationToken::new()).await.unwrap_err().to_string();
        let pin = kedge_pki::public_key_pin(authority.certificate_pem()).unwrap();
        let command = format!(
            "run `kedge join <address of a control plane>:6443 --renew --discovery-token-ca-cert-hash {pin} --token <"
        );
        assert!(error.contains(&command), "{error}");
        assert!(identity.control_plane_dirs().is_none());
        std::fs::rename(dir.path().join("away"), pki.join("ca.key")).unwrap();
        identity.ensure(&CancellationToken::new()).await.unwrap();
        assert_eq!(identity.state(Timestamp::now()), NodeCertificate::Good);
        assert_eq!(KubeconfigCluster::read(&identity.kubeconfig).unwrap(), cluster);
        assert_eq!(identity.control_plane_dirs().unwrap().pki, pki);
    }
}
