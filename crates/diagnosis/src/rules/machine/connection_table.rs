//! F10: the table of connections is full, or nearly: new ones are dropped.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Severity, Subject};
use crate::rules::lines::{one_of_each_machine, says};
use crate::rules::machine::told_by_kernel;
use crate::rules::{Explains, Layer, Rule, Scope};

/// Seconds for which a dropped packet counts.
const SPAN: i64 = 900;
/// The part of the table at which it is said, in hundredths.
const SOON: f64 = 80.0;

pub(super) const RULE: Rule = Rule {
    id: "F10",
    title: "the table of connections is full",
    layer: Layer::System,
    explains: &[Explains { ids: &["A15", "E1", "E22", "G14", "G25"], scope: Scope::Anywhere }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let forms: &[&[&str]] = &[
        &["nf_conntrack: table full"],
        &["ip_conntrack: table full"],
        &["nf_conntrack", "table full, dropping packet"],
    ];
    let told = told_by_kernel(
        evidence,
        SPAN,
        |line| says(line, forms),
        |line| (format!("new connections are dropped: {line}"), repair()),
    );
    let measured = evidence.measures("conntrack_entries").filter_map(|(index, item, used)| {
        let limit = used.limit.filter(|limit| *limit > 0.0)?;
        let percent = used.value * 100.0 / limit;
        if percent < SOON {
            return None;
        }
        let text =
            format!("{} of {limit} connections are tracked ({percent:.0} %): beyond, new ones are dropped", used.value);
        let mut finding =
            Finding::failure(Subject::machine(&item.place), item, Certainty::Proven, text, vec![index], repair());
        finding.severity = if percent < 99.0 { Severity::Warning } else { Severity::Failure };
        Some(finding)
    });
    one_of_each_machine(told.into_iter().chain(measured))
}

fn repair() -> Repair {
    Repair::of(&[
        ("See who opens them", "conntrack -L 2>/dev/null | awk '{print $5}' | sort | uniq -c | sort -rn | head"),
        ("Allow more, now", "sysctl -w net.netfilter.nf_conntrack_max=1048576"),
        (
            "And for good: kube-proxy sets it from conntrack.maxPerCore",
            "kubectl -n kube-system edit configmap kube-proxy",
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_full_table_is_found_and_foreseen() {
        let line = "nf_conntrack: nf_conntrack: table full, dropping packet";
        assert_eq!(found_among(&RULE, [ago(kernel_logged(line), 60)]).len(), 1);
        assert_eq!(found_among(&RULE, [ago(kernel_logged(line), 86_400)]), [""; 0]);
        let used = |used: f64| measured("conntrack_entries", "machine", used, Some(1000.0));
        assert_eq!(found_among(&RULE, [used(850.0)]).len(), 1);
        assert_eq!(found_among(&RULE, [used(500.0)]), [""; 0]);
    }
}
