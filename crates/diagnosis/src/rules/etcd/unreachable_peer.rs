//! B11: a member of the store cannot reach another.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Severity, Subject};
use crate::rules::etcd::{OF_THE_STORE, STORE};
use crate::rules::signs::Sign;
use crate::rules::{Layer, Rule};

const SIGN: Sign = Sign {
    programs: STORE,
    words: &[
        &["prober detected unhealthy status"],
        &["lost TCP streaming connection with remote peer"],
        &["lost the TCP streaming connection with peer"],
        &["health check for peer", "could not connect"],
        &["peer became inactive"],
        &["peer", "became inactive"],
    ],
    over: &["peer became active", "became active", "established TCP streaming connection with remote peer"],
};

pub(super) const RULE: Rule = Rule {
    id: "B11",
    title: "a member of the store cannot reach another",
    layer: Layer::Etcd,
    explains: OF_THE_STORE,
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    // With a majority, the store goes on.
    let stopped =
        evidence.logs().any(|(_, _, line)| line.text.contains("no leader") || line.text.contains("lost leader"));
    let found = SIGN.told(evidence).into_iter().map(|told| {
        let peer = peer(told.text).unwrap_or("a peer");
        let port = "nc -vz PEER 2380";
        let repair = Repair::of(&[
            ("On the other machine: does its etcd run?", "crictl ps --name etcd"),
            ("If it does, is its port open from here?", port),
        ]);
        let text = format!("{} does not reach {peer}: {}", told.source.subject(), told.text.trim());
        let subject = Subject::new("Member", peer);
        let mut finding = Finding::failure(subject, told.item, Certainty::Likely, text, told.lines, repair);
        finding.severity = if stopped { Severity::Failure } else { Severity::Warning };
        finding
    });
    found.collect()
}

/// The member that a line is about: after `remote-peer-id":"` or `peer `.
fn peer(line: &str) -> Option<&str> {
    let after = line.split_once("peer-id\":\"").or_else(|| line.split_once("peer "))?.1;
    let end = after.find(['"', ' ', '(']).unwrap_or(after.len());
    Some(&after[..end]).filter(|id| id.len() > 6 && id.chars().all(|each| each.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_peer_that_is_away_is_found_in_both_wordings_and_named() {
        let new = r#"{"level":"warn","msg":"prober detected unhealthy status","remote-peer-id":"8e9e05c52164694d","error":"dial tcp 192.0.2.3:2380: i/o timeout"}"#;
        let old = "2021-03-01 12:00:00.1 W | rafthttp: lost the TCP streaming connection with peer 8e9e05c52164694d (stream Message reader)";
        check_lines(
            &RULE,
            &[("etcd", new), ("etcd", old)],
            &[("etcd", r#"{"level":"info","msg":"starting remote peer"}"#)],
        );
        let texts = found_among(&RULE, [line_of("etcd", new)]);
        assert!(texts[0].contains("does not reach 8e9e05c52164694d"), "{texts:?}");
    }

    #[test]
    fn a_peer_that_came_back_is_not_found() {
        let away = ago(line_of("etcd", "peer 8e9e05c52164694d became inactive"), 30);
        let back = ago(line_of("etcd", "peer 8e9e05c52164694d became active"), 20);
        assert_eq!(found_among(&RULE, [away, back]), [""; 0]);
    }
}
