//! `kedge certs rotate-ca`: the cluster's authority is replaced by another one while everything runs, in three steps. First
//! everybody comes to trust the new one beside the old; then the new one signs; at last the old one is trusted no more.
//!
//! Where a rotation stands is read from the files. Invariants: a step is taken only where every node is known to have followed
//! the one before, unless that is forced; the first certificate in `ca.crt` is always that of the key in `ca.key`.

mod nodes;

use std::fs;
use std::path::{Path, PathBuf};

use kedge_bootstrap::{BootstrapError, publish_cluster_authority};
use kedge_client::{Client, ConnectError, client_from_kubeconfig};
use kedge_pki::{
    CertificateAuthority, CertificateDirs, Identity, KNOWN_CERTIFICATES, KubeconfigCluster, PkiError, bundle_of,
    certificates_in, public_key_pin, replace_kubeconfig_authority, signer_in, write_private, write_public,
};

use crate::Say;
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
}

/// Where a rotation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// There is one authority.
    Settled,
    /// Two are trusted, and the old one signs.
    Staged,
    /// Two are trusted, and the new one signs.
    Switched,
}

/// Reads it from the bundle and from whether the next authority is there.
fn stage(bundle: &str, next: Option<&str>) -> Stage {
    let known = certificates_in(bundle);
    let is_staged = next.is_some_and(|next| certificates_in(next).iter().all(|pem| known.contains(pem)));
    match (known.len(), is_staged) {
        (2.., true) => Stage::Staged,
        (2.., false) => Stage::Switched,
        _ => Stage::Settled,
    }
}

/// A rotation on one control plane.
pub struct AuthorityRotation<'a> {
    dirs: CertificateDirs,
    force: bool,
    say: Say<'a>,
}

impl<'a> AuthorityRotation<'a> {
    /// Of the authority in these directories; `force` goes on without nodes that have not followed.
    pub fn new(dirs: CertificateDirs, force: bool, say: Say<'a>) -> Self {
        Self { dirs, force, say }
    }

    /// Takes a step.
    pub async fn take(&self, step: RotationStep) -> Result<(), RotationError> {
        let stage = self.stage()?;
        match (step, stage) {
            (RotationStep::Stage, Stage::Settled | Stage::Staged) => self.begin().await,
            (RotationStep::Switch, Stage::Staged) => self.switch().await,
            (RotationStep::Finish, Stage::Switched) => self.finish().await,
            (RotationStep::Abort, Stage::Staged) => self.abort().await,
            (step, stage) => Err(RotationError::Stage(refusal(step, stage))),
        }
    }

    /// Says where the rotation stands, which nodes have followed, and what comes next.
    pub async fn status(&self) -> Result<(), RotationError> {
        let stage = self.stage()?;
        let (text, next) = match stage {
            Stage::Settled => ("one authority", "kedge certs rotate-ca stage"),
            Stage::Staged => ("two are trusted, the old one signs", "kedge certs rotate-ca switch"),
            Stage::Switched => ("two are trusted, the new one signs", "kedge certs rotate-ca finish"),
        };
        (self.say)(&format!("Stage: {text}"));
        let bundle = self.bundle()?;
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

    fn bundle(&self) -> Result<String, RotationError> {
        let path = self.file("ca.crt");
        fs::read_to_string(&path).map_err(|source| RotationError::File { action: "read", path, source })
    }

    fn next(&self) -> Option<String> {
        fs::read_to_string(self.file(&format!("{NEXT}.crt"))).ok()
    }

    fn stage(&self) -> Result<Stage, RotationError> {
        if !self.file("ca.key").exists() {
            return Err(RotationError::Stage(format!(
                "{} is not here: the authority is kept elsewhere, and replaced by who keeps it (docs/guides/rotate-the-ca.md \
                 says how)",
                self.file("ca.key").display()
            )));
        }
        Ok(stage(&self.bundle()?, self.next().as_deref()))
    }

    async fn client(&self) -> Result<Client, RotationError> {
        Ok(client_from_kubeconfig(&self.dirs.kubernetes.join("admin.conf")).await?)
    }

    fn pins(&self, bundle: &str) -> Result<Vec<String>, RotationError> {
        certificates_in(bundle).iter().map(|pem| pin(pem)).collect()
    }

    async fn begin(&self) -> Result<(), RotationError> {
        let client = self.client().await?;
        let next = CertificateAuthority::ensure(&self.dirs.pki, NEXT, "kubernetes")?;
        (self.say)(&format!("[rotate-ca] The new authority is in {}", self.file("ca-next.crt").display()));
        let bundle = bundle_of(&[&self.bundle()?, next.certificate_pem()]);
        self.trust(&bundle)?;
        self.publish(&client, &bundle).await?;
        (self.say)(
            "[rotate-ca] Nodes and pods take the bundle up by themselves within two minutes. On every further control plane, \
             put ca-next.crt and ca-next.key into the same directory.\n[rotate-ca] When `kedge certs rotate-ca status` shows that \
             every node trusts the new authority, run `kedge certs rotate-ca switch` on each control plane",
        );
        Ok(())
    }

    async fn switch(&self) -> Result<(), RotationError> {
        let next = self.next().unwrap_or_default();
        let client = self.client().await?;
        self.refuse_without(nodes::without_trust(&client, &pin(&next)?).await?)?;
        let key = self.file(&format!("{NEXT}.key"));
        let text = |path: &Path| {
            let path = path.to_owned();
            fs::read_to_string(&path).map_err(|source| RotationError::File { action: "read", path, source })
        };
        let (old_key, new_key) = (text(&self.file("ca.key"))?, text(&key)?);
        let new = Identity { certificate_pem: next.clone(), key_pem: new_key.clone() };
        new.check().map_err(|why| RotationError::Stage(format!("{} cannot be used: {why}", key.display())))?;
        let bundle = bundle_of(&[&next, &self.bundle()?]);
        write_private(&self.file(PREVIOUS_KEY), old_key.as_bytes())?;
        write_private(&self.file("ca.key"), new_key.as_bytes())?;
        self.trust(&bundle)?;
        self.reissue()?;
        self.publish(&client, &bundle).await?;
        self.remove(&[&format!("{NEXT}.crt"), &format!("{NEXT}.key")])?;
        (self.say)(
            "[rotate-ca] The new authority signs. Kubelets ask it for their certificates by themselves.\n[rotate-ca] When `kedge \
             certs rotate-ca status` shows that every node has one, and all control planes are switched, run `kedge certs \
             rotate-ca finish` here. Copies of kubeconfigs, and certificates of people, that the old authority signed end then",
        );
        Ok(())
    }

    async fn finish(&self) -> Result<(), RotationError> {
        let bundle = self.bundle()?;
        let own = certificates_in(&bundle).into_iter().next().unwrap_or_default();
        let client = self.client().await?;
        self.refuse_without(nodes::without_certificate(&client, &pin(&own)?).await?)?;
        self.reissue()?;
        self.publish(&client, &own).await?;
        self.trust(&own)?;
        self.remove(&[PREVIOUS_KEY])?;
        (self.say)(
            "[rotate-ca] The old authority is trusted no more. Certificates that were uploaded for further control planes are \
             old: `kedge init phase upload-certs --upload-certs` uploads these",
        );
        Ok(())
    }

    async fn abort(&self) -> Result<(), RotationError> {
        let own = certificates_in(&self.bundle()?).into_iter().next().unwrap_or_default();
        self.publish(&self.client().await?, &own).await?;
        self.trust(&own)?;
        self.remove(&[&format!("{NEXT}.crt"), &format!("{NEXT}.key")])?;
        (self.say)("[rotate-ca] The new authority is gone; the old one goes on");
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
        let bundle = self.bundle()?;
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

    fn remove(&self, names: &[&str]) -> Result<(), RotationError> {
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

fn refusal(step: RotationStep, stage: Stage) -> String {
    let stands = match stage {
        Stage::Settled => "no rotation is under way: `kedge certs rotate-ca stage` begins one",
        Stage::Staged => "the new authority is staged: `kedge certs rotate-ca switch` comes next, or `abort`",
        Stage::Switched => "the new authority signs: `kedge certs rotate-ca finish` comes next",
    };
    let wanted = match step {
        RotationStep::Stage => "stage",
        RotationStep::Switch => "switch",
        RotationStep::Finish => "finish",
        RotationStep::Abort => "abort",
    };
    format!("`{wanted}` is not the next step; {stands}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use kedge_pki::{KnownCertificate, KubeconfigUser, LeafRequest, kubeconfig_certificate, write_kubeconfig};

    #[test]
    fn files_tell_where_a_rotation_stands() {
        let dir = tempfile::tempdir().unwrap();
        let authority = |name: &str| CertificateAuthority::ensure(dir.path(), name, "kubernetes").unwrap();
        let (old, new) = (authority("ca"), authority("ca-next"));
        let (o, n) = (old.certificate_pem(), new.certificate_pem());
        for (bundle, next, expected) in [
            (vec![o], None, Stage::Settled),
            // Made, and not yet trusted.
            (vec![o], Some(n), Stage::Settled),
            (vec![o, n], Some(n), Stage::Staged),
            (vec![n, o], None, Stage::Switched),
            (vec![n], None, Stage::Settled),
        ] {
            assert_eq!(stage(&bundle_of(&bundle), next), expected, "{}", bundle.len());
        }
        let text = refusal(RotationStep::Finish, Stage::Staged);
        assert!(text.contains("`finish` is not the next step") && text.contains("rotate-ca switch"), "{text}");
    }

    #[test]
    fn a_machine_trusts_the_bundle_and_its_certificates_follow_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = CertificateDirs { kubernetes: dir.path().to_owned(), pki: dir.path().join("pki") };
        let authority = |name: &str| CertificateAuthority::ensure(&dirs.pki, name, "kubernetes").unwrap();
        let (old, new) = (authority("ca"), authority("ca-next"));
        let server = LeafRequest::server("kube-apiserver", vec!["a".to_owned()], Vec::new());
        old.ensure_leaf(&dirs.pki, "apiserver", &server).unwrap();
        let cluster = KubeconfigCluster {
            server: "https://127.0.0.1:1".to_owned(),
            authority_pem: old.certificate_pem().to_owned(),
            tls_server_name: None,
        };
        let user = KubeconfigUser::Embedded(old.issue(&LeafRequest::client("kubernetes-admin", &["a"])).unwrap());
        let admin = dir.path().join("admin.conf");
        write_kubeconfig(&admin, "c", "u", &cluster, &user).unwrap();
        let rotation = AuthorityRotation::new(dirs.clone(), false, &|_| {});
        let both = bundle_of(&[new.certificate_pem(), old.certificate_pem()]);
        fs::copy(dirs.pki.join("ca-next.key"), dirs.pki.join("ca.key")).unwrap();
        rotation.trust(&both).unwrap();
        rotation.reissue().unwrap();
        let apiserver = KnownCertificate::find("apiserver").unwrap().pem(&dirs).unwrap().unwrap();
        let shown = kubeconfig_certificate(&admin).unwrap().unwrap();
        for pem in [apiserver, shown] {
            assert_eq!(signer_in(new.certificate_pem(), &pem), Some(0));
        }
        assert_eq!(KubeconfigCluster::read(&admin).unwrap().authority_pem, both);
        let behind = rotation.refuse_without(vec!["n2".to_owned()]).unwrap_err().to_string();
        assert!(behind.contains("have not followed yet: n2"), "{behind}");
        AuthorityRotation::new(dirs, true, &|_| {}).refuse_without(vec!["n2".to_owned()]).unwrap();
    }
}
