//! A machine of a test: a namespace with an address, pods and both halves of the pod network, each on a thread of its own.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kedge_client::Informer;
use kedge_meta::{ComponentState, StatusBoard, SystemClock};
use kedge_netns::Namespace;
use kedge_network::{
    Agreement, AnnounceConfig, AnnounceDeps, Config, Deps, MeshConfig, MeshDeps, Reachability, run_announce, run_mesh,
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(60);

/// One machine: its number is the third part of its pods' range, and the fourth of that of IPv6.
pub(crate) struct Machine {
    pub(crate) namespace: Arc<Namespace>,
    pub(crate) number: u8,
    /// Or two, of both families, with a comma between them.
    pub(crate) address: String,
    board: StatusBoard,
    stop: CancellationToken,
    folder: PathBuf,
    agreement: Agreement,
    threads: Vec<JoinHandle<()>>,
}

impl Machine {
    pub(crate) fn new(folder: &Path, number: u8, address: &str) -> Self {
        Self {
            namespace: Arc::new(Namespace::new()),
            number,
            address: address.to_owned(),
            board: StatusBoard::new(Arc::new(SystemClock)),
            stop: CancellationToken::new(),
            folder: folder.join(number.to_string()),
            agreement: Agreement::default(),
            threads: Vec::new(),
        }
    }

    pub(crate) fn config(&self) -> Config {
        let mut config = Config::new(self.name(), addresses(&self.address), self.folder.join("state"));
        let ranges = pod_cidrs(self.number, &self.address);
        config.pod_cidrs = ranges.iter().map(|range| range.parse().unwrap()).collect();
        config.cluster_cidrs = cluster_cidrs(&self.address);
        config.cni_config_dir = self.folder.join("net.d");
        config.ipam_dir = self.folder.join("ipam");
        config.sync_period = Duration::from_millis(500);
        config
    }

    pub(crate) fn name(&self) -> String {
        format!("node-{}", self.number)
    }

    /// Its Node, as the API has it.
    pub(crate) fn node(&self) -> Node {
        node(self.number, &self.address)
    }

    /// Runs the node's own part until the machine is dropped or stopped.
    pub(crate) fn start_network(&mut self) {
        let status = self.board.component("kedge-network");
        let deps = Deps { nodes: None, status, agreement: self.agreement.clone(), client: None };
        let (config, stop) = (self.config(), self.stop.clone());
        self.spawn(async move { kedge_network::run(config, deps, stop).await.unwrap() });
        self.wait("the network stands", "kedge-network", |state, _| state == ComponentState::Running);
    }

    /// Runs the routes to others until the machine is dropped or stopped.
    pub(crate) fn start_mesh(&mut self, nodes: Informer<Node>, change: impl FnOnce(&mut MeshConfig)) {
        let addresses = addresses(&self.address);
        let mut config = MeshConfig::new(self.name(), addresses[0], cluster_cidrs(&self.address));
        config.second_node_ip = addresses.get(1).copied();
        config.hold_time = 3;
        config.state_dir = Some(self.folder.join("state"));
        change(&mut config);
        let (status, agreement) = (self.board.component("kedge-bgp"), self.agreement.clone());
        let deps = MeshDeps { nodes, status, agreement, client: None, clock: Arc::new(SystemClock) };
        let stop = self.stop.clone();
        self.spawn(async move { run_mesh(config, deps, stop).await.unwrap() });
    }

    /// Announces addresses of Services until the machine is dropped or stopped.
    pub(crate) fn start_announcing(
        &mut self,
        services: Informer<Service>,
        endpoint_slices: Informer<EndpointSlice>,
        nodes: Informer<Node>,
    ) {
        let config = AnnounceConfig { node_name: self.name(), node_ip: self.address.parse().unwrap() };
        let (status, agreement) = (self.board.component("kedge-announce"), self.agreement.clone());
        let deps = AnnounceDeps { services, endpoint_slices, nodes, status, agreement };
        let stop = self.stop.clone();
        self.spawn(async move { run_announce(config, deps, stop).await.unwrap() });
    }

    fn spawn(&mut self, run: impl Future<Output = ()> + Send + 'static) {
        let tid = self.namespace.tid();
        self.threads.push(std::thread::spawn(move || {
            let file = std::fs::File::open(format!("/proc/self/task/{tid}/ns/net")).unwrap();
            nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(run);
        }));
    }

    /// Ends everything that runs on it; what is in the kernel stays.
    pub(crate) fn stop(&mut self) {
        self.stop.cancel();
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
        (self.stop, self.agreement) = (CancellationToken::new(), Agreement::default());
        self.board = StatusBoard::new(Arc::new(SystemClock));
    }

    pub(crate) fn wait(&self, what: &str, component: &str, is_there: impl Fn(ComponentState, &str) -> bool) {
        let seen = || {
            let report = self.board.reports().into_iter().find(|report| report.component == component);
            report.map(|report| (report.state, format!("{} {}", report.reason, report.message)))
        };
        let deadline = Instant::now() + PATIENCE;
        while !seen().is_some_and(|(state, text)| is_there(state, &text)) {
            assert!(Instant::now() < deadline, "{what}: {:?}", seen());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the routes to others are all right.
    pub(crate) fn wait_well(&self, what: &str) {
        self.wait(what, "kedge-bgp", |state, _| state == ComponentState::Running);
    }

    /// Waits until the routes to others have this to say.
    pub(crate) fn wait_complaint(&self, what: &str, expected: &str) {
        self.wait(what, "kedge-bgp", |state, text| state == ComponentState::Degraded && text.contains(expected));
    }

    /// Waits until a command's output has, or has not, a text.
    pub(crate) fn wait_output(&self, command: &str, text: &str, wanted: bool) {
        let deadline = Instant::now() + PATIENCE;
        while self.namespace.sh(command).contains(text) != wanted {
            let seen = self.namespace.sh(command);
            assert!(Instant::now() < deadline, "{command}: {text} ({wanted}): {seen}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn wait_route(&self, route: &str) {
        self.wait_output("ip route", route, true);
    }

    /// What it wrote about its peers.
    pub(crate) fn reachability(&self) -> Reachability {
        let text = std::fs::read(self.folder.join("state/reachability.json")).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(crate) fn node(number: u8, address: &str) -> Node {
    let ranges = pod_cidrs(number, address);
    let internal: Vec<_> = addresses(address).iter().map(|ip| json!({"type": "InternalIP", "address": ip})).collect();
    let node = json!({
        "metadata": {"name": format!("node-{number}")},
        "spec": {"podCIDR": ranges[0], "podCIDRs": ranges},
        "status": {"addresses": internal},
    });
    serde_json::from_value(node).unwrap()
}

fn addresses(list: &str) -> Vec<IpAddr> {
    list.split(',').map(|address| address.parse().unwrap()).collect()
}

/// The ranges of a machine's pods, in the order of its addresses.
fn pod_cidrs(number: u8, list: &str) -> Vec<String> {
    let range = |address: IpAddr| match address.is_ipv6() {
        false => format!("10.244.{number}.0/24"),
        true => format!("fd00:10:244:{number}::/64"),
    };
    addresses(list).into_iter().map(range).collect()
}

fn cluster_cidrs(list: &str) -> Vec<IpNet> {
    let range = |address: IpAddr| if address.is_ipv6() { "fd00:10:244::/56" } else { "10.244.0.0/16" };
    addresses(list).into_iter().map(|address| range(address).parse().unwrap()).collect()
}

/// A switch with machines on its ports; its ports are called after the machines' numbers.
pub(crate) fn connect(switch: &Namespace, machines: &[&Machine]) {
    switch.sh("ip link add br0 type bridge && ip link set br0 up");
    for machine in machines {
        let (number, tid) = (machine.number, machine.namespace.tid());
        switch.sh(&format!(
            "ip link add p{number} type veth peer name eth0 netns {tid} && ip link set p{number} master br0 up"
        ));
        for address in addresses(&machine.address) {
            let rest = if address.is_ipv6() { "/64 dev eth0 nodad" } else { "/24 dev eth0" };
            machine.namespace.sh(&format!("ip addr add {address}{rest}"));
        }
        machine.namespace.sh("ip link set eth0 up");
    }
}
