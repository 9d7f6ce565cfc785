//! G14: the cluster's DNS waits for the API server, which it asks for through a Service: the way is broken, not the DNS.

use crate::evidence::Evidence;
use crate::facts::LogSource;
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::object::condition;
use crate::rules::signs::Sign;
use crate::rules::{Explains, Layer, Rule, Scope};

const SIGN: Sign = Sign {
    programs: &["coredns"],
    words: &[
        &["waiting for Kubernetes API before starting server"],
        &["Still waiting on: \"kubernetes\""],
        &["starting server with unsynced Kubernetes API"],
        &["pkg/mod/k8s.io/client-go", ":443", "i/o timeout"],
        &["Failed to watch", ":443", "i/o timeout"],
    ],
    over: &["Running configuration SHA512", "Running configuration MD5"],
};

pub(super) const RULE: Rule = Rule {
    id: "G14",
    title: "the cluster's DNS does not reach the API server",
    layer: Layer::Dns,
    explains: &[
        Explains { ids: &["G25"], scope: Scope::Anywhere },
        Explains { ids: &["W1"], scope: Scope::SameSubject },
    ],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut found = Vec::new();
    for told in SIGN.told(evidence).into_iter().filter(|told| !is_ready(evidence, told.source)) {
        let repair = Repair::of(&[
            (
                "From that machine: does the API server's Service address answer?",
                "curl -k https://10.96.0.1:443/version",
            ),
            (
                "If not, mend what carries Services there: the proxy's rules, the pod network, a network policy",
                "kubectl -n kube-system logs ds/kube-proxy",
            ),
        ]);
        let sentence = format!("the cluster's DNS waits for the API server: {}", told.text.trim());
        let subject = told.source.subject();
        found.push(Finding::failure(subject, told.item, Certainty::Likely, sentence, told.lines, repair));
    }
    found
}

/// Whether the pod that wrote a line does its work by now.
fn is_ready(evidence: &Evidence, source: &LogSource) -> bool {
    let LogSource::Container { namespace, pod, .. } = source else { return false };
    let subject = Subject { kind: "Pod".to_owned(), namespace: namespace.clone(), name: pod.clone() };
    let ready = evidence.object(&subject).and_then(|(_, _, pod)| condition(pod, "Ready"));
    ready.is_some_and(|ready| ready["status"] == "True")
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_dns_that_waits_is_found_and_one_that_waited_is_not() {
        let line = |text: &str| container_logged("coredns", text);
        for text in [
            "[INFO] plugin/kubernetes: waiting for Kubernetes API before starting server",
            "[INFO] plugin/ready: Still waiting on: \"kubernetes\"",
            "[WARNING] plugin/kubernetes: starting server with unsynced Kubernetes API",
        ] {
            assert_eq!(found_among(&RULE, [line(text)]).len(), 1);
            let ready = json!({"conditions": [{"type": "Ready", "status": "True"}]});
            let object = on("one", Fact::Object(pod("kube-system", "coredns-one", json!({}), ready)));
            assert_eq!(found_among(&RULE, [line(text), object]), [""; 0]);
        }
        let over = [
            line("[INFO] plugin/kubernetes: waiting for Kubernetes API before starting server"),
            line("[INFO] plugin/reload: Running configuration SHA512 = 1b"),
        ];
        assert_eq!(found_among(&RULE, over), [""; 0]);
    }
}
