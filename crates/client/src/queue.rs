//! The work queue of a controller: keys, each at most once, with delays, back-off and rest for each key.
//!
//! Invariants: a key is processed by one worker at a time; a key that is added while it is processed or rests comes again
//! after that; the queue holds at most one entry for each key.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::component_metrics::{QueueMetrics, QueueNow, Watched};

const FIRST_RETRY: Duration = Duration::from_millis(5);
const LONGEST_RETRY: Duration = Duration::from_secs(1000);

/// A queue of keys. Cheap to clone.
pub struct Queue<T> {
    state: Arc<Mutex<State<T>>>,
    changed: Arc<Notify>,
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self { state: self.state.clone(), changed: self.changed.clone() }
    }
}

struct State<T> {
    ready: VecDeque<T>,
    waiting: HashSet<T>,
    processing: HashSet<T>,
    again: HashSet<T>,
    /// Processed, and not to be given out before then. They count as processed until they have rested.
    resting: BTreeMap<(Instant, u64), T>,
    delayed: BTreeMap<(Instant, u64), T>,
    due: HashMap<T, (Instant, u64)>,
    failures: HashMap<T, u32>,
    sequence: u64,
    measured: Option<Measured<T>>,
}

/// What is told of a queue that is measured. Keys that came before that are not.
struct Measured<T> {
    name: &'static str,
    metrics: Arc<QueueMetrics>,
    waiting_since: HashMap<T, Instant>,
    working_since: HashMap<T, Instant>,
}

impl<T: Clone + Eq + Hash> Default for Queue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Clone + Eq + Hash> Queue<T> {
    /// An empty queue.
    pub fn new() -> Self {
        let state = State {
            ready: VecDeque::new(),
            waiting: HashSet::new(),
            processing: HashSet::new(),
            again: HashSet::new(),
            resting: BTreeMap::new(),
            delayed: BTreeMap::new(),
            due: HashMap::new(),
            failures: HashMap::new(),
            sequence: 0,
            measured: None,
        };
        Self { state: Arc::new(Mutex::new(state)), changed: Arc::new(Notify::new()) }
    }

    /// From now on the queue is counted under a name.
    pub fn measure(&self, name: &'static str, metrics: &Arc<QueueMetrics>)
    where
        T: Send + 'static,
    {
        let measured =
            Measured { name, metrics: metrics.clone(), waiting_since: HashMap::new(), working_since: HashMap::new() };
        self.state.lock().measured = Some(measured);
        let state: Arc<dyn Watched> = self.state.clone();
        metrics.watch(name, Arc::downgrade(&state));
    }

    /// Adds a key, unless it waits already.
    pub fn add(&self, key: T) {
        self.state.lock().add(key);
        self.changed.notify_one();
    }

    /// Adds a key after a delay. An earlier due time wins.
    pub fn add_after(&self, key: T, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        self.state.lock().add_at(key, Instant::now() + delay);
        self.changed.notify_one();
    }

    /// Adds a key that failed, after its back-off: 5 ms doubling to 1,000 s, each spread by up to a half, so that keys which
    /// failed together do not come back together.
    pub fn retry(&self, key: T) {
        let mut state = self.state.lock();
        let failures = state.failures.entry(key.clone()).or_default();
        let delay = (FIRST_RETRY * 2u32.saturating_pow((*failures).min(20))).min(LONGEST_RETRY);
        *failures += 1;
        let spread = delay.mul_f64(1.0 + rand::random_range(0.0..0.5));
        state.add_at(key, Instant::now() + spread);
        drop(state);
        self.changed.notify_one();
    }

    /// How often a key has failed since it was last forgotten.
    pub fn failures(&self, key: &T) -> u32 {
        self.state.lock().failures.get(key).copied().unwrap_or_default()
    }

    /// Resets a key's back-off, after a success.
    pub fn forget(&self, key: &T) {
        self.state.lock().failures.remove(key);
    }

    /// Waits for a key; [`Queue::done`] must follow. Cancel-safe.
    pub async fn next(&self) -> T {
        loop {
            let due = {
                let mut state = self.state.lock();
                state.release(Instant::now());
                if let Some(key) = state.take() {
                    if !state.ready.is_empty() {
                        self.changed.notify_one();
                    }
                    return key;
                }
                state.next_due()
            };
            match due {
                Some(due) => tokio::select! {
                    () = self.changed.notified() => {}
                    () = tokio::time::sleep_until(due) => {}
                },
                None => self.changed.notified().await,
            }
        }
    }

    /// Ends the processing of a key.
    pub fn done(&self, key: &T) {
        let mut state = self.state.lock();
        state.worked(key);
        if state.rested(key) {
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Ends the processing of a key, which is not given out again for so long, however often it is added.
    pub fn rest(&self, key: &T, pause: Duration) {
        if pause.is_zero() {
            return self.done(key);
        }
        let mut state = self.state.lock();
        state.worked(key);
        state.sequence += 1;
        let until = (Instant::now() + pause, state.sequence);
        state.resting.insert(until, key.clone());
        drop(state);
        self.changed.notify_one();
    }

    /// How many keys are ready to be taken.
    pub fn len(&self) -> usize {
        self.state.lock().ready.len()
    }

    /// Whether no key is ready.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T: Clone + Eq + Hash> State<T> {
    fn add(&mut self, key: T) {
        let is_in_work = self.processing.contains(&key);
        let is_new = match is_in_work {
            true => self.again.insert(key.clone()),
            false => self.waiting.insert(key.clone()),
        };
        if let Some(measured) = self.measured.as_mut().filter(|_| is_new) {
            measured.added(&key);
        }
        if is_new && !is_in_work {
            self.ready.push_back(key);
        }
    }

    /// A key that was added while it was in work has been counted then.
    fn add_again(&mut self, key: T) {
        if self.waiting.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    fn add_at(&mut self, key: T, due: Instant) {
        if let Some(measured) = &self.measured {
            measured.metrics.retried(measured.name);
        }
        if let Some(earlier) = self.due.get(&key) {
            if earlier.0 <= due {
                return;
            }
            self.delayed.remove(earlier);
        }
        self.sequence += 1;
        self.due.insert(key.clone(), (due, self.sequence));
        self.delayed.insert((due, self.sequence), key);
    }

    /// A worker is through with a key.
    fn worked(&mut self, key: &T) {
        if let Some(measured) = &mut self.measured {
            measured.done(key);
        }
    }

    /// A key may be given out again; true where that is wanted already.
    fn rested(&mut self, key: &T) -> bool {
        self.processing.remove(key);
        let is_wanted = self.again.remove(key);
        if is_wanted {
            self.add_again(key.clone());
        }
        is_wanted
    }

    /// When a key comes that has to wait.
    fn next_due(&self) -> Option<Instant> {
        let firsts = [self.delayed.first_key_value(), self.resting.first_key_value()];
        firsts.into_iter().flatten().map(|((due, _), _)| *due).min()
    }

    fn release(&mut self, now: Instant) {
        while let Some(entry) = self.resting.first_entry().filter(|entry| entry.key().0 <= now) {
            let key = entry.remove();
            self.rested(&key);
        }
        while let Some(entry) = self.delayed.first_entry() {
            if entry.key().0 > now {
                return;
            }
            let key = entry.remove();
            self.due.remove(&key);
            self.add(key);
        }
    }

    fn take(&mut self) -> Option<T> {
        let key = self.ready.pop_front()?;
        self.waiting.remove(&key);
        self.processing.insert(key.clone());
        if let Some(measured) = &mut self.measured {
            measured.taken(&key);
        }
        Some(key)
    }
}

impl<T: Clone + Eq + Hash> Measured<T> {
    fn added(&mut self, key: &T) {
        self.metrics.added(self.name);
        self.waiting_since.entry(key.clone()).or_insert_with(Instant::now);
    }

    fn taken(&mut self, key: &T) {
        if let Some(since) = self.waiting_since.remove(key) {
            self.metrics.waited(self.name, since.elapsed());
        }
        self.working_since.insert(key.clone(), Instant::now());
    }

    fn done(&mut self, key: &T) {
        if let Some(since) = self.working_since.remove(key) {
            self.metrics.worked(self.name, since.elapsed());
        }
    }
}

impl<T: Send> Watched for Mutex<State<T>> {
    fn now(&self) -> QueueNow {
        let state = self.lock();
        let working = state.measured.iter().flat_map(|measured| measured.working_since.values());
        let (unfinished, longest) = working.fold((Duration::ZERO, Duration::ZERO), |(sum, longest), since| {
            let took = since.elapsed();
            (sum + took, longest.max(took))
        });
        QueueNow { depth: state.ready.len(), unfinished, longest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_waits_once_and_comes_again_if_added_while_processed() {
        let queue = Queue::new();
        queue.add("a");
        queue.add("a");
        let key = queue.next().await;
        assert!(queue.is_empty());
        queue.add("a");
        assert!(queue.is_empty(), "a key is not given out twice at a time");
        queue.done(&key);
        assert_eq!(queue.next().await, "a");
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_rests_comes_once_after_that_and_others_do_not_wait() {
        let (queue, start) = (Queue::new(), Instant::now());
        queue.add("large");
        let key = queue.next().await;
        queue.rest(&key, Duration::from_millis(100));
        for name in ["large", "large", "small"] {
            queue.add(name);
        }
        assert_eq!((queue.next().await, start.elapsed()), ("small", Duration::ZERO));
        queue.done(&"small");
        assert_eq!((queue.next().await, start.elapsed()), ("large", Duration::from_millis(100)));
        queue.rest(&"large", Duration::from_millis(100));
        let nothing = tokio::time::timeout(Duration::from_secs(1), queue.next()).await;
        assert!(nothing.is_err(), "nobody asked for it");
        queue.add("large");
        assert_eq!((queue.next().await, start.elapsed()), ("large", Duration::from_millis(1100)));
        queue.rest(&"large", Duration::ZERO);
        queue.add("large");
        assert_eq!((queue.next().await, start.elapsed()), ("large", Duration::from_millis(1100)));
    }

    #[tokio::test(start_paused = true)]
    async fn delays_and_retries_come_in_order() {
        let queue = Queue::new();
        let start = Instant::now();
        queue.add_after("late", Duration::from_secs(10));
        queue.add_after("late", Duration::from_secs(1));
        queue.retry("failed");
        assert_eq!(queue.next().await, "failed");
        assert!((5..=8).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
        queue.done(&"failed");
        queue.retry("failed");
        assert_eq!(queue.next().await, "failed");
        assert!((15..=24).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
        assert_eq!(queue.next().await, "late");
        assert_eq!(start.elapsed(), Duration::from_secs(1));
        assert_eq!(queue.failures(&"failed"), 2);
        queue.forget(&"failed");
        assert_eq!(queue.failures(&"failed"), 0);
    }
}
