//! Pods that made others go and wait for that: until the last of those has left, or is on its way, it would be of no use to
//! try again, and harmful where even more had to go.
//!
//! Invariant: nobody waits for a pod that has left, nor for one that could not be deleted.

use std::collections::{HashMap, HashSet};

use kedge_meta::ObjectKey;

#[derive(Default)]
pub(crate) struct Evictions {
    victims_by_pod: HashMap<ObjectKey, HashSet<ObjectKey>>,
    pods_by_victim: HashMap<ObjectKey, HashSet<ObjectKey>>,
}

impl Evictions {
    /// A pod waits for these to leave, and for no others any more.
    pub(crate) fn begin(&mut self, pod: &ObjectKey, victims: impl IntoIterator<Item = ObjectKey>) {
        self.forget(pod);
        for victim in victims {
            self.pods_by_victim.entry(victim.clone()).or_default().insert(pod.clone());
            self.victims_by_pod.entry(pod.clone()).or_default().insert(victim);
        }
    }

    /// A pod has left, is leaving, or will not leave: those who waited for it last of all wait no longer.
    pub(crate) fn left(&mut self, victim: &ObjectKey) -> Vec<ObjectKey> {
        let mut free = Vec::new();
        for pod in self.pods_by_victim.remove(victim).into_iter().flatten() {
            let Some(victims) = self.victims_by_pod.get_mut(&pod) else { continue };
            victims.remove(victim);
            if victims.is_empty() {
                self.victims_by_pod.remove(&pod);
                free.push(pod);
            }
        }
        free
    }

    /// A pod does not wait any more.
    pub(crate) fn forget(&mut self, pod: &ObjectKey) {
        for victim in self.victims_by_pod.remove(pod).into_iter().flatten() {
            if let Some(pods) = self.pods_by_victim.get_mut(&victim) {
                pods.remove(pod);
                if pods.is_empty() {
                    self.pods_by_victim.remove(&victim);
                }
            }
        }
    }

    /// Whether a pod waits for others to leave.
    pub(crate) fn waits(&self, pod: &ObjectKey) -> bool {
        self.victims_by_pod.contains_key(pod)
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
        assert!(evictions.left(&key("v1")).is_empty() && evictions.waits(&key("a")));
        let mut free = evictions.left(&key("v2"));
        free.sort();
        assert_eq!(free, [key("a"), key("b")]);
        assert!(evictions.left(&key("v2")).is_empty() && !evictions.waits(&key("a")));
    }

    #[test]
    fn who_is_forgotten_or_begins_again_waits_for_nobody_else() {
        let mut evictions = Evictions::default();
        evictions.begin(&key("a"), [key("v1")]);
        evictions.begin(&key("a"), [key("v2")]);
        assert!(evictions.left(&key("v1")).is_empty());
        evictions.forget(&key("a"));
        assert!(evictions.left(&key("v2")).is_empty() && evictions.pods_by_victim.is_empty());
    }
}
