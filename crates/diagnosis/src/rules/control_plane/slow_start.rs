//! A17: the kubelet ends the API server before it is ready.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair};
use crate::rules::control_plane::{component_of, is_of_the_control_plane};
use crate::rules::events::told_by_events;
use crate::rules::signs::{Sign, Told};
use crate::rules::{Explains, Layer, Rule, Scope};

const ENDED: [&str; 2] =
    ["Container kube-apiserver failed startup probe", "Container kube-apiserver failed liveness probe"];
const SIGN: Sign = Sign { programs: &["kubelet"], words: &[&[ENDED[0]], &[ENDED[1]]], over: &[] };

pub(super) const RULE: Rule = Rule {
    id: "A17",
    title: "the kubelet ends the API server before it is ready",
    layer: Layer::Api,
    explains: &[
        Explains { ids: &["A15", "H2", "H3"], scope: Scope::Anywhere },
        Explains { ids: &["W1"], scope: Scope::ControlPlane },
    ],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let ends = |message: &str| ENDED.iter().any(|words| message.contains(words));
    let mut found = told_by_events(evidence, &repair(), |reason, message| reason == "Killing" && ends(message));
    found.retain(|finding| is_of_the_control_plane(&finding.subject) && is_young(evidence, finding));
    if found.is_empty() {
        let tell = |told: &Told<'_>| format!("the kubelet ended it {} times: {}", told.count, told.text.trim());
        found = SIGN.found(evidence, Certainty::Likely, |_| repair(), tell);
    }
    found
}

/// An event outlives its trouble by an hour: it counts where the pod is not known to run, or was restarted just now.
fn is_young(evidence: &Evidence, finding: &Finding) -> bool {
    let runs = evidence.objects("Pod").any(|(_, _, pod)| {
        component_of(pod).is_some()
            && crate::object::subject(pod) == finding.subject
            && crate::object::condition(pod, "Ready").is_some_and(|ready| ready["status"] == "True")
    });
    !runs
}

fn repair() -> Repair {
    Repair::of(&[
        (
            "See what it waits for: the store, a disk, a processor",
            "crictl logs $(crictl ps -a -q --name kube-apiserver | head -1) 2>&1 | tail -50",
        ),
        (
            "If it only needs longer, give it longer: in the manifest, and in the cluster's configuration for the next ones",
            "startupProbe.failureThreshold: 48; timeouts.controlPlaneComponentHealthCheck: 8m0s",
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn an_api_server_that_is_not_given_its_time_is_found() {
        check_lines(
            &RULE,
            &[(
                "kubelet",
                r#"I0722 10:00:00.0 1 kuberuntime_manager.go:1107] "Message for Container of pod" containerName="kube-apiserver" containerMessage="Container kube-apiserver failed startup probe, will be restarted""#,
            )],
            &[
                (
                    "kubelet",
                    r#"I0722 10:00:00.0 1 prober.go:120] "Probe failed" probeType="Startup" pod="kube-system/kube-apiserver-one" containerName="kube-apiserver""#,
                ),
                ("kubelet", r#"containerMessage="Container web failed liveness probe, will be restarted""#),
            ],
        );
        let mut event = event_of(
            "Pod",
            "kube-apiserver-one",
            "Killing",
            "Container kube-apiserver failed liveness probe, will be restarted",
        );
        event["involvedObject"]["namespace"] = json!("kube-system");
        assert_eq!(found(&RULE, [event.clone()]).len(), 1);
        let ready = json!({"conditions": [{"type": "Ready", "status": "True"}]});
        assert_eq!(found(&RULE, [event, pod("kube-system", "kube-apiserver-one", json!({}), ready)]), [""; 0]);
    }
}
