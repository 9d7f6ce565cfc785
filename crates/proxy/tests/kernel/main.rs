//! The proxy's rules in the kernel, with real packets between network namespaces that each test makes for itself. Needs
//! root and nft; without root each test says that it was skipped.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod endings;
mod lab;

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kedge_client::Informer;
use kedge_meta::{ComponentState, StatusBoard, SystemClock};
use kedge_netfilter::{Conntrack, Nft, TableKeeper};
use kedge_proxy::{Config, Deps, NodeView, ServicePlan, plan_node, plan_service, plan_skeleton, plan_stale_flows};
use lab::{Lab, ask_udp};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

fn config() -> Config {
    let mut config = Config::new("node", vec!["192.0.2.2".parse().unwrap()], tempfile::tempdir().unwrap().keep());
    config.cluster_cidrs = vec!["10.244.0.0/16".parse().unwrap()];
    config.service_cidrs = vec!["10.96.0.0/12".parse().unwrap()];
    config
}

fn service(extra: Value) -> Service {
    let mut spec = json!({"type": "NodePort", "clusterIP": "10.96.0.100", "ports": [
        {"name": "http", "port": 80, "nodePort": 30080}, {"name": "dns", "port": 53, "protocol": "UDP", "nodePort": 30053}]});
    spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    serde_json::from_value(json!({"metadata": {"namespace": "default", "name": "web"}, "spec": spec})).unwrap()
}

fn slice(pods: &[&str]) -> EndpointSlice {
    let endpoints: Vec<Value> = pods.iter().map(|pod| json!({"addresses": [pod], "nodeName": "node"})).collect();
    let labels = json!({"kubernetes.io/service-name": "web"});
    serde_json::from_value(json!({"metadata": {"namespace": "default", "name": "web-1", "labels": labels},
        "addressType": "IPv4", "endpoints": endpoints,
        "ports": [{"name": "http", "port": 8080}, {"name": "dns", "port": 5353, "protocol": "UDP"}]}))
    .unwrap()
}

const A: &str = "10.244.0.2";
const B: &str = "10.244.0.3";

fn plan(extra: Value, pods: &[&str]) -> ServicePlan {
    let node = NodeView::new(&config());
    plan_service(&service(extra), [&slice(pods)], &node, false)
}

/// Writes the rules of one Service over whatever is there; as a restarted process would.
fn write(lab: &Lab, extra: Value, pods: &[&str]) -> ServicePlan {
    let plan = plan(extra, pods);
    write_plan(lab, &plan);
    plan
}

fn write_plan(lab: &Lab, plan: &ServicePlan) {
    let fragment = plan.fragment.clone();
    lab.node.block_on(|| async move {
        let mut keeper = TableKeeper::new(Nft::default(), plan_skeleton(&config(), false));
        keeper.put("node", plan_node(&config(), false));
        keeper.put("default/web", fragment);
        keeper.apply().await.unwrap();
    });
}

#[test]
fn cluster_ips_and_node_ports_reach_pods_from_everywhere() {
    let Some(lab) = Lab::new("cluster_ips_and_node_ports_reach_pods_from_everywhere") else { return };
    lab.node.sh("echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet");
    write(&lab, json!({}), &[A, B]);
    let answers: BTreeSet<String> = (0..40).map(|_| lab.pod_a.ask("10.96.0.100:80")).collect();
    // A pod that reaches itself sees the node, not itself; the other one sees the pod.
    assert_eq!(answers, BTreeSet::from(["a saw 10.244.0.1".to_owned(), "b saw 10.244.0.2".to_owned()]));
    write(&lab, json!({}), &[B]);
    for (from, address, expected) in [
        (&lab.pod_a, "10.96.0.100:80", "b saw 10.244.0.2"),
        (&lab.pod_b, "10.96.0.100:80", "b saw 10.244.0.1"),
        (&lab.node, "10.96.0.100:80", "b saw 10.244.0.1"),
        (&lab.node, "127.0.0.1:30080", "b saw 10.244.0.1"),
        (&lab.node, "192.0.2.2:30080", "b saw 10.244.0.1"),
        (&lab.pod_a, "192.0.2.2:30080", "b saw 10.244.0.1"),
        (&lab.outside, "192.0.2.2:30080", "b saw 10.244.0.1"),
        // Not the node's own address: no node port.
        (&lab.pod_a, "10.244.0.1:30080", "ConnectionRefused"),
        // A port that the Service does not have.
        (&lab.pod_a, "10.96.0.100:81", "ConnectionRefused"),
        (&lab.node, "10.96.0.100:81", "ConnectionRefused"),
    ] {
        assert_eq!(from.ask(address), expected, "{address}");
    }
}

#[test]
fn endpoints_on_the_node_itself_are_reached() {
    let Some(lab) = Lab::new("endpoints_on_the_node_itself_are_reached") else { return };
    lab::serve(&lab.node, "node", "192.0.2.2");
    lab.node.sh("echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet");
    write(&lab, json!({}), &["192.0.2.2"]);
    for (from, address, expected) in [
        (&lab.pod_a, "10.96.0.100:80", "node saw 10.244.0.2"),
        // Masqueraded on the loopback interface, which has no address for that: the kernel takes the first interface's.
        (&lab.node, "10.96.0.100:80", "node saw 10.244.0.1"),
        (&lab.node, "127.0.0.1:30080", "node saw 10.244.0.1"),
        (&lab.outside, "192.0.2.2:30080", "node saw 192.0.2.1"),
    ] {
        assert_eq!(from.ask(address), expected, "{address}");
    }
    let answer = lab.pod_a.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect("10.96.0.100:53").unwrap();
        ask_udp(&socket)
    });
    assert_eq!(answer, "node", "as cluster DNS is reached");
}

#[test]
fn the_ipv6_table_is_taken_by_the_kernel() {
    let Some(lab) = Lab::new("the_ipv6_table_is_taken_by_the_kernel") else { return };
    let mut config = config();
    config.service_cidrs.push("fd01::/108".parse().unwrap());
    let spec = json!({"type": "LoadBalancer", "clusterIPs": ["fd01::1"], "sessionAffinity": "ClientIP", "externalIPs": ["fd02::9"],
        "externalTrafficPolicy": "Local", "ports": [{"name": "http", "port": 80, "nodePort": 30080}]});
    let metadata = json!({"namespace": "default", "name": "web"});
    let service: Service = serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap();
    let mut slice = slice(&["fd00::2", "fd00::3"]);
    slice.address_type = "IPv6".to_owned();
    let node =
        NodeView { name: "node".to_owned(), cluster_cidrs: vec!["fd00::/64".parse().unwrap()], ..NodeView::default() };
    let fragment = plan_service(&service, [&slice], &node, true).fragment;
    let table = lab.node.block_on(|| async move {
        let mut keeper = TableKeeper::new(Nft::default(), plan_skeleton(&config, true));
        keeper.put("node", plan_node(&config, true));
        keeper.put("default/web", fragment);
        keeper.apply().await.unwrap();
        let output = std::process::Command::new("nft").args(["list", "table", "ip6", "kube-proxy"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    });
    assert!(
        table.contains("dnat to [fd00::2]:8080") && table.contains("fd01::1 . tcp . 80 : goto service-"),
        "{table}"
    );
}

#[test]
fn the_local_policy_keeps_the_clients_address() {
    let Some(lab) = Lab::new("the_local_policy_keeps_the_clients_address") else { return };
    write(&lab, json!({"externalTrafficPolicy": "Local"}), &[A]);
    assert_eq!(lab.outside.ask("192.0.2.2:30080"), "a saw 192.0.2.1");
}

#[test]
fn affinity_lasts_over_a_restart_and_no_endpoints_are_refused() {
    let Some(lab) = Lab::new("affinity_lasts_over_a_restart_and_no_endpoints_are_refused") else { return };
    let affinity = json!({"sessionAffinity": "ClientIP"});
    write(&lab, affinity.clone(), &[A, B]);
    let first = lab.outside.ask("192.0.2.2:30080");
    for _ in 0..10 {
        write(&lab, affinity.clone(), &[A, B]);
        assert_eq!(lab.outside.ask("192.0.2.2:30080"), first);
    }
    write(&lab, affinity, &[]);
    assert_eq!(lab.outside.ask("192.0.2.2:30080"), "ConnectionRefused");
    assert_eq!(lab.pod_a.ask("10.96.0.100:80"), "ConnectionRefused");
    assert_eq!(lab.node.ask("10.96.0.100:80"), "ConnectionRefused");
}

#[test]
fn neighbours_do_not_reach_loopback_addresses() {
    let Some(lab) = Lab::new("neighbours_do_not_reach_loopback_addresses") else { return };
    lab.node.sh("echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet");
    lab.node.run(|| {
        let listener = std::net::TcpListener::bind("127.0.0.1:9999").unwrap();
        std::thread::spawn(move || listener.incoming().count());
    });
    lab.outside.run(|| {
        kedge_netns::sh("echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet && ip addr del 127.0.0.1/8 dev lo");
        kedge_netns::sh("ip route add 127.0.0.1 via 192.0.2.2 dev eth0 src 192.0.2.1");
    });
    assert_eq!(lab.outside.ask("127.0.0.1:9999"), "", "before the rules are there, the connection is made");
    write(&lab, json!({}), &[A]);
    assert_eq!(lab.outside.ask("127.0.0.1:9999"), "TimedOut");
}

#[test]
fn a_udp_client_moves_on_when_its_endpoint_goes() {
    let Some(lab) = Lab::new("a_udp_client_moves_on_when_its_endpoint_goes") else { return };
    let before = write(&lab, json!({}), &[A]);
    let socket = lab.outside.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect("192.0.2.2:30053").unwrap();
        (ask_udp(&socket), socket)
    });
    assert_eq!(socket.0, "a");
    let after = write(&lab, json!({}), &[B]);
    let flows = plan_stale_flows(&before.udp, &after.udp);
    lab.node.block_on(|| async move {
        for flow in flows {
            Conntrack::default().remove(&flow).await.unwrap();
        }
    });
    assert_eq!(lab.outside.run(move || ask_udp(&socket.1)), "b");
}

#[test]
fn the_rules_outlive_the_process_and_teardown_removes_them() {
    let Some(lab) = Lab::new("the_rules_outlive_the_process_and_teardown_removes_them") else { return };
    let board = StatusBoard::new(Arc::new(SystemClock));
    let reports = board.clone();
    let config = config();
    let state_dir = config.state_dir.clone();
    lab.node.block_on(move || async move {
        let deps = Deps {
            services: Informer::fixed([service(json!({}))]),
            endpoint_slices: Informer::fixed([slice(&[A])]),
            nodes: Informer::fixed([Node::default()]),
            recorder: None,
            status: board.component("kube-proxy"),
            clock: Arc::new(SystemClock),
        };
        let shutdown = CancellationToken::new();
        let running = async {
            while reports.reports()[0].state == ComponentState::Starting {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            shutdown.cancel();
        };
        let run = kedge_proxy::run(config, deps, shutdown.clone());
        let (ended, ()) = tokio::time::timeout(Duration::from_secs(20), async { tokio::join!(run, running) })
            .await
            .expect("the proxy reports within the deadline");
        ended.unwrap();
        assert_eq!(reports.reports()[0].state, ComponentState::Running, "{:?}", reports.reports());
    });
    assert_eq!(lab.node.ask("127.0.0.1:30080"), "a saw 10.244.0.1");
    let folder = state_dir.clone();
    lab.node.block_on(move || async move { kedge_proxy::teardown(&folder).await.unwrap() });
    assert_eq!(lab.node.ask("127.0.0.1:30080"), "ConnectionRefused");
    let switch = lab.node.run(|| std::fs::read_to_string("/proc/sys/net/ipv4/conf/all/route_localnet").unwrap());
    assert_eq!(switch.trim(), "0");
    std::fs::remove_dir_all(state_dir).unwrap();
}
