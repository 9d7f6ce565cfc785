//! B3: the store has no leader: too few members are there, or they hear of each other too late.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::object::text;
use crate::rules::etcd::{OF_THE_STORE, answers};
use crate::rules::signs::Sign;
use crate::rules::{Layer, Rule};

const SIGN: Sign = Sign {
    programs: &[],
    words: &[
        &["etcdserver: no leader"],
        &["serving /health false; no leader"],
        &["/health error", "RAFT NO LEADER"],
        &["is starting a new election at term"],
        &["lost leader", "at term"],
    ],
    over: &["became leader at term", "elected leader", "became leader"],
};

pub(super) const RULE: Rule =
    Rule { id: "B3", title: "the store has no leader", layer: Layer::Etcd, explains: OF_THE_STORE, find };

fn find(evidence: &Evidence) -> Vec<Finding> {
    let subject = || Subject::new("Component", "etcd");
    let mut found: Vec<Finding> = Vec::new();
    for (index, item, answer) in answers(evidence) {
        let status = &answer["status"];
        let leaderless = status.is_object() && matches!(text(&status["leader"]), "" | "0");
        if leaderless || text(&answer["health"]["reason"]).contains("NO LEADER") {
            let text = format!("{}: no leader is elected; {}", item.origin, members(answer));
            found.push(Finding::failure(subject(), item, Certainty::Proven, text, vec![index], repair()));
        }
    }
    for told in SIGN.told(evidence) {
        if found.iter().all(|known| known.place != told.item.place) {
            let text = format!("{} says: {}", told.source.program(), told.text.trim());
            found.push(Finding::failure(subject(), told.item, Certainty::Likely, text, told.lines, repair()));
        }
    }
    found
}

fn members(answer: &serde_json::Value) -> String {
    let count = crate::object::list(&answer["members"]).count();
    match count {
        0 => "its members are not known".to_owned(),
        count => format!("{} of its {count} members must run", count / 2 + 1),
    }
}

fn repair() -> Repair {
    let mut repair = Repair::of(&[
        ("Bring back as many members as make a majority: on each machine of the control plane", "kedge doctor node"),
        ("See that they reach each other", "nc -vz PEER 2380"),
        (
            "Only if a majority is gone for good: start the member with the newest data as a cluster of one, and let the others join it anew. What only the lost members had is lost",
            "etcd --force-new-cluster",
        ),
    ]);
    repair.dangerous = true;
    repair
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn elections_without_an_end_are_found() {
        check_lines(
            &RULE,
            &[
                (
                    "etcd",
                    r#"{"level":"info","logger":"raft","msg":"8e9e05c52164694d is starting a new election at term 4"}"#,
                ),
                ("etcd", "2021-03-01 12:00:00.1 I | raft: 8e9e05c52164694d is starting a new election at term 4"),
                ("etcd", r#"{"level":"warn","msg":"serving /health false; no leader"}"#),
                (
                    "kube-apiserver",
                    "E0722 10:00:00.0 1 x.go:1] rpc error: code = Unavailable desc = etcdserver: no leader",
                ),
            ],
            &[("etcd", r#"{"level":"info","msg":"8e9e05c52164694d became leader at term 4"}"#)],
        );
    }

    #[test]
    fn an_election_that_ends_is_right() {
        let line = |seconds: i64, text: &str| ago(line_of("etcd", text), seconds);
        let items = [line(20, "7 is starting a new election at term 1"), line(19, "7 became leader at term 2")];
        assert_eq!(found_among(&RULE, items), [""; 0]);
    }

    #[test]
    fn a_member_that_knows_no_leader_is_found() {
        let answer = |leader: &str| document("etcd", json!({"status": {"leader": leader}}));
        assert_eq!(found_among(&RULE, [answer("0")]).len(), 1);
        assert_eq!(found_among(&RULE, [answer("9372538179322589801")]), [""; 0]);
    }
}
