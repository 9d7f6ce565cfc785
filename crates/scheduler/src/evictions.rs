//! Pods that made others go and wait for that: until the last of those has left it would be of no use to try again, and
//! harmful where even more had to go. Once all are on their way, though, something else may help.
//!
//! Invariant: nobody waits for a pod that has left, nor for one that could not be deleted.

use std::collections::{HashMap, HashSet};

use kedge_meta::ObjectKey;

/// Whom it concerns that a pod has left.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Left {
    /// Those who wait for nobody any more.
    pub(crate) free: Vec<ObjectKey>,
    /// Those whose other victims are all on their way.
    pub(crate) seen_off: Vec<ObjectKey>,
}

#[derive(Default)]
pub(crate) struct Evictions {
    /// Each with whether it is on its way out.
    victims_by_pod: HashMap<ObjectKey, HashMap<ObjectKey, bool>>,
    pods_by_victim: HashMap<ObjectKey, HashSet<ObjectKey>>,
}

impl Evictions {
    /// A pod waits for these to leave, and for no others any more.
    pub(crate) fn begin(&mut self, pod: &ObjectKey, victims: impl IntoIterator<Item = ObjectKey>) {
        self.forget(pod);
        for victim in victims {
            self.pods_by_victim.entry(victim.clone()).or_default().insert(pod.clone());
            self.victims_by_pod.entry(pod.clone()).or_default().insert(victim, false);
        }
    }

    /// A pod is on its way out: those of whose victims it was the last one that was not.
    pub(crate) fn leaving(&mut self, victim: &ObjectKey) -> Vec<ObjectKey> {
        let mut seen_off = Vec::new();
        for pod in self.pods_by_victim.get(victim).into_iter().flatten() {
            let Some(victims) = self.victims_by_pod.get_mut(pod) else { continue };
            let was_leaving = victims.insert(victim.clone(), true);
            if was_leaving == Some(false) && victims.values().all(|is_leaving| *is_leaving) {
                seen_off.push(pod.clone());
            }
        }
        seen_off
    }

    /// A pod has left, or will not leave: those who waited for it last of all wait no longer.
    pub(crate) fn left(&mut self, victim: &ObjectKey) -> Left {
        let mut left = Left::default();
        for pod in self.pods_by_victim.remove(victim).into_iter().flatten() {
            let Some(victims) = self.victims_by_pod.get_mut(&pod) else { continue };
            let was_leaving = victims.remove(victim);
            if victims.is_empty() {
                self.victims_by_pod.remove(&pod);
                left.free.push(pod);
            } else if was_leaving == Some(false) && victims.values().all(|is_leaving| *is_leaving) {
                left.seen_off.push(pod);
            }
        }
        left
    }

    /// A pod does not wait any more.
    pub(crate) fn forget(&mut self, pod: &ObjectKey) {
        for victim in self.victims_by_pod.remove(pod).into_iter().flatten().map(|(victim, _)| victim) {
            if let Some(pods) = self.pods_by_victim.get_mut(&victim) {
                pods.remove(pod);
                if pods.is_empty() {
                    self.pods_by_victim.remove(&victim);
                }
            }
        }
    }

    /// Whether it is known for whom a pod waits.
    pub(crate) fn knows(&self, pod: &ObjectKey) -> bool {
        self.victims_by_pod.contains_key(pod)
    }

    /// Whether a pod waits for others of which some are not even on their way.
    pub(crate) fn waits(&self, pod: &ObjectKey) -> bool {
        self.victims_by_pod.get(pod).is_some_and(|victims| victims.values().any(|is_leaving| !is_leaving))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("d", name)
    }

    #[test]
    fn the_last_one_to_leave_sets_free() {
        let mut evictions = Evictions::default();
        evictions.begin(&key("a"), [key("v1"), key("v2")]);
        evictions.begin(&key("b"), [key("v2")]);
        assert_eq!(evictions.left(&key("v1")), Left::default());
        assert!(evictions.waits(&key("a")));
        let mut free = evictions.left(&key("v2")).free;
        free.sort();
        assert_eq!(free, [key("a"), key("b")]);
        assert_eq!(evictions.left(&key("v2")), Left::default());
        assert!(!evictions.waits(&key("a")));
    }

    #[test]
    fn once_all_are_on_their_way_something_else_may_help() {
        let mut evictions = Evictions::default();
        evictions.begin(&key("a"), [key("v1"), key("v2")]);
        assert!(evictions.leaving(&key("v1")).is_empty() && evictions.waits(&key("a")));
        assert_eq!(evictions.leaving(&key("v2")), [key("a")]);
        assert!(evictions.leaving(&key("v2")).is_empty(), "it is said once");
        assert!(!evictions.waits(&key("a")) && evictions.knows(&key("a")));
        assert_eq!(evictions.left(&key("v2")), Left::default(), "another one is still there");
        assert_eq!(evictions.left(&key("v1")).free, [key("a")]);
        evictions.begin(&key("a"), [key("v1"), key("v2")]);
        assert!(evictions.leaving(&key("v1")).is_empty());
        assert_eq!(evictions.left(&key("v2")).seen_off, [key("a")], "it left without saying so before");
    }

    #[test]
    fn who_is_forgotten_or_begins_again_waits_for_nobody_else() {
        let mut evictions = Evictions::default();
        evictions.begin(&key("a"), [key("v1")]);
        evictions.begin(&key("a"), [key("v2")]);
        assert_eq!(evictions.left(&key("v1")), Left::default());
        evictions.forget(&key("a"));
        assert_eq!(evictions.left(&key("v2")), Left::default());
        assert!(evictions.pods_by_victim.is_empty());
    }
}
