//! I13: a volume whose claim is gone is not taken back: that failed, it hangs, or somebody waits for it to be released.

use serde_json::Value;

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Severity};
use crate::object::{list, subject, text};
use crate::rules::{Layer, Rule};

/// Seconds that deleting a volume may take.
const PATIENCE: i64 = 600;

pub(super) const RULE: Rule = Rule {
    id: "I13",
    title: "a volume is not taken back after its claim",
    layer: Layer::Workload,
    explains: &[],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut found = Vec::new();
    for (index, item, volume) in evidence.objects("PersistentVolume") {
        let Some((told, severity, other)) = trouble(evidence, volume) else { continue };
        let mut repair = Repair::of(&[
            ("See what it has and why it stays", &format!("kubectl describe pv {}", text(&volume["metadata"]["name"]))),
            (
                "Its data are wanted: keep a copy first. Then let a new claim have it",
                &format!(
                    "kubectl patch pv {} --type json -p '[{{\"op\":\"remove\",\"path\":\"/spec/claimRef\"}}]'",
                    text(&volume["metadata"]["name"])
                ),
            ),
            ("They are not", &format!("kubectl delete pv {}", text(&volume["metadata"]["name"]))),
        ]);
        repair.dangerous = true;
        let proof = [index].into_iter().chain(other).collect();
        let mut finding = Finding::failure(subject(volume), item, Certainty::Proven, told, proof, repair);
        finding.severity = severity;
        found.push(finding);
    }
    found
}

/// What is wrong with a volume, how bad, and what else shows it. One that is kept on purpose is right.
fn trouble(evidence: &Evidence, volume: &Value) -> Option<(String, Severity, Option<usize>)> {
    let (status, name) = (&volume["status"], text(&volume["metadata"]["name"]));
    match text(&status["phase"]) {
        "Failed" => {
            Some((format!("{name} could not be taken back: {}", text(&status["message"])), Severity::Failure, None))
        }
        "Released" if volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete" => {
            let since = text(&status["lastPhaseTransitionTime"]).parse::<jiff::Timestamp>().ok()?;
            let seconds = evidence.gathered.as_second() - since.as_second();
            (seconds > PATIENCE).then(|| {
                (
                    format!("{name} was to be deleted {} min ago and is still there", seconds / 60),
                    Severity::Warning,
                    None,
                )
            })
        }
        "Released" => {
            let (index, _, claim) =
                evidence.objects("PersistentVolumeClaim").find(|(_, _, claim)| waits_for(claim, volume))?;
            let told = format!(
                "{} waits for a volume, and {name}, which would fit, is kept for a claim that is gone",
                subject(claim)
            );
            Some((told, Severity::Warning, Some(index)))
        }
        _ => None,
    }
}

/// Whether a claim waits that a volume would do for.
fn waits_for(claim: &Value, volume: &Value) -> bool {
    let (wanted, spec) = (&claim["spec"], &volume["spec"]);
    let is_named = wanted["volumeName"] == volume["metadata"]["name"];
    let class = text(&wanted["storageClassName"]);
    let fits = class == text(&spec["storageClassName"])
        && list(&wanted["accessModes"]).all(|mode| list(&spec["accessModes"]).any(|own| own == mode))
        && wanted["resources"]["requests"]["storage"] == spec["capacity"]["storage"];
    claim["status"]["phase"] == "Pending" && (is_named || fits)
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    fn volume(phase: &str, policy: &str) -> Value {
        let since = Timestamp::from_second(now().as_second() - 3600).expect("a time");
        json!({"kind": "PersistentVolume", "metadata": {"name": "pv"},
            "spec": {"persistentVolumeReclaimPolicy": policy, "storageClassName": "s", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]},
            "status": {"phase": phase, "message": "busy", "lastPhaseTransitionTime": since.to_string()}})
    }

    fn claim(phase: &str) -> Value {
        json!({"kind": "PersistentVolumeClaim", "metadata": {"namespace": "a", "name": "data"}, "status": {"phase": phase},
            "spec": {"storageClassName": "s", "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}})
    }

    #[test]
    fn failed_hanging_and_wanted_volumes_are_found() {
        assert_eq!(found(&RULE, [volume("Failed", "Delete")]), ["pv could not be taken back: busy"]);
        assert_eq!(
            found(&RULE, [volume("Released", "Delete")]),
            ["pv was to be deleted 60 min ago and is still there"]
        );
        assert_eq!(found(&RULE, [volume("Released", "Retain"), claim("Pending")]).len(), 1);
    }

    #[test]
    fn volumes_in_use_or_kept_on_purpose_are_right() {
        assert_eq!(found(&RULE, [volume("Released", "Retain"), claim("Bound")]), [""; 0]);
        assert_eq!(found(&RULE, [volume("Bound", "Delete"), volume("Available", "Delete")]), [""; 0]);
    }
}
