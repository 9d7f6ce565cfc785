//! Events as evidence: the latest word on each object, as long as it holds.
//!
//! An event stays for an hour. Invariant: it tells of trouble only if the object that it is about is still there, as far
//! as such objects were looked at, and does not do well by now.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::evidence::{Evidence, Place};
use crate::finding::{Certainty, Finding, Repair, Subject};
use crate::object::{condition, text};

/// Seconds after which an event that was not repeated is history.
const LONG_AGO: i64 = 3600;

/// The last event on an object.
pub(super) struct Word<'a> {
    /// The object.
    pub(super) subject: Subject,
    /// The event's item.
    pub(super) index: usize,
    /// Its message.
    pub(super) message: &'a str,
    /// The machine that it concerns; empty where none is known.
    pub(super) node: &'a str,
}

/// A finding for each object whose last event of that reason and message still holds, in the event's own words.
pub(super) fn told_by_events(
    evidence: &Evidence,
    repair: &Repair,
    wanted: impl Fn(&str, &str) -> bool,
) -> Vec<Finding> {
    let told = last_words(evidence, wanted).into_iter().map(|word| {
        let text = format!("{}: {}", word.subject, word.message);
        let item = &evidence.items[word.index];
        Finding::failure(word.subject, item, Certainty::Proven, text, vec![word.index], repair.clone())
            .on_node(word.node)
    });
    told.collect()
}

/// A finding for each machine of which events told this, of whichever objects; `tell` has the last message.
pub(super) fn told_of_nodes(
    evidence: &Evidence,
    repair: &Repair,
    wanted: impl Fn(&str, &str) -> bool,
    tell: impl Fn(&str, &str) -> String,
) -> Vec<Finding> {
    let mut nodes: BTreeMap<&str, Vec<Word<'_>>> = BTreeMap::new();
    for word in last_words(evidence, wanted) {
        nodes.entry(word.node).or_default().push(word);
    }
    let told = nodes.into_iter().filter_map(|(node, words)| {
        let last = words.last()?;
        let (subject, item) = (Subject::machine(&Place::Node(node.to_owned())), &evidence.items[last.index]);
        let proof = words.iter().map(|word| word.index).collect();
        let told = tell(node, last.message);
        Some(Finding::failure(subject, item, Certainty::Proven, told, proof, repair.clone()).on_node(node))
    });
    told.collect()
}

/// For each object, the last event whose reason and message are wanted, if it holds.
pub(super) fn last_words<'a>(evidence: &'a Evidence, wanted: impl Fn(&str, &str) -> bool) -> Vec<Word<'a>> {
    let mut latest: BTreeMap<Subject, (usize, &Value)> = BTreeMap::new();
    for (index, item, event) in evidence.objects("Event") {
        if !wanted(text(&event["reason"]), text(&event["message"])) {
            continue;
        }
        let is_history = item.time.is_some_and(|time| evidence.gathered.as_second() - time.as_second() > LONG_AGO);
        let subject = about(event);
        let is_newer = |known: &(usize, &Value)| evidence.items[known.0].time <= item.time;
        if is_history || is_settled(evidence, &subject, event) || !latest.get(&subject).is_none_or(is_newer) {
            continue;
        }
        latest.insert(subject, (index, event));
    }
    let word = |(subject, (index, event)): (Subject, (usize, &'a Value))| {
        let node = node_of(evidence, &subject, event);
        Word { subject, index, message: text(&event["message"]), node }
    };
    latest.into_iter().map(word).collect()
}

fn about(event: &Value) -> Subject {
    // The older API has `involvedObject`, the newer one `regarding`.
    let object = if event["involvedObject"].is_object() { &event["involvedObject"] } else { &event["regarding"] };
    Subject {
        kind: text(&object["kind"]).to_owned(),
        namespace: text(&object["namespace"]).to_owned(),
        name: text(&object["name"]).to_owned(),
    }
}

/// The machine of the object, else that of who told of it.
fn node_of<'a>(evidence: &'a Evidence, subject: &Subject, event: &'a Value) -> &'a str {
    let of_object = evidence.object(subject).map_or("", |(_, _, object)| match subject.kind.as_str() {
        "Node" => text(&object["metadata"]["name"]),
        "Pod" => text(&object["spec"]["nodeName"]),
        _ => "",
    });
    let told_by = [of_object, text(&event["source"]["host"]), text(&event["reportingInstance"])];
    let is_of_kubelet = event["reportingComponent"] == "kubelet" || event["source"]["component"] == "kubelet";
    let mut told_by = told_by.into_iter().take(if is_of_kubelet { 3 } else { 1 });
    told_by.find(|name| !name.is_empty()).unwrap_or_default()
}

/// Whether what the event told of is over: the object does well, or it is gone although its like were looked at.
fn is_settled(evidence: &Evidence, subject: &Subject, event: &Value) -> bool {
    let Some((_, _, object)) = evidence.object(subject) else {
        return evidence.items.is_well(subject) || !evidence.items.of_kind(&subject.kind).is_empty();
    };
    match subject.kind.as_str() {
        "Pod" => condition(object, "Ready").is_some_and(|ready| ready["status"] == "True"),
        "PersistentVolumeClaim" => object["status"]["phase"] == "Bound",
        "Node" => text(&event["reason"]).starts_with("CIDR") && object["spec"]["podCIDR"].is_string(),
        "ReplicaSet" | "StatefulSet" => object["status"]["replicas"].as_i64() >= object["spec"]["replicas"].as_i64(),
        "DaemonSet" => {
            let status = &object["status"];
            status["currentNumberScheduled"].as_i64() >= status["desiredNumberScheduled"].as_i64()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::last_words;
    use crate::rules::fixtures::*;

    fn words(items: Vec<Item>) -> Vec<(String, String)> {
        let evidence = Evidence { gathered: now(), items: items.into(), unseen: Vec::new() };
        let words = last_words(&evidence, |reason, _| reason == "FailedMount");
        words.iter().map(|word| (word.subject.to_string(), word.node.to_owned())).collect()
    }

    fn object(value: Value) -> Item {
        Item { time: None, place: Place::Cluster, origin: String::new(), fact: Fact::Object(value) }
    }

    #[test]
    fn an_event_holds_while_its_object_is_there_and_unwell() {
        let event = || object(event_of("Pod", "web", "FailedMount", "x"));
        let web = |ready: &str| {
            let status = json!({"conditions": [{"type": "Ready", "status": ready}]});
            object(pod("a", "web", json!({"nodeName": "one"}), status))
        };
        let told = |node: &str| vec![("Pod a/web".to_owned(), node.to_owned())];
        assert_eq!(words(vec![event()]), told(""));
        assert_eq!(words(vec![event(), event(), web("False")]), told("one"));
        assert_eq!(words(vec![event(), web("True")]), []);
        assert_eq!(words(vec![event(), object(pod("a", "other", json!({}), json!({})))]), []);
        assert_eq!(words(vec![ago(event(), 60)]), told(""));
        assert_eq!(words(vec![ago(event(), 7200)]), []);
    }

    #[test]
    fn the_kubelet_s_machine_is_the_pod_s() {
        let mut event = event_of("Pod", "web", "FailedMount", "x");
        event["source"] = json!({"component": "kubelet", "host": "two"});
        assert_eq!(words(vec![object(event.clone())])[0].1, "two");
        event["source"] = json!({"component": "default-scheduler", "host": "two"});
        assert_eq!(words(vec![object(event)])[0].1, "");
    }
}
