//! B4: leadership of the store goes to and fro.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair};
use crate::rules::etcd::OF_THE_STORE;
use crate::rules::signs::{Sign, Told};
use crate::rules::{Layer, Rule};

/// A restart changes the leader once, and its clients hear of it once each.
const OFTEN: usize = 3;
const SIGN: Sign = Sign {
    programs: &[],
    words: &[
        &["etcdserver: leader changed"],
        &["etcdserver: request timed out, possibly due to previous leader failure"],
        &["raft.node", "changed leader from"],
        &["raft.node", "elected leader"],
    ],
    over: &[],
};

pub(super) const RULE: Rule = Rule {
    id: "B4",
    title: "the store changes its leader again and again",
    layer: Layer::Etcd,
    explains: OF_THE_STORE,
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let often = SIGN.told(evidence).into_iter().filter(|told| told.count >= OFTEN);
    let finding = |told: Told<'_>| {
        let repair = Repair::of(&[
            ("Look at the disk, the processor and the network of its members first", "kedge doctor node"),
            (
                "If members are far from each other, give them more time, the same on each",
                "--heartbeat-interval=300 --election-timeout=3000",
            ),
        ]);
        let text = format!("{} tells of {} changes, last: {}", told.source.program(), told.count, told.text.trim());
        Finding::failure(told.source.subject(), told.item, Certainty::Likely, text, told.lines, repair)
    };
    often.map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn many_changes_are_found_and_one_is_not() {
        for text in [
            "rpc error: code = Unavailable desc = etcdserver: leader changed",
            "etcdserver: request timed out, possibly due to previous leader failure",
        ] {
            let lines = |count: usize, age: i64| (0..count).map(move |_| ago(line_of("kube-apiserver", text), age));
            assert_eq!(found_among(&RULE, lines(3, 10)).len(), 1);
            assert_eq!(found_among(&RULE, lines(1, 10)), [""; 0]);
            assert_eq!(found_among(&RULE, lines(9, 7200)), [""; 0]);
        }
    }
}
