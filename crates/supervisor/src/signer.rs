//! Signs what the certificates API has approved, with one authority from files, or one for each signer's name.
//!
//! The files are read again where they have changed, so that a rotated authority signs without a restart. Invariant: what
//! is signed is what the request's own key asked for.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use kedge_controllers::{CertificateSigner, RequestedIdentity};
use kedge_pki::{CertificateAuthority, CertificateRequest, PkiError};

use crate::kubelet::chain;

/// The certificate authorities that sign for the certificates API.
pub struct AuthoritySigner {
    /// Each with the signer's name that it is for; without one it is for all.
    authorities: Vec<(Option<&'static str>, FollowedAuthority)>,
}

impl AuthoritySigner {
    /// The authority in two PEM files, for all signers.
    pub fn from_files(certificate: &Path, key: &Path) -> Result<Self, PkiError> {
        Ok(Self { authorities: vec![(None, FollowedAuthority::from_files(certificate, key)?)] })
    }

    /// An authority for each of some signers: name, certificate, key. Under other names nothing is signed.
    pub fn of_signers<'a>(
        files: impl IntoIterator<Item = (&'static str, &'a Path, &'a Path)>,
    ) -> Result<Self, PkiError> {
        let load = |(name, certificate, key)| Ok((Some(name), FollowedAuthority::from_files(certificate, key)?));
        Ok(Self { authorities: files.into_iter().map(load).collect::<Result<_, PkiError>>()? })
    }

    fn find(&self, signer_name: &str) -> Option<&FollowedAuthority> {
        let is_for = |(name, _): &&(Option<&'static str>, _)| name.is_none_or(|name| name == signer_name);
        self.authorities.iter().find(is_for).map(|(_, authority)| authority)
    }
}

/// An authority as it is in its files.
struct FollowedAuthority {
    certificate: PathBuf,
    key: PathBuf,
    loaded: Mutex<Loaded>,
}

struct Loaded {
    /// When the files were written.
    marks: [Option<SystemTime>; 2],
    authority: Arc<CertificateAuthority>,
}

impl FollowedAuthority {
    fn from_files(certificate: &Path, key: &Path) -> Result<Self, PkiError> {
        let loaded = Loaded {
            marks: [mark(certificate), mark(key)],
            authority: Arc::new(CertificateAuthority::load_files(certificate, key)?),
        };
        Ok(Self { certificate: certificate.to_owned(), key: key.to_owned(), loaded: Mutex::new(loaded) })
    }

    /// The authority as it is in the files now, or as it last was where they cannot be used.
    fn authority(&self) -> Arc<CertificateAuthority> {
        let mut loaded = self.loaded.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let marks = [mark(&self.certificate), mark(&self.key)];
        if marks != loaded.marks {
            match CertificateAuthority::load_files(&self.certificate, &self.key) {
                Ok(authority) => *loaded = Loaded { marks, authority: Arc::new(authority) },
                Err(error) => tracing::warn!(error = chain(&error), "the signing authority stays as it was"),
            }
        }
        loaded.authority.clone()
    }
}

fn mark(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

impl CertificateSigner for AuthoritySigner {
    fn signs(&self, signer_name: &str) -> bool {
        self.find(signer_name).is_some()
    }

    fn sign(
        &self,
        signer_name: &str,
        request_pem: &[u8],
        usages: &[String],
        lifetime: Duration,
    ) -> Result<Vec<u8>, String> {
        let request = CertificateRequest::read(request_pem)?;
        let authority = self.find(signer_name).ok_or_else(|| format!("nothing is signed under {signer_name}"))?;
        let signed = authority.authority().sign_request(&request, usages, lifetime);
        signed.map(String::into_bytes).map_err(|error| error.to_string())
    }

    fn inspect(&self, request_pem: &[u8]) -> Result<RequestedIdentity, String> {
        let request = CertificateRequest::read(request_pem)?;
        Ok(RequestedIdentity {
            common_name: request.common_name,
            organizations: request.organizations,
            dns_names: request.names.dns_names,
            ip_addresses: request.names.addresses.iter().map(ToString::to_string).collect(),
            email_addresses: request.names.email_addresses,
            uris: request.names.uris,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kedge_pki::{CertificateFacts, LeafRequest, PendingIdentity};

    #[test]
    fn a_request_is_signed_by_the_authority_in_the_files() {
        let dir = tempfile::tempdir().unwrap();
        CertificateAuthority::ensure(dir.path(), "ca", "first").unwrap();
        let signer = AuthoritySigner::from_files(&dir.path().join("ca.crt"), &dir.path().join("ca.key")).unwrap();
        let pending = PendingIdentity::new(&LeafRequest::client("system:node:a", &["system:nodes"])).unwrap();
        let request = pending.request_pem.as_bytes();
        let identity = signer.inspect(request).unwrap();
        assert_eq!((identity.common_name.as_str(), identity.organizations.len()), ("system:node:a", 1));
        let sign = || {
            let chain = signer.sign("", request, &["client auth".to_owned()], Duration::from_secs(3600)).unwrap();
            CertificateFacts::read(&String::from_utf8(chain).unwrap()).unwrap()
        };
        assert_eq!((sign().issuer.as_str(), sign().common_name.as_str()), ("first", "system:node:a"));
        let other = tempfile::tempdir().unwrap();
        CertificateAuthority::ensure(other.path(), "ca", "second").unwrap();
        for file in ["ca.key", "ca.crt"] {
            std::fs::rename(other.path().join(file), dir.path().join(file)).unwrap();
        }
        assert_eq!(sign().issuer, "second");
    }

    #[test]
    fn signers_have_authorities_of_their_own() {
        let dirs = ["nodes", "people"].map(|name| {
            let dir = tempfile::tempdir().unwrap();
            CertificateAuthority::ensure(dir.path(), "ca", name).unwrap();
            dir
        });
        let [nodes, people] = dirs.each_ref().map(|dir| (dir.path().join("ca.crt"), dir.path().join("ca.key")));
        let signer = AuthoritySigner::of_signers([
            ("kubernetes.io/kube-apiserver-client-kubelet", &*nodes.0, &*nodes.1),
            ("kubernetes.io/kube-apiserver-client", &*people.0, &*people.1),
        ])
        .unwrap();
        let pending = PendingIdentity::new(&LeafRequest::client("jane", &["dev"])).unwrap();
        let issuer = |name: &str| {
            let usages = ["client auth".to_owned()];
            let chain = signer.sign(name, pending.request_pem.as_bytes(), &usages, Duration::from_secs(3600)).ok()?;
            Some(CertificateFacts::read(&String::from_utf8(chain).unwrap()).unwrap().issuer)
        };
        for (name, expected) in [
            ("kubernetes.io/kube-apiserver-client-kubelet", Some("nodes")),
            ("kubernetes.io/kube-apiserver-client", Some("people")),
            ("kubernetes.io/kubelet-serving", None),
        ] {
            assert_eq!((issuer(name).as_deref(), signer.signs(name)), (expected, expected.is_some()), "{name}");
        }
        // Where nobody signs, requests can still be looked at.
        let nobody = AuthoritySigner::of_signers([]).unwrap();
        assert_eq!(nobody.inspect(pending.request_pem.as_bytes()).unwrap().common_name, "jane");
        assert!(!nobody.signs("kubernetes.io/kube-apiserver-client"));
    }
}
