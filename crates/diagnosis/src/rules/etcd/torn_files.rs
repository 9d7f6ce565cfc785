//! B5: the store's files are torn, as after a loss of power.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair};
use crate::rules::etcd::{OF_A_MEMBER, STORE};
use crate::rules::signs::{Sign, Told};
use crate::rules::{Layer, Rule};

const SIGN: Sign = Sign {
    programs: STORE,
    words: &[
        &["walpb: crc mismatch"],
        &["wal: crc mismatch"],
        &["freepages: failed to get all reachable pages"],
        &["snap: snapshot file doesn't exist"],
        &["failed to find database snapshot file"],
        &["Was the raft log corrupted, truncated, or lost?"],
        &["wal: max entry size limit exceeded"],
        &["panic", "invalid page type"],
        &["panic", "invalid freelist page"],
        &["failed to open", "invalid database"],
    ],
    over: &["ready to serve client requests", "became leader"],
};

pub(super) const RULE: Rule =
    Rule { id: "B5", title: "the store's files are torn", layer: Layer::Etcd, explains: OF_A_MEMBER, find };

fn find(evidence: &Evidence) -> Vec<Finding> {
    let repair = |_: &Told<'_>| {
        let mut repair = Repair::of(&[
            ("Keep what there is before anything else", "cp -a /var/lib/etcd /var/lib/etcd.torn"),
            (
                "With other members: take this one out, empty its directory, and let it join anew",
                "etcdctl member list; etcdctl member remove ID; rm -r /var/lib/etcd/member",
            ),
            (
                "Alone: restore the last snapshot; what was written since is lost",
                "etcdutl snapshot restore SNAPSHOT --data-dir /var/lib/etcd",
            ),
        ]);
        repair.dangerous = true;
        repair
    };
    let tell = |told: &Told<'_>| format!("{} cannot read what it wrote: {}", told.source.subject(), told.text.trim());
    SIGN.found(evidence, Certainty::Proven, repair, tell)
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn torn_files_are_found_and_a_sound_start_is_not() {
        check_lines(
            &RULE,
            &[
                ("etcd", r#"{"level":"fatal","msg":"failed to open WAL","error":"walpb: crc mismatch"}"#),
                (
                    "etcd",
                    "2021-03-01 12:00:00.1 C | etcdserver: read wal error (walpb: crc mismatch) and cannot be repaired",
                ),
                ("etcd", "panic: freepages: failed to get all reachable pages (page 42: multiple references)"),
                (
                    "etcd",
                    r#"{"level":"panic","msg":"failed to recover v3 backend from snapshot","error":"failed to find database snapshot file (snap: snapshot file doesn't exist)"}"#,
                ),
                (
                    "etcd",
                    "panic: tocommit(11) is out of range [lastIndex(8)]. Was the raft log corrupted, truncated, or lost?",
                ),
            ],
            &[("etcd", r#"{"level":"info","msg":"No snapshot found. Recovering WAL from scratch!"}"#)],
        );
    }
}
