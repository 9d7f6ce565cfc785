//! The loop: changes of claims, volumes, classes and of the node become keys; a key is planned and worked on, and tried
//! again with back-off where it fails.
//!
//! Invariants: nothing happens before the caches are complete; without the API everything stays as it is.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kedge_client::{Backoff, Change, Client, Informer, Queue, Recorder, object_key};
use kedge_meta::{ComponentStatus, ObjectKey};
use kube::api::Api;
use tokio_util::sync::CancellationToken;

use crate::class::{PROVISIONER, ensure_class};
use crate::config::{Config, Deps, Error, ReconcileError};
use crate::directory::Directories;
use crate::plan::{ClaimStep, VolumeStep, class_of, plan_claim, plan_volume};
use crate::volume::HOSTNAME;

/// How many claims and volumes are in work at a time: a deep directory must not hold up the others.
const WORKERS: usize = 4;
/// How often the component says that it lives.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// A node's provisioner at work.
pub(crate) struct Provisioner {
    pub(crate) config: Config,
    pub(crate) client: Client,
    pub(crate) recorder: Recorder,
    pub(crate) directories: Directories,
    pub(crate) claims: Informer<PersistentVolumeClaim>,
    pub(crate) volumes: Informer<PersistentVolume>,
    classes: Informer<StorageClass>,
    nodes: Informer<Node>,
    status: ComponentStatus,
}

/// Serves the claims of one node until `shutdown`. Volumes stay when it ends.
pub async fn run(config: Config, deps: Deps, shutdown: CancellationToken) -> Result<(), Error> {
    if !config.root.is_absolute() {
        return Err(Error::Root(config.root));
    }
    let Some(directories) = prepare(&config, &deps, &shutdown).await else { return Ok(()) };
    let source = format!("{PROVISIONER}_{}", config.node_name);
    let provisioner = Provisioner {
        recorder: Recorder::start(deps.client.clone(), &source, "", shutdown.clone()),
        client: deps.client,
        directories,
        claims: deps.informers.all(),
        volumes: deps.informers.all(),
        classes: deps.informers.all(),
        nodes: deps.informers.all(),
        status: deps.status,
        config,
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = Arc::new(provisioner).serve() => {}
    }
    Ok(())
}

/// Makes the root and the class; tries until both are there. `None` where the end came before.
async fn prepare(config: &Config, deps: &Deps, shutdown: &CancellationToken) -> Option<Directories> {
    let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(30));
    loop {
        let attempt = async {
            let directories = Directories::open(&config.root)?;
            ensure_class(&deps.class_client, &config.root).await?;
            Ok::<_, ReconcileError>(directories)
        };
        tokio::select! {
            () = shutdown.cancelled() => return None,
            result = attempt => match result {
                Ok(directories) => return Some(directories),
                Err(error) => deps.status.degraded("NotPrepared", error.text()),
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return None,
            () = tokio::time::sleep(backoff.next_delay()) => {}
        }
    }
}

impl Provisioner {
    async fn serve(self: Arc<Self>) {
        self.claims.synced().await;
        self.volumes.synced().await;
        self.classes.synced().await;
        self.nodes.synced().await;
        self.abandon_orphans();
        self.status.running();
        let queue = Queue::new();
        tokio::join!(
            self.follow_claims(&queue),
            self.follow_volumes(&queue),
            self.follow_classes(&queue),
            self.follow_node(&queue),
            self.beat(),
            join_all((0..WORKERS).map(|_| self.work(&queue))),
        );
    }

    async fn beat(&self) {
        loop {
            tokio::time::sleep(HEARTBEAT).await;
            self.status.heartbeat(None);
        }
    }

    async fn follow_claims(&self, queue: &Queue<ObjectKey>) {
        let mut changes = self.claims.subscribe();
        loop {
            queue.add(object_key(&**changes.next().await.object()));
        }
    }

    async fn follow_volumes(&self, queue: &Queue<ObjectKey>) {
        let mut changes = self.volumes.subscribe();
        loop {
            queue.add(object_key(&**changes.next().await.object()));
        }
    }

    async fn follow_classes(&self, queue: &Queue<ObjectKey>) {
        let mut changes = self.classes.subscribe();
        loop {
            let change = changes.next().await;
            let class = change.object().metadata.name.clone().unwrap_or_default();
            let waiting = self.claims.filter(|claim| class_of(claim) == class);
            waiting.iter().for_each(|claim| queue.add(object_key(&**claim)));
        }
    }

    /// Whose volumes are this node's depends on its host name: everything is looked at again when that changes.
    async fn follow_node(&self, queue: &Queue<ObjectKey>) {
        let mut changes = self.nodes.subscribe();
        loop {
            let change = changes.next().await;
            let is_own = change.object().metadata.name.as_deref() == Some(&self.config.node_name);
            let is_news = match &change {
                Change::Updated { old, new } => host_name(old) != host_name(new),
                _ => true,
            };
            if is_own && is_news {
                self.claims.list().iter().for_each(|claim| queue.add(object_key(&**claim)));
                self.volumes.list().iter().for_each(|volume| queue.add(object_key(&**volume)));
            }
        }
    }

    async fn work(&self, queue: &Queue<ObjectKey>) {
        loop {
            let key = queue.next().await;
            match self.reconcile(&key).await {
                Ok(()) => queue.forget(&key),
                Err(error) => {
                    if !error.is_race() {
                        tracing::warn!(%key, error = error.text(), "a volume could not be dealt with; trying again");
                    }
                    queue.retry(key.clone());
                }
            }
            queue.done(&key);
        }
    }

    /// Claims have a namespace and volumes have none, so that one queue serves both.
    async fn reconcile(&self, key: &ObjectKey) -> Result<(), ReconcileError> {
        let node = self.nodes.get(&ObjectKey::cluster(&self.config.node_name));
        let Some(host) = node.as_deref().and_then(host_name) else { return Ok(()) };
        if !key.namespace.is_empty() {
            return self.reconcile_claim(key, host).await;
        }
        let Some(volume) = self.volumes.get(key) else { return Ok(()) };
        match plan_volume(&volume, host) {
            VolumeStep::Nothing => Ok(()),
            VolumeStep::AddFinalizer => self.set_finalizer(&volume, true).await,
            VolumeStep::RemoveFinalizer => self.set_finalizer(&volume, false).await,
            VolumeStep::Delete => self.delete(&volume).await,
        }
    }

    async fn reconcile_claim(&self, key: &ObjectKey, host: &str) -> Result<(), ReconcileError> {
        let Some(claim) = self.claims.get(key) else {
            self.abandon_orphans();
            return Ok(());
        };
        let class = self.classes.get(&ObjectKey::cluster(class_of(&claim)));
        let bound = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default();
        let volume = self.volumes.get(&ObjectKey::cluster(bound));
        let here = (self.config.node_name.as_str(), host);
        match (plan_claim(&claim, class.as_deref(), volume.as_deref(), here), class, volume) {
            (ClaimStep::Select, _, _) => self.select(&claim).await,
            (ClaimStep::Provision, Some(class), _) => self.provision(&claim, &class, host).await,
            (ClaimStep::Resize, _, Some(volume)) => self.resize(&claim, &volume).await,
            (ClaimStep::Refuse(why), _, _) => {
                self.failed(&claim, &why);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn claims_of(&self, claim: &PersistentVolumeClaim) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.client.clone(), claim.metadata.namespace.as_deref().unwrap_or_default())
    }
}

/// The value by which volumes are tied to a node.
fn host_name(node: &Node) -> Option<&str> {
    node.metadata.labels.as_ref()?.get(HOSTNAME).map(String::as_str)
}
