//! A1: leaders lose their leases because the store's disk is slow.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::rules::control_plane::leases;
use crate::rules::etcd::slow_for_leases;
use crate::rules::{Explains, Layer, Rule, Scope};

pub(super) const RULE: Rule = Rule {
    id: "A1",
    title: "leaders lose their leases because the store's disk is slow",
    layer: Layer::Etcd,
    explains: &[
        Explains {
            ids: &["A2", "A4", "A15", "A16", "A17", "B1", "B3", "B4", "B13", "E1", "H2", "H3"],
            scope: Scope::Anywhere,
        },
        Explains { ids: &["W1"], scope: Scope::ControlPlane },
        Explains { ids: &["W1"], scope: Scope::Touched },
    ],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let (mut lost, slow) = (leases::lost(evidence), slow_for_leases(evidence));
    // Who could not even reach an address does not wait for a disk.
    let cut_off = leases::CLOSED.told(evidence);
    lost.retain(|told| !cut_off.iter().any(|other| other.source == told.source && other.item.place == told.item.place));
    let Some(store) = slow.first().filter(|_| !lost.is_empty()) else { return Vec::new() };
    let repair = Repair::of(&[
        ("See who writes to the store's disk", "iostat -x 1 5; pidstat -d 1 5"),
        (
            "Give the store a disk of its own, an SSD; until then let nobody else go first",
            "ionice -c2 -n0 -p $(pgrep -x etcd)",
        ),
        (
            "To bear it meanwhile, give leaders more time: a lease must outlast the deadline of its renewal, and that 1.2 times the pause between tries",
            "--leader-elect-lease-duration=60s --leader-elect-renew-deadline=40s --leader-elect-retry-period=5s",
        ),
    ]);
    let text = format!(
        "{} could not renew their leases in time, and the store waits for its disk: {}",
        leases::names(&lost),
        store.text.trim()
    );
    let proof = leases::proof(&lost).chain(slow.iter().flat_map(|told| told.lines.iter().copied())).collect();
    let subject = Subject::new("Component", "etcd");
    let finding = Finding::failure(subject, store.item, Certainty::Likely, text, proof, repair);
    vec![finding.touching(leases::victims(&lost))]
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    const SLOW: &str = r#"{"level":"warn","msg":"slow fdatasync","took":"2.1s","expected-duration":"1s"}"#;
    const WORDS: [&str; 5] = [
        r#"E0722 10:00:00.0 1 leaderelection.go:436] "Failed to renew lease" lock="kube-system/kube-scheduler" err="context deadline exceeded""#,
        "I0722 10:00:00.0 1 leaderelection.go:285] failed to renew lease kube-system/kube-scheduler: timed out waiting for the condition",
        r#"E0722 10:00:00.0 1 server.go:242] "leaderelection lost""#,
        r#"E0722 10:00:00.0 1 controllermanager.go:330] "leaderelection lost/stopped""#,
        "WARN the lease could not be renewed for 12.0 s; all controllers stopped, competing again",
    ];

    #[test]
    fn lost_leases_and_a_slow_disk_are_found_together_only() {
        for words in WORDS {
            let lost = || ago(line_of("kube-scheduler", words), 20);
            let slow = ago(line_of("etcd", SLOW), 30);
            assert_eq!(found_among(&RULE, [lost(), slow.clone()]).len(), 1, "{words}");
            assert_eq!(found_among(&RULE, [lost()]), [""; 0]);
            assert_eq!(found_among(&RULE, [slow.clone()]), [""; 0]);
            assert_eq!(found_among(&RULE, [ago(lost(), 7200), ago(slow, 7200)]), [""; 0]);
        }
    }

    #[test]
    fn requests_of_less_than_a_second_cost_no_lease() {
        let with = |took: &str| {
            let text =
                format!(r#"{{"msg":"apply request took too long","took":"{took}","expected-duration":"100ms"}}"#);
            let lost = ago(line_of("kube-scheduler", WORDS[2]), 20);
            found_among(&RULE, (0..10).map(|_| ago(line_of("etcd", &text), 30)).chain([lost])).len()
        };
        assert_eq!((with("212.3ms"), with("6.1s")), (0, 1));
    }

    #[test]
    fn a_lease_that_is_held_again_is_no_trouble_unless_it_is_lost_often() {
        let lost = |seconds| ago(line_of("kube-scheduler", WORDS[2]), seconds);
        let held =
            |seconds| ago(line_of("kube-scheduler", "successfully acquired lease kube-system/kube-scheduler"), seconds);
        let slow = || ago(line_of("etcd", SLOW), 30);
        assert_eq!(found_among(&RULE, [slow(), lost(60), held(40)]), [""; 0]);
        assert_eq!(found_among(&RULE, [slow(), lost(300), lost(200), lost(60), held(40)]).len(), 1);
    }
}
