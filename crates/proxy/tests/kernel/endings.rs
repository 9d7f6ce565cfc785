//! What ends: affinity after its time, endpoints that terminate, room in the table of connections.

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Node;
use kedge_client::Informer;
use kedge_meta::{ComponentState, StatusBoard, SystemClock};
use kedge_proxy::{Deps, NodeView, plan_service};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::lab::Lab;
use crate::{A, B, config, service, slice, write, write_plan};

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn affinity_ends_after_its_time() {
    let Some(lab) = Lab::new("affinity_ends_after_its_time") else { return };
    let affinity = json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 1}}});
    write(&lab, affinity, &[A, B]);
    let deadline = Instant::now() + PATIENCE;
    let mut seen = BTreeSet::new();
    while seen.len() < 2 {
        assert!(Instant::now() < deadline, "the client stays with {seen:?}");
        let first = lab.outside.ask("192.0.2.2:30080");
        assert_eq!(lab.outside.ask("192.0.2.2:30080"), first, "at once it is the same");
        seen.insert(first);
        // Nobody asks, and the kernel forgets.
        while lab.node.sh("nft list table ip kube-proxy").contains("192.0.2.1 timeout 1s expires") {
            assert!(Instant::now() < deadline, "the client is remembered for ever");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn terminating_endpoints_serve_only_while_no_other_does() {
    let Some(lab) = Lab::new("terminating_endpoints_serve_only_while_no_other_does") else { return };
    let check = |a: (bool, bool, bool), b: (bool, bool, bool), expected: &[&str]| {
        let mut slice = slice(&[A, B]);
        for (endpoint, (ready, serving, terminating)) in slice.endpoints.iter_mut().flatten().zip([a, b]) {
            let conditions = json!({"ready": ready, "serving": serving, "terminating": terminating});
            endpoint.conditions = serde_json::from_value(conditions).unwrap();
        }
        let plan = plan_service(&service(json!({})), [&slice], &NodeView::new(&config()), false);
        write_plan(&lab, &plan);
        let answers: BTreeSet<String> = (0..20).map(|_| lab.outside.ask("192.0.2.2:30080")).collect();
        let names: Vec<&str> = answers.iter().map(|answer| answer.split(' ').next().unwrap()).collect();
        assert_eq!(names, expected, "{a:?} {b:?}");
    };
    let (ready, leaving, gone) = ((true, true, false), (false, true, true), (false, false, true));
    check(ready, ready, &["a", "b"]);
    check(leaving, ready, &["b"]);
    check(leaving, leaving, &["a", "b"]);
    check(leaving, gone, &["a"]);
    check(leaving, (false, false, false), &["a"]);
    check(gone, gone, &["ConnectionRefused"]);
}

/// The number of connections is counted for each network namespace, and its limit is the machine's: the namespace of this
/// test is filled, which costs no other one its connections, but the kernel 100 MB for half a minute.
#[test]
#[ignore = "takes 100 MB of the kernel's memory for half a minute; by hand"]
fn a_full_table_is_reported_until_it_has_room_again() {
    let Some(lab) = Lab::new("a_full_table_is_reported_until_it_has_room_again") else { return };
    let board = StatusBoard::new(Arc::new(SystemClock));
    let (stop, mut config) = (CancellationToken::new(), config());
    config.sync_period = Duration::from_millis(200);
    let deps = Deps {
        services: Informer::fixed([service(json!({}))]),
        endpoint_slices: Informer::fixed([slice(&[A])]),
        nodes: Informer::fixed([Node::default()]),
        recorder: None,
        status: board.component("kube-proxy"),
        clock: Arc::new(SystemClock),
    };
    let (tid, stopped) = (lab.node.tid(), stop.clone());
    let proxy = std::thread::spawn(move || {
        let file = std::fs::File::open(format!("/proc/self/task/{tid}/ns/net")).unwrap();
        nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(kedge_proxy::run(config, deps, stopped)).unwrap();
    });
    let wait = |what: &str, wanted: ComponentState, reason: &str| {
        let deadline = Instant::now() + Duration::from_secs(180);
        loop {
            let seen = board.reports().into_iter().next().unwrap();
            if seen.state == wanted && seen.reason == reason {
                return;
            }
            assert!(Instant::now() < deadline, "{what}: {seen:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    wait("it runs", ComponentState::Running, "");
    assert_eq!(lab.outside.ask("192.0.2.2:30080"), "a saw 10.244.0.1");
    let sent = lab.node.run(|| {
        let max: usize =
            std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max").unwrap().trim().parse().unwrap();
        let sockets: Vec<UdpSocket> = (0..=max / 60_000).map(|_| UdpSocket::bind("192.0.2.2:0").unwrap()).collect();
        let ports = (1024..=u16::MAX).flat_map(|port| sockets.iter().map(move |socket| (socket, port)));
        // A full queue or table loses what is sent, which is no error of the test.
        ports.take(max + max / 10).filter(|(socket, port)| socket.send_to(b"x", ("192.0.2.1", *port)).is_ok()).count()
    });
    wait(&format!("{sent} connections fill the table"), ComponentState::Degraded, "ConntrackTableFull");
    wait("it has room again", ComponentState::Running, "");
    assert_eq!(lab.outside.ask("192.0.2.2:30080"), "a saw 10.244.0.1");
    stop.cancel();
    proxy.join().unwrap();
}
