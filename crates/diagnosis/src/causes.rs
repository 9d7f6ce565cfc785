//! Cause and effect: which findings explain which, and what is left.
//!
//! Invariant: everything that was found is either a cause or explained by one; nothing explains itself, even by detours.

use crate::evidence::Place;
use crate::finding::Finding;
use crate::rules::{Rule, Scope};

/// A finding with its rule.
pub(crate) struct Found {
    pub(crate) rule: &'static Rule,
    pub(crate) finding: Finding,
}

/// For each finding, the one that explains it best, if any: the lowest, and of those the surest.
pub(crate) fn plan_explanations(found: &[Found]) -> Vec<Option<usize>> {
    let explained = |effect: usize| {
        let causes = (0..found.len()).filter(|&cause| cause != effect && explains(&found[cause], &found[effect]));
        causes.min_by_key(|&cause| (found[cause].rule.layer, std::cmp::Reverse(found[cause].finding.certainty), cause))
    };
    (0..found.len()).map(explained).collect()
}

/// The finding at the root of one, over all steps between.
pub(crate) fn root(explanations: &[Option<usize>], mut index: usize) -> usize {
    // Rules only explain what lies no lower, and two of one layer never explain each other: this ends.
    for _ in 0..explanations.len() {
        match explanations[index] {
            Some(cause) => index = cause,
            None => break,
        }
    }
    index
}

fn explains(cause: &Found, effect: &Found) -> bool {
    let is_allowed = cause.finding.only.is_none_or(|ids| ids.contains(&effect.rule.id));
    // What will fail explains nothing that fails today.
    is_allowed
        && cause.finding.severity >= effect.finding.severity
        && cause.rule.explains.iter().any(|explains| {
            explains.ids.contains(&effect.rule.id)
                && match explains.scope {
                    Scope::Anywhere => true,
                    Scope::SameNode => cause.finding.place == effect.finding.place,
                    Scope::SameSubject => is_same(cause, effect),
                    Scope::Touched => cause.finding.touches.contains(&effect.finding.subject),
                    Scope::ControlPlane => crate::rules::is_of_the_control_plane(&effect.finding.subject),
                }
        })
}

/// Whether two findings are about one object. The pod of a static pod's file has the name of its machine behind its own.
fn is_same(cause: &Found, effect: &Found) -> bool {
    let (one, other) = (&cause.finding.subject, &effect.finding.subject);
    let same_name = one.name == other.name
        || match (&cause.finding.place, &effect.finding.place) {
            (Place::Node(node), _) | (_, Place::Node(node)) => {
                other.name == format!("{}-{node}", one.name) || one.name == format!("{}-{node}", other.name)
            }
            _ => false,
        };
    one.kind == other.kind && one.namespace == other.namespace && same_name
}
