//! A control plane that is stopped: the application answers all the while, and the kubelet says in order what it meets.

use std::path::Path;

use kedge_e2e::{Cluster, eventually};

use super::crash::{PATIENCE, drill};
use super::test_hosts::{IMAGE, NODES};

/// Of the scenario's own application.
const PORT: u16 = 30997;
/// Where the worker keeps what was asked.
const ASKED: &str = "/run/asked";
const LOG: &str = "/run/kedge/node/kedge.log";

/// Asks five times a second from the first answer on, until told to end or the application is taken away.
fn ask(address: &str) -> String {
    format!(
        "rm -rf {ASKED}; mkdir {ASKED}; : > {ASKED}/on; ( until curl -s -m 2 http://{address}:{PORT}/get > /dev/null; do \
         [ -e {ASKED}/on ] || exit; sleep 0.2; done; while [ -e {ASKED}/on ]; do \
         if curl -s -m 3 http://{address}:{PORT}/get > /dev/null; then echo >> {ASKED}/answered; \
         else date +%s.%N >> {ASKED}/failed; fi; sleep 0.2; done ) < /dev/null > /dev/null 2>&1 &"
    )
}

pub(super) fn leaves_the_application_alone(cluster: &Cluster, state: &Path) {
    let worker = cluster.node(NODES);
    let before = cluster.exec(&worker, &format!("wc -l < {LOG}"));
    let from = before.trim().parse::<usize>().expect("a number") + 1;
    cluster.exec(&worker, &ask(&cluster.address(NODES)));
    let started = drill(cluster, state, &["start", "control-plane-stopped", "--image", IMAGE]);
    assert!(started.contains("is broken"), "{started}");
    let told = |wanted: &str| {
        let log = cluster.exec(&worker, &format!("tail -n +{from} {LOG}"));
        log.find(wanted).ok_or(log)
    };
    let refused = eventually("a refused connection in the log", PATIENCE, || told("the API server cannot be reached"));
    let answered = || -> u64 {
        let lines = cluster.try_exec(&worker, &format!("wc -l < {ASKED}/answered")).stdout;
        lines.trim().parse().unwrap_or_default()
    };
    let so_far = answered();
    eventually("ten more answers without an API server", PATIENCE, || {
        let now = answered();
        if now >= so_far + 10 { Ok(()) } else { Err(format!("{now} after {so_far}")) }
    });
    assert!(!cluster.kubectl.try_run(&["get", "nodes"]).ok, "the API server answers");
    cluster.node_command(&["start", &cluster.node(1)]);
    let back = eventually("the end of the outage in the log", PATIENCE, || told("the API server answers again"));
    assert!(refused < back);
    cluster.kubectl.run(&["wait", "--for=condition=Ready", "node", "--all", "--timeout=90s"]);
    cluster.exec(&worker, &format!("rm {ASKED}/on"));
    assert_eq!(cluster.try_exec(&worker, &format!("cat {ASKED}/failed")).stdout, "");
    let stopped = drill(cluster, state, &["stop"]);
    assert!(stopped.contains("it was A15"), "{stopped}");
}
