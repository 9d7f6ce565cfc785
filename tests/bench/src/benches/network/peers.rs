//! How soon a cut cable between two nodes is reported, and how soon all is well again: two namespaces on a switch, with the
//! pod network and its routes on both, as they run on nodes.

use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use k8s_openapi::api::core::v1::Node;
use kedge_client::Informer;
use kedge_meta::{ComponentState, StatusBoard, SystemClock};
use kedge_netns::Namespace;
use kedge_network::{Agreement, Config, Deps, MeshConfig, MeshDeps, PLUGIN_DIRS, find_plugins, run_mesh};
use nix::sched::{CloneFlags, setns};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::latency;
use crate::figures::Figure;

const ROUNDS: usize = 5;
const PATIENCE: Duration = Duration::from_secs(60);
const MESH: &str = "kedge-bgp";

/// The figures; or why there are none here.
pub(super) fn measure() -> Result<Result<Vec<Figure>, String>> {
    if let Err(error) = find_plugins(&PLUGIN_DIRS.map(Into::into)) {
        return Ok(Err(error.to_string()));
    }
    let folder = tempfile::tempdir()?;
    let switch = Namespace::new();
    switch.sh("ip link add br0 type bridge && ip link set br0 up");
    let nodes = [node(1)?, node(2)?];
    let machines =
        [Machine::start(&switch, folder.path(), 1, &nodes)?, Machine::start(&switch, folder.path(), 2, &nodes)?];
    // Without sessions yet there is nothing to complain about; a route tells that there are some.
    machines[0].wait_route("10.244.2.0/24 via")?;
    machines[1].wait_route("10.244.1.0/24 via")?;
    machines.iter().try_for_each(|machine| machine.wait(ComponentState::Running))?;
    let (mut reported, mut healed) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let began = Instant::now();
        switch.sh("ip link set p2 down");
        machines[0].wait(ComponentState::Degraded)?;
        reported.push(u32::try_from(began.elapsed().as_micros())?);
        machines[1].wait(ComponentState::Degraded)?;
        let began = Instant::now();
        switch.sh("ip link set p2 up");
        machines.iter().try_for_each(|machine| machine.wait(ComponentState::Running))?;
        healed.push(u32::try_from(began.elapsed().as_micros())?);
    }
    let figures = [("a cut peer is reported", reported), ("a peer is well again on both nodes", healed)];
    let goal = |figure: Figure| Figure { compare: "goal: < 10 s", ..figure };
    Ok(Ok(figures.into_iter().map(|(what, micros)| goal(latency(what.to_owned(), micros))).collect()))
}

fn node(number: u8) -> Result<Node> {
    Ok(serde_json::from_value(json!({
        "metadata": {"name": format!("node-{number}")},
        "spec": {"podCIDR": format!("10.244.{number}.0/24")},
        "status": {"addresses": [{"type": "InternalIP", "address": format!("192.0.2.{number}")}]},
    }))?)
}

struct Machine {
    namespace: Namespace,
    board: StatusBoard,
    stop: CancellationToken,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Machine {
    fn start(switch: &Namespace, folder: &Path, number: u8, nodes: &[Node; 2]) -> Result<Self> {
        let namespace = Namespace::new();
        let tid = namespace.tid();
        switch.sh(&format!(
            "ip link add p{number} type veth peer name eth0 netns {tid} && ip link set p{number} master br0 up"
        ));
        namespace.sh(&format!("ip addr add 192.0.2.{number}/24 dev eth0 && ip link set eth0 up"));
        let (board, stop) = (StatusBoard::new(Arc::new(SystemClock)), CancellationToken::new());
        let (name, agreement) = (format!("node-{number}"), Agreement::default());
        let (address, folder) = (std::net::Ipv4Addr::new(192, 0, 2, number), folder.join(&name));
        let mut config = Config::new(name.clone(), vec![address.into()], folder.join("state"));
        config.pod_cidrs = vec![format!("10.244.{number}.0/24").parse()?];
        config.cluster_cidrs = vec!["10.244.0.0/16".parse()?];
        (config.cni_config_dir, config.ipam_dir) = (folder.join("net.d"), folder.join("ipam"));
        let status = board.component("kedge-network");
        let deps = Deps { nodes: None, status, agreement: agreement.clone(), client: None };
        let mesh = MeshConfig::new(name, address.into(), config.cluster_cidrs.clone());
        let mesh_deps = MeshDeps {
            nodes: Informer::fixed(nodes.clone()),
            status: board.component(MESH),
            agreement,
            client: None,
            clock: Arc::new(SystemClock),
        };
        let network_stop = stop.clone();
        let network = spawn(tid, async move { Ok(kedge_network::run(config, deps, network_stop).await?) });
        let mesh_stop = stop.clone();
        let mesh = spawn(tid, async move { Ok(run_mesh(mesh, mesh_deps, mesh_stop).await?) });
        Ok(Self { namespace, board, stop, threads: vec![network, mesh] })
    }

    fn wait_route(&self, route: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !self.namespace.sh("ip route").contains(route) {
            ensure!(Instant::now() < deadline, "there is no route {route}");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn wait(&self, wanted: ComponentState) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen = self.board.reports().into_iter().find(|report| report.component == MESH);
            if seen.as_ref().is_some_and(|report| report.state == wanted) {
                return Ok(());
            }
            let ended = self.threads.iter().any(JoinHandle::is_finished);
            ensure!(!ended && Instant::now() < deadline, "the routes between nodes are not {wanted:?}: {seen:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.stop.cancel();
        for thread in self.threads.drain(..) {
            // What went wrong was said where it was waited for.
            let _ = thread.join();
        }
    }
}

fn spawn(tid: i32, run: impl Future<Output = Result<()>> + Send + 'static) -> JoinHandle<Result<()>> {
    thread::spawn(move || {
        setns(std::fs::File::open(format!("/proc/self/task/{tid}/ns/net"))?, CloneFlags::CLONE_NEWNET)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(run).map_err(|error| anyhow!("{error}"))
    })
}
