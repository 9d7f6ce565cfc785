//! Where the load goes: an address and the credentials of a kubeconfig's current context.
//!
//! Invariant: the server's certificate is verified; a kubeconfig without an authority is refused.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde::Deserialize;

/// A server and how to be let in.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// `host:port`.
    pub(crate) authority: String,
    pub(crate) server_name: ServerName<'static>,
    pub(crate) tls: Arc<ClientConfig>,
    /// The value of `Authorization`, where there is a token.
    pub(crate) bearer: Option<String>,
    /// Whether clients speak HTTP/2.
    pub(crate) http2: bool,
    /// The server's process, where it is one of this benchmark's own.
    pub(crate) process: Option<u32>,
}

impl Target {
    /// The same, over HTTP/2.
    pub(crate) fn over_http2(&self) -> Self {
        let mut tls = ClientConfig::clone(&self.tls);
        tls.alpn_protocols = vec![b"h2".to_vec()];
        Self { tls: Arc::new(tls), http2: true, ..self.clone() }
    }

    /// The current context of a kubeconfig, with another server URL where one is given.
    pub(crate) fn from_kubeconfig(path: &Path, server: Option<&str>) -> Result<Self> {
        let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let file: Kubeconfig =
            serde_yaml::from_slice(&text).with_context(|| format!("{} is no kubeconfig", path.display()))?;
        file.target(server).with_context(|| format!("{} cannot be used", path.display()))
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Kubeconfig {
    current_context: String,
    contexts: Vec<NamedContext>,
    clusters: Vec<NamedCluster>,
    users: Vec<NamedUser>,
}

#[derive(Debug, Deserialize)]
struct NamedContext {
    name: String,
    context: ContextEntry,
}

#[derive(Debug, Deserialize)]
struct ContextEntry {
    cluster: String,
    user: String,
}

#[derive(Debug, Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority: Option<String>,
    certificate_authority_data: Option<String>,
}

#[derive(Debug, Deserialize)]
struct NamedUser {
    name: String,
    user: User,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    client_certificate: Option<String>,
    client_certificate_data: Option<String>,
    client_key: Option<String>,
    client_key_data: Option<String>,
    token: Option<String>,
}

impl Kubeconfig {
    fn target(&self, server: Option<&str>) -> Result<Target> {
        let context = self.contexts.iter().find(|context| context.name == self.current_context);
        let context = &context.context("it has no current context")?.context;
        let cluster = self.clusters.iter().find(|cluster| cluster.name == context.cluster);
        let cluster = &cluster.context("its context names no cluster")?.cluster;
        let user = self.users.iter().find(|user| user.name == context.user);
        let user = &user.context("its context names no user")?.user;
        let server: Uri = server.unwrap_or(&cluster.server).parse().context("the server is no URL")?;
        if server.scheme_str() != Some("https") {
            bail!("{server} is not an https URL");
        }
        let host = server.host().context("the server's URL has no host")?;
        let plain_host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Target {
            authority: format!("{host}:{}", server.port_u16().unwrap_or(443)),
            server_name: ServerName::try_from(plain_host).context("the server's host is no name")?,
            tls: Arc::new(tls(cluster, user)?),
            bearer: user.token.as_ref().map(|token| format!("Bearer {token}")),
            http2: false,
            process: None,
        })
    }
}

fn tls(cluster: &Cluster, user: &User) -> Result<ClientConfig> {
    let authority = pem(&cluster.certificate_authority_data, &cluster.certificate_authority)?
        .context("the cluster has no certificate authority")?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&authority) {
        roots.add(certificate.map_err(|error| anyhow!("the certificate authority is no PEM: {error}"))?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let certificate = pem(&user.client_certificate_data, &user.client_certificate)?;
    let key = pem(&user.client_key_data, &user.client_key)?;
    let mut config = match (certificate, key) {
        (Some(certificate), Some(key)) => {
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&certificate).collect();
            let chain = chain.map_err(|error| anyhow!("the client certificate is no PEM: {error}"))?;
            let key =
                PrivateKeyDer::from_pem_slice(&key).map_err(|error| anyhow!("the client key is no PEM: {error}"))?;
            builder.with_client_auth_cert(chain, key)?
        }
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// PEM from the kubeconfig itself, or from the file that it names.
fn pem(data: &Option<String>, path: &Option<String>) -> Result<Option<Vec<u8>>> {
    match (data, path) {
        (Some(data), _) => Ok(Some(STANDARD.decode(data).context("its certificate data is no base64")?)),
        (None, Some(path)) => Ok(Some(fs::read(path).with_context(|| format!("cannot read {path}"))?)),
        (None, None) => Ok(None),
    }
}
