//! I11: a pod's volume is on a machine that cannot run it: that one is gone, full, or not to be used.

use serde_json::Value;

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::object::{condition, is_leaving, list, subject, text};
use crate::rules::{Explains, Layer, Rule, Scope};

pub(super) const RULE: Rule = Rule {
    id: "I11",
    title: "a pod's volume is on a machine that does not take the pod",
    layer: Layer::Workload,
    explains: &[Explains { ids: &["H1"], scope: Scope::SameSubject }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut found = Vec::new();
    for (index, item, pod) in evidence.objects("Pod").filter(|(_, _, pod)| !is_leaving(pod)) {
        let Some(scheduled) = condition(pod, "PodScheduled").filter(|scheduled| scheduled["status"] == "False") else {
            continue;
        };
        let message = text(&scheduled["message"]);
        if !["match PersistentVolume's node affinity", "had volume node affinity conflict"]
            .iter()
            .any(|form| message.contains(form))
        {
            continue;
        }
        let who = subject(pod);
        let mut proof = vec![index];
        let mut told = format!("{who}: {message}");
        for (volume_index, volume, machine) in bound_machines(evidence, pod) {
            proof.push(volume_index);
            told.push_str(&format!(" Volume {volume} is on {machine}, which {}.", state(evidence, machine)));
        }
        let repair = Repair::of(&[
            (
                "See where the volumes are",
                "kubectl get pv -o custom-columns=NAME:.metadata.name,CLAIM:.spec.claimRef.name,NODE:.spec.nodeAffinity",
            ),
            ("Bring that machine back, or uncordon it", "kubectl uncordon NODE"),
            ("If it is gone for good, so is the volume: restore its data into a new claim", ""),
        ]);
        found.push(Finding::failure(who, item, Certainty::Proven, told, proof, repair));
    }
    found
}

/// The volumes of a pod that are on one machine, with that machine's name.
fn bound_machines<'a>(evidence: &'a Evidence, pod: &'a Value) -> Vec<(usize, &'a str, &'a str)> {
    let namespace = text(&pod["metadata"]["namespace"]);
    let claims =
        list(&pod["spec"]["volumes"]).filter_map(|volume| volume["persistentVolumeClaim"]["claimName"].as_str());
    let volume = |claim: &str| {
        let subject = Subject { namespace: namespace.to_owned(), ..Subject::new("PersistentVolumeClaim", claim) };
        let name = text(&evidence.object(&subject)?.2["spec"]["volumeName"]);
        let (index, _, volume) = evidence.object(&Subject::new("PersistentVolume", name))?;
        Some((index, name, machine_of(volume)?))
    };
    claims.filter_map(volume).collect()
}

fn machine_of(volume: &Value) -> Option<&str> {
    let terms = list(&volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"]);
    let mut expressions = terms.flat_map(|term| list(&term["matchExpressions"]));
    expressions.find(|expression| expression["key"] == "kubernetes.io/hostname")?["values"][0].as_str()
}

fn state(evidence: &Evidence, machine: &str) -> &'static str {
    match evidence.object(&Subject::new("Node", machine)) {
        None => "is no Node of the cluster",
        Some((_, _, node)) if condition(node, "Ready").is_some_and(|ready| ready["status"] != "True") => "is not ready",
        Some((_, _, node)) if node["spec"]["unschedulable"] == true => "takes no new pods",
        Some(_) => "does not take the pod",
    }
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    fn objects(message: &str) -> Vec<Value> {
        let refused =
            json!([{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}]);
        let spec = json!({"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]});
        let affinity = json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["two"]}]}]}});
        vec![
            pod("a", "db", spec, json!({"phase": "Pending", "conditions": refused})),
            json!({"kind": "PersistentVolumeClaim", "metadata": {"namespace": "a", "name": "data"}, "spec": {"volumeName": "pv"}, "status": {"phase": "Bound"}}),
            json!({"kind": "PersistentVolume", "metadata": {"name": "pv"}, "spec": {"nodeAffinity": affinity}}),
        ]
    }

    #[test]
    fn both_wordings_are_found_with_the_machine() {
        for message in [
            "0/1 nodes are available: 1 node(s) had volume node affinity conflict.",
            "0/1 nodes are available: 1 node(s) didn't match PersistentVolume's node affinity.",
        ] {
            assert_eq!(
                found(&RULE, objects(message)),
                [format!("Pod a/db: {message} Volume pv is on two, which is no Node of the cluster.")]
            );
        }
        let mut cordoned = objects("1 node(s) had volume node affinity conflict.");
        cordoned.push(json!({"kind": "Node", "metadata": {"name": "two"}, "spec": {"unschedulable": true}}));
        assert!(found(&RULE, cordoned)[0].ends_with("which takes no new pods."));
        assert_eq!(found(&RULE, objects("1 Insufficient cpu.")), [""; 0]);
    }
}
