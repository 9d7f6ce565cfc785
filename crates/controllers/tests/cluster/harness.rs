//! A control plane in this process: API server, controllers under their own identities, and a pretended node.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use k8s_openapi::api::core::v1::{Event, Node, Pod, ServiceAccount};
use kedge_apiserver::{ApiServer, Config as ApiConfig, Deps as ApiDeps};
use kedge_auth::TokenKeys;
use kedge_client::{Change, Client, Informer, Informers, client_from_service};
use kedge_controllers::{CertificateSigner, Config, Deps, run};
use kedge_meta::{Clock, StatusBoard, SystemClock, UserInfo};
use kedge_store::MemoryStore;
use kube::Resource;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// How long a test waits for something to become true.
const DEADLINE: Duration = Duration::from_secs(120);
/// The same where time does not pass but jumps from one timer to the next.
const VIRTUAL_DEADLINE: Duration = Duration::from_secs(24 * 3600);
/// Pods with this annotation stay as they are.
pub(crate) const LEFT_ALONE: &str = "test/left-alone";
/// Pods with this annotation end at once, in the phase that it names.
pub(crate) const OUTCOME: &str = "test/outcome";

pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) board: StatusBoard,
    pub(crate) server: Arc<ApiServer>,
    informers: Informers,
    deadline: Duration,
    shutdown: CancellationToken,
}

/// The wall clock of a test in which time jumps.
struct JumpingClock {
    start: jiff::Timestamp,
    origin: tokio::time::Instant,
}

impl Clock for JumpingClock {
    fn now(&self) -> jiff::Timestamp {
        self.start + self.origin.elapsed()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// The same keys as often as they are asked for.
fn token_keys() -> impl Fn() -> TokenKeys {
    let random = ring::rand::SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    let body = base64::engine::general_purpose::STANDARD.encode(document.as_ref());
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n");
    move || TokenKeys::from_private_pem(&pem).unwrap()
}

impl Cluster {
    /// A cluster with one ready node, `node-1`.
    pub(crate) async fn start() -> Self {
        let root_ca_pem = tokio::sync::watch::channel("PEM".to_owned()).1;
        Self::with(Config { root_ca_pem, ..Config::default() }).await
    }

    pub(crate) async fn with(config: Config) -> Self {
        Self::signing(config, None).await
    }

    pub(crate) async fn signing(config: Config, signer: Option<Arc<dyn CertificateSigner>>) -> Self {
        Self::ticking(config, signer, Arc::new(SystemClock), DEADLINE).await
    }

    /// A cluster for tests with `start_paused`, whose clock begins at a time and jumps with tokio's. Nodes say nothing
    /// there, so nobody asks for how long.
    pub(crate) async fn jumping(start: &str, config: Config) -> Self {
        let clock = JumpingClock { start: start.parse().unwrap(), origin: tokio::time::Instant::now() };
        let controllers = ["-node-lifecycle-controller", "*"].map(str::to_owned).to_vec();
        Self::ticking(Config { controllers, ..config }, None, Arc::new(clock), VIRTUAL_DEADLINE).await
    }

    async fn ticking(
        config: Config,
        signer: Option<Arc<dyn CertificateSigner>>,
        clock: Arc<dyn Clock>,
        deadline: Duration,
    ) -> Self {
        let board = StatusBoard::new(clock.clone());
        let token_keys = token_keys();
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
        let local = server.clone();
        let client_of = move |user: UserInfo| client_from_service(local.local_service(user));
        let manager = client_of(UserInfo::authenticated("system:kube-controller-manager", []));
        let client = client_of(UserInfo::authenticated("admin", ["system:masters"]));
        let client_for = Arc::new(move |account: &str| {
            let name = format!("system:serviceaccount:kube-system:{account}");
            let groups = ["system:serviceaccounts", "system:serviceaccounts:kube-system"];
            client_of(UserInfo::authenticated(&name, groups))
        });
        let shutdown = CancellationToken::new();
        let deps = Deps {
            client: manager.clone(),
            client_for,
            informers: Informers::new(manager, shutdown.clone()),
            status: board.clone(),
            clock,
            signer,
            token_keys: Some(tokio::sync::watch::channel(Arc::new(token_keys())).1),
            metrics: kedge_client::ComponentMetrics::default(),
        };
        let token = shutdown.clone();
        tokio::spawn(async move { run(config, deps, token).await.unwrap() });
        let informers = Informers::new(client.clone(), shutdown.clone());
        let cluster = Self { client, board, server, informers, deadline, shutdown };
        cluster.add_node("node-1").await;
        tokio::spawn(pretend(cluster.client.clone(), cluster.informers.all::<Pod>()));
        // Without it, no pod may be made.
        cluster
            .until::<ServiceAccount>("an account for pods", |all| {
                let is_it = |name: &Option<String>| name.as_deref() == Some("default");
                all.iter().any(|account| is_it(&account.metadata.name) && is_it(&account.metadata.namespace))
            })
            .await;
        cluster
    }

    pub(crate) async fn add_node(&self, name: &str) {
        let node: Node = object(json!({ "metadata": { "name": name } }));
        let nodes = Api::<Node>::all(self.client.clone());
        nodes.create(&PostParams::default(), &node).await.unwrap();
        let ready = json!({ "status": { "conditions": [{ "type": "Ready", "status": "True" }] } });
        nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(ready)).await.unwrap();
    }

    /// The informer for all objects of a kind, by the administrator's rights.
    pub(crate) fn informer<K>(&self) -> Informer<K>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        self.informers.all::<K>()
    }

    /// Creates an object outside of namespaces from JSON.
    pub(crate) async fn create_in_cluster<K>(&self, value: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::ClusterResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Serialize,
    {
        Api::<K>::all(self.client.clone()).create(&PostParams::default(), &object(value)).await.unwrap()
    }

    /// Creates an object of namespace `default` from JSON.
    pub(crate) async fn create<K>(&self, value: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Serialize,
    {
        self.api::<K>().create(&PostParams::default(), &object(value)).await.unwrap()
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), "default")
    }

    pub(crate) async fn merge<K>(&self, name: &str, patch: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        self.api::<K>().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap()
    }

    pub(crate) async fn delete<K>(&self, name: &str, parameters: DeleteParams)
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        self.api::<K>().delete(name, &parameters).await.unwrap();
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
        match tokio::time::timeout(self.deadline, waiting).await {
            Ok(all) => all,
            Err(_) => {
                let events = self.events().await;
                let all: Vec<String> =
                    informer.list().iter().map(|object| serde_json::to_string(&**object).unwrap()).collect();
                panic!("not within {:?}: {what}\n{}\nevents: {events:#?}", self.deadline, all.join("\n"));
            }
        }
    }

    /// Waits until `holds` says so about one object of namespace `default`.
    pub(crate) async fn until_one<K>(&self, name: &str, what: &str, holds: impl Fn(&K) -> bool) -> Arc<K>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize + Send + Sync + 'static,
    {
        let find = |all: &[Arc<K>]| {
            let mut named = all.iter().filter(|object| {
                object.meta().name.as_deref() == Some(name)
                    && object.meta().namespace.as_deref().is_none_or(|namespace| namespace == "default")
            });
            named.find(|object| holds(object)).cloned()
        };
        let all = self.until::<K>(what, |all| find(all).is_some()).await;
        find(&all).unwrap()
    }

    /// All events, as `source: reason: message`.
    pub(crate) async fn events(&self) -> Vec<String> {
        let events = Api::<Event>::all(self.client.clone()).list(&Default::default()).await.unwrap();
        let text = |event: Event| {
            format!(
                "{}: {}: {}",
                event.source.and_then(|source| source.component).unwrap_or_default(),
                event.reason.unwrap_or_default(),
                event.message.unwrap_or_default()
            )
        };
        events.items.into_iter().map(text).collect()
    }

    /// Waits until an event says this.
    pub(crate) async fn until_event(&self, text: &str) {
        self.until::<Event>(text, |events| {
            events.iter().any(|event| event.message.as_deref().is_some_and(|message| message.contains(text)))
        })
        .await;
    }
}

pub(crate) fn object<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

/// A pod template with the label `app: web`.
pub(crate) fn template(image: &str) -> Value {
    json!({
        "metadata": { "labels": { "app": "web" } },
        "spec": { "containers": [{ "name": "main", "image": image, "ports": [{ "containerPort": 8080 }] }] },
    })
}

/// Binds pods to `node-1`, says that they run, ends them where they ask for it, lets go of deleted ones.
async fn pretend(client: Client, pods: Informer<Pod>) {
    let mut changes = pods.subscribe();
    let mut addresses = 0;
    loop {
        let change = changes.next().await;
        if matches!(change, Change::Deleted(_)) {
            continue;
        }
        let pod = change.object();
        if pod.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(LEFT_ALONE)) {
            continue;
        }
        let (namespace, name) = (pod.metadata.namespace.as_deref().unwrap(), pod.metadata.name.as_deref().unwrap());
        let api = Api::<Pod>::namespaced(client.clone(), namespace);
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending");
        if pod.metadata.deletion_timestamp.is_some() {
            let _ = api.delete(name, &DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() }).await;
            continue;
        }
        if phase != "Pending" {
            continue;
        }
        if pod.spec.as_ref().unwrap().node_name.is_none() {
            let binding = json!({ "metadata": { "name": name }, "target": { "kind": "Node", "name": "node-1" } });
            let _ = api.create_subresource::<Value, Value>("binding", name, &PostParams::default(), &binding).await;
        }
        addresses += 1;
        let outcome = pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(OUTCOME));
        let status = json!({ "status": {
            "phase": outcome.map_or("Running", String::as_str),
            "startTime": "2026-01-01T00:00:00Z",
            "podIP": format!("10.0.0.{addresses}"),
            "podIPs": [{ "ip": format!("10.0.0.{addresses}") }],
            "conditions": [{ "type": "Ready", "status": if outcome.is_some() { "False" } else { "True" } }],
        } });
        let _ = api.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await;
    }
}
