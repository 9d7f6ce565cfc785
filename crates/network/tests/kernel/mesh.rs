//! Two nodes with pods, routes between them by BGP.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Node;
use kedge_client::Informer;
use kedge_meta::{ComponentState, StatusBoard, SystemClock};
use kedge_netns::Namespace;
use kedge_network::{Config, MeshConfig, MeshDeps, run_mesh};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{add_pod, can_run, run_once};

/// One machine: its number is the last of its address and the third of its pods'.
struct Machine {
    namespace: Arc<Namespace>,
    number: u8,
    board: StatusBoard,
    stop: CancellationToken,
    mesh: Option<JoinHandle<()>>,
}

impl Machine {
    fn new(number: u8) -> Self {
        let board = StatusBoard::new(Arc::new(SystemClock));
        Self { namespace: Arc::new(Namespace::new()), number, board, stop: CancellationToken::new(), mesh: None }
    }

    fn config(&self, folder: &Path) -> Config {
        let folder = folder.join(self.number.to_string());
        let address = format!("192.0.2.{}", self.number).parse().unwrap();
        let mut config = Config::new(self.name(), vec![address], folder.join("state"));
        config.pod_cidrs = vec![format!("10.244.{}.0/24", self.number).parse().unwrap()];
        config.cluster_cidrs = vec!["10.244.0.0/16".parse().unwrap()];
        config.cni_config_dir = folder.join("net.d");
        config.ipam_dir = folder.join("ipam");
        config
    }

    fn name(&self) -> String {
        format!("node-{}", self.number)
    }

    /// Runs the mesh on a thread of its own, in this machine's namespace, until the machine is dropped.
    fn start_mesh(&mut self, nodes: Informer<Node>) {
        let address = format!("192.0.2.{}", self.number).parse().unwrap();
        let mut config = MeshConfig::new(self.name(), address, vec!["10.244.0.0/16".parse().unwrap()]);
        config.hold_time = 3;
        let deps = MeshDeps { nodes, status: self.board.component("kedge-bgp") };
        let (stop, tid) = (self.stop.clone(), self.namespace.tid());
        self.mesh = Some(std::thread::spawn(move || {
            let file = std::fs::File::open(format!("/proc/self/task/{tid}/ns/net")).unwrap();
            nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(run_mesh(config, deps, stop)).unwrap();
        }));
    }

    fn wait(&self, what: &str, is_there: impl Fn(ComponentState, &str) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let report = self.board.reports().into_iter().find(|report| report.component == "kedge-bgp");
            let seen = report.map(|report| (report.state, format!("{} {}", report.reason, report.message)));
            if seen.as_ref().is_some_and(|(state, text)| is_there(*state, text)) {
                return;
            }
            assert!(Instant::now() < deadline, "{what}: {seen:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn wait_for_route(&self, route: &str) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.namespace.sh("ip route").contains(route) {
            assert!(Instant::now() < deadline, "{route} is not in {}", self.namespace.sh("ip route"));
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.stop.cancel();
        let _ = self.mesh.take().map(JoinHandle::join);
    }
}

fn nodes() -> Informer<Node> {
    let node = |number: u8| {
        let node = json!({
            "metadata": {"name": format!("node-{number}")},
            "spec": {"podCIDR": format!("10.244.{number}.0/24")},
            "status": {"addresses": [{"type": "InternalIP", "address": format!("192.0.2.{number}")}]},
        });
        serde_json::from_value(node).unwrap()
    };
    Informer::fixed([node(1), node(2)])
}

#[test]
fn pods_of_two_nodes_reach_each_other_and_a_blocked_peer_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (mut one, mut two) = (Machine::new(1), Machine::new(2));
    if !can_run("pods_of_two_nodes_reach_each_other_and_a_blocked_peer_is_named", &one.config(folder.path())) {
        return;
    }
    one.namespace.sh(&format!("ip link add eth0 type veth peer name eth0 netns {}", two.namespace.tid()));
    let mut pods = Vec::new();
    for machine in [&one, &two] {
        machine.namespace.sh(&format!("ip addr add 192.0.2.{}/24 dev eth0 && ip link set eth0 up", machine.number));
        let config = machine.config(folder.path());
        assert_eq!(run_once(&machine.namespace, config.clone()).state, ComponentState::Running);
        pods.push(add_pod(&machine.namespace, &config, "pod"));
    }
    assert_eq!(pods[0].ask("10.244.2.2:8080"), "HostUnreachable", "nobody knows the way yet");

    one.start_mesh(nodes());
    two.start_mesh(nodes());
    one.wait_for_route("10.244.2.0/24 via 192.0.2.2 dev eth0 proto 108 metric 32");
    two.wait_for_route("10.244.1.0/24 via 192.0.2.1 dev eth0 proto 108 metric 32");
    assert_eq!(pods[0].ask("10.244.2.2:8080"), "saw 10.244.1.2", "pods see each other's own addresses");
    assert_eq!(pods[1].ask("10.244.1.2:8080"), "saw 10.244.2.2");
    one.wait("both are established", |state, _| state == ComponentState::Running);

    one.namespace.sh("nft 'add table ip block; add chain ip block in { type filter hook input priority 0; }; \
         add chain ip block out { type filter hook output priority 0; }; \
         add rule ip block in tcp dport 179 drop; add rule ip block in tcp sport 179 drop; \
         add rule ip block out tcp dport 179 drop; add rule ip block out tcp sport 179 drop'");
    for machine in [&one, &two] {
        machine.wait("the blocked peer is named", |state, text| {
            state == ComponentState::Degraded
                && text.starts_with("BGPPeersNotEstablished 0 of 1 BGP peers are established; 192.0.2.")
        });
    }
    two.wait("the reason is said", |_, text| text.contains("is TCP port 179 blocked?"));
    assert_eq!(pods[0].ask("10.244.2.2:8080"), "saw 10.244.1.2", "packets go on meanwhile");
    one.namespace.sh("nft delete table ip block");
    for machine in [&one, &two] {
        machine.wait("it heals by itself", |state, _| state == ComponentState::Running);
    }

    // The routes outlive the process.
    drop(one);
    assert!(two.namespace.sh("ip route").contains("10.244.1.0/24 via 192.0.2.1"));
    assert_eq!(pods[0].ask("10.244.2.2:8080"), "saw 10.244.1.2");
}
