//! The same trouble of the same object, seen through the API and on the machine: one finding with the evidence of both.
//!
//! Invariant: what was seen from one side only is left as it is, also where a rule finds it twice there.

use std::collections::HashMap;

use crate::causes::{Found, subjects};
use crate::evidence::{Evidence, Place};
use crate::finding::{Finding, Subject};

/// Who has what trouble.
type Key = (&'static str, Subject);

/// Findings with those that are the same put together, those of the machine first.
pub(crate) fn merge_twins(found: Vec<Found>, evidence: &Evidence) -> Vec<Found> {
    let is_of_api = |found: &Found| {
        let mut items = found.finding.evidence.iter().filter_map(|&index| evidence.items.get(index));
        items.all(|item| item.place == Place::Cluster)
    };
    let sides: Vec<bool> = found.iter().map(is_of_api).collect();
    if sides.iter().all(|side| *side) || !sides.contains(&true) {
        return found;
    }
    // Those of the machine first: those of the API are held against them.
    let (of_api, kept): (Vec<_>, Vec<_>) = found.into_iter().zip(sides).partition(|(_, is_of_api)| *is_of_api);
    let mut kept: Vec<Found> = kept.into_iter().map(|(each, _)| each).collect();
    let mut known: HashMap<Key, usize> = HashMap::new();
    for (index, each) in kept.iter().enumerate() {
        for key in keys(each) {
            known.entry(key).or_insert(index);
        }
    }
    for (each, _) in of_api {
        let twin = keys(&each).into_iter().find_map(|key| known.get(&key).copied());
        match twin.filter(|&twin| is_same_place(&kept[twin].finding, &each.finding)) {
            Some(twin) => merge(&mut kept[twin], each),
            None => kept.push(each),
        }
    }
    kept
}

/// A machine is its Node.
fn keys(found: &Found) -> Vec<Key> {
    let own = subjects(&found.finding).into_iter().map(|subject| match subject.kind.as_str() {
        "Machine" => Subject::new("Node", &subject.name),
        _ => subject,
    });
    own.map(|subject| (found.rule.id, subject)).collect()
}

fn is_same_place(one: &Finding, other: &Finding) -> bool {
    one.place == other.place || one.place == Place::Cluster || other.place == Place::Cluster
}

/// The surer and worse of both, with the evidence of both: the machine's first, which is nearer.
fn merge(kept: &mut Found, other: Found) {
    let Found { finding, onset, .. } = other;
    kept.onset = kept.onset.into_iter().chain(onset).min();
    let own = &mut kept.finding;
    own.certainty = own.certainty.max(finding.certainty);
    own.severity = own.severity.max(finding.severity);
    own.evidence.extend(finding.evidence);
    own.touches.extend(finding.touches);
    if own.only.is_some() && finding.only.is_none() {
        own.only = None;
    }
}

#[cfg(test)]
mod tests {
    use crate::evidence::{Evidence, Item, Place};
    use crate::facts::Fact;
    use crate::rules::fixtures::{json, now, on, pod};

    fn broken(name: &str) -> Fact {
        let message = "exec: \"kube-schedulerrr\": executable file not found in $PATH: unknown";
        let state = json!({"terminated": {"reason": "StartError", "exitCode": 128, "message": message}});
        let status = json!({"containerStatuses": [{"name": "kube-scheduler", "restartCount": 4, "state": state}]});
        Fact::Object(pod("kube-system", name, json!({"nodeName": "one"}), status))
    }

    fn found(items: Vec<Item>) -> Vec<(&'static str, usize)> {
        let diagnosis = crate::diagnose(&Evidence { gathered: now(), items: items.into(), unseen: Vec::new() });
        diagnosis.causes.iter().map(|cause| (cause.id, cause.evidence.len())).collect()
    }

    #[test]
    fn what_both_sides_show_is_listed_once() {
        let api = |name: &str| {
            let origin = "kubectl get pods".to_owned();
            Item { time: None, place: Place::Cluster, origin, fact: broken(name) }
        };
        let machine = |name: &str| on("one", broken(name));
        let alone = found(vec![machine("kube-scheduler-one")]);
        assert_eq!(alone.len(), 1);
        let both = found(vec![machine("kube-scheduler-one"), api("kube-scheduler-one")]);
        assert_eq!(both, [(alone[0].0, alone[0].1 + 1)]);
        assert_eq!(found(vec![api("kube-scheduler-one"), machine("kube-scheduler-one")]), both);
        // Another machine's is another.
        assert_eq!(found(vec![machine("kube-scheduler-one"), api("kube-scheduler-two")]).len(), 2);
    }
}
