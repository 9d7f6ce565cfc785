//! `kube-apiserver`: the API server as a process of its own, over an etcd or over a store of its own.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kedge_apiserver::{ApiServer, Config, Deps, FrontProxy, PluginConfigurations};
use kedge_audit::{Audit, AuditOptions};
use kedge_auth::{AuthorizationMode, TokenKeys};
use kedge_client::{Informers, client_from_service};
use kedge_lifecycle::find_node_ip;
use kedge_meta::{Clock, StatusBoard, UserInfo};
use kedge_pki::{CertificateAuthority, LeafRequest, ServerFiles};
use kedge_store::Store;
use kedge_zpages::Flags;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::following::{authorities, follow_apiserver_files};
use super::{failed, read, read_optional, surroundings};
use crate::backend::{Backend, EtcdOptions};
use crate::control_plane::report_store;
use crate::error::Error;
use crate::memory::give_memory_back;
use crate::metrics_api::{self, Source};

const NAME: &str = "kube-apiserver";
/// How long the store is waited for at a time, before that is said again.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// What the API server was asked for: upstream's flags.
#[derive(Debug, Clone)]
pub struct ApiServerOptions {
    /// The address that others are told; the node's where absent.
    pub advertise_address: Option<IpAddr>,
    /// Where it listens.
    pub bind_address: IpAddr,
    /// The port.
    pub secure_port: u16,
    /// The serving certificate; one of its own where absent.
    pub tls_cert_file: Option<PathBuf>,
    /// Its key.
    pub tls_private_key_file: Option<PathBuf>,
    /// Where a certificate of its own is kept.
    pub cert_dir: PathBuf,
    /// Who signs client certificates.
    pub client_ca_file: Option<PathBuf>,
    /// The etcd.
    pub etcd: Option<EtcdOptions>,
    /// Where objects are kept, where there is no etcd.
    pub store_dir: PathBuf,
    /// The certificate for kubelets.
    pub kubelet_client_certificate: Option<PathBuf>,
    /// Its key.
    pub kubelet_client_key: Option<PathBuf>,
    /// The certificate by which extension API servers know this server.
    pub proxy_client_cert_file: Option<PathBuf>,
    /// Its key.
    pub proxy_client_key_file: Option<PathBuf>,
    /// Who signs kubelets' serving certificates; they are believed unseen where absent.
    pub kubelet_certificate_authority: Option<PathBuf>,
    /// Which of a node's addresses is taken, best first.
    pub kubelet_preferred_address_types: Vec<String>,
    /// Keys whose tokens are good.
    pub service_account_key_files: Vec<PathBuf>,
    /// The key that signs tokens.
    pub service_account_signing_key_file: PathBuf,
    /// Who issues tokens.
    pub service_account_issuer: String,
    /// For whom tokens are.
    pub api_audiences: Vec<String>,
    /// Whether tokens of pods live a year.
    pub service_account_extend_token_expiration: bool,
    /// The longest life of a token that is asked for; zero for no bound.
    pub service_account_max_token_expiration: Duration,
    /// Front proxies.
    pub request_header: Option<RequestHeaderOptions>,
    /// Ranges of ClusterIPs.
    pub service_cluster_ip_ranges: Vec<String>,
    /// First and last node port.
    pub service_node_port_range: (u16, u16),
    /// How is decided who may do what.
    pub authorization_modes: Vec<AuthorizationMode>,
    /// Plugins that are on besides the usual ones.
    pub enable_admission_plugins: Vec<String>,
    /// Plugins that are off.
    pub disable_admission_plugins: Vec<String>,
    /// What plugins are told: an AdmissionConfiguration.
    pub admission_control_config_file: Option<PathBuf>,
    /// Whether bootstrap tokens are good.
    pub enable_bootstrap_token_auth: bool,
    /// Whether containers may be privileged.
    pub allow_privileged: bool,
    /// Whether those who do not say who they are are let in.
    pub anonymous_auth: bool,
    /// How long events stay.
    pub event_ttl: Duration,
    /// Reading requests at once.
    pub max_requests_inflight: usize,
    /// Writing requests at once.
    pub max_mutating_requests_inflight: usize,
    /// Which requests are written down, and where.
    pub audit: AuditOptions,
    /// The command line, for `/flagz`.
    pub flags: Flags,
}

/// Upstream's `--requestheader-*` flags.
#[derive(Debug, Clone)]
pub struct RequestHeaderOptions {
    /// Who signs front proxies' certificates.
    pub client_ca_file: PathBuf,
    /// Names that count; all where empty.
    pub allowed_names: Vec<String>,
    /// Headers with the user's name.
    pub username_headers: Vec<String>,
    /// Headers with groups.
    pub group_headers: Vec<String>,
    /// What headers with extra facts begin with.
    pub extra_headers_prefix: Vec<String>,
}

/// Serves until `shutdown`, then ends in order.
pub async fn run_apiserver(options: ApiServerOptions, shutdown: CancellationToken) -> Result<(), Error> {
    check_plugins(&options)?;
    // What is wrong with the configuration is said before the store is waited for.
    let plugins = plugin_configurations(options.admission_control_config_file.as_deref())?;
    let config = config(&options, &plugins)?;
    let (clock, board) = surroundings();
    let tls = server_tls(&options)?;
    let Some(backend) = open_store(&options, &shutdown).await? else { return Ok(()) };
    let backend = Arc::new(backend);
    let store = backend.store();
    let server = server((&options, config, plugins), &store, &board, &clock, &shutdown).await?;
    let Some(server) = server else { return close(&store).await };
    let address = SocketAddr::new(options.bind_address, options.secure_port);
    let listen = |source| Error::Listen { address: address.to_string(), source };
    let listener = TcpListener::bind(address).await.map_err(listen)?;
    let loopback = UserInfo::authenticated("system:apiserver", ["system:masters"]);
    let informers = Informers::new(client_from_service(server.local_service(loopback)), shutdown.clone());
    let mut components = JoinSet::new();
    let source = Source { informers: &informers, server: &server, board: &board, clock: &clock };
    metrics_api::start(source, &mut components, &shutdown).await?;
    let mut following = JoinSet::new();
    follow_apiserver_files(&options, &server, &backend, &mut following, &shutdown);
    components.spawn(report_store(backend, board.clone(), shutdown.clone()));
    tokio::spawn(give_memory_back(shutdown.clone()));
    let served = server.serve(listener, Arc::new(tls), shutdown.clone()).await;
    shutdown.cancel();
    while components.join_next().await.is_some() {}
    close(&store).await?;
    Ok(served?)
}

async fn close(store: &Arc<dyn Store>) -> Result<(), Error> {
    store.close().await.map_err(Error::CloseStore)
}

fn check_plugins(options: &ApiServerOptions) -> Result<(), Error> {
    let lists = [
        ("--enable-admission-plugins", &options.enable_admission_plugins),
        ("--disable-admission-plugins", &options.disable_admission_plugins),
    ];
    for (flag, names) in lists {
        let checked = kedge_apiserver::check_plugins(names);
        let wrong = |error: kedge_apiserver::UnknownPlugin| Error::Flag {
            flag,
            value: names.join(","),
            why: error.to_string(),
        };
        for name in checked.map_err(wrong)? {
            tracing::warn!(flag, plugin = name, "an admission plugin is not there, so naming it has no effect");
        }
    }
    Ok(())
}

/// What a file says of plugins; files that it names are looked for beside it.
fn plugin_configurations(path: Option<&Path>) -> Result<PluginConfigurations, Error> {
    const FLAG: &str = "--admission-control-config-file";
    let Some(path) = path else { return Ok(PluginConfigurations::default()) };
    let beside = |name: &str| {
        let place = path.parent().unwrap_or(Path::new("")).join(name);
        std::fs::read_to_string(&place).map_err(|error| format!("{}: {error}", place.display()))
    };
    let wrong = |why: String| Error::Flag { flag: FLAG, value: path.display().to_string(), why };
    PluginConfigurations::read(&read(FLAG, path)?, &beside).map_err(wrong)
}

/// Waits for the etcd; `None` where `shutdown` came first.
async fn open_store(options: &ApiServerOptions, shutdown: &CancellationToken) -> Result<Option<Backend>, Error> {
    let mut told = String::new();
    loop {
        let opened = Backend::open(options.etcd.as_ref(), options.store_dir.clone());
        match shutdown.run_until_cancelled(opened).await {
            None => return Ok(None),
            Some(Ok(backend)) => return Ok(Some(backend)),
            Some(Err(Error::Etcd(error))) => {
                let why = crate::kubelet::chain(&error);
                if why != told {
                    tracing::warn!(why, "waiting for etcd");
                    told = why;
                }
            }
            Some(Err(error)) => return Err(error),
        }
        if shutdown.run_until_cancelled(tokio::time::sleep(STORE_PAUSE)).await.is_none() {
            return Ok(None);
        }
    }
}

/// Writes the bootstrap objects, again and again where the store does not answer; `None` where `shutdown` came first.
async fn server(
    (options, config, plugins): (&ApiServerOptions, Config, PluginConfigurations),
    store: &Arc<dyn Store>,
    board: &StatusBoard,
    clock: &Arc<dyn Clock>,
    shutdown: &CancellationToken,
) -> Result<Option<Arc<ApiServer>>, Error> {
    let audit = Audit::open(&options.audit).await?;
    loop {
        let deps = Deps {
            store: store.clone(),
            clock: clock.clone(),
            status: board.component(NAME),
            board: board.clone(),
            token_keys: token_keys(options)?,
            client_ca: read_optional("--client-ca-file", options.client_ca_file.as_ref())?,
            front_proxy: front_proxy(options)?,
            kubelet_tls: kubelet_tls(options)?.map(Arc::new),
            proxy_identity: proxy_identity(options)?,
            webhook_credentials: plugins.webhook_credentials.clone(),
            audit: audit.clone(),
        };
        match shutdown.run_until_cancelled(ApiServer::new(config.clone(), deps)).await {
            None => return Ok(None),
            Some(Ok(server)) => return Ok(Some(server)),
            Some(Err(error)) => tracing::warn!(error = %failed(NAME, &error), "the store does not take it yet"),
        }
        if shutdown.run_until_cancelled(tokio::time::sleep(STORE_PAUSE)).await.is_none() {
            return Ok(None);
        }
    }
}

fn config(options: &ApiServerOptions, plugins: &PluginConfigurations) -> Result<Config, Error> {
    let advertise_address = match options.advertise_address {
        Some(address) => address,
        None if !options.bind_address.is_unspecified() => options.bind_address,
        None => find_node_ip(options.bind_address.is_ipv6())?,
    };
    let range = |text: &String| {
        text.parse().map_err(|error: kedge_apiserver::ParseCidrError| Error::Flag {
            flag: "--service-cluster-ip-range",
            value: text.clone(),
            why: error.to_string(),
        })
    };
    check_token_expiration(
        options.service_account_max_token_expiration,
        options.service_account_extend_token_expiration,
    )?;
    Ok(Config {
        advertise_address,
        secure_port: options.secure_port,
        service_cluster_ip_ranges: options.service_cluster_ip_ranges.iter().map(range).collect::<Result<_, _>>()?,
        service_node_port_range: options.service_node_port_range,
        service_account_issuer: options.service_account_issuer.clone(),
        api_audiences: options.api_audiences.clone(),
        service_account_extend_token_expiration: options.service_account_extend_token_expiration,
        service_account_max_token_expiration: options.service_account_max_token_expiration,
        anonymous_auth: options.anonymous_auth,
        authorization_modes: options.authorization_modes.clone(),
        enable_admission_plugins: options.enable_admission_plugins.clone(),
        disable_admission_plugins: options.disable_admission_plugins.clone(),
        pod_security: plugins.pod_security.clone(),
        enable_bootstrap_token_auth: options.enable_bootstrap_token_auth,
        allow_privileged: options.allow_privileged,
        kubelet_preferred_address_types: options.kubelet_preferred_address_types.clone(),
        max_requests_inflight: options.max_requests_inflight,
        max_mutating_requests_inflight: options.max_mutating_requests_inflight,
        event_ttl: options.event_ttl,
        flags: options.flags.clone(),
        ..Config::default()
    })
}

/// Refuses a bound that upstream refuses, and says in the log where it and the extended tokens of pods are at odds.
fn check_token_expiration(longest: Duration, extend: bool) -> Result<(), Error> {
    if longest.is_zero() {
        return Ok(());
    }
    let seconds = longest.as_secs();
    if !(Duration::from_secs(3600)..=Duration::from_secs(1 << 32)).contains(&longest) {
        return Err(Error::Flag {
            flag: "--service-account-max-token-expiration",
            value: format!("{seconds}s"),
            why: "the service-account-max-token-expiration must be between 1 hour and 2^32 seconds".to_owned(),
        });
    }
    if extend && seconds < 3607 {
        tracing::warn!(seconds, "tokens of pods are not extended, as --service-account-max-token-expiration is short");
    } else if extend && seconds < 365 * 24 * 3600 {
        tracing::warn!(seconds, "tokens of pods live a year, longer than --service-account-max-token-expiration");
    }
    Ok(())
}

pub(super) fn token_keys(options: &ApiServerOptions) -> Result<TokenKeys, Error> {
    let flag = "--service-account-signing-key-file";
    let mut keys = TokenKeys::from_private_pem(&read(flag, &options.service_account_signing_key_file)?)?;
    for path in &options.service_account_key_files {
        keys.also_verify_with(&read("--service-account-key-file", path)?)?;
    }
    Ok(keys)
}

fn front_proxy(options: &ApiServerOptions) -> Result<Option<FrontProxy>, Error> {
    let Some(headers) = &options.request_header else { return Ok(None) };
    let authority_pem = read("--requestheader-client-ca-file", &headers.client_ca_file)?;
    Ok(Some(FrontProxy {
        verifier: kedge_pki::following_client_verifier(std::slice::from_ref(&headers.client_ca_file))?,
        authority_pem,
        allowed_names: headers.allowed_names.clone(),
        username_headers: headers.username_headers.clone(),
        group_headers: headers.group_headers.clone(),
        extra_header_prefixes: headers.extra_headers_prefix.clone(),
    }))
}

fn kubelet_tls(options: &ApiServerOptions) -> Result<Option<rustls::ClientConfig>, Error> {
    let (Some(certificate), Some(key)) = (&options.kubelet_client_certificate, &options.kubelet_client_key) else {
        return Ok(None);
    };
    read("--kubelet-client-certificate", certificate)?;
    read("--kubelet-client-key", key)?;
    let authority = options.kubelet_certificate_authority.as_deref();
    Ok(Some(kedge_pki::following_client_config(certificate, key, authority)?))
}

fn proxy_identity(options: &ApiServerOptions) -> Result<Option<Arc<dyn rustls::client::ResolvesClientCert>>, Error> {
    let (Some(certificate), Some(key)) = (&options.proxy_client_cert_file, &options.proxy_client_key_file) else {
        return Ok(None);
    };
    read("--proxy-client-cert-file", certificate)?;
    read("--proxy-client-key-file", key)?;
    Ok(Some(kedge_pki::following_identity(certificate, key)?))
}

/// Client certificates of the cluster's authority and of front proxies are taken.
fn server_tls(options: &ApiServerOptions) -> Result<rustls::ServerConfig, Error> {
    let (certificate, key) = match (&options.tls_cert_file, &options.tls_private_key_file) {
        (Some(certificate), Some(key)) => {
            read("--tls-cert-file", certificate)?;
            read("--tls-private-key-file", key)?;
            (certificate.clone(), key.clone())
        }
        _ => own_files(options)?,
    };
    read_optional("--client-ca-file", options.client_ca_file.as_ref())?;
    let proxies = options.request_header.as_ref().map(|headers| &headers.client_ca_file);
    read_optional("--requestheader-client-ca-file", proxies)?;
    Ok(ServerFiles { certificate, key, client_authorities: authorities(options) }.server_config()?)
}

fn own_files(options: &ApiServerOptions) -> Result<(PathBuf, PathBuf), Error> {
    let dir = &options.cert_dir;
    let authority = CertificateAuthority::ensure(dir, "apiserver-ca", "apiserver-ca")?;
    let addresses = options.advertise_address.into_iter().chain([IpAddr::from([127, 0, 0, 1])]).collect();
    authority.ensure_leaf(dir, "apiserver", &LeafRequest::server(NAME, vec!["localhost".to_owned()], addresses))?;
    Ok((dir.join("apiserver.crt"), dir.join("apiserver.key")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_life_of_tokens_has_bounds() {
        let check =
            |seconds: u64| check_token_expiration(Duration::from_secs(seconds), true).map_err(|e| e.to_string());
        for seconds in [0, 3600, 86_400, 1 << 32] {
            assert_eq!(check(seconds), Ok(()));
        }
        for seconds in [1, 3599, (1 << 32) + 1] {
            let error = check(seconds).unwrap_err();
            assert!(error.contains("must be between 1 hour and 2^32 seconds"), "{error}");
        }
    }
}
