//! Cause and effect: which findings explain which, and what is left.
//!
//! Causes are looked up by what they explain, not compared with every finding: a cluster may have thousands of each.
//! Invariant: everything that was found is either a cause or explained by one; nothing explains itself, even by detours.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;

use crate::evidence::Place;
use crate::finding::{Finding, Subject};
use crate::rules::{Rule, Scope};

/// A finding with its rule.
pub(crate) struct Found {
    pub(crate) rule: &'static Rule,
    pub(crate) finding: Finding,
    /// When the first line or event that proves it was written, by a clock that is right.
    pub(crate) onset: Option<Timestamp>,
}

/// Where a cause is looked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Anywhere,
    Node(Place),
    Subject(Subject),
    ControlPlane,
}

/// For each finding, the one that explains it best, if any: the lowest, of those the surest, of those the earliest.
pub(crate) fn plan_explanations(found: &[Found]) -> Vec<Option<usize>> {
    let order = |cause: usize| {
        let Found { rule, finding, onset } = &found[cause];
        (rule.layer, Reverse(finding.certainty), onset.is_none(), *onset, cause)
    };
    let mut causes: HashMap<(&str, Key), Vec<usize>> = HashMap::new();
    for (cause, each) in found.iter().enumerate() {
        for (id, key) in explained_by(each) {
            causes.entry((id, key)).or_default().push(cause);
        }
    }
    for known in causes.values_mut() {
        known.sort_by_key(|&cause| order(cause));
    }
    let explained = |(effect, each): (usize, &Found)| {
        let lists = keys_of(each).into_iter().filter_map(|key| causes.get(&(each.rule.id, key)));
        // What will fail explains nothing that fails today.
        let fits = |cause: &&usize| **cause != effect && found[**cause].finding.severity >= each.finding.severity;
        lists.filter_map(|list| list.iter().find(fits).copied()).min_by_key(|&cause| order(cause))
    };
    found.iter().enumerate().map(explained).collect()
}

/// Every id that a finding explains, with where.
fn explained_by(cause: &Found) -> Vec<(&'static str, Key)> {
    let mut all = Vec::new();
    for explains in cause.rule.explains {
        let keys = match explains.scope {
            Scope::Anywhere => vec![Key::Anywhere],
            Scope::SameNode => vec![Key::Node(cause.finding.place.clone())],
            Scope::SameSubject => subjects(&cause.finding).into_iter().map(Key::Subject).collect(),
            Scope::Touched => cause.finding.touches.iter().cloned().map(Key::Subject).collect(),
            Scope::ControlPlane => vec![Key::ControlPlane],
        };
        let is_allowed = |id: &&&str| cause.finding.only.is_none_or(|only| only.contains(*id));
        for id in explains.ids.iter().filter(is_allowed) {
            all.extend(keys.iter().cloned().map(|key| (*id, key)));
        }
    }
    all
}

/// Where causes of a finding may be.
fn keys_of(effect: &Found) -> Vec<Key> {
    let mut keys = vec![Key::Anywhere, Key::Node(effect.finding.place.clone())];
    keys.extend(subjects(&effect.finding).into_iter().map(Key::Subject));
    if crate::rules::is_of_the_control_plane(&effect.finding.subject) {
        keys.push(Key::ControlPlane);
    }
    keys
}

/// Who a finding is about. The pod of a static pod's file has the name of its machine behind its own.
pub(crate) fn subjects(finding: &Finding) -> Vec<Subject> {
    let mut names = vec![finding.subject.clone()];
    if let (Place::Node(node), "Pod") = (&finding.place, finding.subject.kind.as_str())
        && !finding.subject.name.ends_with(&format!("-{node}"))
    {
        let name = format!("{}-{node}", finding.subject.name);
        names.push(Subject { name, ..finding.subject.clone() });
    }
    names
}

/// For each finding that nothing explains, what follows from it over all steps, in order.
pub(crate) fn effects_of_roots(explanations: &[Option<usize>]) -> BTreeMap<usize, Vec<usize>> {
    let mut effects: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for index in 0..explanations.len() {
        let root = root(explanations, index);
        let known = effects.entry(root).or_default();
        if root != index {
            known.push(index);
        }
    }
    effects
}

/// The finding at the root of one, over all steps between.
fn root(explanations: &[Option<usize>], mut index: usize) -> usize {
    // Rules only explain what lies no lower, and nothing explains itself by detours: this ends.
    for _ in 0..explanations.len() {
        match explanations[index] {
            Some(cause) => index = cause,
            None => break,
        }
    }
    index
}
