//! `kedge upgrade`: brings a cluster that `kedge init` made to this binary's version, one machine after the other, in
//! kubeadm's shape and with its lines.
//!
//! Invariant: one machine of a cluster is upgraded at a time; what was begun and interrupted is finished or taken back by
//! the next run; a control plane whose new version does not become well is put back.

mod addons;
mod cluster_facts;
mod component_wait;
mod configuration;
mod control_plane;
mod deprecated;
mod diff;
mod etcd_data;
mod health;
mod host_facts;
mod journal;
mod kubelet;
mod kubelet_flags;
mod lock;
mod phases;
mod plan;
mod preflight;
mod session;
mod settings;
mod static_pods;
mod version;

use self::cluster_facts::{FoundAddons, config_versions, find_settled_versions};
use self::deprecated::find_deprecated;
use self::lock::{UpgradeLock, ensure_lock};
use self::preflight::MachineLock;
use self::session::Session;
use crate::Say;
use crate::host::HostLayout;
use crate::init::{InitError, PhaseError};

pub use configuration::UpgradeConfiguration;
pub use health::CommandCheck;
pub use phases::UPGRADE_PHASES;
pub use plan::{AvailableUpgrade, ComponentPlan, ConfigVersion, DeprecatedApi, UpgradePlan};
pub use settings::{Confirm, UpgradeCommand, UpgradeFlags, UpgradeSettings};
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
        let in_preflight = || in_phase("preflight");
        let _machine = self.begin(UpgradeCommand::Apply).await?;
        let session = Session::open(self, true).await.map_err(in_preflight())?;
        let (_, wanted) = self.wanted().map_err(in_preflight())?;
        match self.skips("preflight") {
            true => self.refuse_others(),
            false => self.preflight(&session, UpgradeCommand::Apply).await,
        }
        .map_err(in_preflight())?;
        self.locked(&session, true, self.all_phases(&session, UpgradeCommand::Apply)).await?;
        if self.settings.dry_run {
            return Ok(());
        }
        (self.say)(&format!(
            "\n[upgrade] SUCCESS! A control plane node of your cluster was upgraded to \"{wanted}\".\n"
        ));
        (self.say)("[upgrade] Now please proceed with upgrading the rest of the nodes by following the right order.");
        Ok(())
    }

    /// Upgrades a further control plane, or a worker.
    pub async fn node(&self) -> Result<(), InitError> {
        let _machine = self.begin(UpgradeCommand::Node).await?;
        let session = Session::open(self, false).await.map_err(in_phase("preflight"))?;
        if !self.skips("preflight") {
            self.check_node(&session).await.map_err(in_phase("preflight"))?;
        }
        self.locked(&session, false, self.all_phases(&session, UpgradeCommand::Node)).await
    }

    /// Runs one phase, or one part of it, without the checks of the others.
    pub async fn phase(&self, command: UpgradeCommand, phase: &str, part: Option<&str>) -> Result<(), InitError> {
        let name = part.map_or_else(|| phase.to_owned(), |part| format!("{phase}/{part}"));
        if !phases::is_known(command, phase, part) {
            return Err(in_phase(&name)(PhaseError::UnknownUpgrade(name.clone())));
        }
        let part = part.filter(|part| *part != "all");
        self.refuse_others().map_err(in_phase(&name))?;
        let shares = command == UpgradeCommand::Apply;
        let _machine = self.begin(command).await?;
        let session = Session::open(self, shares).await.map_err(in_phase(&name))?;
        let run = async {
            if phase == "preflight" {
                self.preflight(&session, command).await.map_err(in_phase(&name))?;
            }
            self.run_phase(&session, command, phase, part).await.map_err(in_phase(&name))
        };
        self.locked(&session, shares, run).await
    }

    /// The differences between the manifests on this machine and those of this version.
    pub async fn diff(&self) -> Result<String, InitError> {
        self.refuse_others().map_err(in_phase("upgrade/diff"))?;
        self.say_without_effect();
        let session = Session::open(self, true).await.map_err(in_phase("upgrade/diff"))?;
        let manifests = session.new_manifests(&|_| {}).map_err(in_phase("upgrade/diff"))?;
        let mut text = String::new();
        for (component, pod) in manifests {
            let path = session.layout.manifest(component);
            let shown = path.display().to_string();
            let old = std::fs::read_to_string(&path);
            let old =
                old.map_err(|source| in_phase("upgrade/diff")(PhaseError::File { path: shown.clone(), source }))?;
            let new = serde_yaml::to_string(&pod).unwrap_or_default();
            text.push_str(&diff::unified(&shown, &old, &new, self.settings.context_lines));
        }
        Ok(text)
    }

    async fn make_plan(&self) -> Result<UpgradePlan, PhaseError> {
        (self.say)("[preflight] Running pre-flight checks.");
        self.say_without_effect();
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
        let plan = UpgradePlan::new(&versions, &target, config_versions(&session.kept, &addons));
        Ok(plan.with_deprecated(find_deprecated(&session.client).await?))
    }

    /// What comes before anything is read of the cluster.
    async fn begin(&self, command: UpgradeCommand) -> Result<MachineLock, InitError> {
        let checks = if command == UpgradeCommand::Node { "pre-flight" } else { "preflight" };
        (self.say)(&format!("[upgrade/preflight] Running {checks} checks"));
        self.say_without_effect();
        self.check_privileges().map_err(in_phase("preflight"))?;
        let machine = MachineLock::take(&self.layout).map_err(in_phase("preflight"))?;
        self.resume().await.map_err(in_phase("control-plane"))?;
        Ok(machine)
    }

    /// A binary brings its own version and no other; `check_cluster` says more of it, where that is run.
    fn refuse_others(&self) -> Result<(), PhaseError> {
        let (own, wanted) = self.wanted()?;
        match own == wanted {
            true => Ok(()),
            false => {
                Err(PhaseError::Missing(format!("this kedge knows the manifests of {own} only, not those of {wanted}")))
            }
        }
    }

    fn say_without_effect(&self) {
        for field in &self.settings.without_effect {
            (self.say)(&format!("[config] WARNING: {field} has no effect here"));
        }
    }

    fn ask(&self) -> Result<(), PhaseError> {
        match self.settings.confirm.filter(|_| !self.settings.force && !self.settings.dry_run) {
            Some(confirm) if !confirm() => {
                Err(PhaseError::Missing("won't proceed; the user didn't answer (Y|y) in order to continue".to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// Does what changes something, as the only machine of the cluster.
    async fn locked(
        &self,
        session: &Session,
        makes_lock: bool,
        work: impl Future<Output = Result<(), InitError>>,
    ) -> Result<(), InitError> {
        if self.settings.dry_run {
            work.await?;
            (self.say)("[upgrade/successful] Finished dryrunning successfully!");
            return Ok(());
        }
        if makes_lock {
            ensure_lock(&session.client).await.map_err(in_phase("preflight"))?;
        }
        let lock = self.lock(session).await.map_err(in_phase("preflight"))?;
        let done = work.await;
        lock.release().await;
        done
    }

    async fn lock(&self, session: &Session) -> Result<UpgradeLock, PhaseError> {
        UpgradeLock::take(&session.client, &session.host.node_name, kedge_meta::full_version()).await
    }

    fn skips(&self, phase: &str) -> bool {
        self.settings.skip_phases.iter().any(|skipped| skipped == phase)
    }
}
