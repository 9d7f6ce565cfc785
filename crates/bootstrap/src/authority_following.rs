//! How a node follows its cluster's authority when that is replaced: the bundle that `cluster-info` names becomes the one
//! that its kubelet and its kubeconfigs trust, and the Node says so.
//!
//! Invariants: the bundle comes from an API server that is trusted already, and is taken up only where that server is trusted
//! by it too; where the authority's key is on the machine, the bundle begins with that key's certificate.

use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kedge_client::Client;
use kedge_pki::{
    Identity, KubeconfigCluster, bundle_of, certificates_in, kubeconfig_certificate, public_key_pins,
    replace_kubeconfig_authority, signer_in, write_public,
};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::cluster_info::authority_in;
use crate::discovery::DiscoveredCluster;
use crate::error::BootstrapError;
use crate::node_certificate::NodeIdentity;

/// The annotation of a Node with the pins of the authorities that it trusts.
pub const TRUSTED_ANNOTATION: &str = "kedge.dev/trusted-authorities";
/// The annotation of a Node with the pin of the authority that signed its client certificate.
pub const SIGNER_ANNOTATION: &str = "kedge.dev/client-authority";

const PERIOD: Duration = Duration::from_secs(10);
/// Kubeconfigs that a control plane has beside the kubelet's.
const OTHERS: [&str; 4] = ["admin.conf", "super-admin.conf", "controller-manager.conf", "scheduler.conf"];

/// Follows the authority for one node.
pub struct AuthorityFollower {
    identity: NodeIdentity,
    client: Client,
    told: Option<String>,
    reported: Option<(String, String)>,
}

impl AuthorityFollower {
    /// For a node that reaches the API as itself.
    pub fn new(identity: NodeIdentity, client: Client) -> Self {
        Self { identity, client, told: None, reported: None }
    }

    /// Looks again and again until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        while shutdown.run_until_cancelled(tokio::time::sleep(PERIOD)).await.is_some() {
            let Some(looked) = shutdown.run_until_cancelled(self.once()).await else { return };
            match looked {
                Ok(()) => self.told = None,
                Err(error) => {
                    let why = error.to_string();
                    if self.told.as_ref() != Some(&why) {
                        tracing::warn!(why, "the cluster's authority is not followed");
                        self.told = Some(why);
                    }
                }
            }
        }
    }

    async fn once(&mut self) -> Result<(), BootstrapError> {
        if let Some(published) = self.published().await? {
            self.take_up(&published).await?;
        }
        self.report().await
    }

    /// What `cluster-info` says; `None` where it says nothing, or nodes may not read it: nobody is replacing anything.
    async fn published(&self) -> Result<Option<String>, BootstrapError> {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), "kube-public");
        match maps.get("cluster-info").await {
            Ok(map) => {
                let text = map.data.and_then(|mut data| data.remove("kubeconfig")).unwrap_or_default();
                Ok(authority_in(&text).filter(|bundle| !certificates_in(bundle).is_empty()))
            }
            Err(kube::Error::Api(status)) if [401, 403, 404].contains(&status.code) => Ok(None),
            Err(error) => Err(BootstrapError::api("cannot read the ConfigMap cluster-info")(error)),
        }
    }

    async fn take_up(&self, published: &str) -> Result<(), BootstrapError> {
        let kubeconfig = &self.identity.kubeconfig;
        let cluster = KubeconfigCluster::read(kubeconfig)?;
        let Some(file) = self.identity.authority_file() else { return Ok(()) };
        let wanted = wanted_bundle(published, read(&file.with_extension("key")).as_deref())?;
        let directory = kubeconfig.parent().unwrap_or(Path::new(""));
        let old = read(&file).unwrap_or_default();
        let stale = stale_files(&wanted, &old, &file, directory, kubeconfig);
        if stale.is_empty() {
            return Ok(());
        }
        self.check(&cluster, &wanted).await?;
        for path in stale {
            match path == file {
                true => write_public(&path, wanted.as_bytes())?,
                false => replace_kubeconfig_authority(&path, &wanted)?,
            }
            tracing::warn!(file = %path.display(), "the cluster's authorities have changed, and so has this file");
        }
        Ok(())
    }

    /// Asks the API server anything: an answer means that it is trusted.
    async fn check(&self, cluster: &KubeconfigCluster, wanted: &str) -> Result<(), BootstrapError> {
        let server = cluster.server.clone();
        let found = DiscoveredCluster { server, authority_pem: wanted.to_owned(), user_token: None };
        match found.client(None)?.apiserver_version().await {
            Ok(_) | Err(kube::Error::Api(_)) => Ok(()),
            Err(error) => Err(BootstrapError::api(
                "the authorities in cluster-info are not taken up, because the API server is not trusted by them",
            )(error)),
        }
    }

    /// Tells on the Node whom this machine trusts, and whose certificate it shows.
    async fn report(&mut self) -> Result<(), BootstrapError> {
        let Some(bundle) = self.identity.authority_file().and_then(|file| read(&file)) else { return Ok(()) };
        let wrong =
            |why: String| BootstrapError::Discovery(format!("the authority of this node cannot be read: {why}"));
        let shown = kubeconfig_certificate(&self.identity.kubeconfig)?.unwrap_or_default();
        let trusted = public_key_pins(&bundle).map_err(wrong)?;
        let signer = signer_in(&bundle, &shown).and_then(|place| trusted.get(place).cloned()).unwrap_or_default();
        let said = (trusted.join(","), signer);
        if self.reported.as_ref() == Some(&said) {
            return Ok(());
        }
        let patch = json!({"metadata": {"annotations": {TRUSTED_ANNOTATION: said.0, SIGNER_ANNOTATION: said.1}}});
        let nodes: Api<Node> = Api::all(self.client.clone());
        let patched = nodes.patch(&self.identity.node_name, &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.map_err(BootstrapError::api("cannot tell the Node's authorities"))?;
        self.reported = Some(said);
        Ok(())
    }
}

/// The bundle as this machine is to have it: where it has an authority's key, that one's certificate comes first.
fn wanted_bundle(published: &str, key_pem: Option<&str>) -> Result<String, BootstrapError> {
    let Some(key_pem) = key_pem else { return Ok(bundle_of(&[published])) };
    let own = certificates_in(published).into_iter().find(|pem| {
        let identity = Identity { certificate_pem: pem.clone(), key_pem: key_pem.to_owned() };
        identity.check().is_ok()
    });
    let Some(own) = own else {
        return Err(BootstrapError::Discovery(
            "the authority whose key is on this machine is not among those in cluster-info: run `kedge certs rotate-ca \
             switch` here first"
                .to_owned(),
        ));
    };
    Ok(bundle_of(&[&own, published]))
}

/// The files that trust others than `wanted`: the authority's own, and kubeconfigs that trusted one of them or of `old`.
fn stale_files(wanted: &str, old: &str, file: &Path, directory: &Path, kubeconfig: &Path) -> Vec<PathBuf> {
    let known = certificates_in(&bundle_of(&[wanted, old]));
    let others = OTHERS.into_iter().map(|name| directory.join(name)).filter(|path| path.exists());
    let kubeconfigs = others.chain([kubeconfig.to_owned()]).filter(|path| {
        let Ok(cluster) = KubeconfigCluster::read(path) else { return false };
        let trusted = certificates_in(&cluster.authority_pem);
        bundle_of(&[&cluster.authority_pem]) != wanted && trusted.iter().any(|pem| known.contains(pem))
    });
    let own = (bundle_of(&[old]) != wanted).then(|| file.to_owned());
    own.into_iter().chain(kubeconfigs).collect()
}

fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kedge_pki::{CertificateAuthority, KubeconfigUser, write_kubeconfig};

    #[test]
    fn only_what_trusts_the_cluster_is_stale_and_the_own_key_decides_the_order() {
        let dir = tempfile::tempdir().unwrap();
        let authority = |name: &str| CertificateAuthority::ensure(dir.path(), name, "kubernetes").unwrap();
        let (old, new, foreign) = (authority("ca"), authority("next"), authority("foreign"));
        let key = |name: &str| read(&dir.path().join(format!("{name}.key"))).unwrap();
        let (o, n) = (old.certificate_pem(), new.certificate_pem());
        let (old_first, new_first) = (bundle_of(&[o, n]), bundle_of(&[n, o]));
        assert_eq!(wanted_bundle(&new_first, None).unwrap(), new_first);
        assert_eq!(wanted_bundle(&new_first, Some(&key("ca"))).unwrap(), old_first);
        assert_eq!(wanted_bundle(&old_first, Some(&key("next"))).unwrap(), new_first);
        let refused = wanted_bundle(n, Some(&key("ca"))).unwrap_err().to_string();
        assert!(refused.contains("kedge certs rotate-ca switch"), "{refused}");
        let put = |name: &str, pem: &str| {
            let cluster = KubeconfigCluster {
                server: "https://127.0.0.1:1".to_owned(),
                authority_pem: pem.to_owned(),
                tls_server_name: None,
            };
            let path = dir.path().join(name);
            write_kubeconfig(&path, "c", "u", &cluster, &KubeconfigUser::Token("t".to_owned())).unwrap();
            path
        };
        let (kubelet, admin) = (put("kubelet.conf", o), put("admin.conf", o));
        put("scheduler.conf", foreign.certificate_pem());
        let file = dir.path().join("ca.crt");
        let stale = |wanted: &str| stale_files(wanted, &read(&file).unwrap(), &file, dir.path(), &kubelet);
        assert_eq!(stale(&bundle_of(&[o])), Vec::<PathBuf>::new());
        assert_eq!(stale(&old_first), [file.clone(), admin.clone(), kubelet.clone()]);
        std::fs::write(&file, &old_first).unwrap();
        replace_kubeconfig_authority(&admin, &old_first).unwrap();
        assert_eq!(stale(&old_first), std::slice::from_ref(&kubelet));
    }
}
