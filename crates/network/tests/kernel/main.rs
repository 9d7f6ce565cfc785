//! The pod network in the kernel, with the real CNI plugin, in network namespaces that the test makes for itself. Needs
//! root, nft and the CNI plugins; where one is missing, the test says that it was skipped.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod announce;
mod bird;
mod dual;
mod faults;
mod foreign;
mod machine;
mod mesh;
mod tunnel;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use kedge_meta::{ComponentReport, ComponentState, StatusBoard, SystemClock};
use kedge_netns::Namespace;
use kedge_network::{Agreement, CNI_FILE_NAME, Config, Deps, find_plugins};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

fn config(folder: &Path) -> Config {
    let mut config = Config::new("node", vec!["192.0.2.2".parse().unwrap()], folder.join("state"));
    config.pod_cidrs = vec!["10.244.3.0/24".parse().unwrap()];
    config.cluster_cidrs = vec!["10.244.0.0/16".parse().unwrap()];
    config.service_cidrs = vec!["10.96.0.0/12".parse().unwrap()];
    config.cni_config_dir = folder.join("net.d");
    config.ipam_dir = folder.join("ipam");
    config
}

fn can_run(test: &str, config: &Config) -> bool {
    if kedge_skip::skipped_without_root(test) {
        return false;
    }
    if let Err(error) = find_plugins(&config.cni_bin_dirs) {
        kedge_skip::skip(test, &error.to_string());
        return false;
    }
    true
}

/// Runs the component until its first report, and returns that.
fn run_once(node: &Namespace, config: Config) -> ComponentReport {
    let board = StatusBoard::new(Arc::new(SystemClock));
    node.block_on(move || async move {
        let shutdown = CancellationToken::new();
        let status = board.component("kedge-network");
        let deps = Deps { nodes: None, status, agreement: Agreement::default(), client: None };
        let reported = async {
            while board.reports()[0].state == ComponentState::Starting {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            shutdown.cancel();
        };
        let run = kedge_network::run(config, deps, shutdown.clone());
        let both = async { tokio::join!(run, reported).0 };
        tokio::time::timeout(Duration::from_secs(20), both).await.expect("it reports within the deadline").unwrap();
        board.reports().remove(0)
    })
}

/// A node with an outside machine 192.0.2.1 as its default route.
fn node_and_outside() -> (Namespace, Namespace) {
    let (node, outside) = (Namespace::new(), Namespace::new());
    node.sh(&format!("ip link add eth0 type veth peer name eth0 netns {}", outside.tid()));
    node.sh("ip addr add 192.0.2.2/24 dev eth0 && ip link set eth0 up && ip route add default via 192.0.2.1");
    outside.sh("ip addr add 192.0.2.1/24 dev eth0 && ip addr add 10.250.0.1/32 dev lo && ip link set eth0 up");
    outside.serve("0.0.0.0:8080", "");
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while node.sh("ip route").contains("linkdown") {
        assert!(std::time::Instant::now() < deadline, "the wire stays without a carrier");
        std::thread::sleep(Duration::from_millis(5));
    }
    (node, outside)
}

fn add_pod(node: &Namespace, config: &Config, name: &'static str) -> Namespace {
    let pod = Namespace::new();
    let list: Value =
        serde_json::from_slice(&std::fs::read(config.cni_config_dir.join(CNI_FILE_NAME)).unwrap()).unwrap();
    let mut plugin = list["plugins"][0].clone();
    plugin["name"] = list["name"].clone();
    plugin["cniVersion"] = list["cniVersion"].clone();
    let program = find_plugins(&config.cni_bin_dirs).unwrap().join("bridge");
    let tid = pod.tid();
    node.run(move || cni(&program, "ADD", name, tid, &plugin.to_string()));
    pod.serve("0.0.0.0:8080", "");
    pod
}

/// Calls a CNI plugin in the namespace of this thread.
fn cni(plugin: &Path, verb: &str, container: &str, tid: i32, config: &str) {
    let mut child = Command::new(plugin)
        .env("CNI_COMMAND", verb)
        .env("CNI_CONTAINERID", container)
        .env("CNI_NETNS", format!("/proc/{tid}/ns/net"))
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", plugin.parent().expect("it is in a folder"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the plugin is there");
    child.stdin.take().expect("it is piped").write_all(config.as_bytes()).expect("the plugin reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{verb}: {}", String::from_utf8_lossy(&output.stdout));
}

/// What the node's kernel holds, without what counts up.
fn kernel(node: &Namespace) -> String {
    node.sh("ip -o addr show dev cni0 | grep -v inet6; ip route; nft list ruleset; sysctl net.ipv4.ip_forward")
}

#[test]
fn pods_reach_each_other_and_the_world_and_nothing_leaks() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    if !can_run("pods_reach_each_other_and_the_world_and_nothing_leaks", &config) {
        return;
    }
    let (node, _outside) = node_and_outside();
    let before = node.sh("ip route; nft list ruleset; sysctl net.ipv4.ip_forward net.ipv4.conf.all.send_redirects");
    let report = run_once(&node, config.clone());
    assert_eq!(report.state, ComponentState::Running, "{report:?}");
    let routes = node.sh("ip route");
    for expected in [
        "unreachable 10.244.0.0/16 proto 107 metric 4096",
        "10.96.0.0/12 dev cni0 proto 107 scope link src 192.0.2.2 metric 4096",
        "10.244.3.0/24 dev cni0 proto kernel scope link src 10.244.3.1",
    ] {
        assert!(routes.contains(expected), "{expected} is not in {routes}");
    }

    let (one, two) = (add_pod(&node, &config, "one"), add_pod(&node, &config, "two"));
    assert_eq!(one.ask("10.244.3.3:8080"), "saw 10.244.3.2", "pods see each other's own addresses");
    assert_eq!(two.ask("192.0.2.1:8080"), "saw 192.0.2.2", "the world sees the node");
    assert_eq!(node.ask("10.244.3.2:8080"), "saw 10.244.3.1");
    assert_eq!(node.ask("10.250.0.1:8080"), "saw 192.0.2.2", "what is nobody's range goes out");
    assert_eq!(node.ask("10.244.9.9:8080"), "HostUnreachable");
    assert_eq!(one.ask("10.244.9.9:8080"), "HostUnreachable");
    assert_eq!(node.ask("10.96.0.99:80"), "HostUnreachable", "no ClusterIP leaves the machine");

    let first = kernel(&node);
    assert_eq!(run_once(&node, config.clone()).state, ComponentState::Running);
    assert_eq!(kernel(&node), first, "a second start changes nothing");
    assert_eq!(one.ask("10.244.3.3:8080"), "saw 10.244.3.2");

    drop((one, two));
    let state = config.state_dir.clone();
    node.block_on(move || async move {
        kedge_network::teardown(&state).await.unwrap();
        kedge_network::teardown(&state).await.unwrap();
    });
    let after = node.sh("ip route; nft list ruleset; sysctl net.ipv4.ip_forward net.ipv4.conf.all.send_redirects");
    assert_eq!(after, before);
    assert_eq!(node.sh("ip -o link show type bridge"), "");
    assert!(!config.cni_config_dir.join(CNI_FILE_NAME).exists());
    assert!(!config.ipam_dir.join("kedge").exists());
}

#[test]
fn what_is_not_ours_is_reported_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    if !can_run("what_is_not_ours_is_reported_and_left_alone", &config) {
        return;
    }
    let (node, _outside) = node_and_outside();
    node.sh("ip link add cni0 type bridge && ip addr add 172.16.0.1/24 dev cni0");
    let report = run_once(&node, config.clone());
    assert_eq!((report.state, report.reason.as_str()), (ComponentState::Degraded, "NetworkPluginNotReady"));
    assert!(
        report.message.contains("the interface cni0 exists and has the address 172.16.0.1/24"),
        "{}",
        report.message
    );
    assert!(!config.cni_config_dir.join(CNI_FILE_NAME).exists());

    node.sh("ip addr flush dev cni0");
    node.sh("nft add table ip filter; nft 'add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }'");
    let report = run_once(&node, config.clone());
    assert_eq!(report.reason, "ForwardPolicyDrop", "{report:?}");
    assert!(config.cni_config_dir.join(CNI_FILE_NAME).exists(), "pods can start all the same");

    let state = config.state_dir.clone();
    node.block_on(move || async move { kedge_network::teardown(&state).await.unwrap() });
    assert!(node.sh("ip -o link show cni0").contains("cni0"), "a bridge that was there before stays");
    assert!(node.sh("nft list tables").contains("table ip filter"));
}

#[test]
fn missing_plugins_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    if !can_run("missing_plugins_are_named", &config) {
        return;
    }
    config.cni_bin_dirs = vec![folder.path().join("none")];
    let report = run_once(&Namespace::new(), config.clone());
    assert_eq!(report.reason, "NetworkPluginNotReady");
    assert!(report.message.ends_with("install the Debian package containernetworking-plugins"), "{}", report.message);
    assert!(!config.cni_config_dir.join(CNI_FILE_NAME).exists());
}
