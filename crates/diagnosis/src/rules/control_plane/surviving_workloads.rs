//! A20: without an API server, what runs goes on running. Said so that nobody restarts machines that are well.

use crate::evidence::{Evidence, Place};
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::object::{container_statuses, subject};
use crate::rules::control_plane::is_of_the_control_plane;
use crate::rules::control_plane::unreachable_api::failed_calls;
use crate::rules::signs::Sign;
use crate::rules::{Layer, Rule};

/// A node agent whose API server is away.
const CUT_OFF: Sign = Sign {
    programs: &["kubelet"],
    words: &[
        &["Failed to ensure lease exists, will retry", "connect"],
        &["Failed to ensure lease exists, will retry", "timeout"],
        &["Failed to update lease", "connect"],
        &["Error updating node status, will retry", "connect"],
        &["Unable to update node status", "connect"],
        &["the heartbeat failed", "connect"],
    ],
    over: &["Node has successfully registered", "the heartbeat works again"],
};

pub(super) const RULE: Rule = Rule {
    id: "A20",
    title: "nothing can be changed, and what runs goes on",
    layer: Layer::Workload,
    explains: &[],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let calls = failed_calls(evidence).into_iter().map(|(index, item, _, _)| (vec![index], item));
    let lines = CUT_OFF.told(evidence).into_iter().map(|told| (told.lines, told.item));
    let mut found: Vec<Finding> = Vec::new();
    for (mut proof, item) in calls.chain(lines) {
        let running = running(evidence, &item.place);
        if running.is_empty() || found.iter().any(|known| known.place == item.place) {
            continue;
        }
        let text = format!("{} pods run on without the API server; restarting machines would end them", running.len());
        proof.extend(running);
        let repair = Repair::of(&[("Bring the API server back, and leave the machines alone", "kedge doctor node")]);
        let subject = Subject::new("Component", "workloads");
        found.push(Finding::failure(subject, item, Certainty::Proven, text, proof, repair));
    }
    found
}

/// Pods of a machine's runtime that run and are none of the control plane.
fn running(evidence: &Evidence, place: &Place) -> Vec<usize> {
    let pods = evidence.objects("Pod").filter(|(_, item, pod)| {
        item.place == *place
            && *place != Place::Cluster
            && !is_of_the_control_plane(&subject(pod))
            && container_statuses(pod).any(|status| status["state"]["running"].is_object())
    });
    pods.map(|(index, _, _)| index).collect()
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    fn runs(namespace: &str, name: &str) -> Item {
        let status = json!({"containerStatuses": [{"name": "c", "state": {"running": {}}}]});
        on("one", Fact::Object(pod(namespace, name, json!({}), status)))
    }

    #[test]
    fn what_survives_is_counted() {
        let call = |error: Option<&str>| {
            on("one", Fact::Call { target: "https://127.0.0.1:6443".to_owned(), error: error.map(str::to_owned) })
        };
        let texts = found_among(&RULE, [call(Some("refused")), runs("a", "web"), runs("kube-system", "etcd-one")]);
        assert_eq!(texts, ["1 pods run on without the API server; restarting machines would end them"]);
        assert_eq!(found_among(&RULE, [call(None), runs("a", "web")]), [""; 0]);
        assert_eq!(found_among(&RULE, [call(Some("refused")), runs("kube-system", "etcd-one")]), [""; 0]);
    }

    #[test]
    fn a_node_agent_that_is_cut_off_says_it_as_well() {
        let line = r#"E0722 10:00:00.0 1 controller.go:145] "Failed to ensure lease exists, will retry" err="Get \"https://192.0.2.1:6443/x\": dial tcp 192.0.2.1:6443: connect: connection refused" interval="7s""#;
        assert_eq!(found_among(&RULE, [ago(line_of("kubelet", line), 5), runs("a", "web")]).len(), 1);
        assert_eq!(found_among(&RULE, [ago(line_of("kubelet", line), 7200), runs("a", "web")]), [""; 0]);
    }
}
