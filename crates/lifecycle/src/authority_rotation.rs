//! `kedge certs rotate-ca`: the cluster's authority is replaced by another one while everything runs, in three steps. First
//! everybody comes to trust the new one beside the old; then the new one signs; at last the old one is trusted no more.
//!
//! Where a rotation stands is read from the files. Invariants: a step is taken only where every node is known to have followed
//! the one before, unless that is forced; the first certificate in `ca.crt` is that of the key in `ca.key`, but while `switch`
//! is at work, which can be run again wherever it was cut; the old key is kept until nobody trusts it.

mod files;
mod nodes;
mod sharing;
mod stage;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use kedge_bootstrap::{BootstrapError, CertificateKey, remove_next_authority};
use kedge_client::{Client, ConnectError, client_from_kubeconfig};
use kedge_pki::{CertificateAuthority, CertificateDirs, PkiError, bundle_of, certificates_in, public_key_pin};

use crate::Say;
use crate::authority_rotation::stage::{RotationFiles, Stage, in_words, is_allowed, refusal};

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
}

fn pin(pem: &str) -> Result<String, RotationError> {
    public_key_pin(pem).map_err(RotationError::Stage)
}
