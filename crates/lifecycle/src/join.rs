//! `kedge join`: the phases by which a machine becomes a worker, or a further control plane, of a cluster that is there, in
//! kubeadm's order and with its lines.
//!
//! Each phase can be run alone and again. Invariant: nothing is written before the cluster is trusted and its configuration
//! is read, and by a dry run only below a directory of its own. What a join that failed leaves, `kedge reset` takes away.

mod configuration;
mod control_plane;
mod etcd_member;
mod file;
mod find;
mod kubelet;
mod renewal;
mod settings;

use kedge_client::{Client, client_from_kubeconfig};
use tokio::sync::OnceCell;

use crate::Say;
use crate::checks::{CheckFacts, Role, check_runtime, mend_aloud, run_checks};
use crate::host::HostLayout;
use crate::init::{InitError, PhaseError};
use crate::join::find::Found;
use crate::patches::Patches;
use crate::peer_checks::check_peers;
use crate::system_images::{make_system_images, runtime_socket};

pub use configuration::{JoinConfiguration, JoinDiscovery};
pub use control_plane::ControlPlaneSettings;
pub(crate) use control_plane::service_ips;
pub(crate) use kubelet::health_address;
pub use settings::{JoinFlags, JoinSettings};

/// The phases and their parts, in order.
pub const JOIN_PHASES: [(&str, &[&str]); 8] = [
    ("preflight", &[]),
    ("control-plane-prepare", &["download-certs", "certs", "kubeconfig", "control-plane"]),
    ("check-etcd", &[]),
    ("kubelet-start", &[]),
    ("etcd-join", &[]),
    ("kubelet-wait-bootstrap", &[]),
    ("control-plane-join", &["mark-control-plane"]),
    ("wait-control-plane", &[]),
];
/// What a worker does of them.
const OF_WORKERS: [&str; 3] = ["preflight", "kubelet-start", "kubelet-wait-bootstrap"];
const CLOSING: &str = "
This node has joined the cluster:
* Certificate signing request was sent to apiserver and a response was received.
* The Kubelet was informed of the new secure connection details.

Run 'kubectl get nodes' on the control-plane to see this node join the cluster.
";

/// A machine that joins.
pub struct Join<'a> {
    settings: JoinSettings,
    layout: HostLayout,
    /// Keeps the directory of a dry run.
    scratch: Option<tempfile::TempDir>,
    say: Say<'a>,
    found: OnceCell<Found>,
    patches: Patches,
}

impl<'a> Join<'a> {
    /// Prepares a run; changes nothing.
    pub fn new(settings: JoinSettings, say: Say<'a>) -> Result<Self, PhaseError> {
        let scratch = match settings.dry_run {
            true => Some(
                tempfile::Builder::new()
                    .prefix("kubeadm-join-dryrun")
                    .tempdir()
                    .map_err(|source| PhaseError::File { path: "a directory for the dry run".to_owned(), source })?,
            ),
            false => None,
        };
        let layout = scratch.as_ref().map_or_else(HostLayout::default, |dir| HostLayout::below(dir.path()));
        let patches = Patches::read(settings.patches.as_deref(), say)?;
        Ok(Self { settings, layout, scratch, say, found: OnceCell::new(), patches })
    }

    /// Runs all phases but those that are skipped.
    pub async fn run(&self) -> Result<(), InitError> {
        if self.settings.renew {
            let wrap = |source| InitError { phase: "kubelet-start".to_owned(), source };
            return self.renew().await.map_err(wrap);
        }
        let is_control_plane = self.settings.control_plane.is_some();
        for (phase, parts) in JOIN_PHASES {
            if self.skips(phase) || !(is_control_plane || OF_WORKERS.contains(&phase)) {
                continue;
            }
            if parts.is_empty() {
                self.phase(phase, None).await?;
            }
            for part in parts.iter().filter(|part| !self.skips(&format!("{phase}/{part}"))) {
                self.phase(phase, Some(part)).await?;
            }
        }
        if is_control_plane {
            (self.say)(&control_plane::closing(self.found.get()));
        } else {
            (self.say)(CLOSING);
        }
        Ok(())
    }

    /// Runs one phase, or one part of it.
    pub async fn phase(&self, phase: &str, part: Option<&str>) -> Result<(), InitError> {
        let name = part.map_or_else(|| phase.to_owned(), |part| format!("{phase}/{part}"));
        let parts = JOIN_PHASES.iter().find(|(known, _)| *known == phase).map(|(_, parts)| *parts);
        let ran = match (parts, part) {
            (Some(parts), None | Some("all")) if !parts.is_empty() => {
                for part in parts {
                    Box::pin(self.phase(phase, Some(part))).await?;
                }
                Ok(())
            }
            (Some([]), None) => self.run_phase(phase).await,
            (Some(parts), Some(part)) if parts.contains(&part) => self.run_phase(part).await,
            _ => Err(PhaseError::UnknownJoin(name.clone())),
        };
        ran.map_err(|source| InitError { phase: name, source })
    }

    async fn run_phase(&self, phase: &str) -> Result<(), PhaseError> {
        match phase {
            "preflight" => self.preflight().await,
            "download-certs" => self.download_certs().await,
            "certs" => self.certs().await,
            "kubeconfig" => self.kubeconfigs().await,
            "control-plane" => self.manifests().await,
            "check-etcd" => self.check_etcd().await,
            "kubelet-start" => self.kubelet_start().await,
            "etcd-join" => self.etcd_join().await,
            "kubelet-wait-bootstrap" => self.kubelet_wait_bootstrap().await,
            "mark-control-plane" => self.mark().await,
            _ => self.wait_control_plane().await,
        }
    }

    fn skips(&self, name: &str) -> bool {
        self.settings.skip_phases.iter().any(|skipped| skipped == name)
    }

    /// Says what a dry run leaves out; whether this is one.
    fn only_says(&self, what: &str) -> bool {
        if self.settings.dry_run {
            (self.say)(&format!("[dryrun] Would {what}"));
        }
        self.settings.dry_run
    }

    async fn preflight(&self) -> Result<(), PhaseError> {
        for field in &self.settings.without_effect {
            (self.say)(&format!("[config] WARNING: {field} has no effect here"));
        }
        self.check().await?;
        let found = self.found().await?;
        let client = found.cluster.client(Some(&self.token(&found.cluster)?))?;
        let ignored = &self.settings.ignore_preflight_errors;
        check_peers(&client, &found.cluster, &self.settings.node_name, ignored, self.say).await?;
        self.refuse_known_name(&client).await?;
        let mut with_etcd = false;
        if let Some(own) = &self.settings.control_plane {
            (self.say)("[preflight] Running pre-flight checks before initializing the new control plane instance");
            self.refuse_incomplete(found, own)?;
            with_etcd = found.configuration.local_etcd().is_some();
        }
        // The add-ons' image, which no registry has.
        if self.only_says("make the images that this node needs") {
            return Ok(());
        }
        make_system_images(self.cri_socket().await, with_etcd).await
    }

    async fn check(&self) -> Result<(), PhaseError> {
        let own = self.settings.control_plane.as_ref();
        let facts = CheckFacts {
            role: if own.is_some() { Role::ControlPlane } else { Role::Worker },
            node_name: self.settings.node_name.clone(),
            node_ip: self.settings.node_ip,
            api_port: own.map_or(6443, |own| own.bind_port),
            api_host: self.settings.api_host(),
            cri_socket: self.cri_socket().await,
            etcd_data_dir: None,
            ranges: Vec::new(),
            root: "/".into(),
        };
        if self.settings.fix && !self.only_says("mend modules, kernel switches, swap and the hosts file") {
            mend_aloud(&facts, self.say);
        }
        let runtime = check_runtime(facts.cri_socket.as_deref()).await;
        Ok(run_checks(&facts, vec![runtime], &self.settings.ignore_preflight_errors, self.say)?)
    }

    async fn cri_socket(&self) -> Option<String> {
        runtime_socket(self.settings.cri_socket.as_deref()).await
    }

    /// The API as the administrator, once a control plane has that kubeconfig.
    async fn admin(&self) -> Result<Client, PhaseError> {
        Ok(client_from_kubeconfig(&self.layout.kubeconfig("admin.conf")).await?)
    }
}
