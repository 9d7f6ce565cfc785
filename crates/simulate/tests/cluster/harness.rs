//! A control plane in this process, and a simulation beside it.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use kedge_apiserver::{ApiServer, Config as ApiConfig, Deps as ApiDeps};
use kedge_auth::TokenKeys;
use kedge_client::{Client, Informers, client_from_service};
use kedge_meta::{Clock, StatusBoard, SystemClock, UserInfo};
use kedge_simulate::{Config, Deps};
use kedge_store::MemoryStore;
use kube::Resource;
use kube::api::{Api, Patch, PatchParams, PostParams};
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long a test waits for something to become true.
const DEADLINE: Duration = Duration::from_secs(120);

pub(crate) struct Cluster {
    pub(crate) client: Client,
    informers: Informers,
    server: Arc<ApiServer>,
    board: StatusBoard,
    clock: Arc<dyn Clock>,
    shutdown: CancellationToken,
    _end: DropGuard,
}

fn token_keys() -> TokenKeys {
    let random = ring::rand::SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    let body = base64::engine::general_purpose::STANDARD.encode(document.as_ref());
    TokenKeys::from_private_pem(&format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n")).unwrap()
}

impl Cluster {
    /// A control plane with nothing simulated yet.
    pub(crate) async fn start() -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let board = StatusBoard::new(clock.clone());
        let deps = ApiDeps {
            store: Arc::new(MemoryStore::new()),
            clock: clock.clone(),
            status: board.component("kube-apiserver"),
            board: board.clone(),
            token_keys: token_keys(),
            client_ca: None,
            front_proxy: None,
            kubelet_tls: None,
            proxy_identity: None,
            audit: None,
        };
        let server = ApiServer::new(ApiConfig::default(), deps).await.unwrap();
        let admin = UserInfo::authenticated("admin", ["system:masters"]);
        let client = client_from_service(server.local_service(admin));
        let shutdown = CancellationToken::new();
        let informers = Informers::new(client.clone(), shutdown.clone());
        let end = shutdown.clone().drop_guard();
        let cluster = Self { client, informers, server, board, clock, shutdown, _end: end };
        cluster.start_controllers();
        cluster.start_scheduler();
        cluster
    }

    fn start_controllers(&self) {
        let server = self.server.clone();
        let client_for = Arc::new(move |account: &str| {
            let name = format!("system:serviceaccount:kube-system:{account}");
            let groups = ["system:serviceaccounts", "system:serviceaccounts:kube-system"];
            client_from_service(server.local_service(UserInfo::authenticated(&name, groups)))
        });
        let deps = kedge_controllers::Deps {
            client: self.client.clone(),
            client_for,
            informers: self.informers.clone(),
            status: self.board.clone(),
            clock: self.clock.clone(),
            signer: None,
            token_keys: None,
            metrics: kedge_client::ComponentMetrics::default(),
        };
        let token = self.shutdown.clone();
        let root_ca_pem = tokio::sync::watch::channel("PEM".to_owned()).1;
        // Short, so that a silent node is noticed within a test.
        let node_monitor_grace_period = Duration::from_secs(15);
        let config = kedge_controllers::Config { root_ca_pem, node_monitor_grace_period, ..Default::default() };
        tokio::spawn(async move { kedge_controllers::run(config, deps, token).await.unwrap() });
    }

    fn start_scheduler(&self) {
        let deps = kedge_scheduler::Deps {
            client: self.client.clone(),
            informers: self.informers.clone(),
            status: self.board.component("kube-scheduler"),
            clock: self.clock.clone(),
            metrics: Arc::default(),
        };
        let config = kedge_scheduler::Config { leader_election: None, configuration: Default::default() };
        let token = self.shutdown.clone();
        tokio::spawn(async move { kedge_scheduler::run(config, deps, token).await.unwrap() });
    }

    /// Starts a simulation; it ends with the value that is returned, or with the cluster.
    pub(crate) fn simulate(&self, line: &str) -> DropGuard {
        let config: Config = line.parse().unwrap();
        let deps = Deps {
            client: self.client.clone(),
            informers: self.informers.clone(),
            status: self.board.component("kedge-simulate"),
            clock: self.clock.clone(),
        };
        let token = self.shutdown.child_token();
        tokio::spawn(kedge_simulate::run(config, deps, token.clone()));
        token.drop_guard()
    }

    /// Creates an object outside of namespaces.
    pub(crate) async fn create_in_cluster<K>(&self, value: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::ClusterResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Serialize,
    {
        let object = serde_json::from_value(value).unwrap();
        Api::<K>::all(self.client.clone()).create(&PostParams::default(), &object).await.unwrap()
    }

    /// Creates an object of namespace `default`.
    pub(crate) async fn create<K>(&self, value: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Serialize,
    {
        let object = serde_json::from_value(value).unwrap();
        self.api::<K>().create(&PostParams::default(), &object).await.unwrap()
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), "default")
    }

    pub(crate) async fn annotate<K>(&self, api: Api<K>, name: &str, key: &str, value: &str)
    where
        K: Clone + Debug + DeserializeOwned,
    {
        let patch = serde_json::json!({"metadata": {"annotations": {key: value}}});
        api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    /// Waits until `holds` says so about all objects of a kind; shows them where it never does.
    pub(crate) async fn until<K>(&self, what: &str, holds: impl Fn(&[Arc<K>]) -> bool) -> Vec<Arc<K>>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize + Send + Sync + 'static,
    {
        let informer = self.informers.all::<K>();
        let mut changes = informer.subscribe();
        let waiting = async {
            informer.synced().await;
            loop {
                let mut all = informer.list();
                all.sort_by(|a, b| a.meta().name.cmp(&b.meta().name));
                if holds(&all) {
                    return all;
                }
                changes.next().await;
            }
        };
        match tokio::time::timeout(DEADLINE, waiting).await {
            Ok(all) => all,
            Err(_) => {
                let all: Vec<String> =
                    informer.list().iter().map(|object| serde_json::to_string(&**object).unwrap()).collect();
                panic!("not within {DEADLINE:?}: {what}\n{}", all.join("\n"));
            }
        }
    }
}
