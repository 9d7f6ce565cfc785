//! Controllers and the scheduler over an API server in this process, and a simulation beside them.

use std::fmt::Debug;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ServiceAccount;
use kedge_control_plane::ControlPlane;
use kedge_scheduler::KubeSchedulerConfiguration;
use kedge_simulate::{Config, Deps};
use kube::api::{Api, Patch, PatchParams};
use serde::de::DeserializeOwned;
use tokio_util::sync::DropGuard;

pub(crate) struct Cluster(ControlPlane);

impl Deref for Cluster {
    type Target = ControlPlane;

    fn deref(&self) -> &ControlPlane {
        &self.0
    }
}

impl Cluster {
    /// A control plane with nothing simulated yet.
    pub(crate) async fn start() -> Self {
        Self::scheduling(KubeSchedulerConfiguration::default()).await
    }

    /// The same, with a scheduler that is told this.
    pub(crate) async fn scheduling(configuration: KubeSchedulerConfiguration) -> Self {
        let cluster = Self(ControlPlane::start().await);
        cluster.start_controllers();
        cluster.start_scheduler(configuration);
        cluster
    }

    /// Waits until pods can be made.
    pub(crate) async fn until_pods_have_an_account(&self) {
        self.until::<ServiceAccount>("an account for pods", |all| {
            all.iter().any(|account| account.metadata.namespace.as_deref() == Some("default"))
        })
        .await;
    }

    fn start_controllers(&self) {
        let deps = kedge_controllers::Deps {
            client: self.client.clone(),
            client_for: self.client_for(),
            informers: self.informers.clone(),
            status: self.board.clone(),
            clock: self.clock.clone(),
            signer: None,
            token_keys: None,
            metrics: kedge_controllers::ControllerMetrics::default(),
        };
        let token = self.shutdown.clone();
        let root_ca_pem = tokio::sync::watch::channel("PEM".to_owned()).1;
        // Short, so that a silent node is noticed within a test.
        let node_monitor_grace_period = Duration::from_secs(15);
        let config = kedge_controllers::Config { root_ca_pem, node_monitor_grace_period, ..Default::default() };
        tokio::spawn(async move { kedge_controllers::run(config, deps, token).await.unwrap() });
    }

    fn start_scheduler(&self, configuration: KubeSchedulerConfiguration) {
        let deps = kedge_scheduler::Deps {
            client: self.client.clone(),
            informers: self.informers.clone(),
            status: self.board.component("kube-scheduler"),
            clock: self.clock.clone(),
            metrics: Arc::default(),
        };
        let config = kedge_scheduler::Config { leader_election: None, configuration };
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

    pub(crate) async fn annotate<K>(&self, api: Api<K>, name: &str, key: &str, value: &str)
    where
        K: Clone + Debug + DeserializeOwned,
    {
        let patch = serde_json::json!({"metadata": {"annotations": {key: value}}});
        api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }
}
