//! The API server over a store in memory, with clients and ways to wait, for tests of what works with it.
//!
//! Starts no controller, scheduler or node: a suite starts what it is about. Invariant: what waits has a deadline, and shows
//! what it saw where that passes.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use k8s_openapi::api::core::v1::Event;
use kedge_apiserver::{ApiServer, Config, Deps};
use kedge_auth::TokenKeys;
use kedge_client::{Client, Informer, Informers, client_from_service};
use kedge_meta::{Clock, StatusBoard, SystemClock, UserInfo};
use kedge_store::MemoryStore;
use kube::Resource;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// How long a test waits for something to become true.
const DEADLINE: Duration = Duration::from_secs(120);
/// The same where time does not pass but jumps from one timer to the next.
const VIRTUAL_DEADLINE: Duration = Duration::from_secs(24 * 3600);

/// An API server in this process. It ends, with all that uses its token, when it is dropped.
pub struct ControlPlane {
    /// The server.
    pub server: Arc<ApiServer>,
    /// The administrator's client.
    pub client: Client,
    /// Informers with the administrator's rights.
    pub informers: Informers,
    /// Where components report.
    pub board: StatusBoard,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Ends what a suite started.
    pub shutdown: CancellationToken,
    token_key_pem: String,
    deadline: Duration,
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

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

fn new_token_key() -> String {
    let random = ring::rand::SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("there is chance");
    let body = base64::engine::general_purpose::STANDARD.encode(document.as_ref());
    format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n")
}

impl ControlPlane {
    /// A server whose time is that of the machine.
    pub async fn start() -> Self {
        Self::ticking(Arc::new(SystemClock), DEADLINE).await
    }

    /// A server for tests with `start_paused`, whose clock begins at a time (RFC 3339) and jumps with tokio's.
    pub async fn jumping(start: &str) -> Self {
        let start = start.parse().expect("a time");
        let clock = JumpingClock { start, origin: tokio::time::Instant::now() };
        Self::ticking(Arc::new(clock), VIRTUAL_DEADLINE).await
    }

    async fn ticking(clock: Arc<dyn Clock>, deadline: Duration) -> Self {
        let board = StatusBoard::new(clock.clone());
        let token_key_pem = new_token_key();
        let deps = Deps {
            store: Arc::new(MemoryStore::new()),
            clock: clock.clone(),
            status: board.component("kube-apiserver"),
            board: board.clone(),
            token_keys: TokenKeys::from_private_pem(&token_key_pem).expect("it was made for this"),
            client_ca: None,
            front_proxy: None,
            kubelet_tls: None,
            proxy_identity: None,
            webhook_credentials: Default::default(),
            audit: None,
        };
        let server = ApiServer::new(Config::default(), deps).await.expect("a server over an empty store starts");
        let client = client_from_service(server.local_service(administrator()));
        let shutdown = CancellationToken::new();
        let informers = Informers::new(client.clone(), shutdown.clone());
        Self { server, client, informers, board, clock, shutdown, token_key_pem, deadline }
    }

    /// A client of a user.
    pub fn client_of(&self, user: UserInfo) -> Client {
        client_from_service(self.server.local_service(user))
    }

    /// Clients of service accounts of `kube-system`, by their names.
    pub fn client_for(&self) -> Arc<dyn Fn(&str) -> Client + Send + Sync> {
        let server = self.server.clone();
        Arc::new(move |account| {
            let name = format!("system:serviceaccount:kube-system:{account}");
            let groups = ["system:serviceaccounts", "system:serviceaccounts:kube-system"];
            client_from_service(server.local_service(UserInfo::authenticated(&name, groups)))
        })
    }

    /// The keys that sign tokens.
    pub fn token_keys(&self) -> TokenKeys {
        TokenKeys::from_private_pem(&self.token_key_pem).expect("it was made for this")
    }

    /// The informer for all objects of a kind.
    pub fn informer<K>(&self) -> Informer<K>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize + Send + Sync + 'static,
    {
        self.informers.all::<K>()
    }

    /// Objects of namespace `default`.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), "default")
    }

    /// Creates an object outside of namespaces from JSON.
    pub async fn create_in_cluster<K>(&self, value: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::ClusterResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Serialize,
    {
        let api = Api::<K>::all(self.client.clone());
        api.create(&PostParams::default(), &object(value)).await.expect("it is created")
    }

    /// Creates an object of namespace `default` from JSON.
    pub async fn create<K>(&self, value: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Serialize,
    {
        self.api::<K>().create(&PostParams::default(), &object(value)).await.expect("it is created")
    }

    /// Merges a patch into an object of namespace `default`.
    pub async fn merge<K>(&self, name: &str, patch: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        self.api::<K>().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.expect("it is patched")
    }

    /// Deletes an object of namespace `default`.
    pub async fn delete<K>(&self, name: &str, parameters: DeleteParams)
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        self.api::<K>().delete(name, &parameters).await.expect("it is deleted");
    }

    /// Waits until `holds` says so about all objects of a kind, which are sorted by name; shows them where it never does.
    pub async fn until<K>(&self, what: &str, holds: impl Fn(&[Arc<K>]) -> bool) -> Vec<Arc<K>>
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
                    informer.list().iter().map(|object| serde_json::to_string(&**object).unwrap_or_default()).collect();
                panic!("not within {:?}: {what}\n{}\nevents: {events:#?}", self.deadline, all.join("\n"));
            }
        }
    }

    /// Waits until `holds` says so about one object, of namespace `default` where it has one.
    pub async fn until_one<K>(&self, name: &str, what: &str, holds: impl Fn(&K) -> bool) -> Arc<K>
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
        find(&all).expect("it was there")
    }

    /// All events, as `source: reason: message`.
    pub async fn events(&self) -> Vec<String> {
        let events = Api::<Event>::all(self.client.clone()).list(&Default::default()).await.expect("events are listed");
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
    pub async fn until_event(&self, text: &str) {
        self.until::<Event>(text, |events| {
            events.iter().any(|event| event.message.as_deref().is_some_and(|message| message.contains(text)))
        })
        .await;
    }
}

/// Who may do everything.
fn administrator() -> UserInfo {
    UserInfo::authenticated("admin", ["system:masters"])
}

/// An object from JSON.
pub fn object<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("the JSON is of the kind")
}
