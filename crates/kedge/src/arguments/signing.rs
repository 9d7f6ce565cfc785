//! `--cluster-signing-*-file` of `kube-controller-manager`: who signs certificates, as upstream spells it.

use std::path::PathBuf;

use clap::Args;
use kedge_supervisor::{SigningFiles, SigningOptions};

/// One authority for all signers, or one for each of some; empty names are as good as none.
#[derive(Debug, Args)]
pub(crate) struct SigningFlags {
    /// Certificate of who signs certificates of all kinds; an empty one for nobody.
    #[arg(long, value_name = "FILE")]
    cluster_signing_cert_file: Option<PathBuf>,
    /// Its key.
    #[arg(long, value_name = "FILE")]
    cluster_signing_key_file: Option<PathBuf>,
    /// Certificate of who signs those of clients.
    #[arg(long, value_name = "FILE")]
    cluster_signing_kube_apiserver_client_cert_file: Option<PathBuf>,
    /// Its key.
    #[arg(long, value_name = "FILE")]
    cluster_signing_kube_apiserver_client_key_file: Option<PathBuf>,
    /// Certificate of who signs those with which kubelets are clients.
    #[arg(long, value_name = "FILE")]
    cluster_signing_kubelet_client_cert_file: Option<PathBuf>,
    /// Its key.
    #[arg(long, value_name = "FILE")]
    cluster_signing_kubelet_client_key_file: Option<PathBuf>,
    /// Certificate of who signs those with which kubelets serve.
    #[arg(long, value_name = "FILE")]
    cluster_signing_kubelet_serving_cert_file: Option<PathBuf>,
    /// Its key.
    #[arg(long, value_name = "FILE")]
    cluster_signing_kubelet_serving_key_file: Option<PathBuf>,
    /// Certificate of who signs those of no known purpose.
    #[arg(long, value_name = "FILE")]
    cluster_signing_legacy_unknown_cert_file: Option<PathBuf>,
    /// Its key.
    #[arg(long, value_name = "FILE")]
    cluster_signing_legacy_unknown_key_file: Option<PathBuf>,
}

impl SigningFlags {
    pub(crate) fn options(self) -> SigningOptions {
        let named = |path: Option<PathBuf>| path.filter(|path| !path.as_os_str().is_empty());
        let files = |certificate, key| SigningFiles { certificate: named(certificate), key: named(key) };
        SigningOptions {
            all: files(self.cluster_signing_cert_file, self.cluster_signing_key_file),
            kube_apiserver_client: files(
                self.cluster_signing_kube_apiserver_client_cert_file,
                self.cluster_signing_kube_apiserver_client_key_file,
            ),
            kubelet_client: files(
                self.cluster_signing_kubelet_client_cert_file,
                self.cluster_signing_kubelet_client_key_file,
            ),
            kubelet_serving: files(
                self.cluster_signing_kubelet_serving_cert_file,
                self.cluster_signing_kubelet_serving_key_file,
            ),
            legacy_unknown: files(
                self.cluster_signing_legacy_unknown_cert_file,
                self.cluster_signing_legacy_unknown_key_file,
            ),
        }
    }
}
