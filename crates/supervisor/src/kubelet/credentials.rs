//! Keys and certificates of a kubelet that is a process of its own: the client certificate that it gets by TLS bootstrap and
//! renews, and the serving certificate that is named, asked for, or made here.
//!
//! Invariant: a private key that is made here stays in the certificates' directory; files that change are picked up while the
//! kubelet runs.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use kedge_bootstrap::{
    AuthorityFollower, BootstrapError, CertificateStore, LocalRenewal, NodeIdentity, SigningRequest, keep_rotated,
};
use kedge_client::{Client, Recorder};
use kedge_kubelet::{Config, LaunchSettings};
use kedge_pki::{CertificateAuthority, LeafRequest, ServerFiles};
use tokio_util::sync::CancellationToken;

use super::{KubeletOptions, chain};
use crate::error::Error;

/// What the kubelet was told of its certificates.
pub(super) struct Credentials {
    identity: NodeIdentity,
    node_ips: Vec<IpAddr>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    client_authority: Option<PathBuf>,
    rotates_client: bool,
    asks_for_server: bool,
    rotates_control_plane: bool,
}

impl Credentials {
    /// Flags win over the file.
    pub(super) fn new(options: &KubeletOptions, launch: &LaunchSettings, config: &Config) -> Self {
        let flags = &options.overrides;
        let client_authority = flags.client_ca_file.clone().or_else(|| launch.client_ca_file.clone());
        Self {
            identity: NodeIdentity {
                node_name: config.node_name.clone(),
                kubeconfig: options.kubeconfig.clone(),
                bootstrap_kubeconfig: options.bootstrap_kubeconfig.clone(),
                cert_dir: options.cert_dir.clone(),
                authority: client_authority.clone(),
            },
            node_ips: config.node_ips(),
            certificate: flags.tls_cert_file.clone().or_else(|| launch.tls_cert_file.clone()),
            key: flags.tls_private_key_file.clone().or_else(|| launch.tls_private_key_file.clone()),
            client_authority,
            rotates_client: flags.rotate_certificates.unwrap_or(launch.rotate_certificates),
            asks_for_server: flags.rotate_server_certificates.unwrap_or(launch.server_tls_bootstrap),
            rotates_control_plane: flags.rotate_control_plane_certificates,
        }
    }

    fn server_store(&self) -> CertificateStore {
        CertificateStore::new(&self.identity.cert_dir, "kubelet-server")
    }

    /// TLS of the kubelet's server: the named certificate, else the one that the cluster gives, else one that the kubelet
    /// signs itself, as upstream does.
    pub(super) fn server_tls(&self) -> Result<rustls::ServerConfig, Error> {
        let (certificate, key) = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => {
                readable("--tls-cert-file", certificate)?;
                readable("--tls-private-key-file", key)?;
                (certificate.clone(), key.clone())
            }
            (None, None) if self.asks_for_server => (self.server_store().current(), self.server_store().current()),
            (None, None) => self.own_files()?,
            (certificate, _) => {
                let why = "--tls-cert-file and --tls-private-key-file belong together".to_owned();
                let value = certificate.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
                return Err(Error::Flag { flag: "--tls-cert-file", value, why });
            }
        };
        if let Some(path) = &self.client_authority {
            readable("--client-ca-file", path)?;
        }
        let files =
            ServerFiles { certificate, key, client_authorities: self.client_authority.iter().cloned().collect() };
        Ok(files.server_config()?)
    }

    fn own_files(&self) -> Result<(PathBuf, PathBuf), Error> {
        let dir = &self.identity.cert_dir;
        std::fs::create_dir_all(dir).map_err(|error| Error::Flag {
            flag: "--cert-dir",
            value: dir.display().to_string(),
            why: error.to_string(),
        })?;
        let name = &self.identity.node_name;
        let authority = CertificateAuthority::ensure(dir, "kubelet-ca", &format!("{name}-ca"))?;
        let request = LeafRequest::server(name, vec![name.clone()], self.node_ips.clone());
        authority.ensure_leaf(dir, "kubelet", &request)?;
        Ok((dir.join("kubelet.crt"), dir.join("kubelet.key")))
    }

    /// Makes sure that the kubeconfig works; `false` where `shutdown` came first.
    pub(super) async fn ensure(&self, shutdown: &CancellationToken) -> Result<bool, Error> {
        match self.identity.ensure(shutdown).await {
            Ok(()) => Ok(true),
            Err(BootstrapError::Interrupted) => Ok(false),
            Err(error) => Err(Error::Component { component: "kubelet", why: chain(&error) }),
        }
    }

    /// Starts renewing what the cluster gives.
    pub(super) fn spawn_rotation(&self, client: &Client, shutdown: &CancellationToken) {
        let name = &self.identity.node_name;
        if self.rotates_control_plane {
            let recorder = Recorder::start(client.clone(), "kubelet", name, shutdown.clone());
            tokio::spawn(LocalRenewal::new(self.identity.clone(), recorder, client.clone()).run(shutdown.clone()));
        }
        if self.rotates_client && self.seed_client_store() {
            let request = SigningRequest::kubelet_client(name);
            let authority = self.client_authority.clone();
            tokio::spawn(keep_rotated(client.clone(), self.identity.store(), request, authority, shutdown.clone()));
            let follower = AuthorityFollower::new(self.identity.clone(), client.clone());
            tokio::spawn(follower.run(shutdown.clone()));
        }
        if self.asks_for_server && self.certificate.is_none() {
            let addresses = self.node_ips.iter().filter(|ip| !ip.is_unspecified()).copied().collect();
            let request = SigningRequest::kubelet_serving(name, addresses);
            let authority = self.client_authority.clone();
            tokio::spawn(keep_rotated(client.clone(), self.server_store(), request, authority, shutdown.clone()));
        }
    }

    /// A kubeconfig may bring its first certificate itself; what follows goes into files. `false` where it has none at all.
    fn seed_client_store(&self) -> bool {
        let store = self.identity.store();
        if matches!(store.load(), Ok(Some(_))) {
            return true;
        }
        match kedge_pki::kubeconfig_identity(&self.identity.kubeconfig) {
            Ok(Some(identity)) => match store.save(&identity, Timestamp::now()) {
                Ok(()) => true,
                Err(error) => {
                    tracing::warn!(error = chain(&error), "the client certificate cannot be kept, nor renewed");
                    false
                }
            },
            _ => false,
        }
    }
}

fn readable(flag: &'static str, path: &Path) -> Result<(), Error> {
    std::fs::File::open(path).map(|_| ()).map_err(|error| Error::Flag {
        flag,
        value: path.display().to_string(),
        why: error.to_string(),
    })
}
