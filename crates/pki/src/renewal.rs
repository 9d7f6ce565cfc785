//! The certificates of a control plane under kubeadm's names: how long they are good, and their renewal.
//!
//! What a renewed certificate says is what the old one said. Invariant: without the authority's key nothing is changed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::PkiError;
use crate::authority::{BACKDATE, CertificateAuthority, Identity, LeafRequest, Usage};
use crate::facts::CertificateFacts;
use crate::file::{read, write, write_private};
use crate::kubeconfig::{kubeconfig_certificate, replace_kubeconfig_identity};

/// Where a known certificate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// `<pki>/<base>.crt` and `.key`.
    Files(&'static str),
    /// In a kubeconfig beside the certificates' directory.
    Kubeconfig(&'static str),
}

/// A certificate of a control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownCertificate {
    /// As commands name it.
    pub name: &'static str,
    /// What it is for.
    pub long_name: &'static str,
    /// The name of its authority.
    pub authority: &'static str,
    place: Place,
}

/// An authority of a control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownAuthority {
    /// As commands name it.
    pub name: &'static str,
    base: &'static str,
}

const fn files(
    name: &'static str,
    base: &'static str,
    authority: &'static str,
    long_name: &'static str,
) -> KnownCertificate {
    KnownCertificate { name, long_name, authority, place: Place::Files(base) }
}

const fn kubeconfig(name: &'static str, long_name: &'static str) -> KnownCertificate {
    KnownCertificate { name, long_name, authority: "ca", place: Place::Kubeconfig(name) }
}

/// All certificates that are looked after, in alphabetical order.
pub const KNOWN_CERTIFICATES: [KnownCertificate; 11] = [
    kubeconfig("admin.conf", "certificate embedded in the kubeconfig file for the admin to use and for kubeadm itself"),
    files("apiserver", "apiserver", "ca", "certificate for serving the Kubernetes API"),
    files("apiserver-etcd-client", "apiserver-etcd-client", "etcd-ca", "certificate the apiserver uses to access etcd"),
    files(
        "apiserver-kubelet-client",
        "apiserver-kubelet-client",
        "ca",
        "certificate for the API server to connect to kubelet",
    ),
    kubeconfig(
        "controller-manager.conf",
        "certificate embedded in the kubeconfig file for the controller manager to use",
    ),
    files(
        "etcd-healthcheck-client",
        "etcd/healthcheck-client",
        "etcd-ca",
        "certificate for liveness probes to healthcheck etcd",
    ),
    files("etcd-peer", "etcd/peer", "etcd-ca", "certificate for etcd nodes to communicate with each other"),
    files("etcd-server", "etcd/server", "etcd-ca", "certificate for serving etcd"),
    files("front-proxy-client", "front-proxy-client", "front-proxy-ca", "certificate for the front proxy client"),
    kubeconfig("scheduler.conf", "certificate embedded in the kubeconfig file for the scheduler manager to use"),
    kubeconfig("super-admin.conf", "certificate embedded in the kubeconfig file for the super-admin"),
];

/// All authorities.
pub const KNOWN_AUTHORITIES: [KnownAuthority; 3] = [
    KnownAuthority { name: "ca", base: "ca" },
    KnownAuthority { name: "etcd-ca", base: "etcd/ca" },
    KnownAuthority { name: "front-proxy-ca", base: "front-proxy-ca" },
];

/// How a renewal went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewed {
    /// There is a new one.
    Yes,
    /// There is none to renew.
    Missing,
    /// The authority's key is kept elsewhere.
    External,
}

/// Where the files of a control plane are.
#[derive(Debug, Clone)]
pub struct CertificateDirs {
    /// Kubeconfigs.
    pub kubernetes: PathBuf,
    /// Certificates.
    pub pki: PathBuf,
}

impl KnownAuthority {
    /// What it says; `None` where it is not there.
    pub fn facts(&self, dirs: &CertificateDirs) -> Result<Option<CertificateFacts>, PkiError> {
        facts_of(self.bundle(dirs)?, &dirs.pki.join(format!("{}.crt", self.base)))
    }

    /// Whom those who trust it trust: its certificate, and others beside it while it is being rotated.
    pub fn bundle(&self, dirs: &CertificateDirs) -> Result<Option<String>, PkiError> {
        read(&dirs.pki.join(format!("{}.crt", self.base)))
    }

    /// Whether its key is kept elsewhere.
    pub fn is_external(&self, dirs: &CertificateDirs) -> bool {
        !dirs.pki.join(format!("{}.key", self.base)).exists()
    }

    fn load(&self, dirs: &CertificateDirs) -> Result<CertificateAuthority, PkiError> {
        let file = |end: &str| dirs.pki.join(format!("{}.{end}", self.base));
        CertificateAuthority::load_files(&file("crt"), &file("key"))
    }
}

impl KnownCertificate {
    /// One by its name.
    pub fn find(name: &str) -> Option<Self> {
        KNOWN_CERTIFICATES.into_iter().find(|known| known.name == name)
    }

    /// Its authority.
    pub fn signer(&self) -> KnownAuthority {
        let found = KNOWN_AUTHORITIES.into_iter().find(|authority| authority.name == self.authority);
        found.expect("each known certificate names a known authority")
    }

    /// Where it is.
    pub fn path(&self, dirs: &CertificateDirs) -> PathBuf {
        match self.place {
            Place::Files(base) => dirs.pki.join(format!("{base}.crt")),
            Place::Kubeconfig(name) => dirs.kubernetes.join(name),
        }
    }

    /// Its text; `None` where it is not there.
    pub fn pem(&self, dirs: &CertificateDirs) -> Result<Option<String>, PkiError> {
        let path = self.path(dirs);
        match self.place {
            Place::Files(_) => read(&path),
            Place::Kubeconfig(_) if !path.exists() => Ok(None),
            Place::Kubeconfig(_) => kubeconfig_certificate(&path),
        }
    }

    /// What it says; `None` where it is not there.
    pub fn facts(&self, dirs: &CertificateDirs) -> Result<Option<CertificateFacts>, PkiError> {
        facts_of(self.pem(dirs)?, &self.path(dirs))
    }

    /// The request that would give the same certificate again.
    pub fn request(&self, facts: &CertificateFacts) -> LeafRequest {
        LeafRequest {
            common_name: facts.common_name.clone(),
            organizations: facts.organizations.clone(),
            dns_names: facts.names.dns_names.clone(),
            addresses: facts.names.addresses.clone(),
            usage: match (facts.is_for_servers, facts.is_for_clients) {
                (true, true) => Usage::Peer,
                (true, false) => Usage::Server,
                (false, _) => Usage::Client,
            },
        }
    }

    /// Makes it anew, with a new key, whatever is left of its life.
    pub fn renew(&self, dirs: &CertificateDirs) -> Result<Renewed, PkiError> {
        let Some(facts) = self.facts(dirs)? else { return Ok(Renewed::Missing) };
        if self.signer().is_external(dirs) {
            return Ok(Renewed::External);
        }
        let authority = self.signer().load(dirs)?;
        let authority = match lifetime_of(&facts, self.signer().facts(dirs)?.as_ref()) {
            Some(lifetime) => authority.with_leaf_lifetime(lifetime),
            None => authority,
        };
        let identity = authority.issue(&self.request(&facts))?;
        self.store(dirs, &identity)?;
        Ok(Renewed::Yes)
    }

    fn store(&self, dirs: &CertificateDirs, identity: &Identity) -> Result<(), PkiError> {
        match self.place {
            Place::Files(base) => {
                write_private(&dirs.pki.join(format!("{base}.key")), identity.key_pem.as_bytes())?;
                write(&dirs.pki.join(format!("{base}.crt")), identity.certificate_pem.as_bytes(), 0o644)
            }
            Place::Kubeconfig(name) => replace_kubeconfig_identity(&dirs.kubernetes.join(name), identity),
        }
    }
}

/// How long a certificate lived, or was to live; `None` where its authority's end cut that short.
fn lifetime_of(facts: &CertificateFacts, authority: Option<&CertificateFacts>) -> Option<Duration> {
    if authority.is_some_and(|authority| facts.not_after >= authority.not_after) {
        return None;
    }
    let life = Duration::try_from(facts.not_after.duration_since(facts.not_before)).ok()?;
    life.checked_sub(BACKDATE).filter(|life| !life.is_zero())
}

fn facts_of(pem: Option<String>, path: &Path) -> Result<Option<CertificateFacts>, PkiError> {
    let read = pem.map(|pem| CertificateFacts::read(&pem)).transpose();
    read.map_err(|why| PkiError::Malformed { path: path.to_owned(), why })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{KubeconfigCluster, KubeconfigUser, write_kubeconfig};

    #[test]
    fn what_lived_long_lives_as_long_again() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = CertificateDirs { kubernetes: dir.path().to_owned(), pki: dir.path().to_owned() };
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        let authority = CertificateAuthority::ensure_for(dir.path(), "ca", "kubernetes", hours(1000)).unwrap();
        let known = KnownCertificate::find("apiserver").unwrap();
        // What the authority's end cut short is renewed for the usual year, which is cut short again.
        for (asked, expected) in [(hours(10), hours(10)), (hours(5000), hours(1000))] {
            let leaf = LeafRequest::server("kube-apiserver", vec!["a".to_owned()], Vec::new());
            let authority = CertificateAuthority::load_files(&dir.path().join("ca.crt"), &dir.path().join("ca.key"))
                .unwrap()
                .with_leaf_lifetime(asked);
            let issued = authority.issue(&leaf).unwrap();
            known.store(&dirs, &issued).unwrap();
            assert_eq!(known.renew(&dirs).unwrap(), Renewed::Yes);
            let facts = known.facts(&dirs).unwrap().unwrap();
            let life = Duration::try_from(facts.not_after.duration_since(facts.not_before)).unwrap() - BACKDATE;
            assert!(life.abs_diff(expected) < hours(1), "{life:?}");
        }
        drop(authority);
    }

    #[test]
    fn what_is_renewed_says_the_same_and_lives_longer() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = CertificateDirs { kubernetes: dir.path().to_owned(), pki: dir.path().join("pki") };
        let authority = CertificateAuthority::ensure(&dirs.pki, "ca", "kubernetes").unwrap();
        let server = LeafRequest::server("kube-apiserver", vec!["a".to_owned()], vec!["10.0.0.1".parse().unwrap()]);
        authority.ensure_leaf(&dirs.pki, "apiserver", &server).unwrap();
        let cluster = KubeconfigCluster {
            server: "https://10.0.0.1:6443".to_owned(),
            authority_pem: authority.certificate_pem().to_owned(),
            tls_server_name: None,
        };
        let admin = authority.issue(&LeafRequest::client("kubernetes-admin", &["kubeadm:cluster-admins"])).unwrap();
        let path = dir.path().join("admin.conf");
        write_kubeconfig(&path, "kubernetes", "kubernetes-admin", &cluster, &KubeconfigUser::Embedded(admin)).unwrap();
        for name in ["apiserver", "admin.conf"] {
            let known = KnownCertificate::find(name).unwrap();
            let key = || match known.place {
                Place::Files(base) => read(&dirs.pki.join(format!("{base}.key"))).unwrap(),
                Place::Kubeconfig(name) => {
                    crate::kubeconfig_identity(&dirs.kubernetes.join(name)).unwrap().map(|identity| identity.key_pem)
                }
            };
            let (before, old_key) = (known.facts(&dirs).unwrap().unwrap(), key());
            assert_eq!(known.renew(&dirs).unwrap(), Renewed::Yes, "{name}");
            let after = known.facts(&dirs).unwrap().unwrap();
            assert_ne!(after.fingerprint, before.fingerprint);
            let (not_before, not_after, fingerprint) =
                (before.not_before, before.not_after, before.fingerprint.clone());
            assert_eq!(CertificateFacts { not_before, not_after, fingerprint, ..after }, before);
            assert_ne!(key(), old_key);
        }
        assert_eq!(KubeconfigCluster::read(&path).unwrap(), cluster);
        assert_eq!(KnownCertificate::find("scheduler.conf").unwrap().renew(&dirs).unwrap(), Renewed::Missing);
        std::fs::remove_file(dirs.pki.join("ca.key")).unwrap();
        assert_eq!(KnownCertificate::find("apiserver").unwrap().renew(&dirs).unwrap(), Renewed::External);
        assert!(KNOWN_CERTIFICATES.is_sorted_by_key(|known| known.name));
    }
}
