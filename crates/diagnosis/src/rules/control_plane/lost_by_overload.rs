//! A2: leaders lose their leases because the API server answers too late, with a store that is well.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::rules::control_plane::leases;
use crate::rules::etcd::slow_for_leases;
use crate::rules::signs::Sign;
use crate::rules::{Explains, Layer, Rule, Scope};

const LATE: Sign = Sign {
    programs: &[],
    words: &[
        &["lock", "Client.Timeout exceeded while awaiting headers"],
        &["lease", "Client.Timeout exceeded while awaiting headers"],
        &["lease", "context deadline exceeded"],
        &["lock", "context deadline exceeded"],
        &["lease", "timed out waiting for the condition"],
        &["Too many requests, please try again later"],
        &["the server has received too many requests and has asked us to try again later"],
    ],
    over: &[],
};

pub(super) const RULE: Rule = Rule {
    id: "A2",
    title: "leaders lose their leases because the API server answers too late",
    layer: Layer::Api,
    explains: &[
        Explains { ids: &["H2", "H3"], scope: Scope::Anywhere },
        Explains { ids: &["W1"], scope: Scope::Touched },
    ],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let (lost, late) = (leases::lost(evidence), LATE.told(evidence));
    let Some(first) = late.first().filter(|_| !lost.is_empty() && slow_for_leases(evidence).is_empty()) else {
        return Vec::new();
    };
    let repair = Repair::of(&[
        ("See whether the machine has a processor to spare", "uptime; top -b -n1 | head -15"),
        (
            "See who asks so much",
            "kubectl get --raw /metrics | grep -e apiserver_flowcontrol_rejected -e apiserver_current_inflight",
        ),
        ("Hold that one back with a priority level of its own", "kubectl get flowschemas,prioritylevelconfigurations"),
        (
            "To bear it meanwhile, give leaders more time",
            "--leader-elect-lease-duration=60s --leader-elect-renew-deadline=40s --leader-elect-retry-period=5s",
        ),
    ]);
    let text = format!(
        "{} could not renew their leases in time, and the store is well: {}",
        leases::names(&lost),
        first.text.trim()
    );
    let proof = leases::proof(&lost).chain(late.iter().flat_map(|told| told.lines.iter().copied())).collect();
    let subject = Subject::new("Component", "kube-apiserver");
    let finding = Finding::failure(subject, first.item, Certainty::Likely, text, proof, repair);
    vec![finding.touching(leases::victims(&lost))]
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn late_answers_are_found_in_the_words_of_any_controller() {
        for words in [
            r#"E0722 10:00:00.0 1 leaderelection.go:429] error retrieving resource lock kube-system/kube-controller-manager: Get "https://192.0.2.1:6443/apis": net/http: request canceled (Client.Timeout exceeded while awaiting headers)"#,
            "E0509 06:45:00.0 1 leaderelection.go:306] failed to renew lease capi-system/controller-leader-election-capi: timed out waiting for the condition",
            r#"E0722 10:00:00.0 1 leaderelection.go:436] "Failed to renew lease" lock="kube-system/kube-scheduler" err="context deadline exceeded""#,
        ] {
            let late = || ago(line_of("manager", words), 20);
            let lost = || {
                ago(
                    line_of(
                        "manager",
                        r#"E0509 06:45:00.0 1 main.go:1] "problem running manager" err="leader election lost""#,
                    ),
                    19,
                )
            };
            assert_eq!(found_among(&RULE, [late(), lost()]).len(), 1, "{words}");
            let slow = ago(line_of("etcd", r#"{"msg":"slow fdatasync"}"#), 30);
            assert_eq!(found_among(&RULE, [late(), lost(), slow]), [""; 0]);
            assert_eq!(found_among(&RULE, [lost()]), [""; 0]);
        }
    }

    #[test]
    fn an_api_server_that_is_away_is_something_else() {
        let text = r#"E0722 10:00:00.0 1 leaderelection.go:429] error retrieving resource lock kube-system/x: Get "https://192.0.2.1:6443": dial tcp 192.0.2.1:6443: connect: connection refused"#;
        let lost = ago(line_of("kube-scheduler", r#""leaderelection lost""#), 5);
        assert_eq!(found_among(&RULE, [ago(line_of("kube-scheduler", text), 6), lost]), [""; 0]);
    }
}
