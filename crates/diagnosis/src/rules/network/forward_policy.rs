//! G20: a machine drops the packets of pods that it should pass on: docker or a firewall set the policy of FORWARD.

use crate::evidence::Evidence;
use crate::facts::NetworkFact;
use crate::finding::{Certainty, Finding, Repair, Severity, Subject};
use crate::rules::{Explains, Layer, Rule, Scope};

/// Chains by which pod networks accept their own packets before the policy counts.
const OWN: [&str; 7] =
    ["FLANNEL-FWD", "cali-FORWARD", "CILIUM_FORWARD", "WEAVE-NPC", "KUBE-ROUTER-FORWARD", "CNI-FORWARD", "ACCEPT"];

pub(super) const RULE: Rule = Rule {
    id: "G20",
    title: "a machine drops packets that it should pass on",
    layer: Layer::System,
    explains: &[Explains { ids: &["G6", "G14", "G25"], scope: Scope::SameNode }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut found = Vec::new();
    for (index, item, fact) in evidence.networks() {
        let NetworkFact::ChainPolicy { chain, policy, jumps } = fact else { continue };
        if !chain.to_uppercase().ends_with("FORWARD")
            || policy != "DROP"
            || jumps.iter().any(|to| OWN.contains(&to.as_str()))
        {
            continue;
        }
        let told = format!("the policy of {chain} is DROP, and no rule there accepts the packets of pods");
        let repair = Repair::of(&[
            ("Pass packets on", "iptables -P FORWARD ACCEPT"),
            (
                "Keep it so: docker sets the policy at each start (\"ip-forward-no-drop\": true in /etc/docker/daemon.json), ufw by DEFAULT_FORWARD_POLICY in /etc/default/ufw",
                "",
            ),
        ]);
        let subject = Subject::machine(&item.place);
        let mut finding = Finding::failure(subject, item, Certainty::Likely, told, vec![index], repair);
        // Rules that accept by the range of pods may stand anywhere.
        finding.severity = Severity::Warning;
        found.push(finding);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    fn policy(policy: &str, jumps: &[&str]) -> Item {
        let jumps = jumps.iter().map(|jump| (*jump).to_owned()).collect();
        let (chain, policy) = ("iptables FORWARD".to_owned(), policy.to_owned());
        on("one", Fact::Network(NetworkFact::ChainPolicy { chain, policy, jumps }))
    }

    #[test]
    fn a_policy_that_drops_is_found_unless_the_network_has_rules() {
        assert_eq!(found_among(&RULE, [policy("DROP", &["DOCKER-USER", "DOCKER-FORWARD", "KUBE-FORWARD"])]).len(), 1);
        assert_eq!(found_among(&RULE, [policy("DROP", &["FLANNEL-FWD"]), policy("ACCEPT", &[])]), [""; 0]);
    }
}
