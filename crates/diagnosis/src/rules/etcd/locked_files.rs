//! B12: two processes want the same files of the store.

use crate::evidence::Evidence;
use crate::facts::ProcessFact;
use crate::finding::{Certainty, Finding, Repair};
use crate::rules::etcd::{OF_A_MEMBER, STORE};
use crate::rules::signs::{Sign, Told};
use crate::rules::{Layer, Rule};

const SIGN: Sign = Sign {
    programs: STORE,
    words: &[
        &["db file is flocked by another process, or taking too long"],
        &["another etcd process is using", "and holds the file lock"],
        &["failed to lock", "resource temporarily unavailable"],
    ],
    over: &["ready to serve client requests", "opened backend db"],
};

pub(super) const RULE: Rule = Rule {
    id: "B12",
    title: "two processes want the same files of the store",
    layer: Layer::Etcd,
    explains: OF_A_MEMBER,
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let finding = |told: Told<'_>| {
        let others: Vec<_> = evidence
            .processes()
            .filter(|(_, item, process)| item.place == told.item.place && is_store(process))
            .map(|(index, _, process)| (index, process.pid))
            .collect();
        let repair = Repair::of(&[
            ("See who holds them", "fuser -v /var/lib/etcd/member/snap/db"),
            (
                "A unit beside the static pod is the usual one: stop the one that is not meant",
                "systemctl disable --now etcd",
            ),
        ]);
        let pids: Vec<String> = others.iter().map(|(_, pid)| pid.to_string()).collect();
        let running = match pids.len() {
            0 => String::new(),
            _ => format!("; etcd runs as process {}", pids.join(", ")),
        };
        let text = format!("{} waits for its files, which another process has{running}", told.source.subject());
        let proof = told.lines.iter().copied().chain(others.iter().map(|(index, _)| *index)).collect();
        Finding::failure(told.source.subject(), told.item, Certainty::Proven, text, proof, repair)
    };
    SIGN.told(evidence).into_iter().map(finding).collect()
}

fn is_store(process: &ProcessFact) -> bool {
    process.command.first().is_some_and(|command| command.rsplit('/').next() == Some("etcd"))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn files_of_another_process_are_found() {
        check_lines(
            &RULE,
            &[
                (
                    "etcd",
                    r#"{"level":"info","msg":"db file is flocked by another process, or taking too long","path":"/var/lib/etcd/member/snap/db","took":"10s"}"#,
                ),
                (
                    "etcd",
                    "2021-03-01 12:00:00.1 W | etcdserver: another etcd process is using \"/var/lib/etcd/member/snap/db\" and holds the file lock.",
                ),
            ],
            &[("etcd", r#"{"level":"info","msg":"opened backend db","took":"3ms"}"#)],
        );
    }
}
