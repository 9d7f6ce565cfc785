//! `kedge init`: the phases by which a machine becomes the first control plane of a cluster, in kubeadm's order and with its
//! names and lines.
//!
//! Each phase can be run alone and again. Invariant: a dry run writes only below a directory of its own, and changes nothing
//! in a cluster.

mod closing;
mod cluster_phases;
mod phases;
mod settings;

use kedge_bootstrap::BootstrapError;
use kedge_client::{Client, client_from_kubeconfig};
use kedge_pki::PkiError;
use tokio::sync::OnceCell;

use crate::Say;
use crate::checks::ChecksFailed;
use crate::cluster_objects::ApplyError;
use crate::health_wait::Unhealthy;
use crate::host::HostLayout;
use crate::images::ImageError;
use crate::kubelet_service::KubeletServiceError;
use crate::patches::{Patches, PatchesError};

pub(crate) use cluster_phases::{GRANTS, failed, patch_dns};
pub use settings::{InitFlags, InitSettings};

/// The phases and their parts, in order.
pub const INIT_PHASES: [(&str, &[&str]); 14] = [
    ("preflight", &[]),
    ("certs", &crate::certs::CERTIFICATES),
    ("kubeconfig", &["admin", "super-admin", "kubelet", "controller-manager", "scheduler"]),
    ("etcd", &["local"]),
    ("control-plane", &["apiserver", "controller-manager", "scheduler"]),
    ("kubelet-start", &[]),
    ("wait-control-plane", &[]),
    ("upload-config", &["kubeadm", "kubelet"]),
    ("upload-certs", &[]),
    ("mark-control-plane", &[]),
    ("bootstrap-token", &[]),
    ("kubelet-finalize", &["enable-client-cert-rotation"]),
    ("addon", &["coredns", "kube-proxy", "network", "doctor"]),
    ("show-join-command", &[]),
];

/// Parts that run only where they are asked for: upstream leaves the pod network to the user, and has no doctor.
const ONLY_ASKED: [(&str, &str); 2] = [("addon", "network"), ("addon", "doctor")];

/// Why a phase failed.
#[derive(Debug, thiserror::Error)]
pub enum PhaseError {
    /// There is no such phase.
    #[error("unknown phase {0:?}; `kedge init phase --help` lists them")]
    Unknown(String),
    /// There is no such phase of joining.
    #[error("unknown phase {0:?}; `kedge join phase --help` lists them")]
    UnknownJoin(String),
    /// A check failed.
    #[error(transparent)]
    Checks(#[from] ChecksFailed),
    /// Certificates or kubeconfigs.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// An image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The container runtime.
    #[error("the container runtime cannot be used")]
    Runtime(#[from] kedge_cri::CriError),
    /// The kubelet.
    #[error(transparent)]
    Kubelet(#[from] KubeletServiceError),
    /// Something did not become well.
    #[error(transparent)]
    Unhealthy(#[from] Unhealthy),
    /// An object.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// Tokens, certificates for others.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// A control plane's certificates for another one.
    #[error("error downloading certs")]
    DownloadCerts(#[source] BootstrapError),
    /// The API can't be asked.
    #[error("cannot make a client")]
    Client(#[from] kedge_client::ConnectError),
    /// A file.
    #[error("cannot write {path}")]
    File {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The patches to what is written.
    #[error(transparent)]
    Patches(#[from] PatchesError),
    /// There is no such phase of an upgrade.
    #[error("unknown phase {0:?}; `kedge upgrade apply phase --help` and `kedge upgrade node phase --help` list them")]
    UnknownUpgrade(String),
    /// Something is missing that the phase needs.
    #[error("{0}")]
    Missing(String),
}

/// A failed phase, as kubeadm says it.
#[derive(Debug, thiserror::Error)]
#[error("error execution phase {phase}")]
pub struct InitError {
    /// The phase, with its part.
    pub phase: String,
    /// Why.
    pub source: PhaseError,
}

/// A run of some or all phases.
pub struct Init<'a> {
    settings: InitSettings,
    layout: HostLayout,
    /// Keeps the directory of a dry run.
    scratch: Option<tempfile::TempDir>,
    say: Say<'a>,
    admin: OnceCell<Client>,
    patches: Patches,
}

impl<'a> Init<'a> {
    /// Prepares a run; changes nothing on the machine.
    pub fn new(settings: InitSettings, say: Say<'a>) -> Result<Self, PhaseError> {
        let scratch = match settings.dry_run {
            true => Some(
                tempfile::Builder::new()
                    .prefix("kubeadm-init-dryrun")
                    .tempdir()
                    .map_err(|source| PhaseError::File { path: "a directory for the dry run".to_owned(), source })?,
            ),
            false => None,
        };
        let layout = match &scratch {
            Some(dir) => HostLayout::below(dir.path()),
            None => HostLayout::default(),
        };
        let layout = layout.with_certificates(std::path::Path::new(&settings.cluster.certificates_dir));
        let patches = Patches::read(settings.patches.as_deref(), say)?;
        Ok(Self { settings, layout, scratch, say, admin: OnceCell::new(), patches })
    }

    /// Runs all phases but those that are skipped.
    pub async fn run(&self) -> Result<(), InitError> {
        (self.say)(&format!("[init] Using Kubernetes version: {}", self.settings.cluster.kubernetes_version));
        for (phase, parts) in INIT_PHASES {
            if self.skips(phase) {
                continue;
            }
            if parts.is_empty() || !parts.iter().any(|part| self.leaves_out(phase, part)) {
                self.phase(phase, None).await?;
                continue;
            }
            for part in parts.iter().filter(|part| !self.leaves_out(phase, part)) {
                self.phase(phase, Some(part)).await?;
            }
        }
        Ok(())
    }

    /// Runs one phase, or one part of it.
    pub async fn phase(&self, phase: &str, part: Option<&str>) -> Result<(), InitError> {
        let name = part.map_or_else(|| phase.to_owned(), |part| format!("{phase}/{part}"));
        let is_known = INIT_PHASES
            .iter()
            .any(|(known, parts)| *known == phase && part.is_none_or(|part| part == "all" || parts.contains(&part)));
        let part = part.filter(|part| *part != "all");
        let ran = match is_known {
            true => self.run_phase(phase, part).await,
            false => Err(PhaseError::Unknown(name.clone())),
        };
        ran.map_err(|source| InitError { phase: name, source })
    }

    fn skips(&self, name: &str) -> bool {
        self.settings.skip_phases.iter().any(|skipped| skipped == name)
    }

    fn leaves_out(&self, phase: &str, part: &str) -> bool {
        let cluster = &self.settings.cluster;
        self.skips(&format!("{phase}/{part}"))
            || (ONLY_ASKED.contains(&(phase, part)) && !(part == "network" && self.settings.with_network))
            || (part == "coredns" && cluster.dns.disabled)
            || (part == "kube-proxy" && cluster.proxy.disabled)
    }

    /// The API as the administrator.
    async fn admin(&self) -> Result<&Client, PhaseError> {
        let path = self.settings.kubeconfig.clone().unwrap_or_else(|| self.layout.kubeconfig("admin.conf"));
        self.admin.get_or_try_init(|| async { Ok(client_from_kubeconfig(&path).await?) }).await
    }
}
