//! Priority and fairness: each request gets seats of its level, waits for them, or is refused with 429.
//!
//! The objects of `flowcontrol.apiserver.k8s.io` are followed through the store, as the authorizer follows roles; deciding is
//! `kedge_fairness`'s. Streams other than watches take no seats, watches do until their beginning is through. Invariant: a
//! request that comes after the acknowledged write of a schema is judged by it, unless another request takes the write in at
//! that moment.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use futures::FutureExt;
use http::header::{HeaderName, HeaderValue, RETRY_AFTER};
use http::{Method, Response, StatusCode};
use kedge_fairness::{Digest, Listing, Work, list_seats, write_work};
use kedge_store::{ListRequest, Record, Store, StoreError, Watch};
use tokio::sync::{Mutex as AsyncMutex, Notify};

use crate::body::Body;
use crate::call::Call;
use crate::config::Config;
use crate::core::Core;
use crate::reply;
use crate::target::{ResourceTarget, Target};

mod counts;
mod dump;
mod hold;
mod level;
mod metrics;
mod plan;
mod sizes;
mod upkeep;
mod watchers;

use level::{Refused, Seats};
use plan::Plan;

pub(crate) use hold::hold;
pub(crate) use upkeep::keep_up;
pub(crate) use watchers::{Watchers, Watching};

/// Where the objects are.
const OBJECTS: &str = "/registry/flowcontrol.apiserver.k8s.io/";
const LEVELS: &str = "/registry/flowcontrol.apiserver.k8s.io/prioritylevelconfigurations/";
const SCHEMAS: &str = "/registry/flowcontrol.apiserver.k8s.io/flowschemas/";

const LEVEL_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");
const SCHEMA_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");

/// How long a request waits for its seats at most.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Seats where the configuration says that there is no limit.
const NO_LIMIT: u64 = 1_000_000;

/// Changes that are taken from the store at once.
const BATCH: usize = 256;

/// The levels, and what is needed to find a request's.
pub(crate) struct Flow {
    epoch: Instant,
    /// Seats of the whole server.
    server: u64,
    wait: Duration,
    hasher: RandomState,
    seen: AtomicU64,
    feed: AsyncMutex<Option<Box<dyn Watch>>>,
    plan: ArcSwap<Plan>,
    sizes: sizes::Sizes,
    pub(crate) watchers: Watchers,
    reading: Arc<AtomicUsize>,
    writing: Arc<AtomicUsize>,
    /// Conditions are to be written.
    changed: Notify,
    /// A request waits for seats, which other levels may have to lend.
    scarce: Notify,
}

/// A request's place; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _seats: Seats,
    running: Arc<AtomicUsize>,
}

/// Under which schema and level a request runs: the uids that its answer shows.
#[derive(Debug, Clone)]
pub(crate) struct Classified {
    schema: HeaderValue,
    level: HeaderValue,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.running.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Classified {
    /// Says so in an answer.
    pub(crate) fn show(self, response: &mut Response<Body>) {
        response.headers_mut().insert(LEVEL_UID, self.level);
        response.headers_mut().insert(SCHEMA_UID, self.schema);
    }
}

impl Flow {
    pub(crate) fn new(config: &Config) -> Self {
        let epoch = Instant::now();
        let server = (config.max_requests_inflight + config.max_mutating_requests_inflight) as u64;
        let server = if server == 0 { NO_LIMIT } else { server };
        Self {
            epoch,
            server,
            wait: (config.request_timeout / 4).min(LONGEST_WAIT),
            hasher: RandomState::new(),
            seen: AtomicU64::new(0),
            feed: AsyncMutex::default(),
            plan: ArcSwap::from_pointee(Plan::new(&Plan::default(), &[], &[], server, epoch)),
            sizes: sizes::Sizes::default(),
            watchers: Watchers::default(),
            reading: Arc::default(),
            writing: Arc::default(),
            changed: Notify::new(),
            scarce: Notify::new(),
        }
    }

    /// Takes a place for a request; the error is the answer to one that gets none.
    pub(crate) async fn enter(&self, core: &Core, call: &mut Call) -> Result<Place, Response<Body>> {
        self.catch_up(core).await;
        let plan = self.plan.load_full();
        let digest = digest(call);
        let Some(matched) = plan.find(&digest) else {
            // There is always a schema that catches all.
            return Err(refusal(1));
        };
        let (max_seats, queues, level_uid) = matched.level.facts();
        let classified = Classified { schema: matched.uid.clone(), level: level_uid };
        let distinguisher = if queues > 1 { level::distinguisher(&matched.schema, &digest) } else { "" };
        let hash = if queues > 1 { self.hasher.hash_one((&matched.name, distinguisher)) } else { 0 };
        let (work, watchers) = self.estimate(core, call, max_seats).await;
        if let Some(watchers) = watchers {
            let mut state = matched.level.state.lock();
            state.counts(&matched.name).watchers.observe(watchers as f64);
        }
        let is_watch = call.verb == "watch";
        let (user, path) = (call.user.username.clone(), call.path.clone());
        let about = dump::About { user, verb: call.verb, path, distinguisher: matched.schema.distinguisher };
        let schema = Arc::clone(&matched.name);
        let request = level::Request { schema, work, hash, is_watch, about: Arc::new(about) };
        call.classified = Some(classified);
        let began = Instant::now();
        let entered = matched.level.enter(request, self.wait, &self.scarce).await;
        call.notes.waited(began.elapsed());
        let seats = entered.map_err(|Refused(seconds)| refusal(seconds))?;
        let mutating = !matches!(call.method, Method::GET | Method::HEAD | Method::OPTIONS);
        let running = Arc::clone(if mutating { &self.writing } else { &self.reading });
        running.fetch_add(1, Ordering::Relaxed);
        Ok(Place { _seats: seats, running })
    }

    /// How many reading and writing requests run.
    pub(crate) fn running(&self) -> (usize, usize) {
        (self.reading.load(Ordering::Relaxed), self.writing.load(Ordering::Relaxed))
    }

    /// Appends the metrics.
    pub(crate) fn write_metrics(&self, text: &mut String) {
        metrics::write(self, text);
    }

    /// What is going on, as a table for people, under a name of upstream's; absent where there is no such table.
    pub(crate) async fn dump(&self, core: &Core, name: &str, with_details: bool) -> Option<String> {
        self.catch_up(core).await;
        dump::dump(self, name, with_details, core.clock.now())
    }

    /// The work of a request, and of a write how many watch it.
    async fn estimate(&self, core: &Core, call: &Call, max_seats: u64) -> (Work, Option<u64>) {
        let Target::Resource(target) = &call.target else { return (Work::ONE, None) };
        match call.verb {
            "list" | "watch" if !needs_no_state(call) => {
                let mut list = listing(call);
                if let Some(prefix) = prefix(core, target)
                    && let Some((stored, size)) = self.sizes.of(&*core.store, &prefix).await
                {
                    (list.stored, list.average_size) = (Some(stored), size);
                }
                (Work::of(list_seats(&list, max_seats)), None)
            }
            "create" | "update" | "patch" | "delete" if !is_token(target) => {
                let watchers = self.watchers.of(target);
                (write_work(watchers, max_seats), Some(watchers))
            }
            _ => (Work::ONE, None),
        }
    }

    /// Takes in what happened to schemas and levels.
    async fn catch_up(&self, core: &Core) {
        let revision = core.store.revision().0;
        if self.seen.load(Ordering::Acquire) >= revision {
            return;
        }
        // Where somebody else does this just now, nobody waits for it.
        let Ok(mut feed) = self.feed.try_lock() else { return };
        match self.drain(&mut feed, &*core.store).await {
            Ok(()) => drop(self.seen.fetch_max(revision, Ordering::AcqRel)),
            Err(error) => tracing::warn!(%error, "flow schemas cannot be read"),
        }
    }

    async fn drain(&self, feed: &mut Option<Box<dyn Watch>>, store: &dyn Store) -> Result<(), StoreError> {
        let mut changed = false;
        let mut intact = feed.is_some();
        while let Some(watch) = feed.as_mut().filter(|_| intact)
            && let Some(changes) = watch.next(BATCH).now_or_never()
        {
            intact = changes.is_ok();
            changed |= changes.is_ok_and(|changes| !changes.is_empty());
        }
        if !intact {
            *feed = Some(store.watch(OBJECTS, store.revision())?);
        }
        if !intact || changed {
            self.read(store).await?;
        }
        Ok(())
    }

    async fn read(&self, store: &dyn Store) -> Result<(), StoreError> {
        let (levels, schemas) = (records(store, LEVELS).await?, records(store, SCHEMAS).await?);
        let plan = Plan::new(&self.plan.load(), &levels, &schemas, self.server, self.epoch);
        let is_complete = plan.dangling.is_empty();
        self.plan.store(Arc::new(plan));
        if !is_complete {
            self.changed.notify_one();
        }
        Ok(())
    }

    /// Shares seats out anew, by what was in demand.
    async fn rebalance(&self, core: &Core) {
        self.catch_up(core).await;
        let _feed = self.feed.lock().await;
        let plan = self.plan.load_full();
        if plan.has_leftovers() {
            if let Err(error) = self.read(&*core.store).await {
                tracing::warn!(%error, "flow schemas cannot be read");
            }
            return;
        }
        plan.rebalance(self.server);
    }
}

async fn records(store: &dyn Store, prefix: &str) -> Result<Vec<Record>, StoreError> {
    let request = ListRequest { prefix: prefix.to_owned(), at: Some(store.revision()), ..ListRequest::default() };
    Ok(store.list(request).await?.records)
}

fn digest(call: &Call) -> Digest<'_> {
    let (user, groups, verb, path) = (&*call.user.username, &*call.user.groups, call.verb, &*call.path);
    let digest = Digest { user, groups, verb, path, ..Digest::default() };
    match &call.target {
        Target::Other => digest,
        Target::Resource(target) => Digest {
            is_resource: true,
            group: &target.group,
            resource: &target.resource,
            subresource: &target.subresource,
            namespace: &target.namespace,
            ..digest
        },
    }
}

/// A watch that begins with changes to come.
fn needs_no_state(call: &Call) -> bool {
    let revision = call.query.get("resourceVersion").unwrap_or("");
    call.verb == "watch" && !call.query.flag("sendInitialEvents") && !matches!(revision, "" | "0")
}

fn listing(call: &Call) -> Listing {
    let has = |key| call.query.non_empty(key).is_some();
    let limit = call.query.non_empty("limit").and_then(|text| text.parse().ok()).unwrap_or(0);
    let revision = call.query.get("resourceVersion").unwrap_or("");
    let matching = call.query.get("resourceVersionMatch").unwrap_or("");
    let is_past =
        has("continue") || matching == "Exact" || (limit > 0 && matching.is_empty() && !matches!(revision, "" | "0"));
    Listing {
        limit,
        is_single: !call.resource().name.is_empty(),
        is_from_memory: call.verb == "watch" || !is_past,
        is_selected: has("labelSelector") || has("fieldSelector"),
        ..Listing::default()
    }
}

/// DIVERGES: upstream takes all objects of the resource, also where the list is of one namespace.
fn prefix(core: &Core, target: &ResourceTarget) -> Option<String> {
    let registry = core.registry.load();
    let resource = registry.find(&target.group, &target.version, &target.resource)?;
    let namespace = if resource.kind.namespaced { target.namespace.as_str() } else { "" };
    resource.is_stored().then(|| resource.kind.prefix(namespace))
}

/// Tokens of service accounts are made, and nothing in the store changes.
fn is_token(target: &ResourceTarget) -> bool {
    target.resource == "serviceaccounts" && target.subresource == "token"
}

fn refusal(seconds: u64) -> Response<Body> {
    let mut response = reply::plain("Too many requests, please try again later.\n");
    *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    response
}
