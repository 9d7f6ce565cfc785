//! Where a cluster's files lie on a machine: kubeadm's places.
//!
//! Invariant: what is written goes below the prefix, which is empty but for dry runs and tests; what files say about each
//! other never has the prefix in it.

use std::path::{Path, PathBuf};

/// The places.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostLayout {
    prefix: Option<PathBuf>,
    certificates: Option<PathBuf>,
}

/// `/etc/kubernetes`.
pub const KUBERNETES_DIR: &str = "/etc/kubernetes";
/// `/etc/kubernetes/pki`.
pub const CERTIFICATES_DIR: &str = "/etc/kubernetes/pki";
/// `/etc/kubernetes/manifests`.
pub const MANIFESTS_DIR: &str = "/etc/kubernetes/manifests";
/// `/var/lib/kubelet`.
pub const KUBELET_DIR: &str = "/var/lib/kubelet";
/// What Kedge remembers of a machine besides.
pub const STATE_DIR: &str = "/var/lib/kedge";

impl HostLayout {
    /// The same places below another directory.
    pub fn below(prefix: impl Into<PathBuf>) -> Self {
        Self { prefix: Some(prefix.into()), certificates: None }
    }

    /// The same with certificates elsewhere.
    pub fn with_certificates(mut self, dir: &Path) -> Self {
        self.certificates = (dir != Path::new(CERTIFICATES_DIR)).then(|| dir.to_owned());
        self
    }

    /// Where a file with this absolute path really is.
    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        match &self.prefix {
            None => path.to_owned(),
            Some(prefix) => prefix.join(path.strip_prefix("/").unwrap_or(path)),
        }
    }

    /// The certificates, as files name them.
    pub fn certificates_dir(&self) -> &Path {
        self.certificates.as_deref().unwrap_or(Path::new(CERTIFICATES_DIR))
    }

    /// The certificates.
    pub fn pki(&self) -> PathBuf {
        self.at(self.certificates_dir())
    }

    /// The static pods.
    pub fn manifests(&self) -> PathBuf {
        self.at(MANIFESTS_DIR)
    }

    /// A component's static pod.
    pub fn manifest(&self, component: &str) -> PathBuf {
        self.manifests().join(format!("{component}.yaml"))
    }

    /// A kubeconfig, such as `admin.conf`.
    pub fn kubeconfig(&self, name: &str) -> PathBuf {
        self.at(KUBERNETES_DIR).join(name)
    }

    /// The kubelet's directory.
    pub fn kubelet(&self) -> PathBuf {
        self.at(KUBELET_DIR)
    }

    /// The kubelet's configuration.
    pub fn kubelet_config(&self) -> PathBuf {
        self.kubelet().join("config.yaml")
    }

    /// The kubelet's flags.
    pub fn kubelet_flags(&self) -> PathBuf {
        self.kubelet().join("kubeadm-flags.env")
    }

    /// A copy of each static pod as it was written last: how it was meant.
    pub fn intended_manifests(&self) -> PathBuf {
        self.state().join("manifests")
    }

    /// What Kedge remembers of the machine.
    pub fn state(&self) -> PathBuf {
        self.at(STATE_DIR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_moves_files_and_not_names() {
        let layout = HostLayout::below("/x").with_certificates(Path::new("/srv/pki"));
        assert_eq!(layout.pki(), Path::new("/x/srv/pki"));
        assert_eq!(layout.certificates_dir(), Path::new("/srv/pki"));
        assert_eq!(layout.manifest("etcd"), Path::new("/x/etc/kubernetes/manifests/etcd.yaml"));
        assert_eq!(HostLayout::default().kubelet_config(), Path::new("/var/lib/kubelet/config.yaml"));
    }
}
