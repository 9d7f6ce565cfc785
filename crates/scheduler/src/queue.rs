//! The pods that wait for a node: active by priority and age, backing off after a failure, recovering after an error,
//! unschedulable until something happens that may help them, or gated.
//!
//! Invariant: a waiting pod is in exactly one of the six places; pods that are alike and were refused by the same are asked
//! about together. Time comes from outside, and so does the judgement
//! whether an event may help; a pod that was refused by nobody in particular only backs off. The scheduler takes events
//! in between two attempts and never within one, so an event that comes during an attempt finds its pod back in here.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use kedge_meta::ObjectKey;
use tokio::time::Instant;

use crate::likeness::Likeness;
use crate::metrics::Pending;
use crate::pod_info::PodInfo;

/// Even where no change was seen that could help, a pod is tried again after this long.
const UNSCHEDULABLE_FOR: Duration = Duration::from_secs(300);

/// The plugins that refused a pod.
pub(crate) type Refusers = BTreeSet<&'static str>;

/// How long pods wait after failures: twice as long after each, within bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Patience {
    pub(crate) first: Duration,
    pub(crate) longest: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { first: Duration::from_secs(1), longest: Duration::from_secs(10) }
    }
}

impl Patience {
    fn after(&self, attempts: u32) -> Duration {
        let times = 2u32.saturating_pow(attempts.saturating_sub(1).min(16));
        self.first.saturating_mul(times).min(self.longest)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Active,
    /// After plugins refused it: taken early while nothing else waits.
    BackingOff(Instant),
    /// After an error: whoever failed is given the time.
    Recovering(Instant),
    /// With what it is like.
    Unschedulable(Instant, Arc<Refusers>, Likeness),
    /// Others go for it, of which nothing but their going is to be told: nobody is asked about it.
    Held(Instant, Arc<Refusers>),
    Gated,
}

/// Pods that the same plugins refused.
#[derive(Default)]
struct Refused {
    /// Those that events may help.
    alike: HashMap<Likeness, HashSet<ObjectKey>>,
    /// How many, with those that are held.
    count: usize,
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
}

#[derive(Default)]
pub(crate) struct Queue {
    patience: Patience,
    entries: HashMap<ObjectKey, Entry>,
    active: BTreeMap<(i64, u64), ObjectKey>,
    backing_off: BTreeMap<(Instant, u64), ObjectKey>,
    recovering: BTreeMap<(Instant, u64), ObjectKey>,
    unschedulable: BTreeMap<(Instant, u64), ObjectKey>,
    refused: HashMap<Arc<Refusers>, Refused>,
    sequence: u64,
}

impl Queue {
    pub(crate) fn new(patience: Patience) -> Self {
        Self { patience, ..Self::default() }
    }

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

    /// A pod whose change can't matter for where it may run: its newest state is kept where it waits.
    pub(crate) fn refresh(&mut self, pod: Arc<PodInfo>) {
        if let Some(entry) = self.entries.get_mut(&pod.key)
            && entry.pod.priority == pod.priority
        {
            entry.pod = pod;
        }
    }

    pub(crate) fn remove(&mut self, key: &ObjectKey) {
        self.take_out(key);
    }

    /// The pod to try next: the highest priority, then the longest in the queue; where none is active, the one that has
    /// backed off for almost long enough.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Taken> {
        self.release(now);
        let active = self.active.first_key_value().map(|(_, key)| key);
        let key = active.or_else(|| self.backing_off.first_key_value().map(|(_, key)| key)).cloned()?;
        let entry = self.take_out(&key)?;
        Some(Taken {
            pod: entry.pod,
            attempts: entry.attempts + 1,
            first_attempt: entry.first_attempt.unwrap_or(now),
            sequence: entry.sequence,
        })
    }

    /// Puts a pod back that did not find a node, with those who refused it. Where that is nobody, it only backs off.
    pub(crate) fn failed(&mut self, taken: Taken, refusers: &Refusers, now: Instant) {
        let Taken { pod, attempts, sequence, first_attempt } = taken;
        if self.entries.contains_key(&pod.key) {
            // A newer version of the pod came in meanwhile.
            return;
        }
        let place = match refusers.is_empty() {
            true => Place::Recovering(now + self.patience.after(attempts)),
            false => Place::Unschedulable(now, self.shared(refusers), Likeness::of(&pod)),
        };
        self.put(Entry { pod, place, attempts, first_attempt: Some(first_attempt), sequence });
    }

    /// Puts a pod back whose binding failed: it only backs off.
    pub(crate) fn retry(&mut self, taken: Taken, now: Instant) {
        self.failed(taken, &Refusers::new(), now);
    }

    /// An event: pods that it may help, as whoever is asked about a pod and those who refused it says, are tried again
    /// once they have backed off. Says how many became active, and how many back off.
    pub(crate) fn wake(&mut self, now: Instant, helps: impl Fn(&PodInfo, &Refusers) -> bool) -> (usize, usize) {
        let mut woken = Vec::new();
        for (refusers, refused) in &self.refused {
            for keys in refused.alike.values() {
                let one = keys.iter().next().and_then(|key| self.entries.get(key));
                if one.is_some_and(|one| helps(&one.pod, refusers)) {
                    woken.extend(keys.iter().cloned());
                }
            }
        }
        let (mut active, mut backing_off) = (0, 0);
        for key in woken {
            match self.wake_one(&key, now) {
                Some(true) => active += 1,
                Some(false) => backing_off += 1,
                None => {}
            }
        }
        (active, backing_off)
    }

    /// The same for one pod, if it waits for an event: whether it has backed off already.
    pub(crate) fn wake_one(&mut self, key: &ObjectKey, now: Instant) -> Option<bool> {
        let (Place::Unschedulable(since, ..) | Place::Held(since, _)) = self.entries.get(key)?.place else {
            return None;
        };
        let mut entry = self.take_out(key)?;
        let until = since + self.patience.after(entry.attempts);
        let is_due = until <= now;
        entry.place = if is_due { Place::Active } else { Place::BackingOff(until) };
        self.put(entry);
        Some(is_due)
    }

    /// A pod that was refused waits for others to go: nobody is asked about it until [`Self::let_be_helped`].
    pub(crate) fn hold(&mut self, key: &ObjectKey) {
        self.replace(key, |entry| match &entry.place {
            Place::Unschedulable(since, refusers, _) => Some(Place::Held(*since, refusers.clone())),
            _ => None,
        });
    }

    /// Events may help a pod again that was held.
    pub(crate) fn let_be_helped(&mut self, key: &ObjectKey) {
        self.replace(key, |entry| match &entry.place {
            Place::Held(since, refusers) => {
                Some(Place::Unschedulable(*since, refusers.clone(), Likeness::of(&entry.pod)))
            }
            _ => None,
        });
    }

    fn replace(&mut self, key: &ObjectKey, place: impl Fn(&Entry) -> Option<Place>) {
        let Some(place) = self.entries.get(key).and_then(place) else { return };
        if let Some(entry) = self.take_out(key) {
            self.put(Entry { place, ..entry });
        }
    }

    /// When a pod that waits for a time is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let earliest = |waiting: &BTreeMap<(Instant, u64), ObjectKey>| waiting.first_key_value().map(|(key, _)| key.0);
        let unschedulable = earliest(&self.unschedulable).map(|since| since + UNSCHEDULABLE_FOR);
        [earliest(&self.backing_off), earliest(&self.recovering), unschedulable].into_iter().flatten().min()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many pods wait in which place.
    pub(crate) fn pending(&self) -> Pending {
        let (active, backing_off, unschedulable) =
            (self.active.len(), self.backing_off.len() + self.recovering.len(), self.unschedulable.len());
        Pending { active, backing_off, unschedulable, gated: self.entries.len() - active - backing_off - unschedulable }
    }

    /// How many pods wait that a plugin refused, by their refusers.
    pub(crate) fn refused(&self) -> impl Iterator<Item = (&Refusers, usize)> {
        self.refused.iter().map(|(refusers, refused)| (&**refusers, refused.count))
    }

    fn release(&mut self, now: Instant) {
        loop {
            let due = |((until, _), _): &(&(Instant, u64), &ObjectKey)| *until <= now;
            let backing_off = self.backing_off.first_key_value().filter(due);
            let backing_off = backing_off.or_else(|| self.recovering.first_key_value().filter(due));
            let unschedulable =
                self.unschedulable.first_key_value().filter(|((since, _), _)| *since + UNSCHEDULABLE_FOR <= now);
            let Some(key) = backing_off.or(unschedulable).map(|(_, key)| key.clone()) else { return };
            if let Some(mut entry) = self.take_out(&key) {
                entry.place = Place::Active;
                self.put(entry);
            }
        }
    }

    fn shared(&self, refusers: &Refusers) -> Arc<Refusers> {
        let known = self.refused.get_key_value(refusers).map(|(known, _)| known.clone());
        known.unwrap_or_else(|| Arc::new(refusers.clone()))
    }

    fn put(&mut self, entry: Entry) {
        let (key, sequence) = (entry.pod.key.clone(), entry.sequence);
        match &entry.place {
            Place::Active => drop(self.active.insert(order(&entry), key.clone())),
            Place::BackingOff(until) => drop(self.backing_off.insert((*until, sequence), key.clone())),
            Place::Recovering(until) => drop(self.recovering.insert((*until, sequence), key.clone())),
            Place::Unschedulable(since, refusers, likeness) => {
                self.unschedulable.insert((*since, sequence), key.clone());
                let refused = self.refused.entry(refusers.clone()).or_default();
                refused.count += 1;
                refused.alike.entry(likeness.clone()).or_default().insert(key.clone());
            }
            Place::Held(since, refusers) => {
                self.unschedulable.insert((*since, sequence), key.clone());
                self.refused.entry(refusers.clone()).or_default().count += 1;
            }
            Place::Gated => {}
        }
        self.entries.insert(key, entry);
    }

    fn take_out(&mut self, key: &ObjectKey) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        match &entry.place {
            Place::Active => drop(self.active.remove(&order(&entry))),
            Place::BackingOff(until) => drop(self.backing_off.remove(&(*until, entry.sequence))),
            Place::Recovering(until) => drop(self.recovering.remove(&(*until, entry.sequence))),
            Place::Unschedulable(since, refusers, likeness) => {
                self.unschedulable.remove(&(*since, entry.sequence));
                self.uncount(refusers, Some(likeness), key);
            }
            Place::Held(since, refusers) => {
                self.unschedulable.remove(&(*since, entry.sequence));
                self.uncount(refusers, None, key);
            }
            Place::Gated => {}
        }
        Some(entry)
    }

    fn uncount(&mut self, refusers: &Arc<Refusers>, likeness: Option<&Likeness>, key: &ObjectKey) {
        let Some(refused) = self.refused.get_mut(refusers) else { return };
        refused.count -= 1;
        if let Some((likeness, keys)) = likeness.and_then(|likeness| Some((likeness, refused.alike.get_mut(likeness)?)))
        {
            keys.remove(key);
            if keys.is_empty() {
                refused.alike.remove(likeness);
            }
        }
        if refused.count == 0 {
            self.refused.remove(refusers);
        }
    }
}

fn order(entry: &Entry) -> (i64, u64) {
    (-i64::from(entry.pod.priority), entry.sequence)
}

/// Whether a pod asks not to be scheduled yet.
pub(crate) fn is_gated(pod: &PodInfo) -> bool {
    pod.pod().spec.as_ref().and_then(|spec| spec.scheduling_gates.as_ref()).is_some_and(|gates| !gates.is_empty())
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

    /// An event that concerns all pods that Fit refused.
    fn wake(queue: &mut Queue, now: Instant) -> (usize, usize) {
        queue.wake(now, |_, refusers| refusers.contains("Fit"))
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_pod_waits_for_a_change_and_backs_off() {
        let (mut queue, start) = (Queue::default(), Instant::now());
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let by_fit = Refusers::from(["Fit"]);
        queue.add(pod("a", 0, &[]));
        let taken = queue.next(start).unwrap();
        queue.failed(taken, &by_fit, start);
        assert_eq!(next(&mut queue, at(60_000)), None, "nothing changed");
        assert_eq!(wake(&mut queue, at(500)), (0, 1));
        assert_eq!(queue.next_due(), Some(at(1000)), "it backs off for a second");
        let taken = queue.next(at(1000)).unwrap();
        queue.failed(taken, &by_fit, at(1000));
        wake(&mut queue, at(1000));
        assert_eq!(queue.next_due(), Some(at(3000)), "the second time it backs off for two seconds");
        let taken = queue.next(at(3000)).unwrap();
        queue.failed(taken, &by_fit, at(3000));
        assert_eq!(next(&mut queue, at(303_000)).as_deref(), Some("a"), "it is tried again in any case");
    }

    #[tokio::test(start_paused = true)]
    async fn who_backs_off_is_taken_early_while_nothing_else_waits() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for name in ["refused", "unlucky"] {
            queue.add(pod(name, 9, &[]));
            let taken = queue.next(now).unwrap();
            let refusers = if name == "refused" { Refusers::from(["Fit"]) } else { Refusers::new() };
            queue.failed(taken, &refusers, now);
        }
        assert_eq!(wake(&mut queue, now), (0, 1));
        queue.add(pod("other", 0, &[]));
        assert_eq!(next(&mut queue, now).as_deref(), Some("other"), "whoever is active goes first");
        assert_eq!(next(&mut queue, now).as_deref(), Some("refused"));
        assert_eq!(next(&mut queue, now), None, "after an error the time is waited for");
        assert_eq!(next(&mut queue, now + Duration::from_secs(1)).as_deref(), Some("unlucky"));
    }

    #[tokio::test(start_paused = true)]
    async fn only_pods_that_an_event_helps_are_woken() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let all = [("small", 2, &["Fit"][..]), ("large", 1, &["Fit"]), ("far", 0, &["Affinity"]), ("odd", 0, &[])];
        for (name, priority, refusers) in all {
            queue.add(pod(name, priority, &[]));
            let taken = queue.next(now).unwrap();
            queue.failed(taken, &refusers.iter().copied().collect(), now);
        }
        assert_eq!(queue.pending(), Pending { active: 0, backing_off: 1, unschedulable: 3, gated: 0 });
        let later = now + Duration::from_secs(2);
        let woken = queue.wake(later, |pod, refusers| refusers.contains("Fit") && pod.key.name == "small");
        assert_eq!(woken, (1, 0));
        let order = [next(&mut queue, later), next(&mut queue, later), next(&mut queue, later)];
        assert_eq!(order, [Some("small".to_owned()), Some("odd".to_owned()), None]);
        assert_eq!(queue.refused().map(|(_, count)| count).sum::<usize>(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_alike_is_asked_about_once() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for number in 0..50 {
            queue.add(pod(&format!("p{number}"), 0, &[]));
            let taken = queue.next(now).unwrap();
            queue.failed(taken, &Refusers::from(["Fit"]), now);
        }
        let asked = std::cell::Cell::new(0);
        let ask = |answer: bool| {
            asked.set(asked.get() + 1);
            answer
        };
        assert_eq!(queue.wake(now, |_, _| ask(false)), (0, 0));
        assert_eq!(queue.wake(now, |_, _| ask(true)), (0, 50));
        assert_eq!(asked.get(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_asked_about_who_is_held() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for name in ["a", "b"] {
            queue.add(pod(name, 0, &[]));
            let taken = queue.next(now).unwrap();
            queue.failed(taken, &Refusers::from(["Fit"]), now);
            queue.hold(&ObjectKey::new("", name));
        }
        assert_eq!(queue.wake(now, |_, _| true), (0, 0));
        assert_eq!(queue.refused().map(|(_, count)| count).collect::<Vec<_>>(), [2], "they are refused nevertheless");
        queue.let_be_helped(&ObjectKey::new("", "a"));
        assert_eq!(queue.wake(now, |_, _| true), (0, 1));
        assert_eq!(queue.wake_one(&ObjectKey::new("", "b"), now + Duration::from_secs(1)), Some(true));
        assert_eq!(queue.refused().count(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn patience_has_bounds() {
        let patience = Patience { first: Duration::from_secs(2), longest: Duration::from_secs(7) };
        let seconds: Vec<u64> = (1..5).map(|attempts| patience.after(attempts).as_secs()).collect();
        assert_eq!(seconds, [2, 4, 7, 7]);
        assert_eq!(patience.after(u32::MAX), patience.longest);
    }
}
