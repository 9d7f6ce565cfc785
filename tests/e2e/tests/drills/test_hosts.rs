//! Drills on test hosts, where machines are switched off and cables pulled.

use kedge_e2e::{BUSYBOX, Cluster, ClusterOptions};

use super::crash::{self, drill};
use super::{calm, in_two_runs, judge, outage, scenarios};

pub(super) const NODES: u8 = 2;
/// An image that is on every node of `kedge cluster`, and runs by itself.
pub(super) const IMAGE: &str = concat!("localhost/kedge-pause:v", env!("CARGO_PKG_VERSION"));
/// Two heartbeats and a little: silent nodes count as gone sooner than by default.
const GRACE: &str = "--control-plane-flag=--node-monitor-grace-period=24s";

pub(super) fn are_done() {
    let options = ClusterOptions { nodes: NODES, flags: vec![GRACE.to_owned()], kubelet: None };
    let Some(cluster) = Cluster::up(&options) else { return };
    let state = cluster.file("drills");
    let kubectl = &cluster.kubectl;
    kubectl.run(&["create", "configmap", "told", "--from-literal=told=acknowledged"]);
    kubectl.run(&["create", "deployment", "bystander", &format!("--image={BUSYBOX}"), "--", "sleep", "100000"]);
    kubectl.run(&["rollout", "status", "deployment/bystander", "--timeout=90s"]);
    calm::a_rollout_and_a_drain_are_no_trouble(&cluster);
    crash::of_the_tool_is_taken_back(&cluster, &state);
    crash::of_the_cluster_is_taken_back(&cluster, &state);
    outage::leaves_the_application_alone(&cluster, &state);
    let all = scenarios(false);
    let verified = in_two_runs(&all, |ids, shell| {
        let image = if shell { BUSYBOX } else { IMAGE };
        drill(&cluster, &state, &[&["verify", "--output", "json", "--image", image], ids].concat())
    });
    judge(&verified, all.len());
    assert_eq!(kubectl.run(&["get", "configmap", "told", "-o", "jsonpath={.data.told}"]), "acknowledged");
    assert_eq!(kubectl.run(&["get", "namespaces", "-l", "kedge.dev/drill", "-o", "name"]), "");
    assert_eq!(kubectl.run(&["get", "configmaps", "-l", "kedge.dev/drill", "-o", "name"]), "");
}
