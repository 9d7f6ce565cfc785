//! When a trouble began: the earliest word of it, by clocks that are put right.
//!
//! Only logs and events say when something happened; other facts were found when somebody looked.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::evidence::{Evidence, Item, Place};
use crate::facts::Fact;
use crate::finding::Finding;
use crate::object::text;

/// By how much each machine's clock is ahead.
pub(crate) struct Clocks<'a> {
    ahead: BTreeMap<&'a Place, SignedDuration>,
}

impl<'a> Clocks<'a> {
    /// What was measured of them; a machine of which nothing is known is taken to be right.
    pub(crate) fn of(evidence: &'a Evidence) -> Self {
        let mut ahead = BTreeMap::new();
        for (_, item, offset) in evidence.measures("clock_offset_seconds") {
            if let Ok(offset) = SignedDuration::try_from_secs_f64(offset.value) {
                ahead.insert(&item.place, offset);
            }
        }
        Self { ahead }
    }

    /// When the first word of a finding was written.
    pub(crate) fn onset(&self, evidence: &Evidence, finding: &Finding) -> Option<Timestamp> {
        finding.evidence.iter().filter_map(|&index| self.time(&evidence.items[index])).min()
    }

    fn time(&self, item: &Item) -> Option<Timestamp> {
        let time = match &item.fact {
            Fact::Log(_) => item.time?,
            // An event that was seen often has the time of its first.
            Fact::Object(object) if object["kind"] == "Event" => {
                text(&object["firstTimestamp"]).parse().ok().or(item.time)?
            }
            _ => return None,
        };
        self.put_right(item, time)
    }

    /// When an item is of, by a clock that is right.
    pub(crate) fn moment(&self, item: &Item) -> Option<Timestamp> {
        self.put_right(item, item.time?)
    }

    fn put_right(&self, item: &Item, time: Timestamp) -> Option<Timestamp> {
        match self.ahead.get(&writer(item)) {
            Some(ahead) => time.checked_sub(*ahead).ok(),
            None => Some(time),
        }
    }
}

/// Whose clock an item's time is by: an event is read from the API, and dated by who tells of it.
fn writer(item: &Item) -> Place {
    let Fact::Object(event) = &item.fact else { return item.place.clone() };
    let is_of_kubelet =
        [&event["source"]["component"], &event["reportingComponent"]].contains(&&Value::from("kubelet"));
    let told_by = [&event["source"]["host"], &event["reportingInstance"]].map(text);
    match told_by.into_iter().find(|name| !name.is_empty()) {
        Some(name) if is_of_kubelet => Place::Node(name.to_owned()),
        _ => item.place.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::{Certainty, Repair, Subject};
    use crate::rules::fixtures::*;

    #[test]
    fn the_first_word_counts_by_a_clock_that_is_right() {
        let mut event = event_of("Pod", "web", "Failed", "x");
        event["firstTimestamp"] = json!(ago(line_of("etcd", "x"), 100).time.expect("a time").to_string());
        let event = Item { time: Some(now()), place: Place::Cluster, origin: String::new(), fact: Fact::Object(event) };
        let items = vec![ago(line_of("etcd", "x"), 40), measured("clock_offset_seconds", "api", 30.0, None), event];
        let evidence = Evidence { gathered: now(), items: items.into(), unseen: Vec::new() };
        let clocks = Clocks::of(&evidence);
        let onset = |proof: Vec<usize>| {
            let subject = Subject::new("Component", "etcd");
            let item = &evidence.items[0];
            let finding = Finding::failure(subject, item, Certainty::Likely, String::new(), proof, Repair::default());
            clocks.onset(&evidence, &finding).map(|time| now().as_second() - time.as_second())
        };
        assert_eq!([onset(vec![0, 1]), onset(vec![0, 2]), onset(vec![1])], [Some(70), Some(100), None]);
    }
}
