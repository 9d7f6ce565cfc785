//! A certificate with its key on disk, in upstream's layout: one file for each that was ever given, and the link
//! `<name>-current.pem` to the one that counts.
//!
//! Invariant: the link always points to a whole file; key and certificate change together.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use kedge_pki::{CertificateFacts, Identity, write_private};

use crate::error::BootstrapError;

/// Where one certificate is kept.
#[derive(Debug, Clone)]
pub struct CertificateStore {
    dir: PathBuf,
    name: String,
}

impl CertificateStore {
    /// In a directory, under a name such as `kubelet-client`.
    pub fn new(dir: &Path, name: &str) -> Self {
        Self { dir: dir.to_owned(), name: name.to_owned() }
    }

    /// The link to the file that counts; it holds certificate and key.
    pub fn current(&self) -> PathBuf {
        self.dir.join(format!("{}-current.pem", self.name))
    }

    /// The certificate that counts, if there is one that can be used.
    pub fn load(&self) -> Result<Option<(Identity, CertificateFacts)>, BootstrapError> {
        let path = self.current();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(BootstrapError::file("read", &path)(error)),
        };
        let identity = Identity { certificate_pem: text.clone(), key_pem: text };
        match (CertificateFacts::read(&identity.certificate_pem), identity.check()) {
            (Ok(facts), Ok(())) => Ok(Some((identity, facts))),
            (Err(why), _) | (_, Err(why)) => {
                tracing::warn!(file = %path.display(), why, "a certificate is not usable; another one is asked for");
                Ok(None)
            }
        }
    }

    /// Keeps a new one, which counts from now on. Older ones stay, but for those two generations back.
    pub fn save(&self, identity: &Identity, now: Timestamp) -> Result<(), BootstrapError> {
        let stamp = now.strftime("%Y-%m-%d-%H-%M-%S");
        let file = format!("{}-{stamp}.pem", self.name);
        let path = self.dir.join(&file);
        write_private(&path, format!("{}{}", identity.certificate_pem, identity.key_pem).as_bytes())?;
        let link = self.dir.join(format!("{}-updated.pem", self.name));
        match std::fs::remove_file(&link) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(BootstrapError::file("remove", &link)(error));
            }
            _ => {}
        }
        std::os::unix::fs::symlink(&path, &link).map_err(BootstrapError::file("make", &link))?;
        let current = self.current();
        let previous = std::fs::read_link(&current).ok();
        std::fs::rename(&link, &current).map_err(BootstrapError::file("replace", &current))?;
        self.forget_older(&[Some(path), previous]);
        Ok(())
    }

    /// Leftovers do no harm but take up room: what cannot be removed stays.
    fn forget_older(&self, kept: &[Option<PathBuf>]) {
        let prefix = format!("{}-2", self.name);
        for entry in std::fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let is_ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix));
            if is_ours && !kept.contains(&Some(path.clone())) {
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kedge_pki::{CertificateAuthority, LeafRequest};

    #[test]
    fn the_newest_counts_and_the_one_before_stays() {
        let dir = tempfile::tempdir().unwrap();
        let authority = CertificateAuthority::ensure(&dir.path().join("ca"), "ca", "kubernetes").unwrap();
        let store = CertificateStore::new(dir.path(), "kubelet-client");
        assert!(store.load().unwrap().is_none());
        let names = || {
            let entries = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
            let mut names: Vec<String> = entries.map(|name| name.into_string().unwrap()).collect();
            names.sort();
            names
        };
        for second in 1..=3 {
            let identity = authority.issue(&LeafRequest::client(&format!("user-{second}"), &["system:nodes"])).unwrap();
            store.save(&identity, Timestamp::from_second(1_800_000_000 + second).unwrap()).unwrap();
            let (loaded, facts) = store.load().unwrap().unwrap();
            assert_eq!(facts.common_name, format!("user-{second}"));
            assert!(loaded.key_pem.contains(&identity.key_pem));
        }
        assert_eq!(
            names(),
            [
                "ca",
                "kubelet-client-2027-01-15-08-00-02.pem",
                "kubelet-client-2027-01-15-08-00-03.pem",
                "kubelet-client-current.pem"
            ]
        );
        std::fs::write(store.current(), "nonsense").unwrap();
        assert!(store.load().unwrap().is_none());
    }
}
