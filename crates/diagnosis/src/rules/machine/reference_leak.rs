//! F9: the kernel cannot free a network namespace: a reference to it was lost.

use crate::evidence::Evidence;
use crate::finding::{Finding, Repair};
use crate::rules::lines::says;
use crate::rules::machine::told_by_kernel;
use crate::rules::{Explains, Layer, Rule, Scope};

/// Seconds for which it counts: the kernel says it every ten seconds while it lasts.
const SPAN: i64 = 300;

pub(super) const RULE: Rule = Rule {
    id: "F9",
    title: "the kernel leaks network namespaces",
    layer: Layer::System,
    explains: &[Explains { ids: &["E5", "E17", "W2"], scope: Scope::SameNode }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let forms: &[&[&str]] = &[&["unregister_netdevice: waiting for", "to become free"]];
    told_by_kernel(
        evidence,
        SPAN,
        |line| says(line, forms),
        |line| {
            let repair = Repair::of(&[
                ("See the kernel's version: it is a fault of the kernel, mended in later ones", "uname -r"),
                (
                    "Move the work elsewhere, and reboot: nothing else frees it",
                    "kubectl drain NODE --ignore-daemonsets --delete-emptydir-data && reboot",
                ),
            ]);
            (format!("making and ending pods hangs at times: {line}"), repair)
        },
    )
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_leak_is_found_while_it_lasts() {
        let line = "unregister_netdevice: waiting for lo to become free. Usage count = 1";
        assert_eq!(found_among(&RULE, [ago(kernel_logged(line), 10)]).len(), 1);
        assert_eq!(found_among(&RULE, [ago(kernel_logged(line), 3600)]), [""; 0]);
        assert_eq!(found_among(&RULE, [ago(kernel_logged("veth1: renamed from eth0"), 10)]), [""; 0]);
    }
}
