//! B10: the clocks of the store's machines differ.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Severity, Subject};
use crate::rules::etcd::STORE;
use crate::rules::signs::Sign;
use crate::rules::{Explains, Layer, Rule, Scope};

pub(in crate::rules) const SIGN: Sign = Sign {
    programs: STORE,
    words: &[&["prober found high clock drift"], &["the clock difference against peer", "is too high"]],
    over: &[],
};

pub(super) const RULE: Rule = Rule {
    id: "B10",
    title: "the clocks of the store's machines differ",
    layer: Layer::Hardware,
    explains: &[Explains { ids: &["B9", "F11"], scope: Scope::Anywhere }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let found = SIGN.told(evidence).into_iter().map(|told| {
        let repair = Repair::of(&[
            ("See by how much, on each machine", "chronyc tracking || timedatectl timesync-status"),
            (
                "Let them follow the same time",
                "systemctl enable --now chrony || systemctl enable --now systemd-timesyncd",
            ),
        ]);
        let text = format!("{} says: {}", told.source.subject(), told.text.trim());
        let subject = Subject::new("Setting", "clock");
        let mut finding = Finding::failure(subject, told.item, Certainty::Proven, text, told.lines, repair);
        // The store itself goes on with clocks that differ; what checks certificates may not.
        let refuses =
            evidence.logs().any(|(_, _, line)| line.text.contains("certificate has expired or is not yet valid"));
        finding.severity = if refuses { Severity::Failure } else { Severity::Warning };
        finding
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn clocks_that_differ_are_found_in_both_wordings() {
        check_lines(
            &RULE,
            &[
                (
                    "etcd",
                    r#"{"level":"warn","msg":"prober found high clock drift","round-tripper-name":"ROUND_TRIPPER_RAFT_MESSAGE","remote-peer-id":"7","clock-drift":"29.1s","rtt":"1ms"}"#,
                ),
                (
                    "etcd",
                    "2021-03-01 12:00:00.1 W | rafthttp: the clock difference against peer 7 is too high [10.4s > 1s]",
                ),
            ],
            &[("etcd", r#"{"level":"info","msg":"peer became active","peer-id":"7"}"#)],
        );
    }
}
