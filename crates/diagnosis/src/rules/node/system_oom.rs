//! E12: a machine as a whole ran out of memory, and its kernel ended a process.

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::object::text;
use crate::rules::lines::{one_of_each_machine, says, told_within};
use crate::rules::{Explains, Layer, Rule, Scope};

/// Seconds for which it counts: pods that were ended by it come back within.
const SPAN: i64 = 3600;

pub(super) const RULE: Rule = Rule {
    id: "E12",
    title: "a machine ran out of memory",
    layer: Layer::Hardware,
    explains: &[Explains { ids: &["W1", "W3"], scope: Scope::SameNode }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let events = evidence.objects("Event").filter(|(_, item, event)| {
        let age = item.time.map(|time| evidence.gathered.as_second() - time.as_second());
        event["reason"] == "SystemOOM" && age.is_none_or(|age| age <= SPAN)
    });
    let events = events.map(|(index, item, event)| {
        let name = text(&event["involvedObject"]["name"]);
        let told = format!("{name}: {}", text(&event["message"]));
        Finding::failure(Subject::new("Node", name), item, Certainty::Proven, told, vec![index], repair()).on_node(name)
    });
    // The bound of a container is another trouble: only what the whole machine lacked counts.
    let kernel = told_within(
        evidence,
        SPAN,
        |line| line.source.is("kernel") && says(&line.text, &[&["global_oom"], &["Out of memory: Kill"]]),
        |_| false,
    );
    let kernel = kernel.iter().map(|told| {
        let text = format!("the kernel ended a process for want of memory: {}", told.line.text.trim());
        told.finding(Subject::machine(&told.item.place), Certainty::Proven, text, repair())
    });
    let kernel: Vec<Finding> = kernel.collect();
    one_of_each_machine(events.chain(kernel))
}

fn repair() -> Repair {
    Repair::of(&[
        ("See who takes it", "kubectl top pods -A --sort-by=memory; ps -eo rss,cmd --sort=-rss | head"),
        (
            "Keep a part for the system and the kubelet: systemReserved and kubeReserved in the kubelet's configuration",
            "",
        ),
        ("Give pods limits of memory", "kubectl describe nodes | grep -A8 'Allocated resources'"),
    ])
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    #[test]
    fn the_machines_own_want_is_found_in_old_and_new_words() {
        let event = event_of("Node", "one", "SystemOOM", "System OOM encountered, victim process: java, pid: 4321");
        assert_eq!(found(&RULE, [event]), ["one: System OOM encountered, victim process: java, pid: 4321"]);
        for line in [
            "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task=java,pid=4321,uid=0",
            "Out of memory: Killed process 4321 (java) total-vm:1kB",
            "Out of memory: Kill process 4321 (java) score 900 or sacrifice child",
        ] {
            assert_eq!(found_among(&RULE, [ago(kernel_logged(line), 60)]).len(), 1, "{line}");
        }
    }

    #[test]
    fn a_container_at_its_bound_and_the_past_are_something_else() {
        let bound = "Memory cgroup out of memory: Killed process 4321 (stress) total-vm:1kB";
        assert_eq!(found_among(&RULE, [ago(kernel_logged(bound), 60)]), [""; 0]);
        assert_eq!(
            found_among(&RULE, [ago(kernel_logged("Out of memory: Killed process 4321 (java)"), 86_400)]),
            [""; 0]
        );
    }
}
