//! D4: the machine swaps, and its kubelet is not made for that.

use crate::evidence::{Evidence, Place};
use crate::finding::{Certainty, Finding, Repair, Severity, Subject};
use crate::rules::lines::{is_of_kubelet, one_of_each_machine, says, told_of_starts};
use crate::rules::preflight::checks;
use crate::rules::{Explains, Layer, Rule, Scope};

pub(super) const RULE: Rule = Rule {
    id: "D4",
    title: "swap is on and the kubelet does not allow it",
    layer: Layer::System,
    explains: &[Explains { ids: &["D9", "E2", "E6"], scope: Scope::SameNode }],
    find,
};

const REFUSED: &[&[&str]] = &[&["running with swap on is not supported"], &["Running with swap on is not supported"]];

fn find(evidence: &Evidence) -> Vec<Finding> {
    let refused = told_of_starts(
        evidence,
        |line| is_of_kubelet(line) && says(&line.text, REFUSED),
        |_| ("the kubelet ends at once: swap is on and failSwapOn is true".to_owned(), repair()),
    );
    one_of_each_machine(refused.into_iter().chain(measured(evidence)).chain(checked(evidence)))
}

fn repair() -> Repair {
    Repair::of(&[
        ("Turn it off now", "swapoff -a"),
        (
            "And after a reboot: fstab, and units such as zram's",
            "sed -ri '/\\sswap\\s/s/^#?/#/' /etc/fstab && systemctl mask swap.target",
        ),
        ("Or let the kubelet use it, on cgroup v2: failSwapOn: false, memorySwap.swapBehavior: LimitedSwap", ""),
    ])
}

/// Swap that is on beside a kubelet's configuration that refuses it: it will not start again.
fn measured(evidence: &Evidence) -> impl Iterator<Item = Finding> {
    let used = evidence.measures("swap_bytes").filter(|(_, _, swap)| swap.value > 0.0);
    used.filter_map(|(index, item, swap)| {
        let mut configurations = evidence.documents("kubelet").filter(|(_, other, _)| other.place == item.place);
        let (configuration, _, _) = configurations.find(|(_, _, kubelet)| kubelet["failSwapOn"] != false)?;
        let text =
            format!("{} is used as swap, and the kubelet's configuration has failSwapOn: it will not start", swap.of);
        let evidence = vec![index, configuration];
        let mut finding =
            Finding::failure(Subject::machine(&item.place), item, Certainty::Likely, text, evidence, repair());
        finding.severity = Severity::Warning;
        Some(finding)
    })
}

fn checked(evidence: &Evidence) -> impl Iterator<Item = Finding> {
    checks(evidence, "Swap").filter(|check| !is_off(evidence, &check.item.place)).map(|check| {
        let (place, text) = (&check.item.place, format!("the machine swaps: {}", check.text));
        let mut finding =
            Finding::failure(Subject::machine(place), check.item, Certainty::Proven, text, vec![check.index], repair());
        finding.severity = check.severity;
        finding
    })
}

/// Whether swap was looked for on a machine, and is off.
fn is_off(evidence: &Evidence, place: &Place) -> bool {
    evidence.measures("swap_bytes").any(|(_, item, swap)| item.place == *place && swap.value == 0.0)
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_kubelet_that_refuses_swap_is_found_until_it_runs() {
        let line = "E0722 10:00:00.0 1 run.go:74] \"command failed\" err=\"failed to run Kubelet: running with swap on is not supported, please disable swap or set --fail-swap-on flag to false\"";
        assert_eq!(
            found_among(&RULE, [ago(logged("kubelet", line), 10), unit("kubelet", "activating", "enabled")]).len(),
            1
        );
        assert_eq!(
            found_among(&RULE, [ago(logged("kubelet", line), 60), unit("kubelet", "active", "enabled")]),
            [""; 0]
        );
    }

    #[test]
    fn swap_alone_is_no_trouble_where_the_kubelet_allows_it() {
        let swap = |bytes: f64| measured("swap_bytes", "/dev/zram0", bytes, None);
        assert_eq!(found_among(&RULE, [swap(1e9), document("kubelet", json!({}))]).len(), 1);
        assert_eq!(found_among(&RULE, [swap(1e9), document("kubelet", json!({"failSwapOn": false}))]), [""; 0]);
        assert_eq!(found_among(&RULE, [swap(0.0), document("kubelet", json!({}))]), [""; 0]);
        let check = || pasted("kubeadm", "\t[WARNING Swap]: swap is supported for cgroup v2 only.");
        assert_eq!(found_among(&RULE, [check()]).len(), 1);
        assert_eq!(found_among(&RULE, [check(), swap(0.0)]), [""; 0]);
    }
}
