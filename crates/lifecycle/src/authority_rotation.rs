//! `kedge certs rotate-ca`: the cluster's authority is replaced by another one while everything runs, in three steps. First
//! everybody comes to trust the new one beside the old; then the new one signs; at last the old one is trusted no more.
//!
//! Where a rotation stands is read from the files. Invariants: a step is taken only where every node is known to have followed
//! the one before, unless that is forced; the first certificate in `ca.crt` is that of the key in `ca.key`, but while `switch`
//! is at work, which can be run again wherever it was cut; the old key is kept until nobody trusts it.

mod nodes;
mod stage;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::PathBuf;

use kedge_bootstrap::{
    BootstrapError, CertificateKey, download_next_authority, publish_cluster_authority, published_authority,
    remove_next_authority, upload_next_authority,
};
use kedge_client::{Client, ConnectError, client_from_kubeconfig};
use kedge_pki::{
    CertificateAuthority, CertificateDirs, Identity, KNOWN_CERTIFICATES, KubeconfigCluster, PkiError, bundle_of,
    certificates_in, public_key_pin, replace_kubeconfig_authority, signer_in, write_private, write_public,
};

use crate::Say;
use crate::authority_rotation::stage::{RotationFiles, Stage, in_words, is_allowed, refusal};
use crate::kubeconfigs::KUBECONFIGS;

/// Where the new authority waits for its turn.
const NEXT: &str = "ca-next";
/// The old authority's key, until nobody trusts it.
const PREVIOUS_KEY: &str = "ca-previous.key";

/// Why a step was not taken.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// The rotation does not stand where this step begins.
    #[error("{0}")]
    Stage(String),
    /// Some nodes have not followed yet.
    #[error(
        "these nodes have not followed yet: {}. Wait until `kedge certs rotate-ca status` shows that they have, or go on \
         without them with --force: they will have to join again",
        .0.join(", ")
    )]
    Nodes(Vec<String>),
    /// Certificates or kubeconfigs.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// What is published for others.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// The API can't be reached.
    #[error(transparent)]
    Client(#[from] ConnectError),
    /// Nodes can't be listed.
    #[error("the nodes cannot be listed")]
    List(#[source] Box<kube::Error>),
    /// A file.
    #[error("cannot {action} {}", path.display())]
    File {
        /// `remove`, ...
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// A step of a rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RotationStep {
    /// The new authority is made, and trusted beside the old one.
    Stage,
    /// The new authority signs.
    Switch,
    /// The old authority is trusted no more.
    Finish,
    /// What was staged is taken back.
    Abort,
    /// The new authority goes into the cluster, encrypted, for further control planes.
    Upload,
    /// A further control plane gets it from there.
    Follow,
}

impl RotationStep {
    fn name(self) -> &'static str {
        match self {
            Self::Stage => "stage",
            Self::Switch => "switch",
            Self::Finish => "finish",
            Self::Abort => "abort",
            Self::Upload => "upload",
            Self::Follow => "follow",
        }
    }
}

/// A rotation on one control plane.
pub struct AuthorityRotation<'a> {
    dirs: CertificateDirs,
    force: bool,
    key: Option<CertificateKey>,
    say: Say<'a>,
}

impl<'a> AuthorityRotation<'a> {
    /// Of the authority in these directories; `force` goes on without nodes that have not followed.
    pub fn new(dirs: CertificateDirs, force: bool, say: Say<'a>) -> Self {
        Self { dirs, force, key: None, say }
    }

    /// The key by which control planes tell each other the new authority; [`RotationStep::Upload`] makes one where none is given.
    pub fn with_certificate_key(self, key: Option<CertificateKey>) -> Self {
        Self { key, ..self }
    }

    /// Takes a step.
    pub async fn take(&self, step: RotationStep) -> Result<(), RotationError> {
        let files = self.files()?;
        let stage = files.stage();
        if !is_allowed(step, stage) {
            return Err(RotationError::Stage(refusal(step, stage)));
        }
        match (step, stage) {
            (RotationStep::Stage, _) => self.begin(files).await,
            (RotationStep::Upload, _) => self.upload(files, stage).await,
            (RotationStep::Follow, _) => self.follow(files).await,
            (RotationStep::Switch, _) => self.switch(files).await,
            (RotationStep::Finish, Stage::Settled) => self.finish_here(),
            (RotationStep::Finish, _) => self.finish(files).await,
            (RotationStep::Abort, Stage::Settled) => self.abort_here(),
            (RotationStep::Abort, _) => self.abort(files).await,
        }
    }

    /// Says where the rotation stands, which nodes have followed, and what comes next.
    pub async fn status(&self) -> Result<(), RotationError> {
        let files = self.files()?;
        let (text, next) = in_words(files.stage());
        (self.say)(&format!("Stage: {text}"));
        let bundle = files.bundle;
        for (place, pem) in certificates_in(&bundle).iter().enumerate() {
            let role = if place == 0 { "signs" } else { "is trusted" };
            (self.say)(&format!("{} {role}", pin(pem)?));
        }
        let pins = self.pins(&bundle)?;
        let lines = nodes::lines(&self.client().await?, &pins).await?;
        lines.iter().for_each(|line| (self.say)(line));
        (self.say)(&format!("Next step: {next}"));
        Ok(())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dirs.pki.join(name)
    }

    fn read(&self, name: &str) -> Result<String, RotationError> {
        let path = self.file(name);
        fs::read_to_string(&path).map_err(|source| RotationError::File { action: "read", path, source })
    }

    fn files(&self) -> Result<RotationFiles, RotationError> {
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

    async fn client(&self) -> Result<Client, RotationError> {
        Ok(client_from_kubeconfig(&self.dirs.kubernetes.join("admin.conf")).await?)
    }

    fn pins(&self, bundle: &str) -> Result<Vec<String>, RotationError> {
        certificates_in(bundle).iter().map(|pem| pin(pem)).collect()
    }

    async fn begin(&self, files: RotationFiles) -> Result<(), RotationError> {
        let client = self.client().await?;
        if files.stage() == Stage::Settled {
            self.refuse_second(&client, &files).await?;
            self.drop_half_made()?;
        }
        let next = CertificateAuthority::ensure(&self.dirs.pki, NEXT, "kubernetes")?;
        (self.say)(&format!("[rotate-ca] The new authority is in {}", self.file("ca-next.crt").display()));
        let bundle = bundle_of(&[&files.bundle, next.certificate_pem()]);
        self.trust(&bundle)?;
        self.publish(&client, &bundle).await?;
        if nodes::control_planes(&client).await? > 1 {
            self.upload(self.files()?, Stage::Staged).await?;
        }
        (self.say)(
            "[rotate-ca] Nodes and pods take the bundle up by themselves within two minutes.\n[rotate-ca] When `kedge certs \
             rotate-ca status` shows that every node trusts the new authority, run `kedge certs rotate-ca switch` on each \
             control plane",
        );
        Ok(())
    }

    /// A rotation that was begun on another control plane, and has not come here yet, is no reason for a third authority.
    async fn refuse_second(&self, client: &Client, files: &RotationFiles) -> Result<(), RotationError> {
        let published = published_authority(client).await?.unwrap_or_default();
        let known = certificates_in(&bundle_of(&[&files.bundle, files.next.as_deref().unwrap_or_default()]));
        match certificates_in(&published).iter().all(|pem| known.contains(pem)) {
            true => Ok(()),
            false => Err(RotationError::Stage(refusal(RotationStep::Stage, Stage::Behind))),
        }
    }

    /// Of a new authority whose making was cut, one file without the other is of no use to anybody.
    fn drop_half_made(&self) -> Result<(), RotationError> {
        let names = [format!("{NEXT}.crt"), format!("{NEXT}.key")];
        match names.iter().filter(|name| self.file(name).exists()).count() {
            1 => self.remove(&names),
            _ => Ok(()),
        }
    }

    /// Puts the new authority into the cluster, for further control planes.
    async fn upload(&self, files: RotationFiles, stage: Stage) -> Result<(), RotationError> {
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
    async fn follow(&self, files: RotationFiles) -> Result<(), RotationError> {
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
    fn adopt(&self, files: &RotationFiles, next: &Identity, published: &str) -> Result<(), RotationError> {
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

    async fn switch(&self, files: RotationFiles) -> Result<(), RotationError> {
        let next = files.next.clone().unwrap_or_default();
        let client = self.client().await?;
        self.refuse_without(nodes::without_trust(&client, &pin(&next)?).await?)?;
        let bundle = self.exchange(&files)?;
        self.reissue()?;
        self.publish(&client, &bundle).await?;
        self.remove(&[format!("{NEXT}.crt"), format!("{NEXT}.key")])?;
        (self.say)(
            "[rotate-ca] The new authority signs. Kubelets ask it for their certificates by themselves.\n[rotate-ca] When `kedge \
             certs rotate-ca status` shows that every node has one, and all control planes are switched, run `kedge certs \
             rotate-ca finish` here. Copies of kubeconfigs, and certificates of people, that the old authority signed end then",
        );
        Ok(())
    }

    /// Puts the new key in the old one's place and the new certificate to the front; the same wherever it was cut before.
    fn exchange(&self, files: &RotationFiles) -> Result<String, RotationError> {
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

    async fn finish(&self, files: RotationFiles) -> Result<(), RotationError> {
        let own = certificates_in(&files.bundle).into_iter().next().unwrap_or_default();
        let client = self.client().await?;
        let pin = pin(&own)?;
        self.refuse_without(nodes::control_planes_without_key(&client, &pin).await?)?;
        self.refuse_without(nodes::without_certificate(&client, &pin).await?)?;
        self.reissue()?;
        self.publish(&client, &own).await?;
        self.trust(&own)?;
        remove_next_authority(&client).await?;
        self.remove_old()?;
        (self.say)(
            "[rotate-ca] The old authority is trusted no more. Certificates that were uploaded for further control planes are \
             old: `kedge init phase upload-certs --upload-certs` uploads these. On every further control plane, `kedge certs \
             rotate-ca finish` removes the old key",
        );
        Ok(())
    }

    /// Where another control plane has finished.
    fn finish_here(&self) -> Result<(), RotationError> {
        if !self.file(PREVIOUS_KEY).exists() {
            return Err(RotationError::Stage(refusal(RotationStep::Finish, Stage::Settled)));
        }
        self.reissue()?;
        self.remove_old()?;
        (self.say)("[rotate-ca] The old authority's key is gone from this machine, too");
        Ok(())
    }

    fn remove_old(&self) -> Result<(), RotationError> {
        self.remove(&[PREVIOUS_KEY.to_owned(), format!("{NEXT}.crt"), format!("{NEXT}.key")])
    }

    async fn abort(&self, files: RotationFiles) -> Result<(), RotationError> {
        let client = self.client().await?;
        let next = pin(files.next.as_deref().unwrap_or_default())?;
        let switched = nodes::control_planes_with_key(&client, &next).await?;
        if !switched.is_empty() {
            return Err(RotationError::Stage(format!(
                "the new authority signs on {} already: go on with `kedge certs rotate-ca switch` on the others",
                switched.join(", ")
            )));
        }
        let own = certificates_in(&files.bundle).into_iter().next().unwrap_or_default();
        self.publish(&client, &own).await?;
        self.trust(&own)?;
        remove_next_authority(&client).await?;
        self.abort_here()
    }

    /// What is left where the rotation was aborted on another control plane.
    fn abort_here(&self) -> Result<(), RotationError> {
        let names = [format!("{NEXT}.crt"), format!("{NEXT}.key")];
        if !names.iter().any(|name| self.file(name).exists()) {
            return Err(RotationError::Stage(refusal(RotationStep::Abort, Stage::Settled)));
        }
        self.remove(&names)?;
        (self.say)(
            "[rotate-ca] The new authority is gone; the old one goes on. `kedge certs rotate-ca abort` on every control plane that \
             followed removes its copy",
        );
        Ok(())
    }

    /// Goes on with a warning where that is forced.
    fn refuse_without(&self, behind: Vec<String>) -> Result<(), RotationError> {
        if behind.is_empty() {
            return Ok(());
        }
        if !self.force {
            return Err(RotationError::Nodes(behind));
        }
        (self.say)(&format!("[rotate-ca] WARNING: going on without {}", behind.join(", ")));
        Ok(())
    }

    /// Makes this machine trust a bundle.
    fn trust(&self, bundle: &str) -> Result<(), RotationError> {
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
    fn reissue(&self) -> Result<(), RotationError> {
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

    async fn publish(&self, client: &Client, bundle: &str) -> Result<(), RotationError> {
        match publish_cluster_authority(client, bundle).await? {
            true => (self.say)("[rotate-ca] Updating the ConfigMap \"cluster-info\" in the \"kube-public\" Namespace"),
            false => (self.say)(
                "[rotate-ca] WARNING: there is no ConfigMap \"cluster-info\" in the \"kube-public\" Namespace, so nodes do not \
                 learn of the change by themselves; `kedge init phase bootstrap-token` makes it",
            ),
        }
        Ok(())
    }

    fn remove(&self, names: &[String]) -> Result<(), RotationError> {
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

fn pin(pem: &str) -> Result<String, RotationError> {
    public_key_pin(pem).map_err(RotationError::Stage)
}
