//! What happens to Services when rules, or the process that keeps them, are taken away.

use serde_json::json;

use super::{Lab, at, web};

/// Whoever flushes the packet rules of the whole machine takes Services away until the proxy's next look.
pub(super) fn rules_that_are_removed_come_back(lab: &Lab) {
    let service = lab.service("kept", json!({"selector": {"app": "web"}, "ports": web(80)}));
    let target = at(&service, 80);
    lab.answers("before the fault", &target, |answer| !answer.is_empty());
    let removed = lab.node.host.run("nft", &["delete", "table", "ip", "kube-proxy"]);
    assert!(removed.ok, "{}", removed.all());
    lab.answers("after the table was removed", &target, |answer| !answer.is_empty());
    assert!(lab.node.host.log().contains("restored"), "it is reported");
}

/// Rules go on without the process, and a new one takes them over.
pub(super) fn rules_outlive_a_kill(mut lab: Lab) {
    let target = at(&lab.node.get("service", "kept"), 80);
    lab.node.host.kill();
    assert!(lab.ask(&target).ok, "Services answer without the process");
    lab.node.host.start();
    assert!(lab.ask(&target).ok, "Services answer while a new process takes over");
    lab.service("late", json!({"selector": {"app": "lone"}, "ports": web(80)}));
    let late = at(&lab.node.get("service", "late"), 80);
    lab.answers("a Service of the new process", &late, |answer| answer == "lone");
}
