//! Events about objects, in upstream's form: repeated ones are counted on one Event object, and a source that repeats
//! itself too fast is cut off, so that a failure never floods the API.
//!
//! Invariant: recording never waits and never fails; what does not fit the bounded queue is dropped and counted.

mod recent;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kedge_meta::{Clock, SystemClock};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, Resource};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use recent::Recent;

const QUEUE_BOUND: usize = 1000;
/// So many events, and objects that they are about, are remembered at least; twice as many at most.
const REMEMBERED: usize = 4096;
const BURST: f64 = 25.0;
const REFILL_PER_SECOND: f64 = 1.0 / 300.0;

/// `Normal` or `Warning`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventType {
    /// Something went as it should.
    Normal,
    /// Something did not.
    Warning,
}

impl EventType {
    fn as_str(self) -> &'static str {
        match self {
            EventType::Normal => "Normal",
            EventType::Warning => "Warning",
        }
    }
}

/// A reference to an object, for [`Recorder::event`].
pub fn object_reference<K: Resource>(object: &K) -> ObjectReference
where
    K::DynamicType: Default,
{
    object.object_ref(&K::DynamicType::default())
}

struct Recorded {
    about: ObjectReference,
    event_type: EventType,
    reason: String,
    message: String,
}

/// Records events of one component. Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Recorded>,
    dropped: Arc<AtomicU64>,
}

impl Recorder {
    /// Starts the task that writes this component's events; it ends with `shutdown`. `host` is empty for components
    /// that belong to no node. Must run inside a tokio runtime.
    pub fn start(client: Client, component: &str, host: &str, shutdown: CancellationToken) -> Self {
        let (queue, pending) = mpsc::channel(QUEUE_BOUND);
        let writer = Writer {
            client,
            source: EventSource {
                component: Some(component.to_owned()),
                host: Some(host.to_owned()).filter(|host| !host.is_empty()),
            },
            known: Recent::new(REMEMBERED),
            budgets: Recent::new(REMEMBERED),
        };
        tokio::spawn(writer.run(pending, shutdown));
        Self { queue, dropped: Arc::default() }
    }

    /// Records an event about an object.
    pub fn event(&self, about: &ObjectReference, event_type: EventType, reason: &str, message: impl Into<String>) {
        let recorded =
            Recorded { about: about.clone(), event_type, reason: reason.to_owned(), message: message.into() };
        if self.queue.try_send(recorded).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many events did not fit the queue.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Identity {
    uid: String,
    object: String,
    field: String,
    event_type: EventType,
    reason: String,
    message: String,
}

struct Known {
    namespace: String,
    name: String,
    count: i32,
}

struct Budget {
    tokens: f64,
    refilled: Instant,
}

struct Writer {
    client: Client,
    source: EventSource,
    known: Recent<Identity, Known>,
    budgets: Recent<String, Budget>,
}

impl Writer {
    async fn run(mut self, mut pending: mpsc::Receiver<Recorded>, shutdown: CancellationToken) {
        loop {
            let recorded = tokio::select! {
                biased;
                recorded = pending.recv() => recorded,
                () = shutdown.cancelled() => return,
            };
            let Some(recorded) = recorded else { return };
            if !self.spend(&recorded.about) {
                continue;
            }
            let attempt = tokio::time::timeout(Duration::from_secs(10), self.write(&recorded));
            match attempt.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, reason = recorded.reason, "an event could not be written"),
                Err(_) => tracing::debug!(reason = recorded.reason, "writing an event took too long"),
            }
        }
    }

    /// Upstream's spam filter: a burst of 25 events about one object, then one every five minutes.
    fn spend(&mut self, about: &ObjectReference) -> bool {
        let now = Instant::now();
        let key = format!("{}/{}", about.uid.as_deref().unwrap_or_default(), about.name.as_deref().unwrap_or_default());
        let budget = self.budgets.get_or_insert(key, Budget { tokens: BURST, refilled: now });
        let earned = (now - budget.refilled).as_secs_f64() * REFILL_PER_SECOND;
        budget.tokens = (budget.tokens + earned).min(BURST);
        budget.refilled = now;
        if budget.tokens < 1.0 {
            return false;
        }
        budget.tokens -= 1.0;
        true
    }

    async fn write(&mut self, recorded: &Recorded) -> Result<(), kube::Error> {
        let identity = Identity {
            uid: recorded.about.uid.clone().unwrap_or_default(),
            object: format!(
                "{}/{}/{}",
                recorded.about.kind.as_deref().unwrap_or_default(),
                recorded.about.namespace.as_deref().unwrap_or_default(),
                recorded.about.name.as_deref().unwrap_or_default()
            ),
            field: recorded.about.field_path.clone().unwrap_or_default(),
            event_type: recorded.event_type,
            reason: recorded.reason.clone(),
            message: recorded.message.clone(),
        };
        if self.count_again(&identity).await? {
            return Ok(());
        }
        let event = self.new_event(recorded);
        let namespace = event.metadata.namespace.clone().unwrap_or_default();
        let name = event.metadata.name.clone().unwrap_or_default();
        Api::<Event>::namespaced(self.client.clone(), &namespace).create(&PostParams::default(), &event).await?;
        self.known.get_or_insert(identity, Known { namespace, name, count: 1 });
        Ok(())
    }

    /// Counts a repeated event on its Event object; false where there is none (any more).
    async fn count_again(&mut self, identity: &Identity) -> Result<bool, kube::Error> {
        let Some(known) = self.known.get_mut(identity) else { return Ok(false) };
        let api = Api::<Event>::namespaced(self.client.clone(), &known.namespace);
        let patch = serde_json::json!({ "count": known.count + 1, "lastTimestamp": now() });
        match api.patch(&known.name, &PatchParams::default(), &Patch::Strategic(patch)).await {
            Ok(_) => {
                known.count += 1;
                Ok(true)
            }
            Err(kube::Error::Api(status)) if status.code == 404 => {
                self.known.remove(identity);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn new_event(&self, recorded: &Recorded) -> Event {
        let about = &recorded.about;
        let namespace = about.namespace.clone().filter(|namespace| !namespace.is_empty());
        let namespace = namespace.unwrap_or_else(|| "default".to_owned());
        let name = format!("{}.{:016x}", about.name.as_deref().unwrap_or_default(), rand::random::<u64>());
        Event {
            metadata: ObjectMeta { name: Some(name), namespace: Some(namespace), ..ObjectMeta::default() },
            involved_object: about.clone(),
            type_: Some(recorded.event_type.as_str().to_owned()),
            reason: Some(recorded.reason.clone()),
            message: Some(recorded.message.chars().take(1024).collect()),
            source: Some(self.source.clone()),
            reporting_component: self.source.component.clone(),
            reporting_instance: self.source.host.clone(),
            first_timestamp: Some(now()),
            last_timestamp: Some(now()),
            count: Some(1),
            ..Event::default()
        }
    }
}

fn now() -> Time {
    Time(SystemClock.now())
}
