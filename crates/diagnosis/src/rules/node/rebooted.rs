//! E11: a machine was started anew a short while ago, and not in order.

use jiff::Timestamp;

use crate::evidence::{Evidence, Place};
use crate::facts::Fact;
use crate::finding::{Certainty, Finding, Repair, Severity, Subject};
use crate::object::text;
use crate::rules::lines::one_of_each_machine;
use crate::rules::{Explains, Layer, Rule, Scope};

/// Seconds for which a start explains what its pods went through.
const SPAN: i64 = 3600;

pub(super) const RULE: Rule = Rule {
    id: "E11",
    title: "a machine was started anew",
    layer: Layer::Hardware,
    explains: &[Explains { ids: &["E2", "W1"], scope: Scope::SameNode }],
    find,
};

fn find(evidence: &Evidence) -> Vec<Finding> {
    let is_recent = |item: &crate::evidence::Item| {
        item.time.is_some_and(|time| evidence.gathered.as_second() - time.as_second() <= SPAN)
    };
    let boots = evidence.pick(|fact| match fact {
        Fact::Boot { clean: Some(false), .. } => Some(()),
        _ => None,
    });
    let boots = boots.filter(|(_, item, ())| is_recent(item)).map(|(index, item, ())| {
        let text = "this machine was started anew, and the run before did not end in order: power, a crash or a reset";
        let finding = Finding::failure(
            Subject::machine(&item.place),
            item,
            Certainty::Proven,
            text.to_owned(),
            vec![index],
            repair(),
        );
        (finding, Some(item.place.clone()))
    });
    let events = evidence.objects("Event").filter(|(_, item, event)| event["reason"] == "Rebooted" && is_recent(item));
    let events = events.filter_map(|(index, item, event)| {
        let name = text(&event["involvedObject"]["name"]);
        if ended_in_order(evidence, name) || was_drained(evidence, name, item.time) {
            return None;
        }
        let told = text(&event["message"]).to_owned();
        let finding =
            Finding::failure(Subject::new("Node", name), item, Certainty::Proven, told, vec![index], repair());
        Some((finding.on_node(name), None))
    });
    let mut found = one_of_each_machine(boots.chain(events).map(|(finding, _): (Finding, Option<Place>)| finding));
    found.iter_mut().for_each(|finding| finding.severity = Severity::Warning);
    found
}

/// Whether the machine itself says that a person shut it down.
fn ended_in_order(evidence: &Evidence, name: &str) -> bool {
    let mut boots = evidence.pick(|fact| match fact {
        Fact::Boot { clean: Some(true), .. } => Some(()),
        _ => None,
    });
    boots.any(|(_, item, ())| item.place == Place::Node(name.to_owned()))
}

/// Whether nobody was meant to be on it when it went: it is cordoned, or was when it came back, as its kubelet told.
fn was_drained(evidence: &Evidence, name: &str, rebooted: Option<Timestamp>) -> bool {
    let node = evidence.object(&Subject::new("Node", name));
    let is_cordoned = node.is_some_and(|(_, _, node)| node["spec"]["unschedulable"] == true);
    let told = |reason: &str| {
        let events = evidence.objects("Event").filter(move |(_, _, event)| {
            event["reason"] == *reason
                && event["involvedObject"]["name"] == name
                && event["involvedObject"]["kind"] == "Node"
        });
        events.filter_map(|(_, item, _)| item.time).filter(|time| Some(*time) <= rebooted).max()
    };
    is_cordoned || told("NodeNotSchedulable").is_some_and(|closed| Some(closed) > told("NodeSchedulable"))
}

fn repair() -> Repair {
    Repair::of(&[
        ("See when, and who asked for it", "last -x | head -20"),
        ("See the last words of the run before", "journalctl -b -1 -n 50 --no-pager"),
        ("And of its kernel", "journalctl -b -1 -k -n 50 --no-pager"),
    ])
}

#[cfg(test)]
mod tests {
    use super::RULE;
    use crate::rules::fixtures::*;

    fn boot(clean: Option<bool>) -> Item {
        ago(on("one", Fact::Boot { id: "b".to_owned(), clean }), 600)
    }

    #[test]
    fn a_start_out_of_order_is_found_for_an_hour() {
        assert_eq!(found_among(&RULE, [boot(Some(false))]).len(), 1);
        assert_eq!(found_among(&RULE, [boot(Some(true))]), [""; 0]);
        assert_eq!(found_among(&RULE, [ago(boot(Some(false)), 90_000)]), [""; 0]);
    }

    #[test]
    fn the_nodes_event_is_believed_unless_the_machine_knows_better() {
        let event = || {
            let message = "Node one has been rebooted, boot id: 1f0c";
            ago(on("one", Fact::Object(event_of("Node", "one", "Rebooted", message))), 600)
        };
        assert_eq!(found_among(&RULE, [event()]), ["Node one has been rebooted, boot id: 1f0c"]);
        assert_eq!(found_among(&RULE, [event(), boot(Some(true))]), [""; 0]);
        assert_eq!(found_among(&RULE, [ago(event(), 90_000)]), [""; 0]);
    }

    #[test]
    fn a_start_after_a_drain_was_meant() {
        let event = |reason: &str, seconds: i64| {
            ago(
                on("one", Fact::Object(event_of("Node", "one", reason, "Node one has been rebooted, boot id: 1f0c"))),
                seconds,
            )
        };
        let rebooted = || event("Rebooted", 600);
        let mut cordoned = node("one", json!([]));
        cordoned["spec"] = json!({"unschedulable": true});
        assert_eq!(found_among(&RULE, [rebooted(), on("one", Fact::Object(cordoned))]), [""; 0]);
        assert_eq!(
            found_among(&RULE, [rebooted(), event("NodeNotSchedulable", 700), event("NodeSchedulable", 500)]),
            [""; 0]
        );
        let before = [rebooted(), event("NodeNotSchedulable", 900), event("NodeSchedulable", 800)];
        assert_eq!(found_among(&RULE, before).len(), 1);
        assert_eq!(found_among(&RULE, [rebooted(), event("NodeNotSchedulable", 500)]).len(), 1);
    }
}
