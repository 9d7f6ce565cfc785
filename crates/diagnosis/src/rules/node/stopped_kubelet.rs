//! E6: the kubelet of a machine does not run, or will not after the next start of the machine.

use crate::action::Action;
use crate::evidence::{Evidence, Item};
use crate::facts::{Fact, UnitFact};
use crate::finding::{Certainty, Finding, Repair, Severity, Subject};
use crate::rules::lines::{is_service_running, one_of_each_machine};
use crate::rules::{Explains, Layer, Rule, Scope};

pub(super) const RULE: Rule = Rule {
    id: "E6",
    title: "the kubelet does not run",
    layer: Layer::Kubelet,
    explains: &[
        Explains { ids: &["D9", "E2", "W1", "W2"], scope: Scope::SameNode },
        Explains { ids: &["A15", "H2", "H3"], scope: Scope::Anywhere },
    ],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let units = evidence.units().filter(|(_, _, unit)| unit.name == "kubelet");
    let units = units.filter_map(|(index, item, unit)| of_unit(index, item, unit));
    one_of_each_machine(units.chain(died(evidence)).chain(without_process(evidence)))
}

fn of_unit(index: usize, item: &Item, unit: &UnitFact) -> Option<Finding> {
    let (severity, text) = match (unit.active.as_str(), unit.enabled.as_str()) {
        ("active" | "reloading", "disabled") => {
            (Severity::Warning, "the kubelet runs, and is not started with the machine".to_owned())
        }
        ("active" | "reloading", _) => return None,
        ("activating", _) => (Severity::Failure, "the kubelet ends and is started again and again".to_owned()),
        (state, "masked") => (Severity::Failure, format!("the kubelet is {state}, and masked: nothing can start it")),
        (state, _) => (Severity::Failure, format!("the kubelet is {state}")),
    };
    let repair = Repair::of(&[
        ("See why it ended, if it did", "journalctl -u kubelet -n 50 --no-pager"),
        (
            "Start it, now and with the machine; containers are not touched",
            "systemctl unmask kubelet; systemctl enable --now kubelet",
        ),
    ]);
    let mut finding =
        Finding::failure(Subject::machine(&item.place), item, Certainty::Proven, text, vec![index], repair);
    finding.severity = severity;
    Some(finding)
}

/// Kedge in one process, which ended and was not taken down.
fn died(evidence: &Evidence) -> impl Iterator<Item = Finding> {
    evidence.measures("kedge_runs").filter(|(_, _, runs)| runs.value == 0.0).map(|(index, item, runs)| {
        let repair = Repair::of(&[
            ("See whether the kernel ended it for want of memory", "dmesg | grep -i 'killed process'"),
            (
                "Start it again as it was started before (a machine that joined: kedge node): pods go on meanwhile, and it takes them up",
                &format!("kedge up --data-dir {}", runs.of),
            ),
        ]);
        let text = format!("kedge, which is the kubelet of {} and all else there, does not run", runs.of);
        Finding::failure(Subject::machine(&item.place), item, Certainty::Proven, text, vec![index], repair)
    })
}

/// A machine with the configuration of a kubelet and none that runs, where no service manager tells.
fn without_process(evidence: &Evidence) -> impl Iterator<Item = Finding> {
    let configured = evidence.pick(|fact| match fact {
        Fact::Document { name, .. } if name == "kubelet" => Some(()),
        _ => None,
    });
    let stopped =
        configured.filter(|(_, item, ())| is_service_running(evidence, &item.place, "kubelet") == Some(false));
    stopped.map(|(index, item, ())| {
        let repair = Repair::of(&[
            ("See its last words", "tail -n 50 /var/log/kedge-kubelet.log"),
            ("Start it; containers are not touched", "systemctl enable --now kubelet || (kedge kubelet-keeper &)"),
        ])
        .acting(1, Action::StartUnit { name: "kubelet".to_owned() });
        let text = "this machine has a kubelet's configuration, and no kubelet runs".to_owned();
        Finding::failure(Subject::machine(&item.place), item, Certainty::Likely, text, vec![index], repair)
    })
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn states_of_the_unit_are_told_apart() {
        assert_eq!(found_among(&RULE, [unit("kubelet", "active", "enabled")]), [""; 0]);
        assert_eq!(found_among(&RULE, [unit("containerd", "inactive", "disabled")]), [""; 0]);
        for (active, enabled, words) in [
            ("inactive", "disabled", "the kubelet is inactive"),
            ("inactive", "masked", "masked: nothing can start it"),
            ("activating", "enabled", "again and again"),
            ("active", "disabled", "not started with the machine"),
        ] {
            let found = found_among(&RULE, [unit("kubelet", active, enabled)]);
            assert!(found.len() == 1 && found[0].contains(words), "{found:?}");
        }
    }

    #[test]
    fn kedge_that_died_is_found_and_one_that_runs_is_not() {
        let runs = |value: f64| measured("kedge_runs", "/var/lib/kedge", value, None);
        assert_eq!(found_among(&RULE, [runs(0.0)]).len(), 1);
        assert_eq!(found_among(&RULE, [runs(1.0)]), [""; 0]);
    }

    #[test]
    fn without_a_service_manager_the_processes_tell() {
        let configuration = || document("kubelet", json!({}));
        assert_eq!(found_among(&RULE, [configuration(), process("/usr/bin/containerd", 'S', "")]).len(), 1);
        assert_eq!(found_among(&RULE, [configuration(), process("/usr/bin/kubelet --v=2", 'S', "")]), [""; 0]);
        assert_eq!(
            found_among(&RULE, [configuration(), process("/usr/local/bin/kedge kubelet --v=2", 'S', "")]),
            [""; 0]
        );
        assert_eq!(
            found_among(&RULE, [configuration(), process("/usr/local/bin/kedge kubelet-keeper", 'S', "")]).len(),
            1
        );
        assert_eq!(found_among(&RULE, [configuration()]), [""; 0], "processes were not looked at");
    }
}
