//! F8: memory or a bus of the machine reports errors.

use crate::evidence::Evidence;
use crate::finding::{Finding, Repair, Severity};
use crate::rules::lines::says;
use crate::rules::machine::{DAY, told_by_kernel};
use crate::rules::{Explains, Layer, Rule, Scope};

pub(super) const RULE: Rule = Rule {
    id: "F8",
    title: "the machine's hardware reports errors",
    layer: Layer::Hardware,
    explains: &[Explains { ids: &["E2", "E6", "E11", "F13", "W1"], scope: Scope::SameNode }],
    find,
};

const FATAL: &[&[&str]] = &[
    &["[Hardware Error]", "event severity: fatal"],
    &["[Hardware Error]", "Uncorrected"],
    &["EDAC", " UE "],
    &["mce:", "Uncorrected"],
    &["Machine check events logged", "fatal"],
];
const MENDED: &[&[&str]] = &[
    &["[Hardware Error]", "event severity: recoverable"],
    &["[Hardware Error]", "event severity: corrected"],
    &["EDAC", "CE memory read error"],
    &["EDAC", " CE "],
    &["[Hardware Error]: Machine check events logged"],
];

fn find(evidence: &Evidence) -> Vec<Finding> {
    let fatal = of(evidence, FATAL, "an error that could not be corrected", Severity::Failure);
    if !fatal.is_empty() {
        return fatal;
    }
    of(evidence, MENDED, "errors that were corrected, so far", Severity::Warning)
}

fn of(evidence: &Evidence, forms: &[&[&str]], what: &str, severity: Severity) -> Vec<Finding> {
    let mut found = told_by_kernel(
        evidence,
        DAY,
        |line| says(line, forms),
        |line| {
            let repair = Repair::of(&[
                ("See which part it is", "ras-mc-ctl --errors; dmesg | grep -iE 'edac|hardware error'"),
                (
                    "Move the work elsewhere",
                    "kubectl cordon NODE && kubectl drain NODE --ignore-daemonsets --delete-emptydir-data",
                ),
                ("Replace the part", ""),
            ]);
            (format!("{what}: {line}"), repair)
        },
    );
    found.iter_mut().for_each(|finding| finding.severity = severity);
    found
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::finding::Severity;
    use crate::rules::fixtures::*;

    fn severity(line: &str) -> Option<Severity> {
        let evidence =
            Evidence { gathered: now(), items: vec![ago(kernel_logged(line), 60)].into(), unseen: Vec::new() };
        findings(&RULE, &evidence).first().map(|finding| finding.severity)
    }

    #[test]
    fn what_could_not_be_corrected_is_worse() {
        assert_eq!(severity("{1}[Hardware Error]: event severity: fatal"), Some(Severity::Failure));
        assert_eq!(
            severity("EDAC MC0: 1 CE memory read error on CPU_SrcID#0_MC#0_Chan#0_DIMM#0"),
            Some(Severity::Warning)
        );
        assert_eq!(severity("EDAC MC: Ver: 3.0.0"), None);
    }
}
