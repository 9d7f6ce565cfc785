//! The node agent's one door to devices: both kinds together.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Container, Pod};
use kedge_csi::PluginHandler;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::cdi;
use crate::claims::{Claims, wipe};
use crate::edits::Edits;
use crate::plugins::{DevicePlugins, serve};
use crate::pod_resources::{self, Pods};

/// How long a driver may be gone before its slices are taken away.
const WIPING_DELAY: Duration = Duration::from_secs(30);

/// What devices work with.
pub struct Deps {
    /// The API, as the node.
    pub client: kube::Client,
    /// The name of the Node object.
    pub node_name: String,
    /// The node agent's directory.
    pub root_dir: PathBuf,
    /// Where vendors describe devices for runtimes.
    pub cdi_directories: Vec<PathBuf>,
}

/// The devices of this node.
pub struct Devices {
    client: kube::Client,
    node_name: String,
    root_dir: PathBuf,
    cdi_directories: Vec<PathBuf>,
    claims: Claims,
    plugins: Arc<DevicePlugins>,
    changed: Arc<Notify>,
    /// Slices that will be taken away, by driver.
    wiping: Mutex<HashMap<String, CancellationToken>>,
    shutdown: CancellationToken,
}

impl Devices {
    /// Reads what an earlier life noted; nothing runs until [`Devices::run`].
    pub fn new(deps: Deps, shutdown: CancellationToken) -> Self {
        let changed = Arc::new(Notify::new());
        Self {
            claims: Claims::new(deps.client.clone(), &deps.root_dir),
            plugins: Arc::new(DevicePlugins::new(&deps.root_dir, changed.clone())),
            client: deps.client,
            node_name: deps.node_name,
            root_dir: deps.root_dir,
            cdi_directories: deps.cdi_directories,
            changed,
            wiping: Mutex::default(),
            shutdown,
        }
    }

    /// Takes plug-ins in and tells who has what until the end. Drivers come by [`PluginHandler`].
    pub async fn run(self: Arc<Self>, pods: Pods) {
        // Slices of drivers that were removed while the node agent did not run.
        let cleaning = async {
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                () = tokio::time::sleep(WIPING_DELAY) => {}
            }
            let is_gone = |driver: &str| !self.claims.drivers.has(driver);
            wipe(self.client.clone(), &self.node_name, None, is_gone, &self.shutdown).await;
        };
        let telling = pod_resources::serve(self.clone(), &self.root_dir, pods);
        tokio::join!(serve(self.plugins.clone(), self.shutdown.clone()), cleaning, telling);
    }

    pub(crate) fn shutdown(&self) -> CancellationToken {
        self.shutdown.clone()
    }

    pub(crate) fn plugins(&self) -> &DevicePlugins {
        &self.plugins
    }

    pub(crate) fn claims(&self) -> &Claims {
        &self.claims
    }

    /// Returns after the node's amounts of devices changed.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// What the node has of each plug-in's resource, and what of it is healthy.
    pub fn amounts(&self) -> (BTreeMap<String, usize>, BTreeMap<String, usize>) {
        self.plugins.amounts()
    }

    /// Gives a pod the plug-ins' devices that it asks for. A pod that can't have them can't run here.
    pub async fn allocate(&self, pod: &Pod) -> Result<(), String> {
        self.plugins.allocate(pod).await
    }

    /// Has the pod's claims prepared; repeated until it succeeds.
    pub async fn prepare(&self, pod: &Pod) -> Result<(), String> {
        self.claims.prepare(pod).await.map_err(|why| format!("prepare dynamic resources: {why}"))
    }

    /// What a container's devices change about it. A runtime that `knows_cdi` is only told their names.
    pub async fn container(&self, pod: &Pod, container: &Container, knows_cdi: bool) -> Result<Edits, String> {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let mut edits = self.plugins.container(uid, &container.name).await?;
        let of_claims = self.claims.cdi_names(pod, container)?;
        edits.merge(Edits { cdi_devices: of_claims, ..Edits::default() });
        if !knows_cdi {
            let names = std::mem::take(&mut edits.cdi_devices);
            edits.merge(cdi::resolve(&self.cdi_directories, &names)?);
        }
        Ok(edits)
    }

    /// Gives back what a pod had, after its containers have ended. Repeated until it succeeds.
    pub async fn release(&self, pod: &str) -> Result<(), String> {
        self.plugins.free(pod);
        self.claims.unprepare(pod).await.map_err(|why| format!("unprepare dynamic resources: {why}"))
    }

    /// Gives back what pods had that no source knows any more.
    pub async fn retain(&self, active: &HashSet<String>) {
        self.plugins.retain(active);
        self.claims.retain(active).await;
    }

    fn driver_is_back(&self, driver: &str) {
        if let Some(wiping) = self.wiping.lock().remove(driver) {
            wiping.cancel();
        }
    }

    fn driver_is_gone(self: Arc<Self>, driver: String) {
        let stop = self.shutdown.child_token();
        self.wiping.lock().insert(driver.clone(), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(WIPING_DELAY) => {}
            }
            let is_gone = |name: &str| !self.claims.drivers.has(name);
            wipe(self.client.clone(), &self.node_name, Some(&driver), is_gone, &stop).await;
        });
    }
}

/// Drivers of dynamic resource allocation register like storage drivers do.
#[async_trait]
impl PluginHandler for Devices {
    fn kind(&self) -> &'static str {
        "DRAPlugin"
    }

    async fn take_in(&self, name: &str, endpoint: &Path, versions: &[String]) -> Result<(), String> {
        self.claims.drivers.insert(name, endpoint, versions)?;
        self.driver_is_back(name);
        tracing::info!(driver = name, "a driver of devices is registered");
        Ok(())
    }

    async fn gone(self: Arc<Self>, name: &str, endpoint: &Path) {
        self.claims.drivers.remove(name, endpoint);
        if !self.claims.drivers.has(name) {
            tracing::info!(driver = name, "a driver of devices is gone");
            self.driver_is_gone(name.to_owned());
        }
    }
}
