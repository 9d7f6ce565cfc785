//! Taints that take pods off their node, at once or after a time, and pods that stay because the taint goes.

use kedge_e2e::{HostOptions, Node, script_spec};
use serde_json::Value;

const TAINT: &str = "kubernetes.io/e2e-evict-taint-key=evictTaintVal:NoExecute";

fn pod(node: &Node, name: &str, seconds: Option<Option<u32>>) {
    let toleration = seconds.map_or_else(String::new, |seconds| {
        let seconds = seconds.map_or_else(String::new, |seconds| format!(", tolerationSeconds: {seconds}"));
        let key = "key: kubernetes.io/e2e-evict-taint-key, value: evictTaintVal, effect: NoExecute";
        format!("  tolerations: [{{{key}{seconds}}}]\n")
    });
    node.pod(name, &script_spec("sleep 3600", "", &toleration));
}

fn is_there(node: &Node, name: &str) -> bool {
    let seen = node.get("pod", name);
    seen["metadata"]["deletionTimestamp"] == Value::Null && seen["status"]["phase"] == "Running"
}

#[test]
fn pods_leave_a_tainted_node_in_time_or_stay_when_it_is_clean_again() {
    let Some(node) = Node::up(HostOptions::default()) else { return };
    let kubectl = &node.kubectl;
    for (name, seconds) in [
        ("none", None),
        ("for-ever", Some(None)),
        ("soon", Some(Some(2))),
        ("later", Some(Some(6))),
        ("long", Some(Some(600))),
    ] {
        pod(&node, name, seconds);
    }
    for name in ["none", "for-ever", "soon", "later", "long"] {
        node.ready(name);
    }
    kubectl.run(&["taint", "node", "node-1", TAINT]);
    node.gone("none");
    node.gone("soon");
    node.gone("later");
    node.event("soon", "TaintManagerEviction Marking for deletion Pod default/soon");
    assert!(is_there(&node, "for-ever") && is_there(&node, "long"));
    kubectl.run(&["taint", "node", "node-1", &format!("{TAINT}-")]);
    node.event("long", "TaintManagerEviction Cancelling deletion of Pod default/long");

    // The same with pods whose time would be over before the last one's.
    pod(&node, "spared", Some(Some(8)));
    node.ready("spared");
    kubectl.run(&["taint", "node", "node-1", TAINT]);
    kubectl.run(&["taint", "node", "node-1", &format!("{TAINT}-")]);
    pod(&node, "timer", Some(Some(8)));
    node.ready("timer");
    node.event("spared", "TaintManagerEviction Cancelling deletion of Pod default/spared");
    kubectl.run(&["taint", "node", "node-1", "example.org/other=x:NoExecute"]);
    // Nobody tolerates this one, so that it takes all.
    for name in ["spared", "timer", "for-ever", "long"] {
        node.gone(name);
    }
    kubectl.run(&["taint", "node", "node-1", "example.org/other-"]);
}
