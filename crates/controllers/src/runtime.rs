//! The one runner of all controllers: it feeds changes into queues, starts workers once the caches are complete, tries
//! again what failed, and says how each controller fares.
//!
//! Not a place for decisions about objects. Invariants: no key is reconciled before every informer its controller reads
//! is synced; a key is worked on once at a time; everything ends with the term's token.

mod health;

use std::fmt::{Debug, Display};
use std::future::Future;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::ObjectReference;
use kedge_auth::TokenKeys;
use kedge_client::{Change, Client, EventType, Informer, Informers, Queue, Recorder};
use kedge_meta::{Clock, ObjectKey};
use kube::Resource;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::{CertificateSigner, Config};
use crate::error::ReconcileError;
use crate::metrics::ControllerMetrics;
use crate::queue_names::queue_name;
pub(crate) use health::Health;

/// What to do with a key that was reconciled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing until something changes.
    Done,
    /// Look again after this long.
    After(Duration),
    /// Leave it alone for `pause`, whatever changes; then look again after `again`, if that is said.
    Rest { pause: Duration, again: Option<Duration> },
}

/// A look at fewer objects may follow the last one at once.
const LARGE: usize = 500;
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

impl Next {
    /// The earlier of two.
    pub(crate) fn sooner(self, other: Option<Duration>) -> Next {
        let of = |one: Option<Duration>| one.into_iter().chain(other).min();
        match self {
            Next::Done => other.map_or(Next::Done, Next::After),
            Next::After(one) => Next::After(other.map_or(one, |other| one.min(other))),
            Next::Rest { pause, again } => Next::Rest { pause, again: of(again) },
        }
    }

    /// This, after a look at so many objects that had nothing to do: the more there were, the longer until the next one.
    ///
    /// Each of them tells several times how it is while it starts, and each time all are looked at: looks at sets of 10,000
    /// pods took more processor time than their creation.
    pub(crate) fn after_idle_look_at(self, objects: usize) -> Next {
        if objects < LARGE {
            return self;
        }
        let pause = Duration::from_micros(10 * objects as u64).min(LONGEST_PAUSE);
        match self {
            Next::Done => Next::Rest { pause, again: None },
            Next::After(again) => Next::Rest { pause, again: Some(again) },
            Next::Rest { pause: other, again } => Next::Rest { pause: pause.max(other), again },
        }
    }

    /// How long to leave it alone, and after which time to look again.
    fn times(self) -> (Duration, Option<Duration>) {
        match self {
            Next::Done => (Duration::ZERO, None),
            Next::After(delay) => (Duration::ZERO, Some(delay)),
            Next::Rest { pause, again } => (pause, again),
        }
    }
}

/// The outcome of one key.
pub(crate) type Outcome = Result<Next, ReconcileError>;

/// A controller: a key in, effects out.
pub(crate) trait Controller: Send + Sync + 'static {
    /// What it is asked about.
    type Key: Clone + Eq + Hash + Display + Send + Sync + 'static;

    /// Brings the world closer to what the object of `key` says.
    fn reconcile(&self, key: &Self::Key) -> impl Future<Output = Outcome> + Send;
}

/// What a controller works with.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) informers: Informers,
    pub(crate) recorder: Recorder,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) config: Arc<Config>,
    pub(crate) signer: Option<Arc<dyn CertificateSigner>>,
    pub(crate) token_keys: Option<watch::Receiver<Arc<TokenKeys>>>,
    pub(crate) metrics: ControllerMetrics,
    pub(crate) shutdown: CancellationToken,
}

impl Context {
    pub(crate) fn now(&self) -> jiff::Timestamp {
        self.clock.now()
    }

    pub(crate) fn normal(&self, about: &ObjectReference, reason: &str, message: impl Into<String>) {
        self.recorder.event(about, EventType::Normal, reason, message);
    }

    pub(crate) fn warning(&self, about: &ObjectReference, reason: &str, message: impl Into<String>) {
        self.recorder.event(about, EventType::Warning, reason, message);
    }
}

/// Starts the tasks of one controller.
pub(crate) struct Starter<'a> {
    pub(crate) name: &'static str,
    pub(crate) context: Context,
    pub(crate) tasks: &'a mut JoinSet<()>,
    pub(crate) health: Health,
    pub(crate) synced: Vec<BoxFuture<'static, ()>>,
}

impl Starter<'_> {
    /// The informer for all objects of a kind; workers wait for its first list.
    pub(crate) fn informer<K>(&mut self) -> Informer<K>
    where
        K: Resource + Clone + Serialize + DeserializeOwned + Debug + Send + Sync + 'static,
        K::DynamicType: Default,
    {
        let informer = self.context.informers.all::<K>();
        self.wait_for(&informer);
        informer
    }

    /// Makes workers wait for an informer's first list.
    pub(crate) fn wait_for<K>(&mut self, informer: &Informer<K>)
    where
        K: Resource + Clone + Send + Sync + 'static,
    {
        let informer = informer.clone();
        self.synced.push(Box::pin(async move { informer.synced().await }));
    }

    /// Calls `route` with each change of an informer's objects, the ones there are at first.
    pub(crate) fn feed<K>(&mut self, informer: &Informer<K>, route: impl Fn(&Change<K>) + Send + 'static)
    where
        K: Resource + Clone + Send + Sync + 'static,
    {
        let mut changes = informer.subscribe();
        let shutdown = self.context.shutdown.clone();
        self.tasks.spawn(async move {
            loop {
                let change = tokio::select! {
                    biased;
                    () = shutdown.cancelled() => return,
                    change = changes.next() => change,
                };
                route(&change);
            }
        });
    }

    /// Feeds the keys that `route` names for each change into a queue.
    pub(crate) fn enqueue<K>(
        &mut self,
        informer: &Informer<K>,
        queue: &Queue<ObjectKey>,
        route: impl Fn(&Change<K>) -> Vec<ObjectKey> + Send + 'static,
    ) where
        K: Resource + Clone + Send + Sync + 'static,
    {
        let queue = queue.clone();
        self.feed(informer, move |change| route(change).into_iter().for_each(|key| queue.add(key)));
    }

    /// Spawns a further task of this controller; it must end with the context's token.
    pub(crate) fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Starts the workers, which wait for the informers; `workers` bounds how many keys are in work at a time.
    pub(crate) fn work<C: Controller>(self, controller: Arc<C>, queue: Queue<C::Key>, workers: usize) {
        let Starter { name, context, tasks, health, synced } = self;
        let shutdown = context.shutdown;
        health.waits(name);
        queue.measure(queue_name(name), &context.metrics.component.queues);
        tasks.spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = futures::future::join_all(synced) => {}
            }
            health.works(name);
            let workers = (0..workers.max(1)).map(|_| work(name, &*controller, &queue, &health, &shutdown));
            futures::future::join_all(workers).await;
        });
    }
}

/// One worker: takes keys until the term ends.
async fn work<C: Controller>(
    name: &'static str,
    controller: &C,
    queue: &Queue<C::Key>,
    health: &Health,
    shutdown: &CancellationToken,
) {
    loop {
        let key = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            key = queue.next() => key,
        };
        let started = Instant::now();
        let outcome = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            outcome = AssertUnwindSafe(Box::pin(controller.reconcile(&key))).catch_unwind() => outcome,
        };
        let mut pause = Duration::ZERO;
        match outcome {
            Ok(Ok(next)) => {
                queue.forget(&key);
                health.succeeded(name, started.elapsed());
                let (rest, again) = next.times();
                if let Some(delay) = again {
                    queue.add_after(key.clone(), delay);
                }
                pause = rest;
            }
            Ok(Err(error)) => {
                report(name, &key, &error, queue.failures(&key));
                health.failed(name, &error);
                queue.retry(key.clone());
            }
            Err(_) => {
                tracing::error!(controller = name, %key, "a reconciliation panicked; the key is tried again");
                queue.retry(key.clone());
            }
        }
        queue.rest(&key, pause);
    }
}

/// Races are everyday: one that is lost again and again is told, but is no warning. A key that keeps failing is logged at
/// powers of two, not at every attempt.
fn report(name: &str, key: &impl Display, error: &ReconcileError, failures: u32) {
    let (is_told, why) = ((failures + 1).is_power_of_two() && failures > 2, error.brief());
    match (is_told, error.is_race()) {
        (true, false) => {
            tracing::warn!(controller = name, %key, why, failures, "cannot reconcile; trying again with back-off");
        }
        (true, true) => {
            tracing::info!(controller = name, %key, failures, "others write at the same time; trying again")
        }
        (false, _) => tracing::debug!(controller = name, %key, why, failures, "cannot reconcile; trying again"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    use jiff::Timestamp;
    use kedge_meta::{ManualClock, StatusBoard};
    use parking_lot::Mutex;

    #[test]
    fn only_large_sets_are_left_alone_and_not_for_long() {
        let check = |objects: usize, millis: u64| {
            let (pause, again) = Next::Done.after_idle_look_at(objects).times();
            assert_eq!((pause, again), (Duration::from_millis(millis), None), "{objects}");
        };
        check(0, 0);
        check(499, 0);
        check(500, 5);
        check(10_000, 100);
        check(1_000_000, 250);
    }

    #[test]
    fn the_next_look_is_the_earliest_that_was_asked_for() {
        let seconds = Duration::from_secs;
        let check = |next: Next, pause: u64, again: Option<u64>| {
            assert_eq!(next.times(), (Duration::from_millis(pause), again.map(seconds)), "{next:?}");
        };
        check(Next::Done.sooner(None), 0, None);
        check(Next::Done.sooner(Some(seconds(2))), 0, Some(2));
        check(Next::After(seconds(1)).sooner(Some(seconds(2))), 0, Some(1));
        check(Next::Done.after_idle_look_at(1000).sooner(Some(seconds(2))), 10, Some(2));
        check(Next::After(seconds(3)).after_idle_look_at(1000).sooner(Some(seconds(2))), 10, Some(2));
        check(Next::After(seconds(1)).after_idle_look_at(1000).after_idle_look_at(2000), 20, Some(1));
    }

    struct Flaky(Mutex<Vec<String>>);

    impl Controller for Flaky {
        type Key = String;

        async fn reconcile(&self, key: &String) -> Outcome {
            let mut seen = self.0.lock();
            let earlier = seen.iter().filter(|seen| *seen == key).count();
            seen.push(key.clone());
            match (key.as_str(), earlier) {
                ("fails", 0) => Err(ReconcileError::Object("not yet".to_owned())),
                ("panics", 0) => panic!("on purpose"),
                ("later", 0) => Ok(Next::After(Duration::from_secs(60))),
                _ => Ok(Next::Done),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn failures_panics_and_delays_come_again() {
        let board = StatusBoard::new(Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH)));
        let health = Health::new(board.component("kube-controller-manager"));
        let queue = Queue::new();
        for key in ["fails", "panics", "later", "fine"] {
            queue.add(key.to_owned());
        }
        let controller = Flaky(Mutex::default());
        let shutdown = CancellationToken::new();
        let end = async {
            tokio::time::sleep(Duration::from_secs(120)).await;
            shutdown.cancel();
        };
        tokio::join!(work("test", &controller, &queue, &health, &shutdown), end);
        let mut seen = controller.0.into_inner();
        seen.sort();
        assert_eq!(seen, ["fails", "fails", "fine", "later", "later", "panics", "panics"]);
    }

    /// Says when each key came; whatever begins with `bad` fails always.
    struct Poisoned(Mutex<Vec<(String, Duration)>>, Instant);

    impl Controller for Poisoned {
        type Key = String;

        async fn reconcile(&self, key: &String) -> Outcome {
            self.0.lock().push((key.clone(), self.1.elapsed()));
            match key.starts_with("bad") {
                true => Err(ReconcileError::Object("never".to_owned())),
                false => Ok(Next::Done),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn keys_that_always_fail_keep_nobody_waiting() {
        let board = StatusBoard::new(Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH)));
        let health = Health::new(board.component("kube-controller-manager"));
        let queue = Queue::new();
        (0..50).for_each(|number| queue.add(format!("bad-{number}")));
        let controller = Poisoned(Mutex::default(), Instant::now());
        let shutdown = CancellationToken::new();
        let others = async {
            for hour in 1..=10 {
                tokio::time::sleep_until(controller.1 + Duration::from_secs(3600 * hour)).await;
                queue.add(format!("good-{hour}"));
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            shutdown.cancel();
        };
        tokio::join!(work("test", &controller, &queue, &health, &shutdown), others);
        let seen = controller.0.into_inner();
        for hour in 1..=10 {
            let come = seen.iter().filter(|(key, _)| *key == format!("good-{hour}")).map(|(_, at)| *at);
            assert_eq!(come.collect::<Vec<_>>(), [Duration::from_secs(3600 * hour)], "at once and once");
        }
        let times = |number: usize| {
            let own = seen.iter().filter(|(key, _)| *key == format!("bad-{number}"));
            own.map(|(_, at)| *at).collect::<Vec<_>>()
        };
        // 18 times until the pauses are 1,000 s, and about 24 times an hour's third after that.
        assert!((0..50).all(|number| (30..70).contains(&times(number).len())), "{:?}", times(0));
        let last: BTreeSet<Duration> = (0..50).filter_map(|number| times(number).last().copied()).collect();
        assert!(last.len() > 25, "those that failed together do not come back together: {last:?}");
    }
}
