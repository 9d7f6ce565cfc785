//! G4: calico's routing daemon does not run in its pod, because its configuration was never rendered.

use crate::evidence::Evidence;
use crate::finding::{Finding, Repair};
use crate::rules::events::told_by_events;
use crate::rules::{Explains, Layer, Rule, Scope};

pub(super) const RULE: Rule = Rule {
    id: "G4",
    title: "the routing daemon of the pod network does not run",
    layer: Layer::Network,
    explains: &[
        Explains { ids: &["G6", "G14", "G25"], scope: Scope::Anywhere },
        Explains { ids: &["W1"], scope: Scope::SameSubject },
    ],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let repair = Repair::of(&[
        (
            "See why its configuration is not rendered",
            "kubectl -n kube-system logs ds/calico-node -c calico-node | grep -e confd -e bird",
        ),
        ("Start the pod again once that is mended", "kubectl -n kube-system delete pod -l k8s-app=calico-node"),
    ]);
    told_by_events(evidence, &repair, |_, message| {
        message.contains("BIRD is not ready")
            && (message.contains("unable to connect to BIRDv") || message.contains("Failed to stat() nodename file"))
    })
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_missing_socket_is_found_and_a_missing_session_is_not() {
        let event = |message: &str| event_of("Pod", "calico-node-x", "Unhealthy", message);
        for message in [
            "Readiness probe failed: calico/node is not ready: BIRD is not ready: Error querying BIRD: unable to connect to BIRDv4 socket: dial unix /var/run/calico/bird.ctl: connect: connection refused",
            "Readiness probe failed: calico/node is not ready: BIRD is not ready: Error querying BIRD: unable to connect to BIRDv4 socket: dial unix /var/run/bird/bird.ctl: connect: no such file or directory",
        ] {
            assert_eq!(found(&RULE, [event(message)]).len(), 1);
        }
        assert_eq!(found(&RULE, [event("BIRD is not ready: BGP not established with 10.0.0.2")]), [""; 0]);
    }
}
