//! W7: a NetworkPolicy says where a pod may send to, and forgets the cluster's DNS: every name that it needs is missing.
//!
//! Known from two sides: the pod says that its questions get no answer, and the policies that select it let none out. A
//! rule that may let them out, by a selector of namespaces or a block of addresses, is believed to.

use serde_json::Value;

use crate::evidence::Evidence;
use crate::facts::LogSource;
use crate::finding::{Certainty, Finding, Repair};
use crate::object::{list, text};
use crate::rules::network::lookups::{is_lookup_failure, is_recent};
use crate::rules::{Explains, Layer, Rule, Scope, selector};

const PORT: i64 = 53;

pub(super) const RULE: Rule = Rule {
    id: "W7",
    title: "a NetworkPolicy lets pods ask for no names",
    layer: Layer::Dns,
    explains: &[Explains { ids: &["W1", "W5"], scope: Scope::SameSubject }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut found: Vec<Finding> = Vec::new();
    for (index, item, line) in evidence.logs().filter(|(_, _, line)| is_lookup_failure(line)) {
        let subject = line.source.subject();
        if !is_recent(evidence, item) || found.iter().any(|known| known.subject == subject) {
            continue;
        }
        let Some((policy, object)) = cutting_policy(evidence, &line.source) else { continue };
        let name = text(&object["metadata"]["name"]);
        let told = format!(
            "{subject} asks for names in vain, and NetworkPolicy {}/{name} lets it ask nobody: {}",
            subject.namespace,
            line.text.trim()
        );
        let repair = repair(&subject.namespace, name);
        found.push(Finding::failure(subject, item, Certainty::Proven, told, vec![index, policy], repair));
    }
    found
}

/// The policy that keeps the writer of a log from asking for names, with its item: the first one that selects its pod and
/// says where it may send to, if none of them lets questions out.
pub(super) fn cutting_policy<'a>(evidence: &'a Evidence, source: &LogSource) -> Option<(usize, &'a Value)> {
    let (_, _, pod) = evidence.object(&source.subject())?;
    let namespace = text(&pod["metadata"]["namespace"]);
    let selecting =
        evidence.objects("NetworkPolicy").map(|(index, _, policy)| (index, policy)).filter(|(_, policy)| {
            text(&policy["metadata"]["namespace"]) == namespace
                && limits_egress(&policy["spec"])
                && selector::selects(&policy["spec"]["podSelector"], &pod["metadata"]["labels"])
        });
    let selecting: Vec<_> = selecting.collect();
    let lets_out = |policy: &Value| list(&policy["spec"]["egress"]).any(|rule| may_reach_dns(rule, namespace));
    if selecting.iter().any(|(_, policy)| lets_out(policy)) {
        return None;
    }
    selecting.first().copied()
}

/// Types that are not given are those that there are rules for.
fn limits_egress(spec: &Value) -> bool {
    match spec["policyTypes"].as_array() {
        Some(types) => types.iter().any(|name| name == "Egress"),
        None => spec["egress"].is_array(),
    }
}

fn may_reach_dns(rule: &Value, namespace: &str) -> bool {
    let is_dns_port = |port: &Value| {
        let is_udp = text(&port["protocol"]) == "UDP";
        let within = |first: i64| first <= PORT && port["endPort"].as_i64().unwrap_or(first) >= PORT;
        // A port by its name is one of the DNS server's pod.
        is_udp && port["port"].as_i64().is_none_or(within)
    };
    // A peer without a selector of namespaces is a pod beside the policy.
    let is_near = |peer: &Value| peer["namespaceSelector"].is_null() && peer["ipBlock"].is_null();
    let mut ports = list(&rule["ports"]).peekable();
    let mut peers = list(&rule["to"]).peekable();
    let is_port_open = ports.peek().is_none() || ports.any(is_dns_port);
    let is_peer_open = peers.peek().is_none() || namespace == "kube-system" || peers.any(|peer| !is_near(peer));
    is_port_open && is_peer_open
}

fn repair(namespace: &str, name: &str) -> Repair {
    let see = format!("kubectl -n {namespace} describe networkpolicy {name}");
    let allow = format!(
        "kubectl -n {namespace} patch networkpolicy {name} --type=json -p '[{{\"op\":\"add\",\"path\":\"/spec/egress/-\",\"value\":{{\"to\":[{{\"namespaceSelector\":{{\"matchLabels\":{{\"kubernetes.io/metadata.name\":\"kube-system\"}}}},\"podSelector\":{{\"matchLabels\":{{\"k8s-app\":\"kube-dns\"}}}}}}],\"ports\":[{{\"port\":53,\"protocol\":\"UDP\"}},{{\"port\":53,\"protocol\":\"TCP\"}}]}}}}]'"
    );
    Repair::of(&[("See what it lets out", &see), ("Let questions to the cluster's DNS out as well", &allow)])
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    const LOOKUP: &str =
        "cannot reach db:5432: failed to lookup address information: Temporary failure in name resolution";

    fn line(text: &str) -> Item {
        let source = LogSource::Container {
            namespace: "a".to_owned(),
            pod: "web".to_owned(),
            container: "web".to_owned(),
            previous: false,
        };
        on("one", Fact::Log(LogFact { source, text: text.to_owned() }))
    }

    fn object(object: Value) -> Item {
        Item { time: None, place: Place::Cluster, origin: "kubectl".to_owned(), fact: Fact::Object(object) }
    }

    fn web() -> Item {
        let mut pod = pod("a", "web", json!({"nodeName": "one"}), json!({"phase": "Running"}));
        pod["metadata"]["labels"] = json!({"app": "web"});
        object(pod)
    }

    fn policy(name: &str, spec: Value) -> Item {
        object(json!({"kind": "NetworkPolicy", "metadata": {"namespace": "a", "name": name}, "spec": spec}))
    }

    fn egress(rules: Value) -> Value {
        json!({"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Egress"], "egress": rules})
    }

    #[test]
    fn a_policy_that_lets_no_question_out_is_found() {
        let tcp = json!([{"ports": [{"port": 443, "protocol": "TCP"}, {"port": 53, "protocol": "TCP"}]}]);
        let near = json!([{"to": [{"podSelector": {"matchLabels": {"app": "db"}}}]}]);
        let range = json!([{"ports": [{"port": 54, "endPort": 99, "protocol": "UDP"}]}]);
        let by_rules = json!({"podSelector": {}, "egress": []});
        for spec in [egress(tcp), egress(near), egress(range), egress(json!([])), by_rules] {
            let texts = found_among(&RULE, [web(), policy("tight", spec), line(LOOKUP), line(LOOKUP)]);
            assert_eq!(
                texts,
                [format!("Pod a/web asks for names in vain, and NetworkPolicy a/tight lets it ask nobody: {LOOKUP}")]
            );
        }
        let go = "dial tcp: lookup db on 10.96.0.10:53: read udp 10.0.0.7:3412->10.96.0.10:53: i/o timeout";
        assert_eq!(found_among(&RULE, [web(), policy("tight", egress(json!([]))), line(go)]).len(), 1);
    }

    #[test]
    fn one_that_may_let_them_out_is_not_nor_one_of_others() {
        let dns = json!([{"ports": [{"port": 53, "protocol": "UDP"}]}]);
        let named = json!([{"ports": [{"port": "dns", "protocol": "UDP"}]}]);
        let range = json!([{"ports": [{"port": 1, "endPort": 99, "protocol": "UDP"}]}]);
        let elsewhere = json!([{"to": [{"namespaceSelector": {}}]}]);
        let block = json!([{"to": [{"ipBlock": {"cidr": "10.96.0.0/12"}}]}]);
        for rules in [dns, named, range, elsewhere, block, json!([{}])] {
            let items = [web(), policy("tight", egress(json!([]))), policy("wide", egress(rules)), line(LOOKUP)];
            assert_eq!(found_among(&RULE, items), [""; 0]);
        }
        let ingress = json!({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": []});
        let others = json!({"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Egress"]});
        for spec in [ingress, others] {
            assert_eq!(found_among(&RULE, [web(), policy("p", spec), line(LOOKUP)]), [""; 0]);
        }
        assert_eq!(found_among(&RULE, [web(), policy("tight", egress(json!([]))), line("no such host")]), [""; 0]);
    }
}
