//! The control plane of a machine, one static pod after the other: the new manifest in, the old one kept, and all of them
//! back where a component does not become well.
//!
//! Invariant: a manifest is replaced in one step by a whole one, and only after the journal knows the old one; nothing is
//! replaced before all new ones could be written.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use kedge_cri::Runtime;
use kedge_pki::{CertificateDirs, KnownCertificate, Renewed, write_private};
use serde_json::Value;

use super::component_wait::{ComponentPod, Health};
use super::etcd_data::{EtcdData, ensure_etcd_is_newer};
use super::host_facts::{ControlPlaneFacts, read_manifest};
use super::journal::{Journal, timestamped};
use crate::Say;
use crate::cluster_configuration::ClusterConfiguration;
use crate::host::{HostLayout, KUBERNETES_DIR};
use crate::init::PhaseError;
use crate::manifests::{CONTROL_PLANE, ManifestFacts, control_plane_pod, etcd_pod};
use crate::system_images::SystemImages;
use crate::timeouts::go_duration;

/// The control plane of this machine, and what is to become of it.
pub(super) struct StaticPods<'a> {
    pub(super) layout: &'a HostLayout,
    pub(super) say: Say<'a>,
    pub(super) runtime: &'a Runtime,
    pub(super) node_name: &'a str,
    pub(super) own: &'a ControlPlaneFacts,
    /// What is brought, as it is said.
    pub(super) version: String,
    pub(super) upgrades_etcd: bool,
    /// How long each component may take to become well.
    pub(super) patience: Duration,
    pub(super) renews_certificates: bool,
}

/// A component with its new manifest.
struct Wanted {
    component: &'static str,
    pod: Value,
    text: String,
}

/// The certificates that go with a component.
fn certificates_of(component: &str, has_etcd: bool) -> Vec<&'static str> {
    match component {
        "etcd" => vec!["etcd-server", "etcd-peer", "etcd-healthcheck-client"],
        "kube-apiserver" => {
            let etcd = has_etcd.then_some("apiserver-etcd-client");
            ["apiserver", "apiserver-kubelet-client", "front-proxy-client"].into_iter().chain(etcd).collect()
        }
        "kube-controller-manager" => vec!["controller-manager.conf"],
        "kube-scheduler" => vec!["scheduler.conf"],
        _ => vec!["admin.conf", "super-admin.conf"],
    }
}

/// The manifests that this binary writes for a control plane that is there; etcd first.
pub(super) fn new_manifests(
    cluster: &ClusterConfiguration,
    node_name: &str,
    own: &ControlPlaneFacts,
    layout: &HostLayout,
) -> Vec<(&'static str, Value)> {
    let images = SystemImages::of_machine(None);
    let facts = ManifestFacts {
        cluster: cluster.clone(),
        local: own.local,
        node_name: node_name.to_owned(),
        image: images.kedge,
        etcd_image: images.etcd,
        embedded_store: own.embedded_store,
    };
    let etcd = own.has_etcd.then(|| ("etcd", etcd_pod(&facts, layout, &own.members)));
    let others = CONTROL_PLANE.into_iter().map(|component| (component, control_plane_pod(component, &facts, layout)));
    etcd.into_iter().chain(others).collect()
}

impl StaticPods<'_> {
    /// Finishes what an earlier try began: what it left that is not well is taken back.
    pub(super) async fn resume(&self) -> Result<(), PhaseError> {
        let Some(mut journal) = Journal::read(self.layout) else { return Ok(()) };
        (self.say)(&format!(
            "[upgrade/staticpods] An upgrade to {} was interrupted; the manifests from before are in \"{}\"",
            journal.version,
            journal.backup.display()
        ));
        for component in journal.touched.clone() {
            let path = self.layout.manifest(&component);
            let Some(pod) = read_manifest(&path)? else { continue };
            let text = std::fs::read_to_string(&path).map_err(|source| file(&path, source))?;
            (self.say)(&format!("[upgrade/staticpods] Waiting for {component:?} to be healthy"));
            let before = journal.uid_before(&component, &text).map(str::to_owned);
            if let Err(why) = self.pod_of(&component).wait(before.as_deref(), Health::of(&pod).as_ref()).await {
                return Err(self.roll_back(&mut journal, &component, why).await);
            }
            self.intend(&component, &text)?;
        }
        Ok(())
    }

    /// Brings all components to the new version.
    pub(super) async fn upgrade(&self, manifests: Vec<(&'static str, Value)>) -> Result<(), PhaseError> {
        let now = Timestamp::now();
        let mut journal = match Journal::read(self.layout) {
            Some(journal) => journal,
            None => Journal::begin(self.layout, &self.version, now)?,
        };
        let directory = self.layout.at(Path::new(KUBERNETES_DIR).join("tmp/kubeadm-upgraded-manifests"));
        (self.say)(&format!("[upgrade/staticpods] Writing new Static Pod manifests to \"{}\"", directory.display()));
        let wanted = write_new(&directory, manifests)?;
        for one in &wanted {
            if one.component == "etcd" && !self.is_etcd_due(one)? {
                continue;
            }
            self.component(one, &mut journal, now).await?;
        }
        self.renew("the administrator")?;
        let remove = |path: &PathBuf| std::fs::remove_dir_all(path);
        remove(&directory).map_err(|source| file(&directory, source))?;
        Journal::end(self.layout).map_err(|source| file(self.layout.state().as_path(), source))
    }

    fn is_etcd_due(&self, wanted: &Wanted) -> Result<bool, PhaseError> {
        if !self.upgrades_etcd {
            return Ok(false);
        }
        let Some(current) = read_manifest(&self.layout.manifest("etcd"))? else { return Ok(false) };
        match ensure_etcd_is_newer(&current, &wanted.pod) {
            Ok(()) => Ok(true),
            Err(why) => {
                (self.say)(&format!("[upgrade/etcd] Non fatal issue encountered during upgrade: {why}"));
                Ok(false)
            }
        }
    }

    async fn component(&self, wanted: &Wanted, journal: &mut Journal, now: Timestamp) -> Result<(), PhaseError> {
        let (component, say) = (wanted.component, self.say);
        say(&format!("[upgrade/staticpods] Preparing for {component:?} upgrade"));
        let path = self.layout.manifest(component);
        let old = std::fs::read_to_string(&path).map_err(|source| file(&path, source))?;
        if serde_yaml::from_str::<Value>(&old).is_ok_and(|old| old == wanted.pod) {
            say(&format!("[upgrade/staticpods] Current and new manifests of {component} are equal, skipping upgrade"));
            return Ok(());
        }
        if component == "etcd" {
            self.back_up_etcd(journal, now)?;
        }
        let before = self.pod_of(component).uid().await;
        journal.touch(self.layout, component, &old, before.as_deref())?;
        match self.replace(wanted, &path, journal, before.as_deref()).await {
            Ok(()) => {
                say(&format!("[upgrade/staticpods] Component {component:?} upgraded successfully!"));
                self.intend(component, &wanted.text)
            }
            Err(why) => Err(self.roll_back(journal, component, why).await),
        }
    }

    /// From now on this is what a manifest is meant to be: who mends a broken one takes it.
    fn intend(&self, component: &str, text: &str) -> Result<(), PhaseError> {
        Ok(write_private(&self.layout.intended_manifests().join(format!("{component}.yaml")), text.as_bytes())?)
    }

    async fn replace(
        &self,
        wanted: &Wanted,
        path: &Path,
        journal: &Journal,
        before: Option<&str>,
    ) -> Result<(), String> {
        let (component, say) = (wanted.component, self.say);
        self.renew(component).map_err(|error| {
            let causes = std::iter::successors(std::error::Error::source(&error), |cause| cause.source());
            let text = causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"));
            format!("failed to renew certificates for component {component:?}: {text}")
        })?;
        say(&format!(
            "[upgrade/staticpods] Moving new manifest to \"{}\" and backing up old manifest to \"{}\"",
            path.display(),
            journal.copy_of(component).display()
        ));
        write_private(path, wanted.text.as_bytes()).map_err(|error| error.to_string())?;
        say("[upgrade/staticpods] Waiting for the kubelet to restart the component");
        say(&format!("[upgrade/staticpods] This can take up to {}", go_duration(self.patience)));
        self.pod_of(component).wait(before, Health::of(&wanted.pod).as_ref()).await.map(|_| ())
    }

    /// Puts back what was touched, waits for it, and says what happened.
    async fn roll_back(&self, journal: &mut Journal, failed: &str, why: String) -> PhaseError {
        let say = self.say;
        say(&format!("[upgrade/staticpods] Component {failed:?} could not be upgraded: {why}"));
        let mut faced = vec![why];
        // etcd goes back only where it is what failed: the others get along with a newer one.
        let back: Vec<String> =
            journal.touched.iter().rev().filter(|name| *name != "etcd" || failed == "etcd").cloned().collect();
        let mut waits = Vec::new();
        for component in &back {
            let path = self.layout.manifest(component);
            say(&format!(
                "[upgrade/staticpods] Rolling back {component:?} to \"{}\"",
                journal.copy_of(component).display()
            ));
            match self.put_back(&path, &journal.copy_of(component)).await {
                Ok(health) => waits.push((component, health)),
                Err(error) => faced.push(error),
            }
        }
        for (component, (before, health)) in waits {
            match self.pod_of(component).wait(before.as_deref(), health.as_ref()).await {
                Ok(_) => say(&format!("[upgrade/staticpods] Component {component:?} was rolled back and is healthy")),
                Err(error) if component == "etcd" => faced.push(self.roll_back_etcd(journal, error).await),
                Err(error) => faced.push(error),
            }
        }
        if faced.len() == 1
            && let Err(error) = Journal::end(self.layout)
        {
            faced.push(error.to_string());
        }
        PhaseError::Missing(format!(
            "couldn't upgrade control plane. kedge has tried to recover everything into the earlier state. Errors faced: {}",
            faced.join("; ")
        ))
    }

    /// Puts an old manifest back; the uid that its pod must not have any more, and where it says that it is well.
    async fn put_back(&self, path: &Path, copy: &Path) -> Result<(Option<String>, Option<Health>), String> {
        let shown = |error: std::io::Error| format!("{}: {error}", copy.display());
        let text = std::fs::read_to_string(copy).map_err(shown)?;
        let is_there = std::fs::read_to_string(path).is_ok_and(|there| there == text);
        let health = serde_yaml::from_str::<Value>(&text).ok().as_ref().and_then(Health::of);
        let component = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        self.intend(&component, &text).map_err(|error| error.to_string())?;
        if is_there {
            return Ok((None, health));
        }
        let before = self.pod_of(&component).uid().await;
        write_private(path, text.as_bytes()).map_err(|error| error.to_string())?;
        Ok((before, health))
    }

    fn back_up_etcd(&self, journal: &mut Journal, now: Timestamp) -> Result<(), PhaseError> {
        let data = EtcdData::of(self.layout);
        if journal.etcd_backup.is_none() {
            let to = timestamped(self.layout, "kubeadm-backup-etcd", now);
            (self.say)(&format!("[upgrade/etcd] Backing up etcd data to \"{}\"", to.display()));
            data.copy_to(&to).map_err(|source| file(&to, source))?;
            journal.etcd_backup = Some(to);
            journal.write(self.layout)?;
        }
        Ok(())
    }

    /// The old etcd does not start on the data that the new one has touched.
    async fn roll_back_etcd(&self, journal: &Journal, why: String) -> String {
        let Some(backup) = &journal.etcd_backup else { return why };
        let kept = format!("the backup of etcd database is stored here:({})", backup.display());
        if !self.own.members.is_empty() {
            // Going back in its log would break the promises that it has made to the other members.
            return format!("{why}; {kept}; remove the member and join it again, the others have its data");
        }
        (self.say)("[upgrade/etcd] Rolling back etcd data");
        if let Err(error) = EtcdData::of(self.layout).restore_from(backup) {
            return format!("{why}; fatal error rolling back local etcd cluster datadir: {error}, {kept}");
        }
        let health = read_manifest(&self.layout.manifest("etcd")).ok().flatten().as_ref().and_then(Health::of);
        match self.pod_of("etcd").wait(None, health.as_ref()).await {
            Ok(_) => {
                (self.say)("[upgrade/etcd] Etcd was rolled back and is now available");
                why
            }
            Err(error) => format!("{why}; {error}; {kept}"),
        }
    }

    fn renew(&self, component: &str) -> Result<(), PhaseError> {
        if !self.renews_certificates {
            return Ok(());
        }
        let dirs = CertificateDirs { kubernetes: self.layout.at(KUBERNETES_DIR), pki: self.layout.pki() };
        let names = certificates_of(component, self.own.has_etcd);
        for known in names.into_iter().filter_map(KnownCertificate::find) {
            match known.renew(&dirs)? {
                Renewed::Yes => (self.say)(&format!("[upgrade/staticpods] Renewing {} certificate", known.name)),
                Renewed::External => (self.say)(&format!(
                    "[upgrade/staticpods] External CA detected, {} certificate can't be renewed",
                    known.name
                )),
                // The later control planes have no super-admin.conf.
                Renewed::Missing => {}
            }
        }
        Ok(())
    }

    fn pod_of(&self, component: &str) -> ComponentPod<'_> {
        let name = format!("{component}-{}", self.node_name.to_lowercase());
        ComponentPod { runtime: self.runtime, name, patience: self.patience }
    }
}

/// All new manifests beside the old ones, so that a full disk shows before anything is changed.
fn write_new(directory: &Path, manifests: Vec<(&'static str, Value)>) -> Result<Vec<Wanted>, PhaseError> {
    let written = manifests.into_iter().map(|(component, pod)| {
        let text = serde_yaml::to_string(&pod).map_err(|error| PhaseError::Missing(error.to_string()))?;
        write_private(&directory.join(format!("{component}.yaml")), text.as_bytes())?;
        Ok(Wanted { component, pod, text })
    });
    written.collect()
}

fn file(path: &Path, source: std::io::Error) -> PhaseError {
    PhaseError::File { path: path.display().to_string(), source }
}
