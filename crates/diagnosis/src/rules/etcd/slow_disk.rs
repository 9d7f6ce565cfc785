//! B1: the disk below the store is slow, or shared with somebody who writes much.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Severity, Subject};
use crate::rules::etcd::{OF_A_MEMBER, STORE};
use crate::rules::signs::{Sign, Told};
use crate::rules::{Layer, Rule};

/// Any store says it now and then; a slow one goes on saying it.
const OFTEN: usize = 10;
/// One write-ahead log that takes this long to reach the disk is no chance.
const SLOW_FSYNC: Sign = Sign {
    programs: STORE,
    words: &[
        &["slow fdatasync"],
        &["leader failed to send out heartbeat on time"],
        &["failed to send out heartbeat on time (exceeded"],
        &["wal: sync duration of", "expected less than"],
        &["leader is overloaded likely from slow disk"],
    ],
    over: &[],
};
const SLOW_APPLY: Sign = Sign {
    programs: STORE,
    words: &[&["apply request took too long"], &["took too long", "to execute"], &["server is likely overloaded"]],
    over: &[],
};
/// Requests that fail for it, wherever they were made.
const FAILED: Sign =
    Sign { programs: &[], words: &[&["etcdserver: request timed out"], &["etcdserver: too many requests"]], over: &[] };
/// Seconds that 99 of 100 writes should take at most.
const HEALTHY_FSYNC: f64 = 0.01;
/// Seconds from which on leaders lose their followers.
const FAILING_FSYNC: f64 = 0.1;

pub(super) const RULE: Rule =
    Rule { id: "B1", title: "the store's disk is slow", layer: Layer::Etcd, explains: OF_A_MEMBER, find };

fn find(evidence: &Evidence) -> Vec<Finding> {
    let failed = FAILED.told(evidence);
    let severity = if failed.is_empty() { Severity::Warning } else { Severity::Failure };
    let mut found: Vec<Finding> = slow(evidence)
        .into_iter()
        .map(|told| {
            let text = format!(
                "{} said {} times that it waits for its disk, last: {}",
                told.source.subject(),
                told.count,
                told.text.trim()
            );
            let mut proof = told.lines.clone();
            proof.extend(failed.iter().flat_map(|failed| failed.lines.clone()));
            let subject = told.source.subject();
            let mut finding = Finding::failure(subject, told.item, Certainty::Likely, text, proof, repair());
            finding.severity = severity;
            finding
        })
        .collect();
    for (index, item, measure) in evidence.measures("etcd_fsync_p99_seconds") {
        if measure.value <= HEALTHY_FSYNC || found.iter().any(|finding| finding.place == item.place) {
            continue;
        }
        let text = format!(
            "of 100 writes of {} to its disk, one takes longer than {:.0} ms; {:.0} ms is what it needs",
            measure.of,
            measure.value * 1000.0,
            HEALTHY_FSYNC * 1000.0
        );
        let subject = Subject::new("Component", "etcd");
        let mut finding = Finding::failure(subject, item, Certainty::Likely, text, vec![index], repair());
        finding.severity = if measure.value > FAILING_FSYNC { severity } else { Severity::Warning };
        found.push(finding);
    }
    found
}

/// The logs that tell of a slow disk: by one line that says it of the disk, or by many that say it of requests.
fn slow(evidence: &Evidence) -> Vec<Told<'_>> {
    slow_where(evidence, |_| true)
}

/// The same, where requests waited for a second and longer, or nobody says for how long: a shorter wait costs no lease.
pub(in crate::rules) fn slow_for_leases(evidence: &Evidence) -> Vec<Told<'_>> {
    slow_where(evidence, |line| !is_brief(line))
}

/// Whether a line tells of a wait of less than a second, in either of the store's forms.
fn is_brief(line: &str) -> bool {
    let took = line.split_once("\"took\":\"").and_then(|(_, rest)| rest.split_once('"'));
    let took = took.or_else(|| line.split_once("took too long (").and_then(|(_, rest)| rest.split_once(')')));
    took.is_some_and(|(took, _)| took.ends_with("ms") || took.ends_with("µs"))
}

fn slow_where(evidence: &Evidence, counts: impl Fn(&str) -> bool) -> Vec<Told<'_>> {
    let mut told = SLOW_FSYNC.told(evidence);
    let requests = SLOW_APPLY.told_where(evidence, counts).into_iter().filter(|told| told.count >= OFTEN);
    for requests in requests {
        if !told.iter().any(|known| known.item.place == requests.item.place) {
            told.push(requests);
        }
    }
    told
}

fn repair() -> Repair {
    Repair::of(&[
        ("See who writes to that disk", "iostat -x 1 5; pidstat -d 1 5"),
        (
            "Give the store a disk of its own, an SSD, and move logs and images elsewhere",
            "df /var/lib/etcd /var/log /var/lib/containerd",
        ),
        ("Until then, let nobody else go first", "ionice -c2 -n0 -p $(pgrep -x etcd)"),
    ])
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn words_about_the_disk_are_found_in_all_versions() {
        check_lines(
            &RULE,
            &[
                (
                    "etcd",
                    r#"{"level":"warn","caller":"wal/wal.go:805","msg":"slow fdatasync","took":"1.2s","expected-duration":"1s"}"#,
                ),
                (
                    "etcd",
                    r#"{"level":"warn","msg":"leader failed to send out heartbeat on time; took too long, leader is overloaded likely from slow disk"}"#,
                ),
                (
                    "etcd",
                    "2021-03-01 12:00:00.1 W | etcdserver: failed to send out heartbeat on time (exceeded the 100ms timeout for 640ms, to 7)",
                ),
                ("etcd", "2021-03-01 12:00:00.1 W | wal: sync duration of 1.31s, expected less than 1s"),
            ],
            &[
                (
                    "etcd",
                    r#"{"level":"warn","msg":"apply request took too long","took":"130ms","expected-duration":"100ms"}"#,
                ),
                ("web", "slow fdatasync"),
            ],
        );
    }

    #[test]
    fn a_wait_is_brief_in_either_form() {
        for (line, brief) in [
            (r#"{"msg":"apply request took too long","took":"130ms","expected-duration":"100ms"}"#, true),
            (r#"{"msg":"apply request took too long","took":"1.3s","expected-duration":"100ms"}"#, false),
            ("read-only range request \"key\" took too long (212.4ms) to execute", true),
            ("read-only range request \"key\" took too long (2.4s) to execute", false),
            ("server is likely overloaded", false),
        ] {
            assert_eq!(super::is_brief(line), brief, "{line}");
        }
    }

    #[test]
    fn slow_requests_count_when_there_are_many() {
        let line = || ago(line_of("etcd", r#"{"level":"warn","msg":"apply request took too long"}"#), 30);
        assert_eq!(found_among(&RULE, (0..9).map(|_| line())), [""; 0]);
        assert_eq!(found_among(&RULE, (0..10).map(|_| line())).len(), 1);
    }

    #[test]
    fn a_measured_disk_is_held_against_what_the_store_needs() {
        assert_eq!(found_among(&RULE, [measured("etcd_fsync_p99_seconds", "127.0.0.1:2381", 0.064, None)]).len(), 1);
        assert_eq!(found_among(&RULE, [measured("etcd_fsync_p99_seconds", "127.0.0.1:2381", 0.004, None)]), [""; 0]);
    }
}
