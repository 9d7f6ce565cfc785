//! C10: clocks differ, and it looks like a trouble of trust.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::rules::etcd::{CLOCK_DRIFT, STORE};
use crate::rules::signs::Sign;
use crate::rules::{Explains, Layer, Rule, Scope};

/// Seconds from which on certificates that were made just now are refused elsewhere.
const APART: f64 = 5.0;
const MISTRUST: Sign = Sign {
    programs: STORE,
    words: &[&["x509: certificate signed by unknown authority"], &["certificate has expired or is not yet valid"]],
    over: &[],
};
const CLOCKS: Sign = Sign { programs: &[], words: &[&["clock difference"], &["clock-drift"]], over: &[] };

pub(super) const RULE: Rule = Rule {
    id: "C10",
    title: "clocks differ, and it looks like a trouble of certificates",
    layer: Layer::Hardware,
    explains: &[
        Explains { ids: &["A15", "A16", "B9", "B10", "B11", "C1", "C8", "F11", "H2", "H3"], scope: Scope::Anywhere },
        Explains { ids: &["W1"], scope: Scope::ControlPlane },
    ],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let mistrust = MISTRUST.told(evidence);
    let Some(first) = mistrust.first() else { return Vec::new() };
    let measured = evidence.measures("clock_offset_seconds").find(|(_, _, offset)| offset.value.abs() >= APART);
    let told = CLOCK_DRIFT.told(evidence).into_iter().chain(CLOCKS.told(evidence)).next();
    let (clock, proof) = match (measured, told) {
        (Some((index, _, offset)), _) => (format!("{:.1} s from {}", offset.value, offset.of), vec![index]),
        (None, Some(told)) => (told.text.trim().to_owned(), told.lines),
        (None, None) => return Vec::new(),
    };
    let repair = Repair::of(&[
        ("Set the clocks, and look again before any certificate is touched", "chronyc makestep"),
        (
            "Let all machines follow the same time",
            "systemctl enable --now chrony || systemctl enable --now systemd-timesyncd",
        ),
    ]);
    let text = format!(
        "{} refuses certificates ({}), and the clocks differ: {clock}",
        first.source.subject(),
        first.text.trim()
    );
    let proof = proof.into_iter().chain(first.lines.iter().copied()).collect();
    let subject = Subject::new("Setting", "clock");
    vec![Finding::failure(subject, first.item, Certainty::Likely, text, proof, repair)]
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn mistrust_with_clocks_that_differ_is_found_and_without_is_not() {
        let mistrust = || {
            ago(
                line_of(
                    "etcd",
                    r#"{"level":"warn","msg":"prober detected unhealthy status","error":"x509: certificate signed by unknown authority"}"#,
                ),
                20,
            )
        };
        let drift =
            ago(line_of("etcd", r#"{"level":"warn","msg":"prober found high clock drift","clock-drift":"29s"}"#), 30);
        let old = ago(line_of("etcd", "W | rafthttp: the clock difference against peer 7 is too high [29s > 1s]"), 30);
        assert_eq!(found_among(&RULE, [mistrust(), drift.clone()]).len(), 1);
        assert_eq!(found_among(&RULE, [mistrust(), old]).len(), 1);
        assert_eq!(found_among(&RULE, [mistrust(), measured("clock_offset_seconds", "two", -29.0, None)]).len(), 1);
        assert_eq!(found_among(&RULE, [mistrust(), measured("clock_offset_seconds", "two", 0.1, None)]), [""; 0]);
        assert_eq!(found_among(&RULE, [mistrust()]), [""; 0]);
        assert_eq!(found_among(&RULE, [drift]), [""; 0]);
    }
}
