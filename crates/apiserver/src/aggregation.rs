//! APIs that other servers answer for: follows the APIServices in the store, finds out who answers, keeps their status, and
//! keeps an APIService for each group that this server answers for itself.
//!
//! Every server of a store does so on its own, by what it can reach. Invariant: a request goes to another server only where
//! an APIService names a Service for its group and version.

mod check;
mod own;
mod relay;
mod schema;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::StreamExt;
use kedge_meta::{ApiStatus, format_time};
use kedge_schema::ForeignSchema;
use kedge_store::{ListRequest, Record};
use kedge_webhooks::{Handshakes, Pool};
use rustls::client::ResolvesClientCert;
use serde_json::{Value, json};
use tokio::sync::Notify;

pub(crate) use relay::answer;
use schema::Fetched;

use crate::admission::Effects;
use crate::call::Payload;
use crate::core::{Core, decode};
use crate::reply::store_error;
use crate::rest::Endpoint;
use crate::write::{self, Refusal};
use crate::{encode, object};

/// How long it waits after something went wrong.
const PAUSE: Duration = Duration::from_secs(1);

/// How often servers are asked that answered, and that did not.
const INTERVALS: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(1));

/// How many servers are asked at once.
const AT_ONCE: usize = 8;

/// How many changes are taken at once.
const BATCH: usize = 256;

/// An API that another server answers for.
#[derive(Debug)]
pub(crate) struct Extension {
    /// The name of its APIService.
    name: String,
    pub(crate) group: String,
    pub(crate) version: String,
    /// Where among groups and versions clients see it.
    pub(crate) priority: (i64, i64),
    namespace: String,
    service: String,
    port: u16,
    /// By whose certificates it is believed.
    trust: Trust,
    is_available: bool,
    /// The `APIResourceList` that it gave last.
    pub(crate) resources: Option<Arc<Value>>,
    /// Where its schema is, where it has one: the `serverRelativeURL` of its index.
    schema_url: Option<String>,
    /// Its old form.
    schema_v2: Option<Arc<Fetched>>,
}

/// Whose certificates a server may show.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Trust {
    /// PEM in base64; the system's authorities where empty.
    bundle: String,
    /// Any certificate will do.
    is_blind: bool,
}

/// What connections to a server have in common: where it is, as whom it is known, and why it is believed.
type Place = (Endpoint, String, Trust);

impl Extension {
    /// What it is found by.
    fn key(&self) -> (String, String) {
        (self.group.clone(), self.version.clone())
    }

    /// The name that its certificate is for.
    fn host(&self) -> String {
        format!("{}.{}.svc", self.service, self.namespace)
    }

    /// Its place in the index of schemas, and where its schema is.
    pub(crate) fn schema(&self) -> Option<(String, &str)> {
        Some((format!("apis/{}/{}", self.group, self.version), self.schema_url.as_deref()?))
    }

    /// What of its schema stands in the document of all APIs.
    pub(crate) fn schema_v2(&self) -> Option<Arc<ForeignSchema>> {
        self.schema_v2.as_ref()?.schema.clone()
    }

    /// Whether what is known of its resources is of now.
    pub(crate) fn is_available(&self) -> bool {
        self.is_available
    }
}

type Table = BTreeMap<(String, String), Arc<Extension>>;

/// The APIs of other servers, and what this server shows them.
pub(crate) struct Extensions {
    table: ArcSwap<Table>,
    /// The certificate by which they know that headers name who asks.
    identity: Option<Arc<dyn ResolvesClientCert>>,
    /// Connections to them.
    pool: Pool<Place, Payload>,
    /// Those that failed for old certificates.
    handshakes: Arc<Handshakes>,
    /// Groups of custom resources came or went.
    changed: Notify,
}

impl Extensions {
    pub(crate) fn new(identity: Option<Arc<dyn ResolvesClientCert>>) -> Self {
        Self {
            table: ArcSwap::default(),
            identity,
            pool: Pool::default(),
            handshakes: Arc::new(Handshakes::of_extensions()),
            changed: Notify::new(),
        }
    }

    /// What connections to them came to, in Prometheus' format.
    pub(crate) fn metrics(&self) -> String {
        self.handshakes.text()
    }

    /// Who answers for a path below `/apis/GROUP/VERSION`, if it is another server.
    pub(crate) fn of_path(&self, path: &str) -> Option<Arc<Extension>> {
        let table = self.table.load();
        if table.is_empty() {
            return None;
        }
        let path = path.trim_matches('/');
        // The schema of a group is its server's, too.
        let mut words = path.strip_prefix("openapi/v3/").unwrap_or(path).splitn(4, '/');
        let ("apis", group, version) = (words.next()?, words.next()?, words.next()?) else { return None };
        table.get(&(group.to_owned(), version.to_owned())).cloned()
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Arc<Extension>> {
        self.table.load().values().cloned().collect()
    }

    /// Looks at the groups that are served here again.
    pub(crate) fn groups_changed(&self) {
        self.changed.notify_one();
    }
}

/// Follows the APIServices from now on.
pub(crate) async fn start(core: &Arc<Core>) -> Result<(), ApiStatus> {
    own::ensure_built_in(core).await?;
    let core = Arc::clone(core);
    tokio::spawn(async move {
        let shutdown = core.shutdown.clone();
        shutdown.run_until_cancelled(run(&core)).await;
    });
    Ok(())
}

async fn run(core: &Arc<Core>) {
    loop {
        if let Err(error) = follow(core).await {
            tracing::warn!(error = %error.message, "APIServices cannot be followed");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn follow(core: &Arc<Core>) -> Result<(), ApiStatus> {
    let registry = core.registry.load_full();
    let resource = registry.storage("apiregistration.k8s.io", "apiservices");
    let resource = resource.ok_or_else(|| ApiStatus::internal("APIServices are not served"))?;
    let prefix = resource.kind.prefix("");
    loop {
        let revision = core.store.refresh().await.map_err(store_error)?;
        let mut watch = core.store.watch(&prefix, revision).map_err(store_error)?;
        // Anything that changes from here on wakes it.
        let request = ListRequest { prefix: prefix.clone(), ..ListRequest::default() };
        let records = core.store.list(request).await.map_err(store_error)?.records;
        let decoded = records.into_iter().map(|record| Ok((decode(&record)?, record)));
        let known = decoded.collect::<Result<Vec<_>, ApiStatus>>()?;
        own::keep_custom(core, &known).await?;
        let interval = step(core, known).await?;
        tokio::select! {
            changes = watch.next(BATCH) => {
                changes.map_err(|error| ApiStatus::internal(format!("the watch of APIServices ended: {error}")))?;
            }
            () = core.extensions.changed.notified() => {}
            () = tokio::time::sleep(interval.unwrap_or(Duration::MAX)), if interval.is_some() => {}
        }
    }
}

/// Asks every server again, and shows what came of it; when to ask next, where there is anybody to ask.
async fn step(core: &Arc<Core>, known: Vec<(Value, Record)>) -> Result<Option<Duration>, ApiStatus> {
    let (mut remote, mut unavailable) = (Vec::new(), BTreeMap::new());
    for (service, record) in known {
        match read(&service) {
            Some(extension) if !object::is_deleting(&service) => remote.push((record, service, extension)),
            _ => {
                unavailable.insert(object::name(&service).to_owned(), false);
                store_condition(core, &record, &service, &check::local()).await?;
            }
        }
    }
    let known = core.extensions.table.load_full();
    let looked = futures::stream::iter(remote)
        .map(|(record, service, extension)| {
            let core = Arc::clone(core);
            let before = known.get(&extension.key()).and_then(|before| before.schema_v2.clone());
            async move {
                let verdict = check::check(&core, &extension, before).await;
                (record, service, extension, verdict)
            }
        })
        .buffered(AT_ONCE)
        .collect::<Vec<_>>()
        .await;
    let mut table = Table::new();
    for (record, service, mut extension, verdict) in looked {
        let key = extension.key();
        store_condition(core, &record, &service, &verdict.condition()).await?;
        extension.is_available = verdict.resources.is_some();
        unavailable.insert(extension.name.clone(), !extension.is_available);
        // What it had is shown as stale while it does not answer.
        let before = known.get(&key).filter(|_| !extension.is_available);
        extension.schema_url = verdict.schema_url;
        extension.schema_v2 = verdict.schema_v2.or_else(|| before?.schema_v2.clone());
        extension.resources = verdict.resources.map(Arc::new).or_else(|| before?.resources.clone());
        table.insert(key, Arc::new(extension));
    }
    let all_answer = table.values().all(|extension| extension.is_available);
    let interval = (!table.is_empty()).then_some(if all_answer { INTERVALS.0 } else { INTERVALS.1 });
    core.extensions.table.store(Arc::new(table));
    core.metrics.alerts.looked_at(unavailable);
    Ok(interval)
}

/// What an APIService says, where it names a Service.
fn read(api_service: &Value) -> Option<Extension> {
    let spec = api_service.get("spec")?;
    let reference = spec.get("service").filter(|reference| reference.is_object())?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let number = |field: &str| spec[field].as_i64().unwrap_or_default();
    Some(Extension {
        name: object::name(api_service).to_owned(),
        group: text(&spec["group"]),
        version: text(&spec["version"]),
        priority: (number("groupPriorityMinimum"), number("versionPriority")),
        namespace: text(&reference["namespace"]),
        service: text(&reference["name"]),
        port: reference["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(443),
        trust: Trust {
            bundle: text(&spec["caBundle"]),
            is_blind: spec["insecureSkipTLSVerify"].as_bool().unwrap_or_default(),
        },
        is_available: false,
        resources: None,
        schema_url: None,
        schema_v2: None,
    })
}

/// Writes a condition into the status of an APIService, where it says something else than before.
async fn store_condition(core: &Core, record: &Record, old: &Value, wanted: &Value) -> Result<(), ApiStatus> {
    let known = object::list(old, &["status", "conditions"]);
    let before = known.iter().find(|condition| condition["type"] == wanted["type"]);
    let same = |field: &str| before.is_some_and(|before| before[field] == wanted[field]);
    if same("status") && same("reason") && same("message") {
        return Ok(());
    }
    let mut condition = wanted.clone();
    condition["lastTransitionTime"] = match before.filter(|_| same("status")) {
        Some(before) => before["lastTransitionTime"].clone(),
        None => json!(format_time(core.clock.now())),
    };
    if before.is_some_and(|before| before["status"] == "True") && wanted["status"] != "True" {
        core.metrics.alerts.became_unavailable(object::name(old), object::text(wanted, &["reason"]));
    }
    if !same("status") {
        let (name, reason) = (object::name(old), object::text(wanted, &["reason"]));
        tracing::info!(api_service = name, available = %wanted["status"], reason, "an aggregated API changed");
    }
    let mut conditions: Vec<Value> =
        known.iter().filter(|condition| condition["type"] != wanted["type"]).cloned().collect();
    conditions.push(condition);
    let mut new = old.clone();
    new["status"]["conditions"] = json!(conditions);
    replace(core, record, &new).await
}

/// Writes an APIService in the place of what was read; somebody else's change is seen by the next step.
async fn replace(core: &Core, record: &Record, new: &Value) -> Result<(), ApiStatus> {
    let registry = core.registry.load_full();
    let Some(resource) = registry.storage("apiregistration.k8s.io", "apiservices") else { return Ok(()) };
    let key = resource.key("", object::name(new));
    let template = encode::template(new);
    match write::put(core, resource, key, template, Some(record), Effects::default()).await {
        Ok(_) | Err(Refusal::Conflict) => Ok(()),
        Err(Refusal::Status(status)) => Err(status),
    }
}
