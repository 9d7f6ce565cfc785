//! The pods that wait for a node: active by priority and age, backing off after a failure, or unschedulable until
//! something in the cluster changes.
//!
//! Invariant: a waiting pod is in exactly one of the three places. Time comes from outside.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use kedge_meta::ObjectKey;
use tokio::time::Instant;

use crate::metrics::Pending;
use crate::node_info::PodInfo;

const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);
/// Even where no change was seen that could help, a pod is tried again after this long.
const UNSCHEDULABLE_FOR: Duration = Duration::from_secs(300);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Active,
    BackingOff(Instant),
    Unschedulable(Instant),
    Gated,
}

struct Entry {
    pod: Arc<PodInfo>,
    place: Place,
    attempts: u32,
    first_attempt: Option<Instant>,
    sequence: u64,
}

/// A pod taken out for an attempt.
#[derive(Clone)]
pub(crate) struct Taken {
    pub(crate) pod: Arc<PodInfo>,
    /// With this one.
    pub(crate) attempts: u32,
    /// When the first one began.
    pub(crate) first_attempt: Instant,
    sequence: u64,
    changes_seen: u64,
}

#[derive(Default)]
pub(crate) struct Queue {
    entries: HashMap<ObjectKey, Entry>,
    active: BTreeMap<(i64, u64), ObjectKey>,
    sequence: u64,
    changes: u64,
    pending: Pending,
}

impl Queue {
    /// A pod came to be or changed. A changed pod is tried again.
    pub(crate) fn add(&mut self, pod: Arc<PodInfo>) {
        let key = pod.key.clone();
        let gated = is_gated(&pod);
        let (attempts, first_attempt, sequence) = match self.take_out(&key) {
            Some(entry) => (entry.attempts, entry.first_attempt, entry.sequence),
            None => {
                self.sequence += 1;
                (0, None, self.sequence)
            }
        };
        let place = if gated { Place::Gated } else { Place::Active };
        self.put(Entry { pod, place, attempts, first_attempt, sequence });
    }

    pub(crate) fn remove(&mut self, key: &ObjectKey) {
        self.take_out(key);
    }

    /// The pod to try next: the highest priority, then the longest in the queue.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Taken> {
        self.release(now);
        let key = self.active.first_key_value().map(|(_, key)| key.clone())?;
        let entry = self.take_out(&key)?;
        Some(Taken {
            pod: entry.pod,
            attempts: entry.attempts + 1,
            first_attempt: entry.first_attempt.unwrap_or(now),
            sequence: entry.sequence,
            changes_seen: self.changes,
        })
    }

    /// Puts a pod back that did not find a node. If the cluster changed meanwhile, it only backs off.
    pub(crate) fn failed(&mut self, taken: Taken, now: Instant) {
        if self.entries.contains_key(&taken.pod.key) {
            // A newer version of the pod came in meanwhile.
            return;
        }
        let changed = taken.changes_seen != self.changes;
        let place = match changed {
            true => Place::BackingOff(now + backoff(taken.attempts)),
            false => Place::Unschedulable(now),
        };
        let Taken { pod, attempts, sequence, first_attempt, .. } = taken;
        self.put(Entry { pod, place, attempts, first_attempt: Some(first_attempt), sequence });
    }

    /// Puts a pod back whose binding failed: it only backs off.
    pub(crate) fn retry(&mut self, mut taken: Taken, now: Instant) {
        taken.changes_seen = u64::MAX;
        self.failed(taken, now);
    }

    /// Something changed that may help pods that fit nowhere.
    pub(crate) fn cluster_changed(&mut self, now: Instant) {
        self.changes += 1;
        let waiting = self.entries.iter().filter(|(_, entry)| matches!(entry.place, Place::Unschedulable(_)));
        let keys: Vec<ObjectKey> = waiting.map(|(key, _)| key.clone()).collect();
        for key in keys {
            let Some(mut entry) = self.take_out(&key) else { continue };
            let Place::Unschedulable(since) = entry.place else { continue };
            let until = since + backoff(entry.attempts);
            entry.place = if until <= now { Place::Active } else { Place::BackingOff(until) };
            self.put(entry);
        }
    }

    /// When a pod that waits for a time is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let due = |entry: &Entry| match entry.place {
            Place::BackingOff(until) => Some(until),
            Place::Unschedulable(since) => Some(since + UNSCHEDULABLE_FOR),
            Place::Active | Place::Gated => None,
        };
        self.entries.values().filter_map(due).min()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    fn release(&mut self, now: Instant) {
        let due = |entry: &Entry| match entry.place {
            Place::BackingOff(until) => until <= now,
            Place::Unschedulable(since) => since + UNSCHEDULABLE_FOR <= now,
            Place::Active | Place::Gated => false,
        };
        let keys: Vec<ObjectKey> =
            self.entries.iter().filter(|(_, entry)| due(entry)).map(|(key, _)| key.clone()).collect();
        for key in keys {
            if let Some(mut entry) = self.take_out(&key) {
                entry.place = Place::Active;
                self.put(entry);
            }
        }
    }

    /// How many pods wait in which place.
    pub(crate) fn pending(&self) -> Pending {
        self.pending
    }

    fn put(&mut self, entry: Entry) {
        *self.count(entry.place) += 1;
        let key = entry.pod.key.clone();
        if entry.place == Place::Active {
            self.active.insert(order(&entry), key.clone());
        }
        self.entries.insert(key, entry);
    }

    fn take_out(&mut self, key: &ObjectKey) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        self.active.remove(&order(&entry));
        *self.count(entry.place) -= 1;
        Some(entry)
    }

    fn count(&mut self, place: Place) -> &mut usize {
        match place {
            Place::Active => &mut self.pending.active,
            Place::BackingOff(_) => &mut self.pending.backing_off,
            Place::Unschedulable(_) => &mut self.pending.unschedulable,
            Place::Gated => &mut self.pending.gated,
        }
    }
}

fn order(entry: &Entry) -> (i64, u64) {
    (-i64::from(entry.pod.priority), entry.sequence)
}

fn backoff(attempts: u32) -> Duration {
    (FIRST_BACKOFF * 2u32.saturating_pow(attempts.saturating_sub(1).min(10))).min(LONGEST_BACKOFF)
}

/// Whether a pod asks not to be scheduled yet.
pub(crate) fn is_gated(pod: &PodInfo) -> bool {
    pod.pod.spec.as_ref().and_then(|spec| spec.scheduling_gates.as_ref()).is_some_and(|gates| !gates.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, priority: i32, gates: &[&str]) -> Arc<PodInfo> {
        let gates: Vec<_> = gates.iter().map(|name| json!({"name": name})).collect();
        let value = json!({"metadata": {"name": name},
            "spec": {"containers": [], "priority": priority, "schedulingGates": gates}});
        Arc::new(PodInfo::new(Arc::new(serde_json::from_value(value).unwrap())))
    }

    fn next(queue: &mut Queue, now: Instant) -> Option<String> {
        queue.next(now).map(|taken| taken.pod.key.name.clone())
    }

    #[tokio::test(start_paused = true)]
    async fn priority_goes_first_then_age_and_gates_hold() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for (name, priority, gates) in [("old", 0, &[][..]), ("new", 0, &[]), ("high", 5, &[]), ("gated", 9, &["g"])] {
            queue.add(pod(name, priority, gates));
        }
        for expected in [Some("high"), Some("old"), Some("new"), None] {
            assert_eq!(next(&mut queue, now).as_deref(), expected);
        }
        queue.add(pod("gated", 9, &[]));
        assert_eq!(next(&mut queue, now).as_deref(), Some("gated"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_pod_waits_for_a_change_and_backs_off() {
        let (mut queue, start) = (Queue::default(), Instant::now());
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        queue.add(pod("a", 0, &[]));
        let taken = queue.next(start).unwrap();
        queue.failed(taken, start);
        assert_eq!(next(&mut queue, at(60_000)), None, "nothing changed");
        queue.cluster_changed(at(500));
        assert_eq!(next(&mut queue, at(900)), None, "it backs off for a second");
        let taken = queue.next(at(1000)).unwrap();
        queue.cluster_changed(at(1000));
        queue.failed(taken, at(1000));
        assert_eq!(next(&mut queue, at(2900)), None, "the change during the attempt makes it back off for two seconds");
        assert_eq!(queue.next_due(), Some(at(3000)));
        let taken = queue.next(at(3000)).unwrap();
        queue.failed(taken, at(3000));
        assert_eq!(next(&mut queue, at(303_000)).as_deref(), Some("a"), "it is tried again in any case");
    }
}
