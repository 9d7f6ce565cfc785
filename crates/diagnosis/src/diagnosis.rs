//! The result: causes, best first, each with what it explains and its evidence.

use std::cmp::Reverse;
use std::num::NonZero;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, available_parallelism};

use jiff::Timestamp;
use serde::Serialize;

use crate::causes::{Found, effects_of_roots, plan_explanations};
use crate::evidence::{Evidence, Item, Place, Unseen};
use crate::facts::Fact;
use crate::finding::{Certainty, Finding, Repair, Severity, Subject};
use crate::onset::Clocks;
use crate::ruled_out::{RuledOut, ruled_out};
use crate::rules::{Rule, rules};
use crate::schema::{API_VERSION, KIND};
use crate::twins::merge_twins;

/// How many items of evidence a report quotes for one cause.
const MOST_EXHIBITS: usize = 10;
/// Items from which on the rules share the machine's processors.
const MANY: usize = 10_000;

/// What is wrong with a cluster.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Diagnosis {
    /// The form and its version, which [`schema`](crate::schema()) describes.
    pub api_version: &'static str,
    /// What it is.
    pub kind: &'static str,
    /// Best first; empty where nothing is wrong.
    pub causes: Vec<Cause>,
    /// What would look the same, was looked for, and is not it.
    pub ruled_out: Vec<RuledOut>,
    /// What could not be looked at.
    pub not_seen: Vec<Unseen>,
}

/// Something that nothing else explains.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cause {
    /// The id of the catalogue.
    pub id: &'static str,
    /// The cause in a few words.
    pub title: &'static str,
    /// With whom.
    pub subject: Subject,
    /// Where.
    pub place: Place,
    /// How sure.
    pub confidence: Certainty,
    /// How bad.
    pub severity: Severity,
    /// When the first word of it was written, where logs or events tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// What is wrong, in one sentence.
    pub text: String,
    /// What follows from it, in one sentence each.
    pub explains: Vec<String>,
    /// What proves it.
    pub evidence: Vec<Exhibit>,
    /// What mends it.
    pub repair: Repair,
}

/// An item of evidence as a person can look it up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Exhibit {
    /// When it happened, where that is known, by a clock that is right: machines whose clock was measured are corrected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Timestamp>,
    /// Where it was read.
    pub origin: String,
    /// What stood there.
    pub shown: String,
}

impl Diagnosis {
    /// How bad the worst of it is; `None` where nothing is wrong.
    pub fn severity(&self) -> Option<Severity> {
        self.causes.iter().map(|cause| cause.severity).max()
    }
}

/// Runs every rule, and folds what follows from something else into its cause.
pub fn diagnose(evidence: &Evidence) -> Diagnosis {
    let clocks = Clocks::of(evidence);
    let found = findings(evidence).into_iter().map(|(rule, finding)| Found {
        onset: clocks.onset(evidence, &finding),
        rule,
        finding,
    });
    let found = merge_twins(found.collect(), evidence);
    let mut roots: Vec<(usize, Vec<usize>)> = effects_of_roots(&plan_explanations(&found)).into_iter().collect();
    roots.sort_by_cached_key(|(index, effects)| rank(&found[*index], effects.len()));
    let causes = roots.iter().map(|(index, effects)| {
        let explained = effects.iter().map(|&effect| line(&found[effect])).collect();
        cause(&found[*index], explained, evidence, &clocks)
    });
    let diagnosis = Diagnosis {
        api_version: API_VERSION,
        kind: KIND,
        causes: causes.collect(),
        ruled_out: ruled_out(evidence, &found),
        not_seen: evidence.unseen.clone(),
    };
    #[cfg(test)]
    crate::schema::tests::hold(&diagnosis);
    diagnosis
}

/// What each rule finds, in the order of the rules.
fn findings(evidence: &Evidence) -> Vec<(&'static Rule, Finding)> {
    let rules: Vec<&'static Rule> = rules().collect();
    let threads = if evidence.items.len() < MANY { 1 } else { available_parallelism().map_or(1, NonZero::get) };
    let next = AtomicUsize::new(0);
    // Each takes the next rule that nobody has: some take a hundred times as long as others.
    let work = || {
        let mut found = Vec::new();
        while let Some(rule) = rules.get(next.fetch_add(1, Ordering::Relaxed)) {
            found.extend((rule.find)(evidence).into_iter().map(|finding| (*rule, finding)));
        }
        found
    };
    let mut found = thread::scope(|scope| {
        let spawn = |_| thread::Builder::new().spawn_scoped(scope, work).ok();
        let others: Vec<_> = (1..threads).filter_map(spawn).collect();
        let mut found = work();
        for other in others {
            found.extend(other.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        found
    });
    found.sort_by_cached_key(|(rule, _)| rules.iter().position(|known| known.id == rule.id));
    found
}

/// The worst first, then the surest, then the lowest, then that with the most effects, then the earliest.
fn rank(found: &Found, effects: usize) -> impl Ord + use<> {
    let Found { rule, finding, onset } = found;
    (Reverse(finding.severity), Reverse(finding.certainty), rule.layer, Reverse(effects), onset.is_none(), *onset)
}

fn line(found: &Found) -> String {
    format!("{} {}: {}", found.rule.id, found.rule.title, found.finding.text)
}

fn cause(found: &Found, explains: Vec<String>, evidence: &Evidence, clocks: &Clocks<'_>) -> Cause {
    let Found { rule, finding, onset } = found;
    let exhibits = finding.evidence.iter().take(MOST_EXHIBITS).map(|&index| exhibit(&evidence.items[index], clocks));
    Cause {
        id: rule.id,
        title: rule.title,
        since: *onset,
        subject: finding.subject.clone(),
        place: finding.place.clone(),
        confidence: finding.certainty,
        severity: finding.severity,
        text: finding.text.clone(),
        explains,
        evidence: exhibits.collect(),
        repair: finding.repair.clone(),
    }
}

fn exhibit(item: &Item, clocks: &Clocks<'_>) -> Exhibit {
    let shown = match &item.fact {
        Fact::Object(object) => {
            let subject = crate::object::subject(object);
            match object["message"].as_str() {
                Some(message) => format!("{subject}: {message}"),
                None => subject.to_string(),
            }
        }
        fact => fact.to_string(),
    };
    Exhibit { time: clocks.moment(item), origin: item.origin.clone(), shown }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::fixtures::{file, json, node, now, old, pod, scheduler_manifest};

    fn object(value: serde_json::Value) -> Item {
        Item { time: None, place: Place::Cluster, origin: "kubectl get".to_owned(), fact: Fact::Object(value) }
    }

    fn ids(items: Vec<Item>) -> Vec<(&'static str, usize)> {
        let diagnosis = diagnose(&Evidence { gathered: now(), items: items.into(), unseen: Vec::new() });
        diagnosis.causes.iter().map(|cause| (cause.id, cause.explains.len())).collect()
    }

    #[test]
    fn nothing_is_wrong_with_a_healthy_cluster() {
        let ready = json!([{"type": "Ready", "status": "True"}, {"type": "DiskPressure", "status": "False"}]);
        assert_eq!(ids(vec![object(node("one", ready))]), []);
    }

    #[test]
    fn an_empty_kubeconfig_explains_the_scheduler_that_is_silent() {
        let flag = "--kubeconfig=/etc/kubernetes/scheduler.conf";
        let mut items = scheduler_manifest(flag, "/etc/kubernetes/schedulr.conf", "FileOrCreate");
        items.push(file("/etc/kubernetes/schedulr.conf", crate::facts::FileKind::EmptyFile));
        items.push(object(old(pod("a", "web", json!({}), json!({"phase": "Pending"})))));
        assert_eq!(ids(items), [("A7", 1)]);
    }

    #[test]
    fn a_node_explains_its_own_pods_and_no_others() {
        let crash = |name: &str, node: &str| {
            let status = json!({"phase": "Running", "containerStatuses": [{"name": "c", "restartCount": 2,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"reason": "Error", "exitCode": 1}}}]});
            object(pod("a", name, json!({"nodeName": node}), status))
        };
        let sick = json!([{"type": "Ready", "status": "False", "message": "container runtime is down"}]);
        assert_eq!(
            ids(vec![object(node("one", sick)), crash("here", "one"), crash("there", "two")]),
            [("E4", 1), ("W1", 0)]
        );
    }

    #[test]
    fn much_evidence_changes_nothing() {
        let crash = |number: usize| {
            let status = json!({"phase": "Running", "containerStatuses": [{"name": "c", "restartCount": 2,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"reason": "Error", "exitCode": 1}}}]});
            object(pod("a", &format!("web-{number}"), json!({"nodeName": "two"}), status))
        };
        let sick = json!([{"type": "Ready", "status": "False", "message": "container runtime is down"}]);
        let mut items =
            vec![object(node("one", sick)), crate::rules::fixtures::setting("net.ipv4.ip_forward", Some("0"))];
        items.extend((0..20).map(crash));
        let said = |items: &[Item]| {
            let evidence = Evidence { gathered: now(), items: items.to_vec().into(), unseen: Vec::new() };
            serde_json::to_value(diagnose(&evidence).causes).expect("it has a form")
        };
        let few = said(&items);
        assert_eq!(few.as_array().map(Vec::len), Some(22), "{few}");
        items.extend(
            (0..MANY).map(|number| crate::rules::fixtures::logged("kubelet", &format!("all is well {number}"))),
        );
        assert_eq!(said(&items), few);
    }

    #[test]
    fn a_chain_has_one_root() {
        // Two independent causes stay two; the louder one does not hide the other.
        let unknown =
            json!([{"type": "Ready", "status": "Unknown", "message": "Kubelet stopped posting node status."}]);
        let oom = json!({"phase": "Running", "containerStatuses": [{"name": "c", "restartCount": 2, "ready": false,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}]});
        let items = vec![object(node("one", unknown)), object(pod("a", "leak", json!({"nodeName": "two"}), oom))];
        assert_eq!(ids(items), [("E2", 0), ("W3", 1)]);
    }
}
