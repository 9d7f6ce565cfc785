//! The start, step by step, and the orderly end.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use jiff::Timestamp;
use kedge_lifecycle::{DEMO_NODE_PORT, InstanceLock, Needs, ProcessMark, RunFile, Severity, preflight};
use kedge_pki::{KubeconfigEntry, merge_kubeconfig};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::control_plane::{ControlPlane, Ended};
use crate::error::Error;
use crate::joining::allow_joining;
use crate::memory::give_memory_back;
use crate::options::{CONTEXT, Options, Plan};
use crate::progress::{Progress, step};
use crate::{metrics_api, node};

const COMPONENTS_PATIENCE: Duration = Duration::from_secs(5);

/// What a started cluster says of itself.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// URL of the API server.
    pub server: String,
    /// The node's name.
    pub node_name: String,
    /// The node's address.
    pub node_ip: IpAddr,
    /// All of its addresses, at most one of each IP family.
    #[serde(rename = "nodeIPs")]
    pub node_ips: Vec<IpAddr>,
    /// The data directory.
    pub data_dir: PathBuf,
    /// The administrator's kubeconfig in the data directory.
    pub kubeconfig: PathBuf,
    /// The kubeconfig into which the context was merged.
    pub merged_kubeconfig: PathBuf,
    /// The context's name.
    pub context: String,
    /// Where the demo answers.
    pub demo_url: Option<String>,
    /// How long the start took.
    #[serde(serialize_with = "milliseconds", rename = "milliseconds")]
    pub took: Duration,
}

fn milliseconds<S: serde::Serializer>(took: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(took.as_millis()).unwrap_or(u64::MAX))
}

/// A cluster that runs in this process.
pub struct Running {
    summary: Summary,
    control_plane: ControlPlane,
    components: JoinSet<Ended>,
    shutdown: CancellationToken,
    _lock: InstanceLock,
}

/// Starts a cluster. `shutdown` ends it; [`Running::finish`] waits for that.
pub async fn start(
    options: Options,
    shutdown: CancellationToken,
    report: impl Fn(Progress) + Sync,
) -> Result<Running, Error> {
    let began = Instant::now();
    let plan = Plan::new(options)?;
    let runtime_choice = node::choose_runtime(&plan).await?;
    // The lock comes before the preflight: it explains a busy port better than the port does.
    let is_new = !plan.layout.root().exists();
    let lock = InstanceLock::take(plan.layout.root(), &plan.layout.lock())?;
    let private_runtime = runtime_choice.as_ref().is_some_and(node::RuntimeChoice::is_private);
    if let Err(error) = check_machine(&plan.needs(private_runtime), &report) {
        if is_new {
            // Only the lock file is in it, and the promise is that nothing was changed.
            let _ = std::fs::remove_file(plan.layout.lock());
            let _ = std::fs::remove_dir(plan.layout.root());
        }
        return Err(error);
    }
    let work = bring_up(&plan, runtime_choice, &shutdown, &report);
    let (control_plane, components) = tokio::select! {
        result = work => result?,
        () = shutdown.cancelled() => return Err(Error::Interrupted),
    };
    tokio::spawn(give_memory_back(shutdown.clone()));
    let summary = Summary {
        server: plan.server(),
        node_name: plan.node_name.clone(),
        node_ip: plan.node_ip,
        node_ips: plan.node_ips.clone(),
        data_dir: plan.layout.root().to_owned(),
        kubeconfig: plan.layout.kubeconfig(),
        merged_kubeconfig: plan.options.kubeconfig.clone(),
        context: CONTEXT.to_owned(),
        demo_url: plan.options.demo.then(|| format!("http://{}", SocketAddr::new(plan.node_ip, DEMO_NODE_PORT))),
        took: began.elapsed(),
    };
    Ok(Running { summary, control_plane, components, shutdown, _lock: lock })
}

pub(crate) fn check_machine(needs: &Needs, report: &(impl Fn(Progress) + Sync)) -> Result<(), Error> {
    let (errors, warnings): (Vec<_>, Vec<_>) =
        preflight(needs).into_iter().partition(|finding| finding.severity == Severity::Error);
    for warning in warnings {
        report(Progress::Note(warning.text));
    }
    if errors.is_empty() { Ok(()) } else { Err(Error::Preflight { findings: errors }) }
}

async fn bring_up(
    plan: &Plan,
    runtime_choice: Option<node::RuntimeChoice>,
    shutdown: &CancellationToken,
    report: &(impl Fn(Progress) + Sync),
) -> Result<(ControlPlane, JoinSet<Ended>), Error> {
    let mut components = JoinSet::new();
    // Before anything is started: `kedge down` must find what an interrupted or failed start leaves behind.
    let private_runtime = runtime_choice.as_ref().is_some_and(node::RuntimeChoice::is_private);
    write_run_file(plan, private_runtime, None, None)?;
    let runtime = async {
        match runtime_choice {
            Some(choice) => {
                let work = node::prepare_runtime(plan, choice, shutdown);
                step(report, "container runtime and images", work).await.map(Some)
            }
            None => Ok(None),
        }
    };
    let control_plane = step(report, "control plane", async {
        let control_plane = ControlPlane::start(plan, shutdown).await?;
        write_kubeconfigs(plan, &control_plane)?;
        control_plane.start_controllers(plan, &mut components, shutdown).await?;
        control_plane.start_simulation(plan, &mut components, shutdown);
        let admin = control_plane.client("kubernetes-admin", &["system:masters"]);
        let authority = control_plane.pki.authority.certificate_pem().to_owned();
        tokio::spawn(allow_joining(admin, plan.server(), authority, shutdown.clone()));
        Ok::<_, Error>(control_plane)
    });
    let (control_plane, runtime) = tokio::try_join!(control_plane, runtime)?;
    metrics_api::start(metrics_api::Source::of(&control_plane), &mut components, shutdown).await?;
    if let Some(runtime) = runtime {
        write_run_file(plan, private_runtime, Some(&runtime), None)?;
        let access = node::Access::in_process(plan, &control_plane)?;
        node::start(plan, &access, &runtime, &mut components, shutdown)?;
        step(report, "node is ready", node::wait_ready(plan, &access.kubelet)).await?;
        if plan.options.demo {
            step(report, "demo answers", node::deploy_demo(plan, &control_plane, &runtime)).await?;
        }
    }
    Ok((control_plane, components))
}

fn write_kubeconfigs(plan: &Plan, control_plane: &ControlPlane) -> Result<(), Error> {
    let entry = KubeconfigEntry {
        name: CONTEXT.to_owned(),
        server: plan.server(),
        authority_pem: control_plane.pki.authority.certificate_pem().to_owned(),
        identity: control_plane.pki.admin.clone(),
    };
    merge_kubeconfig(&plan.layout.kubeconfig(), &entry)?;
    Ok(merge_kubeconfig(&plan.options.kubeconfig, &entry)?)
}

fn show(ranges: &[IpNet]) -> String {
    ranges.iter().map(IpNet::to_string).collect::<Vec<_>>().join(",")
}

/// `joined`: the API server, where this node joined another's cluster.
pub(crate) fn write_run_file(
    plan: &Plan,
    private_runtime: bool,
    runtime: Option<&node::PreparedRuntime>,
    joined: Option<&str>,
) -> Result<(), Error> {
    let process = ProcessMark::own();
    let file = RunFile {
        pid: process.pid,
        start_ticks: process.start_ticks,
        started: Timestamp::now(),
        node_name: plan.node_name.clone(),
        node_ip: plan.node_ip,
        secure_port: plan.options.secure_port,
        pod_network_cidr: show(&plan.pod_networks),
        service_cidr: show(&plan.service_networks),
        control_plane_only: plan.options.control_plane_only,
        joined: joined.map(str::to_owned),
        runtime_endpoint: runtime.map(|runtime| runtime.endpoint.clone()),
        runtime_is_private: private_runtime,
        cni_config_dir: runtime.map(|runtime| runtime.cni_config_dir.clone()),
        kubeconfigs: if joined.is_some() { Vec::new() } else { vec![plan.options.kubeconfig.clone()] },
        context: CONTEXT.to_owned(),
    };
    Ok(file.write(&plan.layout.run_file())?)
}

impl Running {
    /// What the cluster says of itself.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// Waits until `shutdown`, then ends everything in order: components, requests, store. Pods keep running. A
    /// component that ends before its time ends the whole process, so that nothing runs half.
    pub async fn finish(mut self) -> Result<(), Error> {
        // The signal comes first: components end because of it, and may be faster than this task.
        let early = tokio::select! {
            biased;
            () = self.shutdown.cancelled() => None,
            Some(ended) = self.components.join_next() => Some(ended),
            Some(ended) = self.control_plane.serving.join_next() => Some(ended),
        };
        self.shutdown.cancel();
        let drained =
            tokio::time::timeout(COMPONENTS_PATIENCE, async { while self.components.join_next().await.is_some() {} });
        if drained.await.is_err() {
            tracing::warn!("some components did not end in time and are cut off");
        }
        self.control_plane.server_shutdown.cancel();
        while self.control_plane.serving.join_next().await.is_some() {}
        self.control_plane.store.close().await.map_err(Error::CloseStore)?;
        match early {
            None => Ok(()),
            Some(Ok((component, result))) => Err(Error::Component {
                component,
                why: result.err().unwrap_or_else(|| "it was not told to".to_owned()),
            }),
            Some(Err(error)) => Err(Error::Component { component: "a component", why: error.to_string() }),
        }
    }
}
