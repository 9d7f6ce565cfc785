//! `kedge upgrade`: brings a cluster that `kedge init` made to this binary's version, one machine after the other, in
//! kubeadm's shape and with its lines.
//!
//! Invariant: one machine of a cluster is upgraded at a time; what was begun and interrupted is finished or taken back by
//! the next run; a control plane whose new version does not become well is put back.

mod addons;
mod cluster_facts;
mod component_wait;
mod control_plane;
mod diff;
mod etcd_data;
mod health;
mod host_facts;
mod journal;
mod kubelet;
mod lock;
mod node;
mod plan;
mod preflight;
mod session;
mod settings;
mod static_pods;
mod version;

use self::cluster_facts::{FoundAddons, config_versions, find_settled_versions};
use self::lock::{UpgradeLock, ensure_lock};
use self::preflight::MachineLock;
use self::session::Session;
use crate::Say;
use crate::host::HostLayout;
use crate::init::{InitError, PhaseError};

pub use health::CommandCheck;
pub use plan::{AvailableUpgrade, ComponentPlan, ConfigVersion, UpgradePlan};
pub use settings::{Confirm, UpgradeSettings};
pub use version::ClusterVersion;

/// A run of one of the commands.
pub struct Upgrade<'a> {
    settings: UpgradeSettings,
    layout: HostLayout,
    say: Say<'a>,
}

fn in_phase(phase: &str) -> impl FnOnce(PhaseError) -> InitError + use<> {
    let phase = phase.to_owned();
    move |source| InitError { phase, source }
}

impl<'a> Upgrade<'a> {
    /// Prepares a run; changes nothing.
    pub fn new(settings: UpgradeSettings, say: Say<'a>) -> Self {
        Self { settings, layout: HostLayout::default(), say }
    }

    /// What this binary would change. Changes nothing.
    // DIVERGES: upstream's plan runs a Job in the cluster.
    pub async fn plan(&self) -> Result<UpgradePlan, InitError> {
        self.make_plan().await.map_err(in_phase("upgrade/plan"))
    }

    /// Upgrades the first control plane, and what the whole cluster shares.
    pub async fn apply(&self) -> Result<(), InitError> {
        (self.say)("[upgrade/preflight] Running preflight checks");
        let in_preflight = || in_phase("preflight");
        self.check_privileges().map_err(in_preflight())?;
        let _machine = MachineLock::take(&self.layout).map_err(in_preflight())?;
        self.resume().await.map_err(in_phase("control-plane"))?;
        let session = Session::open(self, true).await.map_err(in_preflight())?;
        let wanted = self.check_cluster(&session).await.map_err(in_preflight())?;
        if self.settings.confirm.is_some_and(|confirm| !confirm()) {
            return Err(in_preflight()(PhaseError::Missing(
                "won't proceed; the user didn't answer (Y|y) in order to continue".to_owned(),
            )));
        }
        if self.settings.dry_run {
            self.control_plane_phases(&session, true).await?;
            (self.say)("[upgrade/successful] Finished dryrunning successfully!");
            return Ok(());
        }
        ensure_lock(&session.client).await.map_err(in_preflight())?;
        let lock = self.lock(&session).await.map_err(in_preflight())?;
        let done = self.control_plane_phases(&session, true).await;
        lock.release().await;
        done?;
        (self.say)(&format!(
            "\n[upgrade] SUCCESS! A control plane node of your cluster was upgraded to \"{wanted}\".\n"
        ));
        (self.say)("[upgrade] Now please proceed with upgrading the rest of the nodes by following the right order.");
        Ok(())
    }

    /// Upgrades a further control plane, or a worker.
    pub async fn node(&self) -> Result<(), InitError> {
        (self.say)("[upgrade/preflight] Running pre-flight checks");
        let in_preflight = || in_phase("preflight");
        self.check_privileges().map_err(in_preflight())?;
        let _machine = MachineLock::take(&self.layout).map_err(in_preflight())?;
        self.resume().await.map_err(in_phase("control-plane"))?;
        let session = Session::open(self, false).await.map_err(in_preflight())?;
        self.check_node(&session).await.map_err(in_preflight())?;
        if self.settings.dry_run {
            self.node_phases(&session).await?;
            (self.say)("[upgrade/successful] Finished dryrunning successfully!");
            return Ok(());
        }
        let lock = self.lock(&session).await.map_err(in_preflight())?;
        let done = self.node_phases(&session).await;
        lock.release().await;
        done
    }

    /// The differences between the manifests on this machine and those of this version.
    pub async fn diff(&self, context: usize) -> Result<String, InitError> {
        let (own, wanted) = self.wanted().map_err(in_phase("upgrade/diff"))?;
        if own != wanted {
            let why = format!("this kedge knows the manifests of {own} only, not those of {wanted}");
            return Err(in_phase("upgrade/diff")(PhaseError::Missing(why)));
        }
        let session = Session::open(self, true).await.map_err(in_phase("upgrade/diff"))?;
        let manifests = session.new_manifests().map_err(in_phase("upgrade/diff"))?;
        let mut text = String::new();
        for (component, pod) in manifests {
            let path = session.layout.manifest(component);
            let shown = path.display().to_string();
            let old = std::fs::read_to_string(&path);
            let old =
                old.map_err(|source| in_phase("upgrade/diff")(PhaseError::File { path: shown.clone(), source }))?;
            let new = serde_yaml::to_string(&pod).unwrap_or_default();
            text.push_str(&diff::unified(&shown, &old, &new, context));
        }
        Ok(text)
    }

    async fn make_plan(&self) -> Result<UpgradePlan, PhaseError> {
        (self.say)("[preflight] Running pre-flight checks.");
        self.check_privileges()?;
        let session = Session::open(self, true).await?;
        self.check_health(&session, true).await?;
        (self.say)("[upgrade] Fetching available versions to upgrade to");
        let addons = FoundAddons::read(&session.client).await?;
        let versions = find_settled_versions(&session.client, &addons).await?;
        let wanted = self.say_versions(&versions)?;
        self.warn_about(&session, &versions, &wanted)?;
        let etcd = crate::system_images::SystemImages::of_machine(None).etcd;
        let etcd = etcd.rsplit_once(':').map(|(_, tag)| tag.to_owned());
        let target = plan::Target { version: &wanted, etcd: etcd.filter(|_| self.settings.upgrades_etcd) };
        Ok(UpgradePlan::new(&versions, &target, config_versions(&session.kept, &addons)))
    }

    async fn lock(&self, session: &Session) -> Result<UpgradeLock, PhaseError> {
        UpgradeLock::take(&session.client, &session.host.node_name, kedge_meta::full_version()).await
    }

    fn skips(&self, phase: &str) -> bool {
        self.settings.skip_phases.iter().any(|skipped| skipped == phase)
    }
}
