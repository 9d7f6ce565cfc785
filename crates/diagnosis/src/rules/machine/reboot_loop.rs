//! F13: a machine crashes: its kernel panicked, or it starts anew again and again.

use crate::evidence::{Evidence, Item, Place};
use crate::facts::Fact;
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::rules::lines::{one_of_each_machine, says};
use crate::rules::machine::{DAY, told_by_kernel};
use crate::rules::{Explains, Layer, Rule, Scope};

/// So many starts out of order within the span are a loop.
const LOOP: usize = 3;
const SPAN: i64 = 6 * 3600;

pub(super) const RULE: Rule = Rule {
    id: "F13",
    title: "a machine crashes",
    layer: Layer::Hardware,
    explains: &[Explains { ids: &["E2", "E11", "W1"], scope: Scope::SameNode }],
    find,
};

const FORMS: &[&[&str]] = &[
    &["Kernel panic - not syncing"],
    &["Kernel panic: "],
    &["watchdog: BUG: soft lockup"],
    &["NMI watchdog: Watchdog detected hard LOCKUP"],
];

fn find(evidence: &Evidence) -> Vec<Finding> {
    let told = told_by_kernel(
        evidence,
        DAY,
        |line| says(line, FORMS),
        |line| (format!("the kernel gave up: {line}"), repair()),
    );
    one_of_each_machine(told.into_iter().chain(loops(evidence)))
}

fn loops(evidence: &Evidence) -> Vec<Finding> {
    let boots: Vec<(usize, &Item)> = evidence
        .pick(|fact| match fact {
            Fact::Boot { clean: Some(false), .. } => Some(()),
            _ => None,
        })
        .filter(|(_, item, ())| item.time.is_some_and(|time| evidence.gathered.as_second() - time.as_second() <= SPAN))
        .map(|(index, item, ())| (index, item))
        .collect();
    let mut places: Vec<&Place> = boots.iter().map(|(_, item)| &item.place).collect();
    places.dedup();
    let looping = places.into_iter().filter_map(|place| {
        let own: Vec<(usize, &Item)> = boots.iter().filter(|(_, item)| item.place == *place).copied().collect();
        if own.len() < LOOP {
            return None;
        }
        let text =
            format!("this machine was started {} times within six hours without having ended in order", own.len());
        let proof = own.iter().map(|(index, _)| *index).collect();
        Some(Finding::failure(Subject::machine(place), own[0].1, Certainty::Likely, text, proof, repair()))
    });
    looping.collect()
}

fn repair() -> Repair {
    Repair::of(&[
        ("Keep work away from it", "kubectl cordon NODE"),
        (
            "See the kernel's last words",
            "ls /sys/fs/pstore /var/lib/systemd/pstore /var/crash; journalctl -b -1 -k -n 50 --no-pager",
        ),
        (
            "See whether memory or a disk is at fault",
            "journalctl -k -b -1 --no-pager | grep -iE 'hardware error|I/O error|Out of memory'",
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn a_panic_is_found() {
        let line = "Kernel panic - not syncing: Fatal exception in interrupt";
        assert_eq!(found_among(&RULE, [ago(kernel_logged(line), 3600)]).len(), 1);
        assert_eq!(found_among(&RULE, [ago(kernel_logged("kernel.panic = 10"), 3600)]), [""; 0]);
    }

    #[test]
    fn three_starts_out_of_order_are_a_loop() {
        let boot =
            |clean: bool, seconds: i64| ago(on("one", Fact::Boot { id: String::new(), clean: Some(clean) }), seconds);
        assert_eq!(found_among(&RULE, [boot(false, 9000), boot(false, 6000), boot(false, 100)]).len(), 1);
        assert_eq!(found_among(&RULE, [boot(true, 9000), boot(true, 6000), boot(true, 100)]), [""; 0]);
        assert_eq!(found_among(&RULE, [boot(false, 6000), boot(false, 100)]), [""; 0]);
    }
}
