//! G5: the network card writes wrong checksums into the packets that a tunnel wraps: ICMP passes, UDP and TCP do not.

use crate::evidence::Evidence;
use crate::facts::NetworkFact;
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::rules::signs::Sign;
use crate::rules::{Explains, Layer, Rule, Scope};

const SIGN: Sign =
    Sign { programs: &["kernel"], words: &[&["UDP: bad checksum"], &["UDPv6: bad checksum"]], over: &[] };
/// A single broken packet happens on any wire.
const FEW: usize = 3;

pub(super) const RULE: Rule = Rule {
    id: "G5",
    title: "packets of the tunnel carry wrong checksums",
    layer: Layer::System,
    explains: &[Explains { ids: &["G6", "G14", "G25"], scope: Scope::Anywhere }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut found = Vec::new();
    for told in SIGN.told(evidence).into_iter().filter(|told| told.count >= FEW) {
        let tunnel = evidence.networks().find_map(|(index, item, fact)| match fact {
            NetworkFact::Interface { name, kind, .. } if item.place == told.item.place && kind == "vxlan" => {
                Some((index, name.as_str()))
            }
            _ => None,
        });
        let Some((index, tunnel)) = tunnel else { continue };
        let switch = format!("ethtool -K {tunnel} tx-checksum-ip-generic off");
        let repair = Repair::of(&[
            ("Let the kernel compute them, and do so at each boot", switch.as_str()),
            (
                "For calico, which keeps it so",
                "kubectl patch felixconfiguration default --type merge -p '{\"spec\":{\"featureDetectOverride\":\"ChecksumOffloadBroken=true\"}}'",
            ),
            ("A later kernel or driver mends it for good", ""),
        ]);
        let sentence = format!(
            "the kernel dropped {} UDP packets for their checksums, and {tunnel} wraps packets of pods in UDP",
            told.count
        );
        let proof = told.lines.iter().copied().chain([index]).collect();
        let subject = Subject::machine(&told.item.place);
        found.push(Finding::failure(subject, told.item, Certainty::Likely, sentence, proof, repair));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn wrong_checksums_under_a_tunnel_are_found() {
        let line = || kernel_logged("UDP: bad checksum. From 10.0.0.2:46033 to 10.0.0.1:8472 ulen 80");
        let tunnel = || interface("flannel.1", 1450, "vxlan", &[]);
        assert_eq!(found_among(&RULE, [line(), line(), line(), tunnel()]).len(), 1);
        // One such packet, no tunnel, or long ago.
        assert_eq!(found_among(&RULE, [line(), tunnel()]), [""; 0]);
        assert_eq!(found_among(&RULE, [line(), line(), line()]), [""; 0]);
        let old = || ago(line(), 7200);
        assert_eq!(found_among(&RULE, [old(), old(), old(), tunnel()]), [""; 0]);
    }
}
