//! How other machines learn of a new authority: nodes by `cluster-info`, further control planes by a Secret.
//!
//! Invariant: a key leaves a machine encrypted only, under one that a person carries.

use kedge_bootstrap::{
    CertificateKey, download_next_authority, publish_cluster_authority, published_authority, upload_next_authority,
};
use kedge_client::Client;
use kedge_pki::{Identity, bundle_of, certificates_in, write_private, write_public};

use super::stage::{RotationFiles, Stage, refusal};
use super::{AuthorityRotation, NEXT, RotationError, RotationStep};

impl AuthorityRotation<'_> {
    /// A rotation that was begun on another control plane, and has not come here yet, is no reason for a third authority.
    pub(super) async fn refuse_second(&self, client: &Client, files: &RotationFiles) -> Result<(), RotationError> {
        let published = published_authority(client).await?.unwrap_or_default();
        let known = certificates_in(&bundle_of(&[&files.bundle, files.next.as_deref().unwrap_or_default()]));
        match certificates_in(&published).iter().all(|pem| known.contains(pem)) {
            true => Ok(()),
            false => Err(RotationError::Stage(refusal(RotationStep::Stage, Stage::Behind))),
        }
    }

    /// Puts the new authority into the cluster, for further control planes.
    pub(super) async fn upload(&self, files: RotationFiles, stage: Stage) -> Result<(), RotationError> {
        let next = match stage {
            Stage::Switched => {
                let first = certificates_in(&files.bundle).into_iter().next().unwrap_or_default();
                Identity { certificate_pem: first, key_pem: files.key }
            }
            _ => Identity {
                certificate_pem: files.next.unwrap_or_default(),
                key_pem: self.read(&format!("{NEXT}.key"))?,
            },
        };
        next.check().map_err(|why| RotationError::Stage(format!("the new authority cannot be used: {why}")))?;
        let key = self.key.clone().map_or_else(CertificateKey::generate, Ok)?;
        upload_next_authority(&self.client().await?, &next, &key).await?;
        (self.say)(&format!(
            "[rotate-ca] The new authority is in the Secret \"kedge-next-authority\" in the \"kube-system\" Namespace for two \
             hours. On every further control plane, run:\n\n\tkedge certs rotate-ca follow --certificate-key {key}\n"
        ));
        Ok(())
    }

    /// Takes the new authority from where another control plane has put it.
    pub(super) async fn follow(&self, files: RotationFiles) -> Result<(), RotationError> {
        let Some(key) = &self.key else {
            return Err(RotationError::Stage(
                "`follow` needs --certificate-key with what `kedge certs rotate-ca upload` prints on the control plane where \
                 the rotation was begun"
                    .to_owned(),
            ));
        };
        let client = self.client().await?;
        let next = download_next_authority(&client, key).await?;
        let published = published_authority(&client).await?.unwrap_or_default();
        self.adopt(&files, &next, &published)
    }

    /// Has the new authority beside the old one, as where it was made.
    pub(super) fn adopt(&self, files: &RotationFiles, next: &Identity, published: &str) -> Result<(), RotationError> {
        let authority = bundle_of(&[&next.certificate_pem]);
        if !certificates_in(published).contains(&authority) {
            return Err(RotationError::Stage(
                "the authority in the Secret \"kedge-next-authority\" is not among those in \"cluster-info\": its rotation \
                 was aborted, or is over"
                    .to_owned(),
            ));
        }
        if files.key_fits(&authority) {
            (self.say)("[rotate-ca] The new authority signs here already");
            return Ok(());
        }
        write_private(&self.file(&format!("{NEXT}.key")), next.key_pem.as_bytes())?;
        write_public(&self.file(&format!("{NEXT}.crt")), authority.as_bytes())?;
        (self.say)(&format!("[rotate-ca] The new authority is in {}", self.file("ca-next.crt").display()));
        self.trust(&bundle_of(&[&files.bundle, &authority]))?;
        (self.say)(
            "[rotate-ca] When `kedge certs rotate-ca status` shows that every node trusts it, run `kedge certs \
                    rotate-ca switch` here, too",
        );
        Ok(())
    }

    pub(super) async fn publish(&self, client: &Client, bundle: &str) -> Result<(), RotationError> {
        match publish_cluster_authority(client, bundle).await? {
            true => (self.say)("[rotate-ca] Updating the ConfigMap \"cluster-info\" in the \"kube-public\" Namespace"),
            false => (self.say)(
                "[rotate-ca] WARNING: there is no ConfigMap \"cluster-info\" in the \"kube-public\" Namespace, so nodes do not \
                 learn of the change by themselves; `kedge init phase bootstrap-token` makes it",
            ),
        }
        Ok(())
    }
}
