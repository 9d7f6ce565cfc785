//! `kube-controller-manager`: the controllers as a process of their own.

use std::path::PathBuf;
use std::sync::Arc;

use kedge_client::{
    Client, ComponentMetrics, Informers, RequestMetrics, anonymous_client_from_kubeconfig, service_account_client,
};
use kedge_controllers::CertificateSigner;
use tokio_util::sync::CancellationToken;

use super::following::follow_root_ca;
use super::{HealthOptions, LeaderOptions, counted_client, failed, figures, health, host_of, surroundings};
use crate::error::Error;
use crate::kubelet::chain;
use crate::memory::give_memory_back;
use crate::signer::AuthoritySigner;

const NAME: &str = "kube-controller-manager";

/// What the controller manager was asked for: upstream's flags.
#[derive(Debug, Clone)]
pub struct ControllerManagerOptions {
    /// How to reach the API server, and as whom.
    pub kubeconfig: PathBuf,
    /// Which controllers run.
    pub controllers: Vec<String>,
    /// Whether each controller has its own service account.
    pub use_service_account_credentials: bool,
    /// Whether nodes get pod ranges.
    pub allocate_node_cidrs: bool,
    /// From where.
    pub cluster_cidrs: Vec<String>,
    /// How long a node's IPv4 range is.
    pub node_cidr_mask_ipv4: Option<u8>,
    /// How long a node's IPv6 range is.
    pub node_cidr_mask_ipv6: Option<u8>,
    /// What every namespace's `kube-root-ca.crt` says.
    pub root_ca_file: Option<PathBuf>,
    /// Who signs certificates.
    pub cluster_signing_cert_file: Option<PathBuf>,
    /// With which key.
    pub cluster_signing_key_file: Option<PathBuf>,
    /// For how long at most.
    pub cluster_signing_duration: std::time::Duration,
    /// For how long a node may be silent before it counts as gone.
    pub node_monitor_grace_period: std::time::Duration,
    /// How replicas follow metrics.
    pub autoscaler: kedge_controllers::AutoscalerConfig,
    /// How it competes with others.
    pub leader: LeaderOptions,
    /// Where it says how it is.
    pub health: HealthOptions,
}

/// Runs the controllers until `shutdown`.
pub async fn run_controller_manager(
    options: ControllerManagerOptions,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let metrics = ComponentMetrics::default();
    let own = counted_client(Some(&options.kubeconfig), &metrics.requests).await?;
    let (clock, board) = surroundings();
    let shown = metrics.clone();
    let figures = figures(move |text| shown.write(text));
    health::serve(NAME, &options.health, board.clone(), figures, shutdown.clone()).await?;
    let config = config(&options, &shutdown)?;
    let deps = kedge_controllers::Deps {
        client_for: client_for(&options, &own, &metrics.requests).await?,
        informers: Informers::new(own.clone(), shutdown.clone()),
        client: own,
        status: board,
        clock,
        signer: signer(&options)?,
        metrics,
    };
    tokio::spawn(give_memory_back(shutdown.clone()));
    kedge_controllers::run(config, deps, shutdown).await.map_err(|error| failed(NAME, &error))
}

fn config(
    options: &ControllerManagerOptions,
    shutdown: &CancellationToken,
) -> Result<kedge_controllers::Config, Error> {
    let usual = kedge_controllers::Config::default();
    let mut controllers = options.controllers.clone();
    if !options.allocate_node_cidrs {
        // The first word about a controller counts.
        controllers.insert(0, "-node-ipam-controller".to_owned());
    }
    Ok(kedge_controllers::Config {
        controllers,
        root_ca_pem: follow_root_ca(options.root_ca_file.as_ref(), shutdown)?,
        cluster_cidrs: if options.allocate_node_cidrs { options.cluster_cidrs.clone() } else { Vec::new() },
        node_cidr_mask_ipv4: options.node_cidr_mask_ipv4.unwrap_or(usual.node_cidr_mask_ipv4),
        node_cidr_mask_ipv6: options.node_cidr_mask_ipv6.unwrap_or(usual.node_cidr_mask_ipv6),
        cluster_signing_duration: options.cluster_signing_duration,
        node_monitor_grace_period: options.node_monitor_grace_period,
        autoscaler: options.autoscaler.clone(),
        leader: options.leader.config()?,
        ..usual
    })
}

/// Who signs certificates, where somebody is named.
fn signer(options: &ControllerManagerOptions) -> Result<Option<Arc<dyn CertificateSigner>>, Error> {
    let (Some(certificate), Some(key)) = (&options.cluster_signing_cert_file, &options.cluster_signing_key_file) else {
        return Ok(None);
    };
    Ok(Some(Arc::new(AuthoritySigner::from_files(certificate, key)?)))
}

type ClientFor = Arc<dyn Fn(&str) -> Client + Send + Sync>;

async fn client_for(
    options: &ControllerManagerOptions,
    own: &Client,
    requests: &Arc<RequestMetrics>,
) -> Result<ClientFor, Error> {
    let own = own.clone();
    if !options.use_service_account_credentials {
        return Ok(Arc::new(move |_: &str| own.clone()));
    }
    let bare = anonymous_client_from_kubeconfig(&options.kubeconfig).await.map_err(|error| Error::Flag {
        flag: "--kubeconfig",
        value: options.kubeconfig.display().to_string(),
        why: chain(&error),
    })?;
    let bare = requests.counting(bare, &host_of(Some(&options.kubeconfig)));
    Ok(Arc::new(move |account: &str| service_account_client(own.clone(), bare.clone(), "kube-system", account)))
}
