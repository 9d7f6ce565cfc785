//! What is looked at, said and refused before an upgrade changes anything.

use std::fs::{File, OpenOptions};

use kedge_cri::Runtime;
use nix::fcntl::{Flock, FlockArg};

use super::Upgrade;
use super::cluster_facts::{FoundAddons, find_settled_versions};
use super::health::{Health, check_commands, judge, privileged, useless_flags};
use super::host_facts::HostFacts;
use super::journal::Journal;
use super::plan::FoundVersions;
use super::session::Session;
use super::static_pods::StaticPods;
use super::version::{ClusterVersion, Skew};
use crate::host::HostLayout;
use crate::init::PhaseError;
use crate::system_images::runtime_socket;

/// One run on a machine at a time, for as long as this lives.
pub(super) struct MachineLock {
    _file: Flock<File>,
}

impl MachineLock {
    pub(super) fn take(layout: &HostLayout) -> Result<Self, PhaseError> {
        let path = layout.state().join("upgrade.lock");
        let unusable = |source| PhaseError::File { path: path.display().to_string(), source };
        std::fs::create_dir_all(layout.state()).map_err(unusable)?;
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path).map_err(unusable)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(Self { _file: file }),
            Err(_) => Err(PhaseError::Missing("another `kedge upgrade` runs on this machine".to_owned())),
        }
    }
}

impl Upgrade<'_> {
    pub(super) fn check_privileges(&self) -> Result<(), PhaseError> {
        judge(vec![privileged()], &self.settings.ignore_preflight_errors, self.say)
    }

    /// The container runtime of this machine.
    pub(super) async fn runtime(&self, host: &HostFacts) -> Result<Runtime, PhaseError> {
        let socket = runtime_socket(host.cri_socket.as_deref()).await;
        let socket = socket.ok_or_else(|| PhaseError::Missing("no container runtime answers".to_owned()))?;
        Ok(Runtime::connect(&socket).await?)
    }

    /// What an earlier run left undone comes first: the API server may be what it broke.
    pub(super) async fn resume(&self) -> Result<(), PhaseError> {
        if self.settings.dry_run || Journal::read(&self.layout).is_none() {
            return Ok(());
        }
        let host = HostFacts::read(&self.layout)?;
        let Some(own) = &host.control_plane else { return Ok(()) };
        let runtime = self.runtime(&host).await?;
        let pods = StaticPods {
            layout: &self.layout,
            say: self.say,
            runtime: &runtime,
            node_name: &host.node_name,
            own,
            version: kedge_meta::full_version().to_owned(),
            upgrades_etcd: self.settings.upgrades_etcd,
            patience: self.settings.manifest_patience,
            renews_certificates: false,
        };
        pods.resume().await
    }

    /// The health of the cluster. `only_looks` where nothing may be made in it.
    pub(super) async fn check_health(&self, session: &Session, only_looks: bool) -> Result<(), PhaseError> {
        (self.say)("[upgrade] Running cluster health checks");
        let health = Health {
            client: &session.client,
            layout: &session.layout,
            node_name: &session.host.node_name,
            own: session.own()?,
            dry_run: only_looks,
        };
        judge(health.check().await, &self.settings.ignore_preflight_errors, self.say)
    }

    /// All that `apply` checks.
    pub(super) async fn check_cluster(&self, session: &Session) -> Result<(), PhaseError> {
        self.check_health(session, self.settings.dry_run).await?;
        let manifests = session.new_manifests(&|_| {})?;
        self.warn_of_useless_flags(session, &manifests);
        let commands = check_commands(&manifests, self.settings.takes_command);
        judge(vec![commands], &self.settings.ignore_preflight_errors, self.say)?;
        let addons = FoundAddons::read(&session.client).await?;
        let versions = find_settled_versions(&session.client, &addons).await?;
        let (own, wanted) = self.wanted()?;
        (self.say)(&format!("[upgrade/preflight] You have chosen to upgrade the cluster version to \"{wanted}\""));
        let cluster = cluster_version(&versions)?;
        (self.say)(&format!("[upgrade/versions] Cluster version: {cluster}"));
        (self.say)(&format!("[upgrade/versions] kedge version: {own}"));
        self.enforce(&Skew {
            cluster: &cluster,
            own: &own,
            wanted: &wanted,
            kubelets: &versions.kubelets,
            allows_unstable: self.settings.allows_unstable,
        })
    }

    fn enforce(&self, skew: &Skew<'_>) -> Result<(), PhaseError> {
        let errors = skew.errors();
        let lines = |errors: &[String]| errors.iter().map(|error| format!("\t- {error}\n")).collect::<String>();
        if !errors.mandatory.is_empty() {
            return Err(PhaseError::Missing(format!(
                "the version argument is invalid due to these fatal errors:\n\n{}\nPlease fix the misalignments highlighted \
                 above and try upgrading again",
                lines(&errors.mandatory)
            )));
        }
        if errors.is_empty() {
            return Ok(());
        }
        if !self.settings.force {
            return Err(PhaseError::Missing(format!(
                "the version argument is invalid due to these errors:\n\n{}\nCan be bypassed if you pass the --force flag",
                lines(&errors.skippable)
            )));
        }
        (self.say)(&format!(
            "[upgrade/preflight] Found {} potential version compatibility errors but skipping since the --force flag is \
             set: \n\n{}",
            errors.skippable.len(),
            lines(&errors.skippable)
        ));
        Ok(())
    }

    /// This binary's version, and the one that is asked for.
    pub(super) fn wanted(&self) -> Result<(ClusterVersion, ClusterVersion), PhaseError> {
        let own = ClusterVersion::own();
        let asked = self.settings.version.as_deref();
        let wanted = ClusterVersion::asked(asked, &own);
        let text = asked.unwrap_or_default();
        let wanted = wanted.ok_or_else(|| PhaseError::Missing(format!("{text:?} is no version like {own}")))?;
        Ok((own, wanted))
    }

    /// What `plan` says of versions; the one that is asked for.
    pub(super) fn say_versions(&self, versions: &FoundVersions) -> Result<ClusterVersion, PhaseError> {
        let servers = versions.of("kube-apiserver");
        if servers.len() > 1 {
            let each: Vec<String> =
                servers.iter().map(|(version, nodes)| format!("{version} on nodes [{}]", nodes.join(" "))).collect();
            (self.say)(&format!(
                "[upgrade/versions] WARNING: Different API server versions in the cluster were discovered: {}. Please \
                 upgrade your control plane nodes to the same version of Kubernetes",
                each.join(", ")
            ));
        }
        let (own, wanted) = self.wanted()?;
        (self.say)(&format!("[upgrade/versions] Cluster version: {}", cluster_version(versions)?));
        (self.say)(&format!("[upgrade/versions] kedge version: {own}"));
        (self.say)(&format!("[upgrade/versions] Target version: {wanted}"));
        Ok(wanted)
    }

    /// What `plan` warns of: versions too far apart, flags that are refused or do nothing.
    pub(super) fn warn_about(
        &self,
        session: &Session,
        versions: &FoundVersions,
        wanted: &ClusterVersion,
    ) -> Result<(), PhaseError> {
        let (cluster, own) = (cluster_version(versions)?, ClusterVersion::own());
        let (kubelets, allows_unstable) = (&versions.kubelets, self.settings.allows_unstable);
        let errors = Skew { cluster: &cluster, own: &own, wanted, kubelets, allows_unstable }.errors();
        for error in errors.mandatory.iter().chain(&errors.skippable) {
            (self.say)(&format!("[upgrade/versions] WARNING: {error}"));
        }
        let manifests = session.new_manifests(&|_| {})?;
        self.warn_of_useless_flags(session, &manifests);
        for error in check_commands(&manifests, self.settings.takes_command).errors {
            (self.say)(&format!("[upgrade/config] WARNING: {error}"));
        }
        Ok(())
    }

    fn warn_of_useless_flags(&self, session: &Session, manifests: &[(&'static str, serde_json::Value)]) {
        for flag in useless_flags(&session.kept.cluster, manifests, self.settings.takes_command) {
            (self.say)(&format!("[upgrade/config] WARNING: {flag} has no effect in this version"));
        }
    }

    /// All that `node` checks: a kubelet must not be newer than an API server, and all control planes are of one version.
    pub(super) async fn check_node(&self, session: &Session) -> Result<(), PhaseError> {
        let own = ClusterVersion::own();
        let cluster = match &session.host.control_plane {
            Some(_) => {
                let commands = check_commands(&session.new_manifests(&|_| {})?, self.settings.takes_command);
                judge(vec![commands], &self.settings.ignore_preflight_errors, self.say)?;
                cluster_version(&find_settled_versions(&session.client, &FoundAddons::default()).await?)?
            }
            None => {
                let answer = session.client.apiserver_version().await;
                let answer =
                    answer.map_err(|error| PhaseError::Missing(format!("the API server can't be asked: {error}")))?;
                ClusterVersion::parse(&answer.git_version).ok_or_else(|| {
                    PhaseError::Missing(format!("the API server's version {:?} can't be read", answer.git_version))
                })?
            }
        };
        if own > cluster {
            return Err(PhaseError::Missing(format!(
                "the cluster is at {cluster} and this kedge brings {own}: run `kedge upgrade apply` on the first control \
                 plane, and `kedge upgrade node` on the further ones, before the workers"
            )));
        }
        if own < cluster && session.host.control_plane.is_some() {
            return Err(PhaseError::Missing(format!(
                "the cluster is at {cluster} and this kedge brings {own}: upgrade kedge first using the tool you used to \
                 install kedge"
            )));
        }
        Ok(())
    }
}

fn cluster_version(versions: &FoundVersions) -> Result<ClusterVersion, PhaseError> {
    versions.cluster().ok_or_else(|| {
        PhaseError::Missing("no pod of kube-apiserver in the cluster says its version with its image's tag".to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_run_on_a_machine_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let layout = HostLayout::below(dir.path());
        let first = MachineLock::take(&layout).unwrap();
        assert!(MachineLock::take(&layout).is_err());
        drop(first);
        MachineLock::take(&layout).unwrap();
    }
}
