//! B7: a member starts as a new one although the others know it.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair};
use crate::rules::etcd::{OF_THE_STORE, STORE};
use crate::rules::signs::{Sign, Told};
use crate::rules::{Layer, Rule};

const SIGN: Sign = Sign {
    programs: STORE,
    words: &[&["member", "has already been bootstrapped"]],
    over: &["ready to serve client requests"],
};

pub(super) const RULE: Rule = Rule {
    id: "B7",
    title: "a member of the store lost its data and starts as a new one",
    layer: Layer::Etcd,
    explains: OF_THE_STORE,
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let repair = |_: &Told<'_>| {
        Repair::of(&[
            ("From another member: take it out", "etcdctl member list; etcdctl member remove ID"),
            ("And add it again", "etcdctl member add NAME --peer-urls=https://ADDRESS:2380"),
            ("Its manifest must say that it joins", "--initial-cluster-state=existing"),
        ])
    };
    let tell = |told: &Told<'_>| {
        format!("{} has no data, and the others know it already: {}", told.source.subject(), told.text.trim())
    };
    SIGN.found(evidence, Certainty::Proven, repair, tell)
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_member_that_was_there_before_is_found() {
        check_lines(
            &RULE,
            &[
                (
                    "etcd",
                    r#"{"level":"fatal","msg":"discovery failed","error":"member 8e9e05c52164694d has already been bootstrapped"}"#,
                ),
                ("etcd", "2021-03-01 12:00:00.1 C | etcdmain: member 8e9e05c52164694d has already been bootstrapped"),
            ],
            &[("etcd", r#"{"level":"info","msg":"added member","added-peer-id":"8e9e05c52164694d"}"#)],
        );
    }
}
