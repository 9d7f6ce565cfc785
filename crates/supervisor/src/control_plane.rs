//! The control plane: store, API server, controllers, scheduler.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use kedge_apiserver::{ApiServer, Config as ApiConfig, Deps as ApiDeps, FrontProxy};
use kedge_audit::Audit;
use kedge_auth::TokenKeys;
use kedge_client::{Client, Informers, LeaderConfig, RequestMetrics, client_from_service};
use kedge_lifecycle::ProcessMark;
use kedge_meta::{Clock, StatusBoard, SystemClock, UserInfo};
use kedge_metrics::Text;
use kedge_pki::{ClusterNames, ClusterPki, ServerFiles};
use kedge_scheduler::SchedulerMetrics;
use kedge_store::Store;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::backend::Backend;
use crate::component::{CONTROLLER_MANAGER, Pages, SCHEDULER, only};
use crate::error::Error;
use crate::options::Plan;
use crate::signer::AuthoritySigner;

const STORE_REPORT_PERIOD: Duration = Duration::from_secs(5);

/// Certificates are looked at this often; they are renewed weeks before their end.
const RENEWAL_PERIOD: Duration = Duration::from_secs(6 * 3600);

/// A component's end: its name, and why it ended if not because it was told to.
pub(crate) type Ended = (&'static str, Result<(), String>);

/// A running control plane.
pub(crate) struct ControlPlane {
    pub(crate) pki: ClusterPki,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) server: Arc<ApiServer>,
    pub(crate) board: StatusBoard,
    pub(crate) clock: Arc<dyn Clock>,
    /// Caches shared by everything in the process that reads the whole cluster.
    pub(crate) informers: Informers,
    /// Ends the API server, after everything that talks to it has ended.
    pub(crate) server_shutdown: CancellationToken,
    pub(crate) serving: JoinSet<Ended>,
}

impl ControlPlane {
    /// Opens the store and starts the API server; it answers when this returns.
    pub(crate) async fn start(plan: &Plan, shutdown: &CancellationToken) -> Result<Self, Error> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let board = StatusBoard::new(clock.clone());
        let pki = ClusterPki::ensure(&plan.layout.pki(), &names(plan))?;
        let backend = Backend::open(plan.options.etcd.as_ref(), plan.layout.store()).await?;
        let store = backend.store();
        let server = api_server(plan, &pki, &store, &board, &clock).await?;
        let address = plan.api_address();
        let listen = |source| Error::Listen { address: address.to_string(), source };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let tls = Arc::new(server_files(plan).server_config()?);
        let server_shutdown = CancellationToken::new();
        let mut serving = JoinSet::new();
        let (serving_server, token) = (server.clone(), server_shutdown.clone());
        serving.spawn(async move {
            let result = serving_server.serve(listener, tls, token).await;
            ("kube-apiserver", result.map_err(|error| error.to_string()))
        });
        serving.spawn(keep_renewed(plan.clone(), server_shutdown.clone()));
        serving.spawn(report_store(Arc::new(backend), board.clone(), server_shutdown.clone()));
        let loopback = UserInfo::authenticated("system:apiserver", ["system:masters"]);
        let informers = Informers::new(client_from_service(server.local_service(loopback)), shutdown.clone());
        Ok(Self { pki, store, server, board, clock, informers, server_shutdown, serving })
    }

    /// A client inside the process, as some user.
    pub(crate) fn client(&self, username: &str, groups: &[&str]) -> Client {
        let user = UserInfo::authenticated(username, groups.iter().copied());
        client_from_service(self.server.local_service(user))
    }

    /// Starts controllers and scheduler, and shows how they do.
    pub(crate) async fn start_controllers(
        &self,
        plan: &Plan,
        components: &mut JoinSet<Ended>,
        shutdown: &CancellationToken,
    ) -> Result<(), Error> {
        let pages = self.pages(plan);
        let metrics = kedge_controllers::ControllerMetrics::default();
        let client = self.counted(plan, "system:kube-controller-manager", &metrics.component.requests);
        let (shown, asked) = (metrics.clone(), plan.options.controller_manager_port);
        let write = move |text: &mut Text| shown.write(text);
        pages.show(CONTROLLER_MANAGER, asked, client.clone(), write, None, shutdown.clone()).await?;
        let (config, deps) = (controllers(plan, &self.pki), self.controller_deps(plan, client, metrics)?);
        let token = shutdown.clone();
        components.spawn(async move {
            let result = kedge_controllers::run(config, deps, token).await;
            (CONTROLLER_MANAGER.name, result.map_err(|error| error.to_string()))
        });
        let metrics = Arc::<SchedulerMetrics>::default();
        let client = self.counted(plan, "system:kube-scheduler", &metrics.component.requests);
        let (shown, asked) = (metrics.clone(), plan.options.scheduler_port);
        let write = move |text: &mut Text| shown.write(text);
        let of_pods = metrics.clone();
        let of_pods = only(move |text: &mut Text| of_pods.write_pods(text));
        pages.show(SCHEDULER, asked, client.clone(), write, Some(of_pods), shutdown.clone()).await?;
        let deps = kedge_scheduler::Deps {
            client,
            informers: self.informers.clone(),
            status: self.board.component(SCHEDULER.name),
            clock: self.clock.clone(),
            metrics,
        };
        let token = shutdown.clone();
        let leader_election = competitor(plan, SCHEDULER.name);
        let config = kedge_scheduler::Config { leader_election, configuration: plan.scheduler.clone() };
        components.spawn(async move {
            let result = kedge_scheduler::run(config, deps, token).await;
            (SCHEDULER.name, result.map_err(|error| error.to_string()))
        });
        Ok(())
    }

    fn controller_deps(
        &self,
        plan: &Plan,
        client: Client,
        metrics: kedge_controllers::ControllerMetrics,
    ) -> Result<kedge_controllers::Deps, Error> {
        let (server, requests, host) = (self.server.clone(), metrics.component.requests.clone(), plan.host());
        let client_for = Arc::new(move |account: &str| {
            let name = format!("system:serviceaccount:kube-system:{account}");
            let groups = ["system:serviceaccounts", "system:serviceaccounts:kube-system"];
            let client = client_from_service(server.local_service(UserInfo::authenticated(&name, groups)));
            requests.counting(client, &host)
        });
        Ok(kedge_controllers::Deps {
            client,
            client_for,
            informers: self.informers.clone(),
            status: self.board.clone(),
            clock: self.clock.clone(),
            signer: Some(signer(plan)?),
            token_keys: Some(tokio::sync::watch::channel(Arc::new(token_keys(&self.pki)?)).1),
            metrics,
        })
    }

    /// A client as some user, whose requests are counted.
    fn counted(&self, plan: &Plan, username: &str, requests: &Arc<RequestMetrics>) -> Client {
        requests.counting(self.client(username, &[]), &plan.host())
    }

    fn pages(&self, plan: &Plan) -> Pages {
        Pages {
            address: plan.api_address().ip(),
            files: ServerFiles { client_authorities: vec![plan.layout.pki().join("ca.crt")], ..server_files(plan) },
            board: self.board.clone(),
            clock: self.clock.clone(),
            flags: plan.options.flags.clone(),
        }
    }
}

fn controllers(plan: &Plan, pki: &ClusterPki) -> kedge_controllers::Config {
    // What joining needs is off upstream unless asked for, and asked for by kubeadm.
    let controllers = ["*", "bootstrap-signer-controller", "token-cleaner-controller"].map(str::to_owned);
    kedge_controllers::Config {
        controllers: controllers.into(),
        root_ca_pem: tokio::sync::watch::channel(pki.authority.certificate_pem().to_owned()).1,
        cluster_cidrs: plan.pod_networks.iter().map(ToString::to_string).collect(),
        node_cidr_mask_ipv4: plan.options.node_cidr_masks.0,
        node_cidr_mask_ipv6: plan.options.node_cidr_masks.1,
        leader: competitor(plan, CONTROLLER_MANAGER.name),
        load_balancer_pool: plan.load_balancer_pool.clone(),
        node_monitor_grace_period: plan.options.node_monitor_grace_period,
        ..kedge_controllers::Config::default()
    }
}

/// What the API server shows, and whom it takes.
fn server_files(plan: &Plan) -> ServerFiles {
    let dir = plan.layout.pki();
    ServerFiles {
        certificate: dir.join("apiserver.crt"),
        key: dir.join("apiserver.key"),
        client_authorities: vec![dir.join("ca.crt"), dir.join("front-proxy-ca.crt")],
    }
}

impl ControlPlane {
    /// Starts the simulation, where one was asked for.
    pub(crate) fn start_simulation(&self, plan: &Plan, components: &mut JoinSet<Ended>, shutdown: &CancellationToken) {
        let Some(config) = plan.options.simulate.clone() else { return };
        let deps = kedge_simulate::Deps {
            client: self.client("system:kedge-simulate", &["system:masters"]),
            informers: self.informers.clone(),
            status: self.board.component("kedge-simulate"),
            clock: self.clock.clone(),
        };
        let token = shutdown.clone();
        components.spawn(async move {
            kedge_simulate::run(config, deps, token).await;
            ("kedge-simulate", Ok(()))
        });
    }
}

/// Where several control planes may share the store, one of them works at a time.
fn competitor(plan: &Plan, lease: &str) -> Option<LeaderConfig> {
    let own = ProcessMark::own();
    let identity = format!("{}_{}-{}", plan.node_name, own.pid, own.start_ticks);
    plan.options.etcd.is_some().then(|| LeaderConfig::new(lease, &identity))
}

/// The cluster's own authority signs what is asked of the certificates API.
fn signer(plan: &Plan) -> Result<Arc<dyn kedge_controllers::CertificateSigner>, Error> {
    let pki = plan.layout.pki();
    Ok(Arc::new(AuthoritySigner::from_files(&pki.join("ca.crt"), &pki.join("ca.key"))?))
}

/// What signs the tokens of accounts: those that the API server hands out, and those in Secrets.
fn token_keys(pki: &ClusterPki) -> Result<TokenKeys, Error> {
    Ok(TokenKeys::from_private_pem(&pki.service_account_key_pem)?)
}

fn names(plan: &Plan) -> ClusterNames {
    let mut loopbacks = vec![IpAddr::from(Ipv4Addr::LOCALHOST)];
    if plan.has_ipv6() {
        loopbacks.push(Ipv6Addr::LOCALHOST.into());
    }
    let mut node_addresses = plan.node_ips.clone();
    node_addresses.extend(loopbacks.into_iter().filter(|loopback| !plan.node_ips.contains(loopback)));
    let mut api_addresses = vec![plan.api_service_ip];
    api_addresses.extend(&node_addresses);
    ClusterNames {
        node_name: plan.node_name.clone(),
        dns_domain: plan.options.service_dns_domain.clone(),
        api_addresses,
        api_names: Vec::new(),
        node_addresses,
    }
}

async fn api_server(
    plan: &Plan,
    pki: &ClusterPki,
    store: &Arc<dyn Store>,
    board: &StatusBoard,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<ApiServer>, Error> {
    let authority = pki.authority.certificate_pem();
    let read = |range: &IpNet| {
        range.to_string().parse().map_err(|error: kedge_apiserver::ParseCidrError| Error::Flag {
            flag: "--service-cidr",
            value: range.to_string(),
            why: error.to_string(),
        })
    };
    let service_cluster_ip_ranges = plan.service_networks.iter().map(read).collect::<Result<_, _>>()?;
    let config = ApiConfig {
        advertise_address: plan.node_ip,
        secure_port: plan.options.secure_port,
        service_cluster_ip_ranges,
        service_account_issuer: format!("https://kubernetes.default.svc.{}", plan.options.service_dns_domain),
        flags: plan.options.flags.clone(),
        ..ApiConfig::default()
    };
    let deps = ApiDeps {
        audit: Audit::open(&plan.options.audit).await?,
        store: store.clone(),
        clock: clock.clone(),
        status: board.component("kube-apiserver"),
        board: board.clone(),
        token_keys: token_keys(pki)?,
        client_ca: Some(authority.to_owned()),
        front_proxy: Some(front_proxy(pki)?),
        proxy_identity: Some(kedge_pki::following_identity(
            &pki.dir.join("front-proxy-client.crt"),
            &pki.dir.join("front-proxy-client.key"),
        )?),
        webhook_credentials: Default::default(),
        kubelet_tls: Some(Arc::new(kedge_pki::following_client_config(
            &pki.dir.join("apiserver-kubelet-client.crt"),
            &pki.dir.join("apiserver-kubelet-client.key"),
            Some(&pki.dir.join("ca.crt")),
        )?)),
    };
    Ok(ApiServer::new(config, deps).await?)
}

/// As kubeadm's flags have it.
fn front_proxy(pki: &ClusterPki) -> Result<FrontProxy, Error> {
    Ok(FrontProxy {
        verifier: kedge_pki::following_client_verifier(&[pki.dir.join("front-proxy-ca.crt")])?,
        authority_pem: pki.front_proxy_authority_pem.clone(),
        allowed_names: vec!["front-proxy-client".to_owned()],
        username_headers: vec!["X-Remote-User".to_owned()],
        group_headers: vec!["X-Remote-Group".to_owned()],
        extra_header_prefixes: vec!["X-Remote-Extra-".to_owned()],
    })
}

/// Renews leaf certificates that are about to end; whoever shows them looks at their files.
async fn keep_renewed(plan: Plan, shutdown: CancellationToken) -> Ended {
    while shutdown.run_until_cancelled(tokio::time::sleep(RENEWAL_PERIOD)).await.is_some() {
        if let Err(error) = ClusterPki::ensure(&plan.layout.pki(), &names(&plan)) {
            tracing::warn!(%error, "certificates cannot be renewed");
        }
    }
    ("certificates", Ok(()))
}

/// Keeps the store's line on the status board.
pub(crate) async fn report_store(backend: Arc<Backend>, board: StatusBoard, shutdown: CancellationToken) -> Ended {
    let status = board.component("store");
    loop {
        match backend.failure() {
            None => status.running(),
            Some(why) => status.degraded("StorageFailed", why),
        }
        status.heartbeat(backend.store().stats().last_sync);
        tokio::select! {
            () = shutdown.cancelled() => return ("store", Ok(())),
            () = tokio::time::sleep(STORE_REPORT_PERIOD) => {}
        }
    }
}
