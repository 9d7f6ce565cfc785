//! All certificates and keys of one cluster's control plane and of the node in the same process, in kubeadm's layout.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rcgen::KeyPair;

use crate::PkiError;
use crate::authority::{CertificateAuthority, Identity, LeafRequest};
use crate::file::{read, write, write_private};

/// By which names and addresses the cluster is reached.
#[derive(Debug, Clone)]
pub struct ClusterNames {
    /// The node's name.
    pub node_name: String,
    /// The cluster's DNS domain, such as `cluster.local`.
    pub dns_domain: String,
    /// Every address of the API server: the node's, the first one of the Service range, loopback.
    pub api_addresses: Vec<IpAddr>,
    /// Further DNS names of the API server.
    pub api_names: Vec<String>,
    /// The node's addresses, for the kubelet.
    pub node_addresses: Vec<IpAddr>,
}

/// What [`ClusterPki::ensure`] found or made.
pub struct ClusterPki {
    /// The directory.
    pub dir: PathBuf,
    /// The cluster's certificate authority.
    pub authority: CertificateAuthority,
    /// The API server's serving certificate.
    pub apiserver: Identity,
    /// The API server's client certificate towards kubelets.
    pub apiserver_kubelet_client: Identity,
    /// What the API server shows extension API servers, signed by an authority of its own.
    pub front_proxy_client: Identity,
    /// The authority of that, PEM.
    pub front_proxy_authority_pem: String,
    /// The kubelet's serving certificate.
    pub kubelet_server: Identity,
    /// The administrator's client certificate.
    pub admin: Identity,
    /// The key that signs service-account tokens (PKCS#8 PEM).
    pub service_account_key_pem: String,
}

impl ClusterPki {
    /// Loads everything from `dir`, making what is missing.
    pub fn ensure(dir: &Path, names: &ClusterNames) -> Result<Self, PkiError> {
        let authority = CertificateAuthority::ensure(dir, "ca", "kubernetes")?;
        let domain = &names.dns_domain;
        let mut dns_names: Vec<String> =
            ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"].map(str::to_owned).into();
        dns_names.push(format!("kubernetes.default.svc.{domain}"));
        dns_names.push(names.node_name.clone());
        dns_names.extend(names.api_names.iter().cloned());
        let apiserver = LeafRequest::server("kube-apiserver", dns_names, names.api_addresses.clone());
        let kubelet_client = LeafRequest::client("kube-apiserver-kubelet-client", &["kubeadm:cluster-admins"]);
        let kubelet = LeafRequest::server(
            &format!("system:node:{}", names.node_name),
            vec![names.node_name.clone()],
            names.node_addresses.clone(),
        );
        let admin = LeafRequest::client("kubernetes-admin", &["system:masters"]);
        let front_proxies = CertificateAuthority::ensure(dir, "front-proxy-ca", "front-proxy-ca")?;
        let front_proxy = LeafRequest::client("front-proxy-client", &[]);
        Ok(Self {
            front_proxy_client: front_proxies.ensure_leaf(dir, "front-proxy-client", &front_proxy)?,
            front_proxy_authority_pem: front_proxies.certificate_pem().to_owned(),
            apiserver: authority.ensure_leaf(dir, "apiserver", &apiserver)?,
            apiserver_kubelet_client: authority.ensure_leaf(dir, "apiserver-kubelet-client", &kubelet_client)?,
            kubelet_server: authority.ensure_leaf(dir, "kubelet", &kubelet)?,
            admin: authority.ensure_leaf(dir, "admin", &admin)?,
            service_account_key_pem: ensure_service_account_key(dir)?,
            dir: dir.to_owned(),
            authority,
        })
    }
}

/// The key that signs service-account tokens, in `sa.key` and `sa.pub`; made if it is not there.
pub fn ensure_service_account_key(dir: &Path) -> Result<String, PkiError> {
    let path = dir.join("sa.key");
    if let Some(pem) = read(&path)? {
        return Ok(pem);
    }
    let key = KeyPair::generate()
        .map_err(|source| PkiError::Generate { name: "the service-account key".to_owned(), source })?;
    let pem = key.serialize_pem();
    write_private(&path, pem.as_bytes())?;
    write(&dir.join("sa.pub"), key.public_key_pem().as_bytes(), 0o644)?;
    Ok(pem)
}
