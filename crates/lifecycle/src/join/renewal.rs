//! `kedge join --renew`: a node that cannot ask for another certificate any more, because its own has expired or its cluster
//! has another authority by now, gets one by a token as when it joined. Its pods, its configuration and its name stay.
//!
//! Invariant: nothing is changed before the cluster is trusted.

use std::path::{Path, PathBuf};

use kedge_bootstrap::{CertificateStore, discover};
use kedge_pki::{KubeconfigCluster, KubeconfigUser, write_kubeconfig, write_public};
use serde_json::Value;

use super::Join;
use super::kubelet::BOOTSTRAP_USER;
use crate::host::CERTIFICATES_DIR;
use crate::init::PhaseError;
use crate::kubelet_service::{start_kubelet, stop_kubelet};

const CLOSING: &str = "
This node has another certificate:
* Certificate signing request was sent to apiserver and a response was received.
* The Kubelet was informed of the new secure connection details.
";

impl Join<'_> {
    pub(super) async fn renew(&self) -> Result<(), PhaseError> {
        let kubeconfig = self.layout.kubeconfig("kubelet.conf");
        if !kubeconfig.exists() {
            return Err(PhaseError::Missing(format!(
                "{} is not there, so this machine is no node whose certificate could be renewed: leave out --renew",
                kubeconfig.display()
            )));
        }
        let found = discover(&self.settings.discovery, self.settings.discovery_patience).await?;
        let token = self.token(&found)?;
        stop_kubelet(&self.layout).await?;
        // The way there stays: the node may have a balancer of its own.
        let authority_pem = found.authority_pem.clone();
        let cluster = KubeconfigCluster { authority_pem, ..KubeconfigCluster::read(&kubeconfig)? };
        let bootstrap = self.layout.kubeconfig("bootstrap-kubelet.conf");
        write_kubeconfig(&bootstrap, "kubernetes", BOOTSTRAP_USER, &cluster, &KubeconfigUser::Token(token))?;
        let authority = self.authority_file();
        // A control plane's begins with the certificate of the key beside it.
        if !authority.with_extension("key").exists() {
            write_public(&authority, found.authority_pem.as_bytes())?;
        }
        self.set_aside(&kubeconfig)?;
        start_kubelet(&self.layout, self.say).await?;
        (self.say)("[kubelet-start] Waiting for the kubelet to perform the TLS Bootstrap");
        self.wait_for_certificate().await?;
        remove(&bootstrap)?;
        (self.say)(CLOSING);
        Ok(())
    }

    /// The authorities that the kubelet's configuration names.
    fn authority_file(&self) -> PathBuf {
        let text = std::fs::read_to_string(self.layout.kubelet_config()).unwrap_or_default();
        self.layout.at(authority_named(&text).unwrap_or_else(|| Path::new(CERTIFICATES_DIR).join("ca.crt")))
    }

    /// What does not count any more: the kubelet asks as a machine that joins does.
    fn set_aside(&self, kubeconfig: &Path) -> Result<(), PhaseError> {
        let aside = kubeconfig.with_extension("conf.old");
        let wrong = |source| PhaseError::File { path: aside.display().to_string(), source };
        std::fs::rename(kubeconfig, &aside).map_err(wrong)?;
        remove(&CertificateStore::new(&self.layout.kubelet().join("pki"), "kubelet-client").current())
    }
}

fn authority_named(configuration: &str) -> Option<PathBuf> {
    let document: Value = serde_yaml::from_str(configuration).ok()?;
    document.pointer("/authentication/x509/clientCAFile")?.as_str().map(PathBuf::from)
}

fn remove(path: &Path) -> Result<(), PhaseError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(PhaseError::File { path: path.display().to_string(), source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kubelets_configuration_names_the_authority() {
        let text = "authentication: {x509: {clientCAFile: /srv/pki/ca.crt}}";
        assert_eq!(authority_named(text).as_deref(), Some(Path::new("/srv/pki/ca.crt")));
        assert_eq!(authority_named("kind: KubeletConfiguration"), None);
    }
}
