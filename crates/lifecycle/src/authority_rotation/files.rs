//! What a rotation does to the files of its machine.
//!
//! Invariant: each of these can be done again wherever it was cut; the old key is kept until [`AuthorityRotation::remove_old`].

use std::fs;
use std::path::PathBuf;

use kedge_pki::{
    Identity, KNOWN_CERTIFICATES, KubeconfigCluster, bundle_of, replace_kubeconfig_authority, signer_in, write_private,
    write_public,
};

use super::stage::RotationFiles;
use super::{AuthorityRotation, NEXT, PREVIOUS_KEY, RotationError};
use crate::kubeconfigs::KUBECONFIGS;

impl AuthorityRotation<'_> {
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.dirs.pki.join(name)
    }

    pub(super) fn read(&self, name: &str) -> Result<String, RotationError> {
        let path = self.file(name);
        fs::read_to_string(&path).map_err(|source| RotationError::File { action: "read", path, source })
    }

    pub(super) fn files(&self) -> Result<RotationFiles, RotationError> {
        if !self.file("ca.key").exists() {
            return Err(RotationError::Stage(format!(
                "{} is not here: the authority is kept elsewhere, and replaced by who keeps it (docs/guides/rotate-the-ca.md \
                 says how)",
                self.file("ca.key").display()
            )));
        }
        Ok(RotationFiles {
            bundle: self.read("ca.crt")?,
            key: self.read("ca.key")?,
            next: self.read(&format!("{NEXT}.crt")).ok(),
            has_previous_key: self.file(PREVIOUS_KEY).exists(),
        })
    }

    /// Of a new authority whose making was cut, one file without the other is of no use to anybody.
    pub(super) fn drop_half_made(&self) -> Result<(), RotationError> {
        let names = [format!("{NEXT}.crt"), format!("{NEXT}.key")];
        match names.iter().filter(|name| self.file(name).exists()).count() {
            1 => self.remove(&names),
            _ => Ok(()),
        }
    }

    /// Puts the new key in the old one's place and the new certificate to the front; the same wherever it was cut before.
    pub(super) fn exchange(&self, files: &RotationFiles) -> Result<String, RotationError> {
        let next = files.next.clone().unwrap_or_default();
        let new = Identity { certificate_pem: next.clone(), key_pem: self.read(&format!("{NEXT}.key"))? };
        let path = self.file(&format!("{NEXT}.key"));
        new.check().map_err(|why| RotationError::Stage(format!("{} cannot be used: {why}", path.display())))?;
        if !files.key_fits(&next) {
            write_private(&self.file(PREVIOUS_KEY), files.key.as_bytes())?;
            write_private(&self.file("ca.key"), new.key_pem.as_bytes())?;
        }
        let bundle = bundle_of(&[&next, &files.bundle]);
        self.trust(&bundle)?;
        Ok(bundle)
    }

    /// Makes this machine trust a bundle.
    pub(super) fn trust(&self, bundle: &str) -> Result<(), RotationError> {
        write_public(&self.file("ca.crt"), bundle.as_bytes())?;
        (self.say)(&format!("[rotate-ca] Writing {}", self.file("ca.crt").display()));
        for (_, name) in KUBECONFIGS {
            let path = self.dirs.kubernetes.join(name);
            if path.exists() && bundle_of(&[&KubeconfigCluster::read(&path)?.authority_pem]) != bundle {
                replace_kubeconfig_authority(&path, bundle)?;
                (self.say)(&format!("[rotate-ca] Writing {}", path.display()));
            }
        }
        Ok(())
    }

    /// Makes the certificates anew that another one than the first authority signed, but for those of nobody known.
    pub(super) fn reissue(&self) -> Result<(), RotationError> {
        let bundle = self.read("ca.crt")?;
        for known in KNOWN_CERTIFICATES.into_iter().filter(|known| known.authority == "ca") {
            let Some(pem) = known.pem(&self.dirs)? else { continue };
            match signer_in(&bundle, &pem) {
                Some(0) => {}
                Some(_) => {
                    known.renew(&self.dirs)?;
                    (self.say)(&format!("[rotate-ca] {} renewed", known.long_name));
                }
                None => (self.say)(&format!("[rotate-ca] {} is of another authority, and left as it is", known.name)),
            }
        }
        Ok(())
    }

    pub(super) fn remove_old(&self) -> Result<(), RotationError> {
        self.remove(&[PREVIOUS_KEY.to_owned(), format!("{NEXT}.crt"), format!("{NEXT}.key")])
    }

    pub(super) fn remove(&self, names: &[String]) -> Result<(), RotationError> {
        for path in names.iter().map(|name| self.file(name)) {
            match fs::remove_file(&path) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    return Err(RotationError::File { action: "remove", path, source });
                }
                _ => {}
            }
        }
        Ok(())
    }
}
