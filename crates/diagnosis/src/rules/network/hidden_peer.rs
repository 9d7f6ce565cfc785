//! G3: the network's agent counts as ready with one session, and others are missing: only a probe of each pair shows it.

use std::collections::BTreeMap;

use crate::evidence::{Evidence, Place};
use crate::facts::Fact;
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::rules::network::bgp::PORT;
use crate::rules::network::peers::{Closed, closed};
use crate::rules::{Explains, Layer, Rule, Scope};

pub(super) const RULE: Rule = Rule {
    id: "G3",
    title: "a peer is not reached although the network's agent is ready",
    layer: Layer::Network,
    explains: &[Explains { ids: &["G6", "G14", "G25"], scope: Scope::Anywhere }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut machines: BTreeMap<&str, Vec<Closed<'_>>> = BTreeMap::new();
    for probe in closed(evidence, "tcp", PORT).into_iter().filter(|probe| !has_no_agent(evidence, probe)) {
        machines.entry(probe.from).or_default().push(probe);
    }
    let finding = |(from, probes): (&str, Vec<Closed<'_>>)| {
        let list = probes.iter().map(|probe| format!("{} ({})", probe.to, probe.error)).collect::<Vec<_>>().join(", ");
        let told = format!("from {from}, TCP port 179 does not answer on {list}, which answers on other ports");
        let proof: Vec<usize> = probes.iter().flat_map(|probe| probe.proof.iter().copied()).collect();
        let repair = Repair::of(&[
            ("On that machine, see its sessions", "calicoctl node status"),
            ("Open TCP port 179 both ways for this pair", "iptables -I INPUT -p tcp --dport 179 -j ACCEPT"),
        ]);
        let subject = Subject::machine(&Place::Node(from.to_owned()));
        Finding::failure(subject, &evidence.items[proof[0]], Certainty::Likely, told, proof, repair)
    };
    machines.into_iter().map(finding).collect()
}

/// Whether nobody listens for such sessions: the other machine refuses at once, and this one does not listen either.
fn has_no_agent(evidence: &Evidence, probe: &Closed<'_>) -> bool {
    let place = Place::Node(probe.from.to_owned());
    let listeners = evidence.pick(|fact| match fact {
        Fact::Listener { address, .. } if address.ends_with(":179") => Some(()),
        _ => None,
    });
    let mut own = listeners.filter(|(_, item, ())| item.place == place);
    probe.error.to_lowercase().contains("refused") && own.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_pair_that_is_blocked_is_found() {
        let items = [probe("two", "tcp", 179, Some("no answer within 1 s")), probe("two", "tcp", 10250, None)];
        assert_eq!(
            found_among(&RULE, items),
            ["from one, TCP port 179 does not answer on two (no answer within 1 s), which answers on other ports"]
        );
    }

    #[test]
    fn a_machine_that_is_down_or_has_no_such_agent_is_not() {
        assert_eq!(found_among(&RULE, [probe("two", "tcp", 179, Some("no answer within 1 s"))]), [""; 0]);
        let refused =
            [probe("two", "tcp", 179, Some("Connection refused (os error 111)")), probe("two", "tcp", 10250, None)];
        assert_eq!(found_among(&RULE, refused.clone()), [""; 0]);
        let listener = on("one", Fact::Listener { address: "0.0.0.0:179".to_owned(), process: None });
        assert_eq!(found_among(&RULE, refused.into_iter().chain([listener])).len(), 1);
        assert_eq!(found_among(&RULE, [probe("two", "tcp", 179, None), probe("two", "tcp", 10250, None)]), [""; 0]);
    }
}
