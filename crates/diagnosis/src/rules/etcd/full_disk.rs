//! B14: the store cannot write, because its disk is full.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair};
use crate::rules::etcd::{OF_A_MEMBER, STORE};
use crate::rules::signs::{Sign, Told};
use crate::rules::{Layer, Rule};

const SIGN: Sign = Sign {
    programs: STORE,
    words: &[&["no space left on device"]],
    over: &["ready to serve client requests", "became leader"],
};

pub(super) const RULE: Rule =
    Rule { id: "B14", title: "the store's disk is full", layer: Layer::Etcd, explains: OF_A_MEMBER, find };

fn find(evidence: &Evidence) -> Vec<Finding> {
    let repair = |_: &Told<'_>| {
        Repair::of(&[
            (
                "See what takes the room; never remove files of the store itself",
                "du -xh --max-depth=2 /var | sort -h | tail",
            ),
            ("Images that nothing uses, and old logs", "crictl rmi --prune; journalctl --vacuum-size=200M"),
            ("Then see whether the store has raised an alarm meanwhile", "etcdctl alarm list"),
        ])
    };
    let tell = |told: &Told<'_>| format!("{} cannot write: {}", told.source.subject(), told.text.trim());
    SIGN.found(evidence, Certainty::Proven, repair, tell)
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_store_without_room_is_found_and_another_program_is_not() {
        check_lines(
            &RULE,
            &[
                (
                    "etcd",
                    r#"{"level":"fatal","msg":"failed to save Raft hard state and entries","error":"write /var/lib/etcd/member/wal/0.wal: no space left on device"}"#,
                ),
                (
                    "etcd",
                    "2021-03-01 12:00:00.1 C | etcdserver: raft save state and entries error: write /var/lib/etcd/member/wal/0.wal: no space left on device",
                ),
            ],
            &[("web", "write /data/x: no space left on device")],
        );
    }
}
