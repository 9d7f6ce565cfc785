//! Losing a control plane changes nothing for a worker: two control planes, and a worker that reaches both through the
//! balancer in its kubelet, over cables that are cut and API servers that are killed.
//!
//! The objects are in an etcd on the worker's machine, so that the loss of one control plane is not the loss of the store.

use std::time::Duration;

use jiff::Timestamp;
use kedge_e2e::{Machine, eventually};
use serde_json::Value;

const FIRST: (&str, &str) = ("way-1", "198.51.100.31");
const SECOND: (&str, &str) = ("way-2", "198.51.100.32");
const WORKER: (&str, &str) = ("way-3", "198.51.100.33");
const KEY: &str = "abababababababababababababababababababababababababababababababab";
const MEMORY: &str = "/var/lib/kubelet/api-balancer.json";
/// A node whose lease is older than this counts as lost.
const GRACE: Duration = Duration::from_secs(40);
/// What the worker's programs see of the cluster, with the node's own credentials.
const THROUGH_BALANCER: &str =
    "kubectl --kubeconfig /etc/kubernetes/kubelet.conf --request-timeout 5s get node way-3 -o name";

fn configuration() -> String {
    format!(
        "apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
localAPIEndpoint: {{advertiseAddress: {first}}}
certificateKey: {KEY}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
networking: {{podSubnet: 10.244.0.0/16}}
controlPlaneEndpoint: way-1:6443
etcd: {{external: {{endpoints: [\"http://{worker}:2379\"]}}}}
---
{kubelet}",
        first = FIRST.1,
        worker = WORKER.1,
        kubelet = Machine::calm_kubelet(),
    )
}

#[test]
fn a_worker_goes_on_where_a_control_plane_is_lost() {
    if !std::path::Path::new("/usr/bin/etcd").exists() {
        kedge_skip::skip("a_worker_goes_on_where_a_control_plane_is_lost", "etcd is not installed");
        return;
    }
    let Some(first) = Machine::start(FIRST.0, FIRST.1) else { return };
    let Some(second) = Machine::start(SECOND.0, SECOND.1) else { return };
    let Some(worker) = Machine::start(WORKER.0, WORKER.1) else { return };
    worker.plug(&first);
    worker.plug(&second);
    for machine in [&first, &second, &worker] {
        let hosts = [FIRST, SECOND, WORKER].map(|(name, address)| format!("{address} {name}\n")).concat();
        machine.put("/etc/hosts", &format!("127.0.0.1 localhost\n{hosts}"));
    }
    let join = a_cluster_with_one_control_plane(&first, &worker);
    a_new_control_plane_is_found(&first, &second, &worker, &join);
    a_cable_is_cut(&second, &worker);
    a_control_plane_that_is_back_is_used_again(&second, &worker);
    an_api_server_is_killed(&first, &worker);
}

/// Makes the cluster and its worker; what further machines join with.
fn a_cluster_with_one_control_plane(first: &Machine, worker: &Machine) -> String {
    let url = format!("http://{}:2379", WORKER.1);
    worker.sh(&format!(
        "setsid etcd --data-dir /var/lib/way-etcd --listen-client-urls {url} --advertise-client-urls {url} \
         --listen-peer-urls http://127.0.0.1:2380 --unsafe-no-fsync > /var/log/way-etcd.log 2>&1 &"
    ));
    worker.shows("etcd", &format!("ETCDCTL_API=3 etcdctl --endpoints {url} endpoint health 2>&1"), "is healthy");
    first.put("/root/kubeadm.yaml", &configuration());
    first.sh("$KEDGE init --fix --upload-certs --with-network --config /root/kubeadm.yaml --ignore-preflight-errors=all 2>&1");
    let told = first.sh("$KEDGE token create --print-join-command");
    let join = format!("$KEDGE {} --ignore-preflight-errors=all", told.trim().trim_start_matches("kedge "));
    worker.sh(&format!("{join} 2>&1"));
    let server = worker.sh("grep -o 'server: .*' /etc/kubernetes/kubelet.conf");
    assert_eq!(server.trim(), "server: https://127.0.0.1:6444");
    let proxy = first.sh("kubectl get cm -n kube-system kube-proxy -o jsonpath='{.data.kubeconfig\\.conf}'");
    assert!(
        proxy.contains("server: https://127.0.0.1:6444") && proxy.contains("tls-server-name: kubernetes"),
        "{proxy}"
    );
    first.sh("kubectl wait --for=condition=Ready node --all --timeout=120s");
    servers(worker, &[(FIRST.1, "Unknown")]);
    join
}

fn a_new_control_plane_is_found(first: &Machine, second: &Machine, worker: &Machine, join: &str) {
    second.sh(&format!("{join} --control-plane --certificate-key {KEY} 2>&1"));
    servers(worker, &[(FIRST.1, "Ready"), (SECOND.1, "Ready")]);
    servers(first, &[(FIRST.1, "Ready"), (SECOND.1, "Ready")]);
}

fn a_cable_is_cut(second: &Machine, worker: &Machine) {
    let before = node(second);
    worker.sh("ip link set to-way-1 down");
    servers(worker, &[(FIRST.1, "Down"), (SECOND.1, "Ready")]);
    worker.shows("the API through the balancer", THROUGH_BALANCER, "node/way-3");
    let renewed = renewed_after(second, before.renewed);
    let gap = renewed.duration_since(before.renewed).unsigned_abs();
    assert!(gap < GRACE, "the node's lease was renewed after {gap:?} only");
    // It starts anew with what it remembers, as the endpoint by which it joined is gone.
    worker.sh("kill -9 $(pgrep -f '[k]edge kubelet ')");
    let again = renewed_after(second, Timestamp::max(renewed, now(worker)));
    let gap = again.duration_since(renewed).unsigned_abs();
    assert!(gap < GRACE, "the node's lease was renewed after {gap:?} only");
    assert_eq!(node(second).ready_since, before.ready_since, "the node was not Ready all the time");
}

fn a_control_plane_that_is_back_is_used_again(second: &Machine, worker: &Machine) {
    worker.sh("ip link set to-way-1 up");
    servers(worker, &[(FIRST.1, "Ready"), (SECOND.1, "Ready")]);
    let used = format!("kedge_api_balancer_connections_total{{server=\"{}:6443\"}} ", FIRST.1);
    eventually("a connection to the first control plane", Duration::from_secs(60), || {
        worker.sh(THROUGH_BALANCER);
        let metrics = ask(second, "get --raw /api/v1/nodes/way-3/proxy/metrics");
        let count = metrics.lines().find_map(|line| line.strip_prefix(&used)?.parse::<u64>().ok());
        if count.is_some_and(|count| count > 0) { Ok(()) } else { Err(metrics) }
    });
}

fn an_api_server_is_killed(first: &Machine, worker: &Machine) {
    first.sh("kill -9 $(pgrep -x kube-apiserver)");
    worker.shows("the API through the balancer", THROUGH_BALANCER, "node/way-3");
    servers(worker, &[(FIRST.1, "Ready"), (SECOND.1, "Ready")]);
}

/// Waits until a machine's balancer knows these API servers, and that they are so.
fn servers(machine: &Machine, expected: &[(&str, &str)]) {
    eventually("the balancer knowing the API servers", Duration::from_secs(120), || {
        let text = machine.try_sh(&format!("cat {MEMORY}"));
        let known: Value = serde_json::from_str(&text.stdout).unwrap_or_default();
        let known: Vec<_> = known["servers"].as_array().into_iter().flatten().collect();
        let is_so = |server: &Value, (address, health): &(&str, &str)| {
            server["address"] == format!("{address}:6443") && server["health"] == *health
        };
        let all = known.len() == expected.len() && known.iter().zip(expected).all(|(server, each)| is_so(server, each));
        if all { Ok(()) } else { Err(format!("{expected:?} is not\n{}", text.all())) }
    });
}

/// The worker as the cluster sees it.
struct Seen {
    renewed: Timestamp,
    ready_since: String,
}

/// An answer of a machine's own API server.
fn ask(machine: &Machine, words: &str) -> String {
    machine.sh(&format!("kubectl --server https://{}:6443 --request-timeout 20s {words}", machine.address()))
}

fn node(machine: &Machine) -> Seen {
    let ready = "get node way-3 -o jsonpath='{range .status.conditions[?(@.type==\"Ready\")]}{.status} {.lastTransitionTime}{end}'";
    let ready_since = ask(machine, ready);
    assert!(ready_since.starts_with("True"), "{ready_since}");
    Seen { renewed: lease(machine), ready_since }
}

fn lease(machine: &Machine) -> Timestamp {
    let text = ask(machine, "get lease -n kube-node-lease way-3 -o jsonpath='{.spec.renewTime}'");
    text.trim().parse().expect("a lease says when it was renewed")
}

fn renewed_after(machine: &Machine, before: Timestamp) -> Timestamp {
    eventually("the renewal of the node's lease", Duration::from_secs(120), || match lease(machine) {
        renewed if renewed > before => Ok(renewed),
        renewed => Err(renewed.to_string()),
    })
}

fn now(machine: &Machine) -> Timestamp {
    machine.sh("date -u +%Y-%m-%dT%H:%M:%SZ").trim().parse().expect("date writes a time")
}
