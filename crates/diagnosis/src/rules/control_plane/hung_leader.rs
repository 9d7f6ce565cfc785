//! A4: a controller manager or scheduler runs, and does nothing since its lease failed.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair};
use crate::rules::control_plane::component_named;
use crate::rules::signs::{is_down, last_lines};
use crate::rules::{Explains, Layer, Rule, Scope};

/// Seconds of silence after which its last line is its last word.
const SILENCE: i64 = 120;

pub(super) const RULE: Rule = Rule {
    id: "A4",
    title: "a leader hangs since its lease failed",
    layer: Layer::Controllers,
    explains: &[Explains { ids: &["H2", "H3"], scope: Scope::Anywhere }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mut found = Vec::new();
    for (index, item, source, line) in last_lines(evidence, &["kube-controller-manager", "kube-scheduler"]) {
        let Some(component) = component_named(source.program()) else { continue };
        let failed = line.contains("Failed to update lock") || line.contains("Failed to update lease");
        let silent = item.time.is_some_and(|time| evidence.gathered.as_second() - time.as_second() >= SILENCE);
        if !failed || !silent || is_down(evidence, &item.place, source) {
            continue;
        }
        let repair = Repair::of(&[
            (
                "Restart it: its container is made anew at once",
                &format!("crictl stop $(crictl ps -q --name {})", component.name()),
            ),
            ("Versions of today end by themselves when they lose their lease", ""),
        ]);
        let text = format!("{} runs, and has said nothing since: {}", source.subject(), line.trim());
        let finding = Finding::failure(source.subject(), item, Certainty::Possible, text, vec![index], repair);
        found.push(finding.only(component.effects()));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    const FAILED: &str =
        "E0722 10:00:00.0 1 leaderelection.go:367] Failed to update lock: etcdserver: request timed out";

    fn running(state: Value) -> Item {
        let status = json!({"containerStatuses": [{"name": "kube-scheduler", "state": state}]});
        on("one", Fact::Object(pod("kube-system", "kube-scheduler-one", json!({}), status)))
    }

    #[test]
    fn silence_after_a_failure_is_found() {
        let line = |seconds| ago(line_of("kube-scheduler", FAILED), seconds);
        assert_eq!(found_among(&RULE, [line(4000), running(json!({"running": {}}))]).len(), 1);
        assert_eq!(found_among(&RULE, [line(10), running(json!({"running": {}}))]), [""; 0]);
        assert_eq!(found_among(&RULE, [line(4000), running(json!({"terminated": {"exitCode": 1}}))]), [""; 0]);
    }

    #[test]
    fn one_that_went_on_is_well() {
        let later = ago(line_of("kube-scheduler", "successfully acquired lease"), 3000);
        assert_eq!(found_among(&RULE, [ago(line_of("kube-scheduler", FAILED), 4000), later]), [""; 0]);
    }
}
