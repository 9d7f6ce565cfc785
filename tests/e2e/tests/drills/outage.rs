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
const REFUSED: &str = "the API server cannot be reached";
const BACK: &str = "the API server answers again";

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
    let lines = || -> usize { cluster.exec(&worker, &format!("wc -l < {LOG}")).trim().parse().expect("a number") };
    let log = |from: usize| cluster.exec(&worker, &format!("tail -n +{} {LOG}", from + 1));
    // The drill before this one was a power cut, and a worker needs a while to find back.
    eventually("a worker that has found back", PATIENCE, || {
        let log = log(0);
        if log.rfind(REFUSED) <= log.rfind(BACK) { Ok(()) } else { Err(log) }
    });
    let before = lines();
    cluster.exec(&worker, &ask(&cluster.address(NODES)));
    let started = drill(cluster, state, &["start", "control-plane-stopped", "--image", IMAGE]);
    assert!(started.contains("is broken"), "{started}");
    let told = |from: usize, wanted: &str| {
        let log = log(from);
        if log.contains(wanted) { Ok(()) } else { Err(log) }
    };
    eventually("a refused connection in the log", PATIENCE, || told(before, REFUSED));
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
    let away = lines();
    cluster.node_command(&["start", &cluster.node(1)]);
    eventually("the end of the outage in the log", PATIENCE, || told(away, BACK));
    cluster.kubectl.run(&["wait", "--for=condition=Ready", "node", "--all", "--timeout=90s"]);
    cluster.exec(&worker, &format!("rm {ASKED}/on"));
    assert_eq!(cluster.try_exec(&worker, &format!("cat {ASKED}/failed")).stdout, "");
    let stopped = drill(cluster, state, &["stop"]);
    assert!(stopped.contains("it was A15"), "{stopped}");
}
