//! B2: the store has reached its quota and takes no more writes, or soon will.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Severity, Subject};
use crate::object::{list, text};
use crate::rules::etcd::{OF_THE_STORE, answers};
use crate::rules::signs::Sign;
use crate::rules::{Layer, Rule};

const SIGN: Sign = Sign {
    programs: &[],
    words: &[&["mvcc: database space exceeded"], &["ALARM NOSPACE"], &["alarm:NOSPACE"]],
    over: &["alarm disarmed", "disarmed alarm"],
};
/// The part of the quota from which on it is said.
const FULL: f64 = 0.8;

pub(super) const RULE: Rule =
    Rule { id: "B2", title: "the store has reached its quota", layer: Layer::Etcd, explains: OF_THE_STORE, find };

fn find(evidence: &Evidence) -> Vec<Finding> {
    let subject = || Subject::new("Component", "etcd");
    let mut found: Vec<Finding> = Vec::new();
    for (index, item, answer) in answers(evidence) {
        let alarms = list(&answer["alarms"]).any(|alarm| text(&alarm["alarm"]) == "NOSPACE");
        if alarms || text(&answer["health"]["reason"]).contains("NOSPACE") {
            let text = "the store has raised NOSPACE: it takes no writes until that is disarmed".to_owned();
            found.push(Finding::failure(subject(), item, Certainty::Proven, text, vec![index], repair()));
        }
    }
    // A member that answers lists the alarms of all of them: without one, what was written before it was taken off is past.
    let is_over = found.is_empty() && answers(evidence).any(|(_, _, answer)| answer["alarms"].is_array());
    for told in SIGN.told(evidence).into_iter().filter(|_| !is_over) {
        if found.iter().all(|known| known.place != told.item.place) {
            let text = format!("{} says: {}", told.source.program(), told.text.trim());
            found.push(Finding::failure(subject(), told.item, Certainty::Likely, text, told.lines, repair()));
        }
    }
    for (index, item, size) in evidence.measures("etcd_db_bytes") {
        let Some(quota) = size.limit.filter(|quota| *quota > 0.0 && size.value / quota >= FULL) else { continue };
        if found.iter().any(|known| known.place == item.place) {
            continue;
        }
        let (size, quota) = (size.value / f64::from(1 << 20), quota / f64::from(1 << 20));
        let text =
            format!("the store has {size:.0} MiB of its quota of {quota:.0} MiB; at the quota it takes no writes");
        let mut finding = Finding::failure(subject(), item, Certainty::Proven, text, vec![index], repair());
        finding.severity = Severity::Warning;
        found.push(finding);
    }
    found
}

fn repair() -> Repair {
    Repair::of(&[
        (
            "Forget old revisions",
            "etcdctl compact $(etcdctl endpoint status -w json | sed 's/.*\"revision\":\\([0-9]*\\).*/\\1/')",
        ),
        ("Give the room back, one member after the other", "etcdctl defrag"),
        ("Let it write again", "etcdctl alarm disarm"),
        ("Raise the quota in the manifest, and find out who writes so much", "--quota-backend-bytes=8589934592"),
    ])
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn words_of_any_writer_are_found() {
        check_lines(
            &RULE,
            &[
                (
                    "kube-apiserver",
                    r#"E0722 10:00:00.0 1 writers.go:131] apiserver was unable to write: etcdserver: mvcc: database space exceeded"#,
                ),
                (
                    "kube-apiserver",
                    "ERROR the store failed error=etcd's database is full (mvcc: database space exceeded, alarm NOSPACE), it takes no writes",
                ),
                (
                    "etcd",
                    r#"{"level":"warn","msg":"/health error","output":"{\"health\":\"false\",\"reason\":\"ALARM NOSPACE\"}"}"#,
                ),
            ],
            &[("etcd", r#"{"level":"info","msg":"finished scheduled compaction"}"#)],
        );
    }

    #[test]
    fn alarms_fail_and_a_size_near_the_quota_warns() {
        let answer = |alarms: Value| document("etcd", json!({"alarms": alarms}));
        assert_eq!(found_among(&RULE, [answer(json!([{"memberID": "7", "alarm": "NOSPACE"}]))]).len(), 1);
        assert_eq!(found_among(&RULE, [answer(json!([]))]), [""; 0]);
        let said =
            || line_of("kube-apiserver", "apiserver was unable to write: etcdserver: mvcc: database space exceeded");
        assert_eq!(found_among(&RULE, [said(), answer(json!([]))]), [""; 0]);
        assert_eq!(found_among(&RULE, [said(), document("etcd", json!({"alarmsError": "refused"}))]).len(), 1);
        let size = |bytes: f64| measured("etcd_db_bytes", "127.0.0.1:2379", bytes, Some(2.0e9));
        assert_eq!(found_among(&RULE, [size(1.7e9)]).len(), 1);
        assert_eq!(found_among(&RULE, [size(1.0e9)]), [""; 0]);
    }
}
