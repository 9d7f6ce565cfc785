//! Events as evidence: the latest word on each object.

use std::collections::BTreeMap;

use crate::evidence::Evidence;
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::object::text;

/// A finding for each object whose last event of that reason and message still holds, in the event's own words.
pub(super) fn told_by_events(
    evidence: &Evidence,
    repair: &Repair,
    wanted: impl Fn(&str, &str) -> bool,
) -> Vec<Finding> {
    let told = latest_by_object(evidence, wanted).into_iter().map(|(subject, index, message)| {
        let text = format!("{subject}: {message}");
        let item = &evidence.items[index];
        Finding::failure(subject, item, Certainty::Proven, text, vec![index], repair.clone())
    });
    told.collect()
}

/// For each object, the last event whose reason and message are wanted, as long as that object is still there.
fn latest_by_object(evidence: &Evidence, wanted: impl Fn(&str, &str) -> bool) -> Vec<(Subject, usize, &str)> {
    let mut latest: BTreeMap<Subject, (usize, &str)> = BTreeMap::new();
    for (index, item, event) in evidence.objects("Event") {
        let message = text(&event["message"]);
        if !wanted(text(&event["reason"]), message) {
            continue;
        }
        let object = &event["involvedObject"];
        let subject = Subject {
            kind: text(&object["kind"]).to_owned(),
            namespace: text(&object["namespace"]).to_owned(),
            name: text(&object["name"]).to_owned(),
        };
        let is_newer = |known: &(usize, &str)| evidence.items[known.0].time <= item.time;
        if is_settled(evidence, &subject) || !latest.get(&subject).is_none_or(is_newer) {
            continue;
        }
        latest.insert(subject, (index, message));
    }
    latest.into_iter().map(|(subject, (index, message))| (subject, index, message)).collect()
}

/// Whether what the event told of is over: the object is known, and does well.
fn is_settled(evidence: &Evidence, subject: &Subject) -> bool {
    evidence.object(subject).is_some_and(|(_, _, object)| match subject.kind.as_str() {
        "Pod" => crate::object::condition(object, "Ready").is_some_and(|ready| ready["status"] == "True"),
        "PersistentVolumeClaim" => object["status"]["phase"] == "Bound",
        "Node" => object["spec"]["podCIDR"].is_string(),
        _ => false,
    })
}
