//! Controllers under their own identities over an API server in this process, and a pretended node.

use std::ops::Deref;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, ServiceAccount};
use kedge_client::{Change, Client, Informer, Informers};
use kedge_control_plane::ControlPlane;
pub(crate) use kedge_control_plane::object;
use kedge_controllers::{CertificateSigner, Config, ControllerMetrics, Deps, run};
use kedge_meta::UserInfo;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

/// Pods with this annotation stay as they are.
pub(crate) const LEFT_ALONE: &str = "test/left-alone";
/// Pods with this annotation end at once, in the phase that it names.
pub(crate) const OUTCOME: &str = "test/outcome";

pub(crate) struct Cluster {
    pub(crate) metrics: ControllerMetrics,
    plane: ControlPlane,
}

impl Deref for Cluster {
    type Target = ControlPlane;

    fn deref(&self) -> &ControlPlane {
        &self.plane
    }
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
        Self::over(ControlPlane::start().await, config, signer).await
    }

    /// A cluster for tests with `start_paused`, whose clock begins at a time and jumps with tokio's. Nodes say nothing
    /// there, so nobody asks for how long.
    pub(crate) async fn jumping(start: &str, config: Config) -> Self {
        let controllers = ["-node-lifecycle-controller", "*"].map(str::to_owned).to_vec();
        Self::over(ControlPlane::jumping(start).await, Config { controllers, ..config }, None).await
    }

    async fn over(plane: ControlPlane, config: Config, signer: Option<Arc<dyn CertificateSigner>>) -> Self {
        let manager = plane.client_of(UserInfo::authenticated("system:kube-controller-manager", []));
        let metrics = ControllerMetrics::default();
        let deps = Deps {
            client: manager.clone(),
            client_for: plane.client_for(),
            informers: Informers::new(manager, plane.shutdown.clone()),
            status: plane.board.clone(),
            clock: plane.clock.clone(),
            signer,
            token_keys: Some(tokio::sync::watch::channel(Arc::new(plane.token_keys())).1),
            metrics: metrics.clone(),
        };
        let token = plane.shutdown.clone();
        tokio::spawn(async move { run(config, deps, token).await.unwrap() });
        let cluster = Self { metrics, plane };
        cluster.add_node("node-1").await;
        tokio::spawn(pretend(cluster.client.clone(), cluster.informer::<Pod>()));
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
