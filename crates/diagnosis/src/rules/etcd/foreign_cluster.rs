//! B6: a member has the data of another cluster.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair};
use crate::rules::etcd::{OF_THE_STORE, STORE};
use crate::rules::signs::{Sign, Told};
use crate::rules::{Layer, Rule};

const SIGN: Sign = Sign {
    programs: STORE,
    words: &[&["request cluster ID mismatch"], &["due to cluster ID mismatch"], &["cluster ID mismatch", "remote"]],
    over: &[],
};

pub(super) const RULE: Rule = Rule {
    id: "B6",
    title: "a member of the store has the data of another cluster",
    layer: Layer::Etcd,
    explains: OF_THE_STORE,
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let repair = |_: &Told<'_>| {
        let mut repair = Repair::of(&[
            ("See which member is the stranger: the one whose id no other lists", "etcdctl member list"),
            (
                "On that machine only: put its data aside, and let it join",
                "mv /var/lib/etcd/member /var/lib/etcd.strange; # --initial-cluster-state=existing in its manifest",
            ),
        ]);
        repair.dangerous = true;
        repair
    };
    let tell = |told: &Told<'_>| format!("{} and a peer are of two clusters", told.source.subject());
    SIGN.found(evidence, Certainty::Proven, repair, tell)
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn strangers_are_found_and_peers_that_are_away_are_not() {
        check_lines(
            &RULE,
            &[
                ("etcd", r#"{"level":"warn","msg":"request cluster ID mismatch","remote-peer-server-name":"x"}"#),
                (
                    "etcd",
                    r#"{"level":"error","msg":"request sent was ignored by remote peer due to cluster ID mismatch"}"#,
                ),
                ("etcd", "2021-03-01 12:00:00.1 E | rafthttp: request cluster ID mismatch (got 1 want 2)"),
            ],
            &[("etcd", r#"{"level":"warn","msg":"prober detected unhealthy status","remote-peer-id":"7"}"#)],
        );
    }
}
