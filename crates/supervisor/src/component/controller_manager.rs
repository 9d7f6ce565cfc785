//! `kube-controller-manager`: the controllers as a process of their own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kedge_client::{Client, Informers, RequestMetrics, anonymous_client_from_kubeconfig, service_account_client};
use kedge_zpages::Flags;
use tokio_util::sync::CancellationToken;

use super::following::{follow_root_ca, follow_token_keys};
use super::{
    HealthOptions, LeaderOptions, component, configz, counted_client, failed, figures, health, host_of, surroundings,
};
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
    pub cluster_signing: SigningOptions,
    /// For how long at most.
    pub cluster_signing_duration: std::time::Duration,
    /// With which key the tokens in Secrets are signed; without one there are none.
    pub service_account_private_key_file: Option<PathBuf>,
    /// How long such a token may go unused.
    pub legacy_token_clean_up_period: std::time::Duration,
    /// For how long a node may be silent before it counts as gone.
    pub node_monitor_grace_period: std::time::Duration,
    /// How replicas follow metrics.
    pub autoscaler: kedge_controllers::AutoscalerConfig,
    /// How it competes with others.
    pub leader: LeaderOptions,
    /// Where it says how it is.
    pub health: HealthOptions,
    /// The command line, for `/flagz`.
    pub flags: Flags,
}

/// Certificate and key of an authority, where they are named.
#[derive(Debug, Clone, Default)]
pub struct SigningFiles {
    /// `--cluster-signing-...-cert-file`.
    pub certificate: Option<PathBuf>,
    /// `--cluster-signing-...-key-file`.
    pub key: Option<PathBuf>,
}

/// Who signs certificates: one authority for all signers, or one for each of some.
#[derive(Debug, Clone, Default)]
pub struct SigningOptions {
    /// For all.
    pub all: SigningFiles,
    /// `kubernetes.io/kube-apiserver-client`.
    pub kube_apiserver_client: SigningFiles,
    /// `kubernetes.io/kube-apiserver-client-kubelet`.
    pub kubelet_client: SigningFiles,
    /// `kubernetes.io/kubelet-serving`.
    pub kubelet_serving: SigningFiles,
    /// `kubernetes.io/legacy-unknown`.
    pub legacy_unknown: SigningFiles,
}

/// Runs the controllers until `shutdown`.
pub async fn run_controller_manager(
    options: ControllerManagerOptions,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let metrics = kedge_controllers::ControllerMetrics::default();
    let own = counted_client(Some(&options.kubeconfig), &metrics.component.requests).await?;
    let (clock, board) = surroundings();
    let shown = metrics.clone();
    let config = config(&options, &shutdown)?;
    let about = health::About {
        component: component(NAME, options.flags.clone(), &clock),
        config: Some(Arc::new(configz::controller_manager(&options, &config))),
        figures: figures(move |text| shown.write(text)),
        of_pods: None,
        board: board.clone(),
        clock: clock.clone(),
    };
    health::serve(about, &options.health, shutdown.clone()).await?;
    let deps = kedge_controllers::Deps {
        client_for: client_for(&options, &own, &metrics.component.requests).await?,
        informers: Informers::new(own.clone(), shutdown.clone()),
        client: own,
        status: board,
        clock,
        signer: Some(Arc::new(signer(&options.cluster_signing)?)),
        token_keys: follow_token_keys(options.service_account_private_key_file.as_ref(), &shutdown)?,
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
        legacy_token_clean_up_period: options.legacy_token_clean_up_period,
        node_monitor_grace_period: options.node_monitor_grace_period,
        autoscaler: options.autoscaler.clone(),
        leader: options.leader.config()?,
        ..usual
    })
}

/// Who signs certificates. Where nobody is named, nothing is signed; what nodes ask for is approved all the same.
fn signer(options: &SigningOptions) -> Result<AuthoritySigner, Error> {
    let own = [
        ("kube-apiserver-client", "kubernetes.io/kube-apiserver-client", &options.kube_apiserver_client),
        ("kubelet-client", "kubernetes.io/kube-apiserver-client-kubelet", &options.kubelet_client),
        ("kubelet-serving", "kubernetes.io/kubelet-serving", &options.kubelet_serving),
        ("legacy-unknown", "kubernetes.io/legacy-unknown", &options.legacy_unknown),
    ];
    let mut files = Vec::new();
    for (flag, name, named) in own {
        files.extend(
            pair(&format!("--cluster-signing-{flag}"), named)?.map(|(certificate, key)| (name, certificate, key)),
        );
    }
    match pair("--cluster-signing", &options.all)? {
        None => Ok(AuthoritySigner::of_signers(files)?),
        Some((certificate, key)) if files.is_empty() => Ok(AuthoritySigner::from_files(certificate, key)?),
        Some((certificate, _)) => Err(Error::Flag {
            flag: "--cluster-signing-cert-file",
            value: certificate.display().to_string(),
            why: "cannot specify --cluster-signing-{cert,key}-file and other --cluster-signing-*-file flags at the \
                  same time"
                .to_owned(),
        }),
    }
}

/// Both files of an authority, or neither.
fn pair<'a>(flags: &str, files: &'a SigningFiles) -> Result<Option<(&'a Path, &'a Path)>, Error> {
    let refuse = |file: &Path, named: &str, missing: &str| Error::Flag {
        flag: "--cluster-signing-*-file",
        value: file.display().to_string(),
        why: format!("cannot specify {named} without {missing} ({flags}-cert-file, {flags}-key-file)"),
    };
    match (files.certificate.as_deref(), files.key.as_deref()) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => Ok(Some((certificate, key))),
        (Some(certificate), None) => Err(refuse(certificate, "cert", "key")),
        (None, Some(key)) => Err(refuse(key, "key", "cert")),
    }
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

#[cfg(test)]
mod tests {
    use kedge_controllers::CertificateSigner;
    use kedge_pki::CertificateAuthority;

    use super::*;

    #[test]
    fn authorities_are_for_all_signers_or_for_single_ones() {
        let dir = tempfile::tempdir().unwrap();
        CertificateAuthority::ensure(dir.path(), "ca", "kubernetes").unwrap();
        let named =
            || SigningFiles { certificate: Some(dir.path().join("ca.crt")), key: Some(dir.path().join("ca.key")) };
        let (kubelets, people) = ("kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client");
        let signed =
            |options: SigningOptions| signer(&options).map(|signer| (signer.signs(kubelets), signer.signs(people)));
        let all = SigningOptions { all: named(), ..SigningOptions::default() };
        assert_eq!(signed(all.clone()).unwrap(), (true, true));
        assert_eq!(signed(SigningOptions::default()).unwrap(), (false, false));
        let one = SigningOptions { kubelet_serving: named(), ..SigningOptions::default() };
        assert_eq!(signed(one.clone()).unwrap(), (true, false));
        let check = |options: SigningOptions, expected: &str| {
            let error = signed(options).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(SigningOptions { all: named(), ..one.clone() }, "at the same time");
        let half = SigningFiles { key: None, ..named() };
        check(SigningOptions { legacy_unknown: half, ..all }, "cannot specify cert without key");
    }
}
