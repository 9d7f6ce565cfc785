//! The node: container runtime and images, waiting for it, the demo, and taking it down. Its components are started in
//! `node/components.rs`.

mod access;
mod components;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kedge_client::Client;
use kedge_cri::{PrivateContainerd, PrivateContainerdConfig, Runtime, discover_endpoint};
use kedge_kubelet::CgroupDriver;
use kedge_lifecycle::{
    DEMO_NODE_PORT, Images, Layout, RunFile, apply_demo, demo_answers, demo_state, ensure_images, remove_sandboxes,
    unmount_below,
};
use kube::api::Api;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::control_plane::ControlPlane;
use crate::down::DownReport;
use crate::error::Error;
use crate::image::socket;
use crate::options::Plan;
use crate::progress::{Progress, step};

pub(crate) use access::{Access, kubelet_tls};
pub(crate) use components::start;

const READY_PATIENCE: Duration = Duration::from_secs(60);
const DEMO_PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(50);

/// Which container runtime is used.
#[derive(Debug, Clone)]
pub(crate) enum RuntimeChoice {
    /// One that runs on the machine.
    Machine(String),
    /// One that Kedge starts under its data directory.
    Private,
}

impl RuntimeChoice {
    pub(crate) fn is_private(&self) -> bool {
        matches!(self, RuntimeChoice::Private)
    }
}

/// A runtime that answers and has the images.
pub(crate) struct PreparedRuntime {
    pub(crate) runtime: Runtime,
    pub(crate) endpoint: String,
    pub(crate) cni_config_dir: PathBuf,
    cgroup_driver: CgroupDriver,
    images: Images,
}

/// Chooses the runtime: the named one, one that answers at a well-known socket, or one of Kedge's own. Changes nothing.
pub(crate) async fn choose_runtime(plan: &Plan) -> Result<Option<RuntimeChoice>, Error> {
    if plan.options.control_plane_only {
        return Ok(None);
    }
    if let Some(endpoint) = &plan.options.container_runtime_endpoint {
        Runtime::connect(endpoint).await?;
        return Ok(Some(RuntimeChoice::Machine(endpoint.clone())));
    }
    Ok(Some(match discover_endpoint().await {
        Some(endpoint) => RuntimeChoice::Machine(endpoint),
        None => RuntimeChoice::Private,
    }))
}

/// Starts the runtime where it is Kedge's own, and gives it the images.
pub(crate) async fn prepare_runtime(
    plan: &Plan,
    choice: RuntimeChoice,
    shutdown: &CancellationToken,
) -> Result<PreparedRuntime, Error> {
    let version = kedge_meta::build_version();
    let prepared = match choice {
        RuntimeChoice::Machine(endpoint) => {
            let runtime = Runtime::connect(&endpoint).await?;
            let settings = RuntimeSettings::ask(&runtime).await?;
            let images = Images::new(version, settings.sandbox_image);
            import(plan, &runtime, &endpoint, settings.snapshotter, &images).await?;
            let cni_config_dir = kedge_network::CNI_CONFIG_DIR.into();
            let cgroup_driver = settings.cgroup_driver;
            PreparedRuntime { runtime, endpoint, cni_config_dir, cgroup_driver, images }
        }
        RuntimeChoice::Private => {
            let images = Images::new(version, None);
            let mut config = PrivateContainerdConfig::new(plan.layout.containerd());
            config.sandbox_image.clone_from(&images.sandbox);
            config.cni_conf_dir = plan.layout.cni_config();
            config.cni_bin_dir = cni_plugins()?;
            let containerd = PrivateContainerd::start(config).await?;
            let (runtime, endpoint) = (containerd.runtime(), containerd.endpoint());
            let snapshotter = Some(containerd.snapshotter().to_owned());
            import(plan, &runtime, &endpoint, snapshotter, &images).await?;
            tokio::spawn(containerd.supervise(shutdown.clone()));
            let cni_config_dir = plan.layout.cni_config();
            let cgroup_driver = CgroupDriver::Cgroupfs;
            PreparedRuntime { runtime, endpoint, cni_config_dir, cgroup_driver, images }
        }
    };
    Ok(prepared)
}

async fn import(
    plan: &Plan,
    runtime: &Runtime,
    endpoint: &str,
    snapshotter: Option<String>,
    images: &Images,
) -> Result<(), Error> {
    let dir = plan.layout.images();
    Ok(ensure_images(runtime, &socket(endpoint), snapshotter, &dir, images, plan.options.demo).await?)
}

fn cni_plugins() -> Result<PathBuf, Error> {
    kedge_network::find_plugins(&kedge_network::PLUGIN_DIRS.map(PathBuf::from))
        .map_err(|error| Error::Component { component: "kedge-network", why: error.to_string() })
}

/// What the machine's containerd says of its own configuration.
pub(crate) struct RuntimeSettings {
    pub(crate) cgroup_driver: CgroupDriver,
    sandbox_image: Option<String>,
    snapshotter: Option<String>,
}

impl RuntimeSettings {
    pub(crate) async fn ask(runtime: &Runtime) -> Result<Self, Error> {
        let status = runtime.status(true).await?;
        let config = status.info.get("config").and_then(|text| serde_json::from_str::<Value>(text).ok());
        let config = config.unwrap_or_default();
        let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let systemd = &config["containerd"]["runtimes"]["runc"]["options"]["SystemdCgroup"];
        Ok(Self {
            cgroup_driver: if *systemd == true { CgroupDriver::Systemd } else { CgroupDriver::Cgroupfs },
            sandbox_image: text(&config["sandboxImage"]).or_else(|| text(&config["pinnedImages"]["sandbox"])),
            snapshotter: text(&config["containerd"]["snapshotter"]),
        })
    }
}

/// Waits until the Node is ready.
pub(crate) async fn wait_ready(plan: &Plan, client: &Client) -> Result<(), Error> {
    let nodes: Api<Node> = Api::all(client.clone());
    let deadline = tokio::time::Instant::now() + READY_PATIENCE;
    loop {
        let node = nodes.get_opt(&plan.node_name).await.ok().flatten();
        let last = match node.as_ref().and_then(ready_condition) {
            Some((true, _)) => return Ok(()),
            Some((false, message)) => message,
            None => "the kubelet has not registered it".to_owned(),
        };
        if tokio::time::Instant::now() > deadline {
            return Err(Error::TooLong {
                what: format!("node {} is not ready: {last}", plan.node_name),
                seconds: READY_PATIENCE.as_secs(),
                advice: "run with KEDGE_LOG=info to see what the components do".to_owned(),
            });
        }
        tokio::time::sleep(POLL).await;
    }
}

fn ready_condition(node: &Node) -> Option<(bool, String)> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready")?;
    Some((ready.status == "True", ready.message.clone().unwrap_or_default()))
}

/// Deploys the demo and waits until every replica is available.
pub(crate) async fn deploy_demo(
    plan: &Plan,
    control_plane: &ControlPlane,
    prepared: &PreparedRuntime,
) -> Result<(), Error> {
    let client = control_plane.client("kubernetes-admin", &["system:masters"]);
    apply_demo(&client, &prepared.images.demo).await?;
    let address = SocketAddr::new(plan.node_ip, DEMO_NODE_PORT);
    let deadline = tokio::time::Instant::now() + DEMO_PATIENCE;
    loop {
        let state = demo_state(&client).await?;
        let is_available = state.available >= state.replicas;
        // A pod that is ready is reached only once its Service's rules say so.
        if is_available && demo_answers(address).await {
            return Ok(());
        }
        if tokio::time::Instant::now() > deadline {
            let what = if is_available {
                format!("all replicas of the demo are available, and http://{address} does not answer")
            } else {
                format!("only {} of {} replicas of the demo are available", state.available, state.replicas)
            };
            return Err(Error::TooLong {
                what,
                seconds: DEMO_PATIENCE.as_secs(),
                advice: format!(
                    "see why with `kubectl --kubeconfig {} describe pods -l app=kedge-demo`",
                    plan.layout.kubeconfig().display()
                ),
            });
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Removes what a node leaves on the machine: pods, mounts, rules, network, and a runtime of Kedge's own.
pub(crate) async fn take_down(
    layout: &Layout,
    run: &RunFile,
    done: &mut DownReport,
    report: &(impl Fn(Progress) + Sync),
) -> Result<(), Error> {
    let mut own = None;
    let mut endpoint = run.runtime_endpoint.clone();
    if run.runtime_is_private {
        // Started again where it died, because only a runtime can remove its containers.
        let mut config = PrivateContainerdConfig::new(layout.containerd());
        config.sandbox_image = Images::new(kedge_meta::build_version(), None).sandbox;
        config.cni_conf_dir = layout.cni_config();
        config.cni_bin_dir = cni_plugins()?;
        let containerd = step(report, "reach the container runtime", PrivateContainerd::start(config)).await?;
        endpoint = Some(containerd.endpoint());
        own = Some(containerd);
    }
    if let Some(endpoint) = endpoint {
        done.pods = step(report, "stop the pods", async {
            let runtime = Runtime::connect(&endpoint).await?;
            Ok::<_, Error>(remove_sandboxes(&runtime, &layout.pod_logs()).await?)
        })
        .await?;
    }
    let kubelet = layout.kubelet();
    done.mounts = step(report, "unmount volumes", async { unmount_below(&kubelet) }).await?;
    step(report, "remove rules and network", async {
        let proxy = kedge_proxy::teardown(&layout.root().join("proxy")).await;
        proxy.map_err(|error| Error::Remove { what: "the proxy's rules", source: Box::new(error) })?;
        let policy = kedge_policy::teardown().await;
        policy.map_err(|error| Error::Remove { what: "the rules of network policies", source: Box::new(error) })?;
        let network = kedge_network::teardown(&layout.root().join("network")).await;
        network.map_err(|error| Error::Remove { what: "the pod network", source: Box::new(error) })
    })
    .await?;
    if let Some(containerd) = own {
        step(report, "stop containerd", containerd.stop()).await?;
    }
    Ok(())
}
